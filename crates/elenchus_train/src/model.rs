//! What reads the model: examples as tokens, the forward pass over replies, and the measures taken of it.

mod example;
pub(crate) mod forward;
pub mod logit_kl;
mod perplexity;
pub(crate) mod shared_prefix;

pub use example::{Example, example, examples};
pub use perplexity::{Perplexity, perplexity, spread};
