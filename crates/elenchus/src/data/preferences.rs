//! `elenchus data preferences`: turns judges' scores of a run's replies into preferences between them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use elenchus_lm::write_whole;
use elenchus_train::rl::{JudgedRollout, preferred};

use crate::output::say;

pub fn run(files: &[PathBuf], out: &Path) -> Result<()> {
    let mut rollouts = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        for (number, line) in text.lines().enumerate() {
            let rollout: JudgedRollout = serde_json::from_str(line).with_context(|| {
                format!(
                    "{}:{}: no line of a rollouts.jsonl (hint: name the one of a run of `train rl`)",
                    file.display(),
                    number + 1
                )
            })?;
            rollouts.push(rollout);
        }
    }
    let preferences = preferred(&rollouts);
    ensure!(
        !preferences.is_empty(),
        "no prompt has two replies with different scores (hint: a run with `sampling.group` of 2 or more)"
    );
    let mut text = String::new();
    for preference in &preferences {
        text.push_str(&serde_json::to_string(preference)?);
        text.push('\n');
    }
    write_whole(out, text.as_bytes()).with_context(|| out.display().to_string())?;
    say(&format!("{} preferences out of {} replies are in {}\n", preferences.len(), rollouts.len(), out.display()));
    Ok(())
}
