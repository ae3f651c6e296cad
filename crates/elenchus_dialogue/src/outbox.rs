//! Events that the listener has not taken yet. The engine never waits for a slow listener: what does not fit its channel
//! stays here, and new text joins the text of the same reply that is still waiting. So a reply takes three events at
//! most, however long it is.

use std::collections::VecDeque;

use crossbeam_channel::{Select, Sender, TrySendError};

use crate::{EngineEvent, RequestId};

/// The engine's end of the event channel.
pub(crate) struct Outbox {
    sender: Sender<EngineEvent>,
    waiting: VecDeque<EngineEvent>,
    capacity: usize,
    closed: bool,
}

impl Outbox {
    /// Starts no new work (see [`Self::has_room`]) once `capacity` events wait besides those in the channel.
    pub fn new(sender: Sender<EngineEvent>, capacity: usize) -> Self {
        Self { sender, waiting: VecDeque::new(), capacity, closed: false }
    }

    /// Sends an event, or keeps it.
    pub fn push(&mut self, event: EngineEvent) {
        if !self.join(&event) {
            self.waiting.push_back(event);
        }
        self.flush();
    }

    /// Sends what fits.
    pub fn flush(&mut self) {
        while let Some(event) = self.waiting.pop_front() {
            match self.sender.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => return self.waiting.push_front(event),
                Err(TrySendError::Disconnected(_)) => {
                    self.closed = true;
                    self.waiting.clear();
                }
            }
        }
    }

    /// Whether another reply may be begun: each adds to what waits here.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < self.capacity
    }

    /// Whether the listener is gone.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Makes a wait end when the listener has taken something, if anything waits.
    pub fn wake_on_room<'a>(&'a self, select: &mut Select<'a>) {
        if !self.waiting.is_empty() {
            select.send(&self.sender);
        }
    }

    fn join(&mut self, event: &EngineEvent) -> bool {
        match event {
            EngineEvent::Delta(id, text) => {
                // The order of events matters within a reply only.
                match self.waiting.iter_mut().rfind(|waiting| reply(waiting) == Some(*id)) {
                    Some(EngineEvent::Delta(_, waiting)) => waiting.push_str(text),
                    _ => return false,
                }
            }
            EngineEvent::Loading(share) => match self.waiting.back_mut() {
                Some(EngineEvent::Loading(waiting)) => *waiting = *share,
                _ => return false,
            },
            _ => return false,
        }
        true
    }
}

fn reply(event: &EngineEvent) -> Option<RequestId> {
    match event {
        EngineEvent::Loading(_) | EngineEvent::Ready(_) | EngineEvent::LoadFailed(_) => None,
        EngineEvent::Started(id)
        | EngineEvent::Delta(id, _)
        | EngineEvent::Finished(id, _)
        | EngineEvent::Failed(id, _) => Some(*id),
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;
    use crate::Error;

    fn delta(id: u64, text: &str) -> EngineEvent {
        EngineEvent::Delta(RequestId(id), text.to_owned())
    }

    #[test]
    fn text_that_waits_is_joined_by_reply_and_keeps_its_order() {
        let (sender, receiver) = bounded(1);
        let mut outbox = Outbox::new(sender, 4);
        let a_failure = EngineEvent::Failed(RequestId(1), Error::Stopped);
        for event in
            [delta(1, "a"), delta(1, "b"), delta(2, "x"), delta(1, "c"), delta(2, "y"), a_failure, delta(1, "d")]
        {
            outbox.push(event);
        }
        assert_eq!(outbox.waiting.len(), 4);
        assert!(!outbox.has_room());
        let mut heard = Vec::new();
        while let Ok(event) = receiver.try_recv() {
            heard.push(match event {
                EngineEvent::Delta(id, text) => format!("{} {text}", id.0),
                other => format!("{:?}", reply(&other)),
            });
            outbox.flush();
        }
        assert_eq!(heard, ["1 a", "1 bc", "2 xy", "Some(RequestId(1))", "1 d"]);
        drop(receiver);
        outbox.push(delta(1, "e"));
        assert!(outbox.is_closed() && outbox.has_room());
    }

    #[test]
    fn only_the_newest_progress_waits() {
        let (sender, receiver) = bounded(1);
        let mut outbox = Outbox::new(sender, 4);
        for percent in 0..100 {
            outbox.push(EngineEvent::Loading(percent as f32 / 100.0));
        }
        assert!(matches!(receiver.try_recv(), Ok(EngineEvent::Loading(0.0))));
        outbox.flush();
        assert!(matches!(receiver.try_recv(), Ok(EngineEvent::Loading(0.99))));
    }
}
