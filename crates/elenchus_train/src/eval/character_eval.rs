//! Is a character worth meeting? A battery of short conversations with what a game needs of one: its name, the facts it is
//! told, the player's words, its role, and no endless repetition.
//!
//! Rules judge the replies, so that two adapters can be compared within minutes and a test can hold a character to a number.
//! Rules see words and no sense: read the replies too. Everything is spoken as in a game (prompt, sampler, stop rules,
//! filter), and a seed determines every word.

mod battery_file;
mod case;
mod cases;
mod checks;
mod play;
mod report;
mod results;
mod run_battery;
mod setup;

pub use battery_file::{BatteryFile, PersonaFact};
pub use checks::{Ask, Wanted};
pub use report::{markdown, table};
pub use results::{CharacterReport, CheckRow, Exchange, Failure, Played, Refused};
pub use run_battery::RunBattery;
pub use setup::{CharacterEval, Group, LineSet, Participant};

use crate::Result;

/// Holds every conversation and judges it; `on_progress` is given how many replies are done, and of how many.
///
/// # Errors
/// What the engine cannot continue from.
pub fn evaluate_character(
    of: &CharacterEval<'_>,
    mut on_progress: impl FnMut(usize, usize),
) -> Result<CharacterReport> {
    let cases = cases::all(of.lines, &of.persona_facts);
    let conversations = play::play(of, &cases, &mut on_progress)?;
    Ok(report::report(of, conversations))
}
