//! `REPORT.md`: the same in a repository's own page, beside the adapter it tells of. Under 100 lines, whatever the run.

use std::fmt::Write;

use super::{
    super::battery,
    facts::{Comparison, Facts},
};
use crate::draw::{
    markdown_escaped as escaped,
    scale::{bytes, duration, grouped, number, per_second},
};

/// Rows of a table at most.
const MOST_ROWS: usize = 16;

/// The page.
pub(crate) fn page(facts: &Facts) -> String {
    let mut page = format!("# {}\n\n", escaped(&facts.character));
    let base = facts.base.as_ref().map(|base| format!(" on {}", escaped(base))).unwrap_or_default();
    let _ =
        writeln!(page, "A LoRA adapter{base}, by supervised fine-tuning: {}.", escaped(&facts.settings().join("; ")));
    let works = facts.config.held_out_works.join(", ");
    if !works.is_empty() {
        let _ = writeln!(page, "Measured on works it was never trained on: {}.", escaped(&works));
    }
    for note in facts.notes() {
        let _ = writeln!(page, "\n**{}**", escaped(&note));
    }
    summary(&mut page, facts);
    course(&mut page, facts);
    battery::to_markdown(&mut page, facts.battery.as_ref());
    replies(&mut page, facts);
    page.push_str("\n[training.toml](training.toml) holds the whole configuration.\n");
    page
}

fn summary(page: &mut String, facts: &Facts) {
    page.push_str("\n| | |\n|---|---:|\n");
    let mut row = |name: &str, value: String| {
        let _ = writeln!(page, "| {name} | {value} |");
    };
    let learned = facts.learned();
    let over = if learned.is_final { "all held-out replies" } else { "so far" };
    if let Some(base) = learned.base {
        row("Held-out perplexity of the base", number(base));
    }
    match learned.best {
        Some(best) => row(&format!("Held-out perplexity, {over}"), number(best)),
        None => row("Held-out perplexity", "not measured yet".to_owned()),
    }
    if let (Some(base), Some(best)) = (learned.base, learned.best) {
        row("Change", format!("{:+.1}%", (best / base - 1.0) * 100.0));
    }
    if let Some(outcome) = &facts.outcome {
        if let (Some(base), Some(best)) = (outcome.base_end_perplexity, outcome.end_perplexity) {
            row("Perplexity of the end of a reply, base and adapter", format!("{}, {}", number(base), number(best)));
        }
        if let Some(tokens) = outcome.tokens {
            row("Held-out tokens", grouped(tokens as f64, 0));
        }
    }
    let steps = grouped(facts.last_step() as f64, 0);
    match learned.best_step {
        Some(best) => row("Best step", format!("{} of {steps}", grouped(best as f64, 0))),
        None => row("Steps", steps),
    }
    row("Tokens read", grouped(facts.tokens() as f64, 0));
    row("Tokens learned from", grouped(facts.targets() as f64, 0));
    row("Time without evaluations", duration(facts.seconds()));
    if let Some(speed) = facts.median_speed() {
        row("Tokens/s, the median step", per_second(speed));
    }
    if let Some(peak) = facts.peak_bytes() {
        row("Resident memory at most", bytes(peak));
    }
}

/// Loss and perplexity where the held-out replies were measured.
fn course(page: &mut String, facts: &Facts) {
    let measured: Vec<usize> =
        (0..facts.steps.len()).filter(|&at| facts.steps[at].held_out_perplexity.is_some()).collect();
    if measured.is_empty() {
        return;
    }
    page.push_str("\n## The run\n\n| Step | Loss since the last | Held-out perplexity |\n|---:|---:|---:|\n");
    let every = measured.len().div_ceil(MOST_ROWS);
    // Counted from the end, so that the last measure is a row.
    let shown: Vec<usize> = measured.iter().copied().rev().step_by(every).collect();
    let mut from = 0;
    for at in shown.into_iter().rev() {
        let losses: Vec<f64> = facts.steps[from..=at].iter().filter_map(|step| step.loss).collect();
        let mean = losses.iter().map(|loss| loss / losses.len() as f64).sum::<f64>();
        let loss = if losses.is_empty() { "not finite".to_owned() } else { format!("{mean:.3}") };
        let step = &facts.steps[at];
        let perplexity = step.held_out_perplexity.map_or_else(String::new, number);
        let _ = writeln!(page, "| {} | {loss} | {perplexity} |", grouped(step.step as f64, 0));
        from = at + 1;
    }
}

fn replies(page: &mut String, facts: &Facts) {
    let Some(Comparison { step, rows }) = facts.comparison() else { return };
    let _ = write!(
        page,
        "\n## Replies before and after\n\nThe same prompt, decoding and seed for both; before is the base model without an \
         adapter.\n\n| The player says | Before | After step {} |\n|---|---|---|\n",
        grouped(step as f64, 0)
    );
    for (line, before, after) in rows.iter().take(MOST_ROWS) {
        let _ = writeln!(page, "| {} | {} | {} |", escaped(line), escaped(before), escaped(after.unwrap_or("–")));
    }
    if rows.len() > MOST_ROWS {
        let _ = writeln!(page, "\n{} more stand in REPORT.html.", rows.len() - MOST_ROWS);
    }
}
