//! The papers' further methods of reinforcement learning, how they compare, and benchmarks and suites: what a designer
//! rarely needs and a reader of the trainer can leave out.
//!
//! It stands on `elenchus_train` and adds to it from outside: [`methods`](methods::methods) is the registry that
//! `elenchus_train::rl::RlConfig::parse` is given.

#![warn(unreachable_pub)]

pub mod blind;
pub mod method_comparison;
pub mod methods;
pub mod planted;
pub mod role_suite;
pub mod virtue_benchmark;
