//! What a run came to, for people: `REPORT.html` with plots, and `REPORT.md` for a repository page.
//!
//! Both are written from the run folder's files alone, so a report can be made at any moment of a run, after a kill, and
//! from a folder that was copied elsewhere. Neither loads anything: plots are inline SVG of our own.

mod battery;
mod facts;
mod html;
mod markdown;
mod plot;
mod reward;
pub(crate) mod rl;
pub(crate) mod scale;

pub(crate) use html::{escaped, head};
pub(crate) use markdown::escaped as markdown_escaped;
pub use reward::reward_report;

use crate::{Result, RunFolder};

/// Writes both reports anew.
pub(crate) fn write(run: &RunFolder) -> Result<()> {
    let facts = facts::read(run)?;
    run.write("REPORT.html", html::page(&facts).as_bytes())?;
    run.write("REPORT.md", markdown::page(&facts).as_bytes())
}

#[cfg(test)]
mod tests;
