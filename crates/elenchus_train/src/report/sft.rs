//! A run of supervised fine-tuning for people.

mod facts;
mod html;
mod markdown;

use crate::{Result, RunFolder};

/// Writes `REPORT.html` and `REPORT.md` of a run, which may be anywhere in its course.
///
/// # Errors
/// Files of the run that cannot be read or written, or a `training.toml` that is none.
pub fn sft_report(run: &RunFolder) -> Result<()> {
    let facts = facts::read(run)?;
    run.write("REPORT.html", html::page(&facts).as_bytes())?;
    run.write("REPORT.md", markdown::page(&facts).as_bytes())
}

#[cfg(test)]
mod tests;
