//! A chat model as judge, over the client that all chat models are asked through ([`crate::chat`]): a question it does not
//! answer costs that reply its score.

use std::fmt;

use elenchus_lm::Message;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Map, Value};

use super::{Exchange, Judge, Opinion, Question, Verdict, VerdictForm, VerdictReader};
use crate::{
    Error, Result,
    chat::{ChatClient, ChatCounters, ChatSettings},
};

/// A judge as a configuration has it: what is asked of each reply, beside whom it is asked of, in one table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatJudgeSettings {
    /// What is asked of each reply, in words.
    pub criterion: String,
    /// How the verdict should look.
    pub form: VerdictForm,
    /// Whom, and how patiently.
    #[serde(flatten)]
    pub chat: ChatSettings,
}

impl<'de> Deserialize<'de> for ChatJudgeSettings {
    /// By hand, because serde cannot flatten and refuse unknown keys.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = Map::deserialize(deserializer)?;
        let criterion = table.remove("criterion").map(serde_json::from_value).transpose().map_err(D::Error::custom)?;
        let form = table.remove("form").map(serde_json::from_value).transpose().map_err(D::Error::custom)?;
        let chat = serde_json::from_value(Value::Object(table)).map_err(D::Error::custom)?;
        Ok(Self { criterion: criterion.unwrap_or_default(), form: form.unwrap_or_default(), chat })
    }
}

/// A judge that is asked over the network.
pub struct ChatJudge {
    client: ChatClient,
    question: Question,
    reader: Box<dyn VerdictReader>,
}

impl ChatJudge {
    /// A judge whose words a reader makes numbers of; [`super::Structured`] where the form is structured. `key` is what
    /// [`ChatSettings::key_env`] names. Opens the cache; nothing is sent yet.
    ///
    /// # Errors
    /// Settings that cannot be meant, a key that is missing or no header can hold, and a cache that cannot be read.
    pub fn new(
        settings: ChatSettings,
        question: Question,
        key: Option<&str>,
        reader: Box<dyn VerdictReader>,
    ) -> Result<Self> {
        if question.criterion.trim().is_empty() {
            let reason = "`criterion` is empty (hint: criterion = \"Is the reply in character?\")".to_owned();
            return Err(Error::Judge { judge: settings.name, reason });
        }
        Ok(Self { client: ChatClient::new(settings, key)?, question, reader })
    }

    /// What happened so far.
    pub fn counters(&self) -> ChatCounters {
        self.client.counters()
    }
}

impl Judge for ChatJudge {
    fn name(&self) -> &str {
        self.client.name()
    }

    /// Each exchange is asked about once, however often it occurs in the batch; the cost is counted for the first of several
    /// equal ones.
    ///
    /// # Errors
    /// Those of [`ChatClient::ask`], and a reader that fails.
    fn judge(&self, exchanges: &[Exchange]) -> Result<Vec<Verdict>> {
        let questions: Vec<[Message; 2]> = exchanges.iter().map(|exchange| self.question.messages(exchange)).collect();
        let verdict = |said: crate::chat::Said| {
            let words = match said.words {
                Ok(words) => words,
                Err(reason) => return Ok(Verdict { words: reason, cost: said.cost, ..Verdict::default() }),
            };
            let score = self.reader.read(&words)?.map(Opinion::value);
            self.client.count_read(score.is_some());
            Ok(Verdict { words, score, cost: said.cost, ..Verdict::default() })
        };
        self.client.ask(&questions)?.into_iter().map(verdict).collect()
    }
}

/// The key is no part of it.
impl fmt::Debug for ChatJudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reader = self.reader.name();
        f.debug_struct("ChatJudge").field("client", &self.client).field("reader", &reader).finish_non_exhaustive()
    }
}
