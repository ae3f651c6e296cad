//! Which sequences take part in the next step: continuous batching, chunked prefill, the player's first.

use std::{collections::VecDeque, time::Instant};

use crate::{Priority, Request, RequestId};

/// A request without a place yet.
pub(crate) struct Pending {
    pub request: Request,
    /// When the game asked.
    pub received: Instant,
}

/// Requests that wait, the player's before ambient ones, else in the order they came.
#[derive(Default)]
pub(crate) struct Waiting {
    player: VecDeque<Pending>,
    ambient: VecDeque<Pending>,
    /// Cancelled while they waited, not reported yet.
    cancelled: VecDeque<Pending>,
}

impl Waiting {
    pub fn push(&mut self, pending: Pending) {
        self.queue(&pending).push_back(pending);
    }

    /// Returns what [`Self::pop`] gave to its place.
    pub fn put_back(&mut self, pending: Pending) {
        self.queue(&pending).push_front(pending);
    }

    /// Whether the next one is the player's.
    pub fn is_player_next(&self) -> bool {
        !self.player.is_empty()
    }

    pub fn pop(&mut self) -> Option<Pending> {
        self.player.pop_front().or_else(|| self.ambient.pop_front())
    }

    /// Moves a request to those that [`Self::pop_cancelled`] gives.
    pub fn cancel(&mut self, id: RequestId) {
        for queue in [&mut self.player, &mut self.ambient] {
            while let Some(index) = queue.iter().position(|pending| pending.request.id == id) {
                self.cancelled.extend(queue.remove(index));
            }
        }
    }

    pub fn pop_cancelled(&mut self) -> Option<Pending> {
        self.cancelled.pop_front()
    }

    fn queue(&mut self, pending: &Pending) -> &mut VecDeque<Pending> {
        match pending.request.priority {
            Priority::Player => &mut self.player,
            Priority::Ambient => &mut self.ambient,
        }
    }
}

/// What a sequence wants of the next step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demand {
    /// Tokens it has and has not read yet; 0 while it is suspended.
    pub unread: usize,
    /// Whether it speaks already, so that its one unread token is the last one it said.
    pub speaking: bool,
    pub priority: Priority,
}

/// How many tokens each sequence reads in the next step, at most `max_rows` sequences at a time, the player's first.
/// Sequences that decode advance by one token, and prompts share `prefill_chunk` tokens, so that a long prompt never holds up
/// the words of others. While a prompt of the player's is read, ambient sequences pause: their rows would delay its first
/// token.
pub(crate) fn plan(demands: &[Demand], prefill_chunk: usize, max_rows: usize) -> Vec<usize> {
    let mut tokens = vec![0; demands.len()];
    let (mut left, mut rows) = (prefill_chunk, max_rows);
    let is_players = |demand: &Demand| demand.priority == Priority::Player;
    let player_waits = demands.iter().any(|demand| is_players(demand) && !demand.speaking);
    for players in [true, false] {
        if !players && player_waits {
            break;
        }
        for (tokens, demand) in tokens.iter_mut().zip(demands).filter(|(_, demand)| is_players(demand) == players) {
            *tokens = match (rows, demand.speaking) {
                (0, _) => 0,
                (_, true) => demand.unread.min(1),
                (_, false) => demand.unread.min(left),
            };
            if !demand.speaking {
                left -= *tokens;
            }
            rows -= usize::from(*tokens > 0);
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Character;

    #[test]
    fn speakers_go_on_and_prompts_share_a_chunk() {
        fn check(demands: &[(usize, bool, Priority)], expected: &[usize]) {
            let demands: Vec<_> =
                demands.iter().map(|&(unread, speaking, priority)| Demand { unread, speaking, priority }).collect();
            assert_eq!(plan(&demands, 64, 3), expected);
        }
        use Priority::{Ambient, Player};
        check(&[], &[]);
        check(&[(1, true, Ambient), (1, true, Player)], &[1, 1]);
        check(&[(500, false, Ambient), (1, true, Ambient)], &[64, 1]);
        check(&[(500, false, Ambient), (40, false, Ambient), (1, true, Player)], &[64, 0, 1]);
        check(&[(40, false, Ambient), (500, false, Ambient), (1, true, Player)], &[40, 24, 1]);
        check(&[(500, false, Player), (500, false, Player), (10, false, Ambient)], &[64, 0, 0]);
        // Ambient sequences pause while the player's prompt is read, and where there are more of them than rows.
        check(&[(500, false, Ambient), (40, false, Player), (1, true, Ambient), (1, true, Player)], &[0, 40, 0, 1]);
        check(&[(1, true, Ambient), (1, true, Ambient), (1, true, Ambient), (1, true, Player)], &[1, 1, 0, 1]);
    }

    #[test]
    fn the_player_goes_first_and_a_cancelled_request_is_set_apart() {
        let character = "version = 1\nname = \"A\"\npersona = \"You are A.\"\nfallbacks = [\"Hm.\"]";
        let character = Arc::new(Character::parse(character, "a").unwrap());
        let pending = |id, priority| Pending {
            request: Request { id: RequestId(id), priority, ..Request::new(character.clone(), Vec::new()) },
            received: Instant::now(),
        };
        let mut waiting = Waiting::default();
        for (id, priority) in
            [(1, Priority::Ambient), (2, Priority::Player), (3, Priority::Ambient), (4, Priority::Player)]
        {
            waiting.push(pending(id, priority));
        }
        waiting.cancel(RequestId(1));
        waiting.cancel(RequestId(9));
        let first = waiting.pop().unwrap();
        waiting.put_back(first);
        let order: Vec<_> = std::iter::from_fn(|| waiting.pop()).map(|pending| pending.request.id.0).collect();
        assert_eq!(order, [2, 4, 3]);
        assert_eq!(waiting.pop_cancelled().map(|pending| pending.request.id), Some(RequestId(1)));
        assert!(waiting.pop_cancelled().is_none());
    }
}
