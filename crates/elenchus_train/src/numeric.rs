//! Numbers of numbers: what methods and reward models compute of rewards and values alike, and the seeds of all of them.

mod gae;
mod seed;
mod whiten;

pub(crate) use gae::gae;
pub use seed::mixed;
pub use whiten::{Variance, whiten};
