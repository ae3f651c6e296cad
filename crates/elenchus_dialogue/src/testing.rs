//! A backend that answers from a script: a game's own tests need no model and no waiting.

use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender};

use crate::{
    Backend, BackendStarter, BaseInfo, EngineEvent, Error, ReplyReport, Request, RequestId, StopReason, sentences,
    speech::cancelled_report,
};

/// What a script answers.
#[derive(Debug, Clone)]
pub enum Answer {
    /// These words, a sentence an event.
    Say(String),
    /// An error.
    Fail(Error),
    /// Nothing, until the request is cancelled: an NPC that keeps the player waiting.
    Think,
}

/// Answers every request at once with what a function makes of it.
///
/// ```
/// use std::sync::Arc;
/// use elenchus_dialogue::{Character, EngineEvent, Request, Turn, testing::{Answer, ScriptedBackend}, Backend};
///
/// let script = ScriptedBackend::new(|request| Answer::Say(format!("You said: {}", request.turns.last().unwrap().text)));
/// let toml = "version = 1\nname = \"Myrto\"\npersona = \"You sell figs.\"\nfallbacks = [\"Hm.\"]";
/// let character = Arc::new(Character::parse(toml, "myrto.toml").unwrap());
/// let turn = Turn { speaker: "Stranger".into(), text: "Good day.".into() };
/// script.try_send(Request::new(character, vec![turn])).unwrap();
/// let last = script.events().try_iter().last();
/// assert!(matches!(last, Some(EngineEvent::Finished(_, report)) if report.text == "You said: Good day."));
/// ```
pub struct ScriptedBackend {
    answer: Box<dyn Fn(&Request) -> Answer + Send + Sync>,
    sender: Sender<EngineEvent>,
    events: Receiver<EngineEvent>,
    /// Requests answered by [`Answer::Think`].
    thinking: Mutex<Vec<Request>>,
}

impl ScriptedBackend {
    /// A backend that is ready.
    pub fn new(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let (sender, events) = crossbeam_channel::unbounded();
        let script = Self { answer: Box::new(answer), sender, events, thinking: Mutex::default() };
        script.tell(EngineEvent::Ready(BaseInfo { name: "script".into(), sha256: String::new(), context: 2048 }));
        script
    }

    /// For a plugin's `backend`: each start of the engine makes such a one.
    pub fn starter(answer: impl Fn(&Request) -> Answer + Send + Sync + Clone + 'static) -> BackendStarter {
        Arc::new(move |_| Box::new(Self::new(answer.clone())))
    }

    fn tell(&self, event: EngineEvent) {
        // The receiver is this struct's own.
        let _ = self.sender.send(event);
    }
}

impl Backend for ScriptedBackend {
    fn try_send(&self, request: Request) -> Result<(), Request> {
        let id = request.id;
        match (self.answer)(&request) {
            Answer::Say(text) => {
                self.tell(EngineEvent::Started(id));
                for sentence in sentences(&text) {
                    self.tell(EngineEvent::Delta(id, sentence.to_owned()));
                }
                let stop = StopReason::EndToken;
                self.tell(EngineEvent::Finished(id, ReplyReport { text, stop, ..cancelled_report(request) }));
            }
            Answer::Fail(error) => self.tell(EngineEvent::Failed(id, error)),
            Answer::Think => {
                self.tell(EngineEvent::Started(id));
                self.thinking.lock().unwrap_or_else(PoisonError::into_inner).push(request);
            }
        }
        Ok(())
    }

    fn cancel(&self, id: RequestId) {
        let mut thinking = self.thinking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = thinking.iter().position(|request| request.id == id) {
            self.tell(EngineEvent::Finished(id, cancelled_report(thinking.remove(at))));
        }
    }

    fn events(&self) -> &Receiver<EngineEvent> {
        &self.events
    }

    fn is_running(&self) -> bool {
        true
    }
}
