//! Whether speed costs accuracy: every position's logits against those of weights in f32, on the same file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{
    material::{FOLDER, File, File::*},
    report::{Gate, Report},
    side::{Kind, Kind::*, Sides},
};

/// Tokens of text, and of a piece that is read separately.
const TOKENS: usize = 2000;
const PIECE: usize = 500;

/// Sums over positions.
#[derive(Default)]
struct Sums {
    positions: usize,
    kl: f64,
    /// Minus the logarithm of the probability of the actual next token.
    surprise: f64,
}

pub fn quality(sides: &mut Sides<'_>, report: &mut Report, quick: bool) -> Result<()> {
    let tokens = if quick { PIECE } else { TOKENS };
    for file in [Source, Requantised] {
        report.task(&format!("quality, {file}"), sides.threads);
        held_to_exact(sides, report, file, tokens)?;
    }
    Ok(())
}

fn held_to_exact(sides: &mut Sides<'_>, report: &mut Report, file: File, tokens: usize) -> Result<()> {
    let material = sides.material;
    ensure!(material.text.len() >= tokens, "docs/ holds {} tokens, {tokens} are needed", material.text.len());
    let kinds = [Exact(file), Ours(file), LlamaCpp(file)];
    let mut sums: [Sums; 3] = Default::default();
    for piece in material.text[..tokens].chunks(PIECE) {
        let exact = logits(sides, kinds[0], piece)?;
        for (kind, sums) in kinds.into_iter().zip(&mut sums) {
            let logits = if kind == kinds[0] { exact.clone() } else { logits(sides, kind, piece)? };
            sums.add(&exact, &logits, material.vocab_size, piece);
        }
    }
    let [exact, ours, llama] = &sums;
    for (kind, sums) in kinds.into_iter().zip(&sums) {
        report.figure(&format!("{kind}: perplexity"), sums.perplexity(), "", &format!("{} tokens", sums.positions));
        if kind != kinds[0] {
            report.figure(&format!("{kind}: mean KL to exact"), sums.mean_kl(), "nats", "");
        }
    }
    // The promise is about the shipped file.
    let gate = |gate: Gate| (file == Source).then_some(gate);
    report.result("ours: mean KL to exact", ours.mean_kl(), "nats", gate(Gate::Below(0.01)));
    report.result("ours / llama.cpp: mean KL", ours.mean_kl() / llama.mean_kl(), "x", gate(Gate::AtMost(1.0)));
    let worse = (ours.perplexity() / exact.perplexity() - 1.0).abs() * 100.0;
    report.result("ours: perplexity apart from exact", worse, "%", gate(Gate::AtMost(0.5)));
    Ok(())
}

fn logits(sides: &mut Sides<'_>, kind: Kind, piece: &[u32]) -> Result<Vec<f32>> {
    let file: PathBuf = Path::new(FOLDER).join("logits.f32");
    sides.ask(kind, &json!({"do": "logits", "tokens": piece, "file": file}))?;
    let bytes = fs::read(&file)?;
    fs::remove_file(&file)?;
    let expected = piece.len() * sides.material.vocab_size;
    ensure!(bytes.len() == 4 * expected, "{kind}: {} bytes are no {expected} logits", bytes.len());
    Ok(bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect())
}

impl Sums {
    fn add(&mut self, exact: &[f32], logits: &[f32], vocab_size: usize, piece: &[u32]) {
        let rows = exact.chunks(vocab_size).zip(logits.chunks(vocab_size));
        // The last position's next token is in another piece.
        for ((exact, logits), &next) in rows.zip(&piece[1..]) {
            let (log_p, log_q) = (log_sum_exp(exact), log_sum_exp(logits));
            self.kl += exact
                .iter()
                .zip(logits)
                .map(|(&exact, &logit)| {
                    let (log_p, log_q) = (f64::from(exact) - log_p, f64::from(logit) - log_q);
                    log_p.exp() * (log_p - log_q)
                })
                .sum::<f64>();
            self.surprise += log_q - f64::from(logits[next as usize]);
            self.positions += 1;
        }
    }

    fn mean_kl(&self) -> f64 {
        self.kl / self.positions as f64
    }

    fn perplexity(&self) -> f64 {
        (self.surprise / self.positions as f64).exp()
    }
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    f64::from(max) + logits.iter().map(|&logit| f64::from(logit - max).exp()).sum::<f64>().ln()
}
