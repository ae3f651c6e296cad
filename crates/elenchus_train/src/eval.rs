//! What adapters are measured by: a battery of conversations with one character, and voices compared on the same prompts.

pub mod character_eval;
pub mod compare;
mod few_shot;
mod out_of_role;

pub use few_shot::example_turns;
pub use out_of_role::is_out_of_role;
