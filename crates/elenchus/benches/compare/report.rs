//! The output, printed and as JSON: plain lines, and after each ratio its gate and goal, met or missed.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The gate of a figure, and its goal.
#[derive(Debug, Clone, Copy)]
pub enum Gate {
    /// And the goal.
    AtLeast(f64, f64),
    Below(f64),
    AtMost(f64),
}

impl Gate {
    fn words(self, value: f64) -> String {
        let met = |holds: bool| if holds { "met" } else { "missed" };
        match self {
            Self::AtLeast(gate, goal) => {
                format!("gate {gate} {}, goal {goal} {}", met(value >= gate), met(value >= goal))
            }
            Self::Below(gate) => format!("gate < {gate} {}", met(value < gate)),
            Self::AtMost(gate) => format!("gate <= {gate} {}", met(value <= gate)),
        }
    }

    fn json(self, value: f64) -> Value {
        match self {
            Self::AtLeast(gate, goal) => {
                json!({"at_least": gate, "is_met": value >= gate, "goal": goal, "is_goal_met": value >= goal})
            }
            Self::Below(gate) => json!({"below": gate, "is_met": value < gate}),
            Self::AtMost(gate) => json!({"at_most": gate, "is_met": value <= gate}),
        }
    }
}

#[derive(Default)]
pub struct Report {
    task: String,
    threads: usize,
    entries: Vec<Value>,
    gated: Vec<String>,
}

impl Report {
    /// Begins a task.
    pub fn task(&mut self, name: &str, threads: usize) {
        self.task = name.to_owned();
        self.threads = threads;
        println!("\n{name}, {}", threads_text(threads));
    }

    /// A figure without a gate; `note` describes it.
    pub fn figure(&mut self, label: &str, value: f64, unit: &str, note: &str) {
        let gap = if note.is_empty() { "" } else { "   " };
        println!("  {label:<60} {} {unit}{gap}{note}", number(value));
        self.entries.push(json!({
            "task": self.task, "threads": self.threads, "label": label, "value": value, "unit": unit, "note": note,
        }));
    }

    /// A figure that is compared with a gate, or only reported.
    pub fn result(&mut self, label: &str, value: f64, unit: &str, gate: Option<Gate>) {
        let words = gate.map_or("reported".into(), |gate| gate.words(value));
        println!("  {label:<60} {} {unit}   {words}", number(value));
        if gate.is_some() {
            let threads = threads_text(self.threads);
            self.gated.push(format!("{:<30} {threads:<9}  {label:<60} {} {unit}   {words}", self.task, number(value)));
        }
        self.entries.push(json!({
            "task": self.task, "threads": self.threads, "label": label, "value": value, "unit": unit,
            "gate": gate.map(|gate| gate.json(value)),
        }));
    }

    /// All gates once more.
    pub fn summary(&self) {
        println!("\ngates");
        for line in &self.gated {
            println!("  {line}");
        }
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        let hint = "hint: cargo runs a bench in its crate's folder, so name the file with its whole path";
        fs::write(file, serde_json::to_string_pretty(&self.entries)?)
            .with_context(|| format!("{} ({hint})", file.display()))
    }
}

fn threads_text(threads: usize) -> String {
    if threads == 1 { "1 thread".into() } else { format!("{threads} threads") }
}

/// Three significant digits.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        0.1.. => 2,
        _ => 4,
    };
    format!("{value:9.decimals$}")
}
