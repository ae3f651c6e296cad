//! Texts become pairs in plain steps, each a function from the last step's value to the next.
//!
//! [`read`] files into dialogues, take a character's [`pairs`], keep those that are fit to learn from with [`filter`],
//! [`split`](by_work) them so that what is measured was never trained on, and look at their [`Stats`] at any point.
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
mod speakers;
mod split;
mod stats;
mod turns;

pub use filter::{FilterReport, Filters, LongReplies, filter};
pub use gutenberg::{Gutenberg, GutenbergEvent};
pub use pairs::{Pair, pairs, speakers_of};
pub use persona::{INVENTED, PersonaPair, add_facts, base_replies, invented, own};
pub use player_lines::{PLAYER_LINES, player_lines, reply_sha256, written_player_lines};
pub(crate) use prompts::{STRANGER, json_lines_or_broken, newest_turns};
pub use prompts::{WRITTEN, read_prompts, read_written};
pub use speakers::Speakers;
pub use split::{Split, by_work, last_part};
pub use stats::{Quantiles, Stats, WorkStats};
pub use turns::{Dialogue, OnBroken, Spoken, Texts, WrittenPair, read};

/// Words as a writer counts them.
pub(crate) fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// What may stand behind a sentence's last mark.
fn is_closing_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '”' | '’' | '»' | ')' | ']' | '*' | '_')
}
