//! A character is learned from its lines, so the trainer begins with a designer's texts and knows no game.
//!
//! [`data`] turns texts into pairs of what was said to a character and what it replied. A pair's context goes through
//! [`elenchus_dialogue::messages`], the game's own prompt, so that what is trained is what is heard. This crate knows
//! no Bevy, and reads files only where it is told to.

mod adamw;
pub mod data;
mod error;
mod example;
mod perplexity;
mod schedule;

pub use adamw::{AdamW, AdamWSettings};
pub use error::{BrokenLine, Error, Result};
pub use example::{Example, example};
pub use perplexity::{Perplexity, perplexity};
pub use schedule::{Decay, Schedule};
