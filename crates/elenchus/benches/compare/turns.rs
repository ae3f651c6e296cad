//! Turns: all sides do the same work one after the other, again and again, so that a busy machine slows all alike.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::side::{Kind, Sides};

/// One of the sides that take turns.
pub struct Contestant<'a> {
    pub label: String,
    pub kind: Kind,
    /// Its command in a turn; the number of the turn makes prompts fresh.
    pub order: Box<dyn Fn(u64) -> Value + 'a>,
    /// The part of its answer that counts as time.
    pub seconds: fn(&Value) -> Option<f64>,
}

/// The times of a contestant, turn by turn.
pub struct Times {
    pub label: String,
    pub kind: Kind,
    pub seconds: Vec<f64>,
    /// The share of its time that was not the engine's by its own measure, if it gives one.
    pub overhead: Option<f64>,
}

impl<'a> Contestant<'a> {
    pub fn new(kind: Kind, order: impl Fn(u64) -> Value + 'a) -> Self {
        Self { label: kind.to_string(), kind, order: Box::new(order), seconds: |answer| answer["seconds"].as_f64() }
    }

    pub fn labelled(self, what: &str) -> Self {
        Self { label: format!("{}, {what}", self.kind), ..self }
    }

    /// Counts the reading of prompts as well.
    pub fn with_prompts(self) -> Self {
        Self { seconds: |answer| Some(answer["seconds"].as_f64()? + answer["prefill_seconds"].as_f64()?), ..self }
    }
}

impl Times {
    pub fn median(&self) -> f64 {
        median(&self.seconds)
    }

    /// How many times as fast as another: the median over turns, each with its neighbour.
    pub fn faster_than(&self, other: &Self) -> f64 {
        let ratios: Vec<f64> = self.seconds.iter().zip(&other.seconds).map(|(own, other)| other / own).collect();
        median(&ratios)
    }
}

/// Runs one warm-up for all, and then so many turns.
pub fn in_turns(sides: &mut Sides<'_>, turns: usize, contestants: &[Contestant<'_>]) -> Result<Vec<Times>> {
    let mut times: Vec<Times> = contestants
        .iter()
        .map(|Contestant { label, kind, .. }| Times {
            label: label.clone(),
            kind: *kind,
            seconds: Vec::new(),
            overhead: None,
        })
        .collect();
    for turn in 0..=turns as u64 {
        for (contestant, times) in contestants.iter().zip(&mut times) {
            let answer = sides.ask(contestant.kind, &(contestant.order)(turn))?;
            let seconds = (contestant.seconds)(&answer).with_context(|| format!("{}: no seconds", contestant.label))?;
            if turn > 0 {
                times.seconds.push(seconds);
                let own = answer["own_seconds"].as_f64().zip(answer["seconds"].as_f64());
                times.overhead = own.map(|(own, all)| (1.0 - own / all).max(times.overhead.unwrap_or(0.0)));
            }
        }
    }
    Ok(times)
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}
