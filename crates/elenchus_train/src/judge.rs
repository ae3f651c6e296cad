//! Opinions in words, and the numbers they become.
//!
//! A judge says what it thinks of a reply; a [`VerdictReader`] makes of its words one of three opinions, in one place, so
//! that readers can be exchanged and measured against labels ([`measure`]).

mod labelled;
mod reader;
mod sentiment;
mod words;

pub use labelled::{LabelledVerdict, VerdictScores, measure, measure_in_folds, read_labelled};
pub use reader::{LeadingWord, Lexicon, Opinion, Structured, VerdictReader};
pub use sentiment::Sentiment;
pub use words::{Words, WordsSettings};
