//! The seam between a game and whatever answers its requests.

use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::{Engine, EngineEvent, EngineSettings, EngineStats, Request, RequestId, WarmUp};

/// Answers requests: the [`Engine`] on this machine, a script in a test ([`crate::testing`]), or a server.
///
/// No call waits. Each accepted request ends in exactly one of [`EngineEvent::Finished`] and [`EngineEvent::Failed`]; the first
/// event of all says that a model is [`EngineEvent::Loading`], [`EngineEvent::Ready`] or failed to load.
pub trait Backend: Send + Sync {
    /// Takes a request, or gives it back where there is no room for more.
    ///
    /// # Errors
    /// The request itself: try again later.
    fn try_send(&self, request: Request) -> Result<(), Request>;

    /// Ends a reply: it finishes as [`crate::StopReason::Cancelled`] with the text so far. Unknown ids are ignored.
    fn cancel(&self, id: RequestId);

    /// What happened since the last look.
    fn events(&self) -> &Receiver<EngineEvent>;

    /// Whether it still answers.
    fn is_running(&self) -> bool;

    /// Reads a persona ahead, where that saves time.
    fn warm_up(&self, _: WarmUp) {}

    /// Tries again after a failure to load.
    fn reload(&self) {}

    /// Stops to sample until it is called with `false`.
    fn pause(&self, _: bool) {}

    /// Counters; zeros where nothing is counted.
    fn stats(&self) -> EngineStats {
        EngineStats::default()
    }
}

/// Makes a backend, each time that a game starts its engine.
pub type BackendStarter = Arc<dyn Fn(&EngineSettings) -> Box<dyn Backend> + Send + Sync>;

impl Backend for Engine {
    fn try_send(&self, request: Request) -> Result<(), Request> {
        self.try_send(request)
    }

    fn cancel(&self, id: RequestId) {
        self.cancel(id);
    }

    fn events(&self) -> &Receiver<EngineEvent> {
        self.events()
    }

    fn is_running(&self) -> bool {
        self.is_running()
    }

    fn warm_up(&self, warm_up: WarmUp) {
        self.warm_up(warm_up);
    }

    fn reload(&self) {
        self.reload();
    }

    fn pause(&self, paused: bool) {
        self.pause(paused);
    }

    fn stats(&self) -> EngineStats {
        self.stats()
    }
}
