//! Numbers of numbers: what methods and reward models compute of rewards and values alike.

mod gae;
mod whiten;

pub use gae::gae;
pub use whiten::{Variance, whiten};
