//! What answers take.

use serde::{Deserialize, Serialize};

/// What answers took of somebody else's machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Requests sent, those that failed and were sent again included; 0 for an answer out of a cache.
    pub calls: u64,
    /// Tokens read by a chat model.
    pub prompt_tokens: u64,
    /// Tokens it wrote.
    pub completion_tokens: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
    }
}
