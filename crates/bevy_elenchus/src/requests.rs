//! Which replies are in progress, and which of them the engine does not have yet.

use std::{cmp::Reverse, collections::BTreeSet};

use bevy::{platform::collections::HashMap, prelude::*};
use elenchus_dialogue::{Priority, RequestId};

use crate::ReplyError;

/// The requests under way, and those the engine does not have yet.
#[derive(Resource, Default)]
pub(crate) struct Requests {
    last: u64,
    speakers: HashMap<RequestId, Entity>,
    /// The player's first, then the oldest first.
    pub unsent: BTreeSet<(Reverse<Priority>, RequestId)>,
    /// Refused lines; their failures are triggered in the next frame.
    pub refused: Vec<(Entity, ReplyError)>,
    pub warm_ups: Vec<Entity>,
}

impl Requests {
    pub fn begin(&mut self, entity: Entity, priority: Priority) -> RequestId {
        self.last += 1;
        let id = RequestId(self.last);
        self.speakers.insert(id, entity);
        self.unsent.insert((Reverse(priority), id));
        id
    }

    /// An author's line: nothing for the engine.
    pub fn begin_told(&mut self, entity: Entity) -> RequestId {
        self.last += 1;
        let id = RequestId(self.last);
        self.speakers.insert(id, entity);
        id
    }

    /// The engine that had it is gone: the next one gets it.
    pub fn send_again(&mut self, id: RequestId, ambient: bool) {
        if self.speakers.contains_key(&id) {
            self.unsent.insert((Reverse(priority(ambient)), id));
        }
    }

    /// Who speaks, while the request is under way.
    pub fn speaker(&self, id: RequestId) -> Option<Entity> {
        self.speakers.get(&id).copied()
    }

    /// All requests under way, oldest first.
    pub fn under_way(&self) -> Vec<RequestId> {
        let mut ids: Vec<_> = self.speakers.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// From now on the request's events are ignored. Says whether it was under way.
    pub fn forget(&mut self, id: RequestId) -> bool {
        for priority in [Priority::Player, Priority::Ambient] {
            self.unsent.remove(&(Reverse(priority), id));
        }
        self.speakers.remove(&id).is_some()
    }
}

pub(crate) fn priority(ambient: bool) -> Priority {
    if ambient { Priority::Ambient } else { Priority::Player }
}
