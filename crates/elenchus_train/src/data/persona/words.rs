//! The words of invented people. `{slots}` are filled by `persona.rs` and `facts.rs`.

mod attacks;
mod conversation;
mod names;
mod people;
mod questions;
mod things;

pub(super) use attacks::*;
pub(super) use conversation::*;
pub(super) use names::*;
pub(super) use people::*;
pub(super) use questions::*;
pub(super) use things::*;
