//! The engine as a game uses it: on its own thread, with the tiny random model.

mod failures;
mod filter;
mod lab;
mod memory;
mod replies;
mod scheduling;
