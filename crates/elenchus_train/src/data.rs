//! Texts become pairs in plain steps, each a function from the last step's value to the next.
//!
//! [`read`] files into dialogues, take a character's [`pairs`], keep those that are fit to learn from with [`filter`],
//! split them so that what is measured was never trained on, and look at their [`Stats`] at any point.
//!
//! ```
//! # fn main() -> elenchus_train::Result<()> {
//! use std::num::NonZeroUsize;
//! use elenchus_train::data::{Filters, OnBroken, Speakers, filter, pairs, read};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let file = folder.path().join("meno.txt");
//! # std::fs::write(&file, "MENO: Can virtue be taught, or not?\nSOCRATES: You think well of me, Meno.").unwrap();
//! let speakers = Speakers::new([("SOC", "Socrates")])?;
//! let texts = read(&[file], &speakers, OnBroken::Stop)?;
//! let pairs = pairs(&texts, &speakers.normalise("socrates"), NonZeroUsize::new(4).unwrap())?;
//! let (pairs, report) = filter(pairs, &Filters::default());
//! assert_eq!((pairs[0].reply.as_str(), report.dropped()), ("You think well of me, Meno.", 0));
//! # Ok(())
//! # }
//! ```

mod filter;
mod gutenberg;
mod pairs;
mod persona;
mod plain_text;
mod player_lines;
mod prompts;
mod read;
mod speakers;
mod split;
mod stats;
mod texts;
mod turns;
mod words;

pub use filter::{FilterReport, Filters, LongReplies, filter};
pub use gutenberg::{Gutenberg, GutenbergEvent};
pub(crate) use pairs::speakers_of;
pub use pairs::{Pair, pairs};
pub use persona::{PersonaPair, own};
pub(crate) use persona::{Shown, add_facts, base_replies, facts_to_notes, invented};
pub(crate) use player_lines::{PLAYER_LINES, written_player_lines};
pub use player_lines::{player_lines, reply_sha256};
pub(crate) use prompts::read_written;
pub use prompts::{STRANGER, read_prompts};
pub(crate) use prompts::{json_lines_or_broken, newest_turns};
pub use read::{read_character, read_pairs};
pub use speakers::Speakers;
pub use split::Split;
pub(crate) use split::{by_work, last_part};
pub use stats::{Quantiles, Stats, WorkStats};
pub use texts::{Dialogue, OnBroken, Spoken, Texts, WrittenPair};
pub use turns::read;
pub use words::words;
