//! A judge as a configuration names it, with its weight and with who reads its words.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use elenchus_candle::CandleExecutor;
use elenchus_dialogue::{Character, Model};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    ChatJudge, ChatJudgeSettings, Combination, EnsembleJudge, Exchange, Judge, Judges, LeadingWord, LearnedJudge,
    Lexicon, ModelJudge, ModelJudgeSettings, Or, Question, Rule, Rules, Scripted, Sentiment, Structured, VerdictForm,
    VerdictReader, WeightedJudge, Words, rules::words,
};
use crate::{Error, Result, RewardLoss, RewardModel, text_stats::is_question};

/// A judge, its weight, and who reads its words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeightedJudgeSettings {
    /// What its scores are multiplied by.
    pub weight: f32,
    /// Who makes a number of its words, for judges that answer in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader: Option<ReaderSettings>,
    /// The judge.
    #[serde(flatten)]
    pub judge: JudgeSettings,
}

impl<'de> Deserialize<'de> for WeightedJudgeSettings {
    /// A table of the judge with a `weight`, 1 if left out, and a `reader`. By hand, because serde cannot flatten and
    /// refuse unknown keys.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = serde_json::Map::deserialize(deserializer)?;
        let weight = match table.remove("weight") {
            None => 1.0,
            Some(weight) => {
                let number = weight.as_f64().filter(|weight| weight.is_finite());
                number.ok_or_else(|| D::Error::custom(format!("weight is {weight}, expected a number")))? as f32
            }
        };
        let reader = table.remove("reader").map(serde_json::from_value).transpose().map_err(D::Error::custom)?;
        let judge: JudgeSettings = serde_json::from_value(Value::Object(table)).map_err(D::Error::custom)?;
        let form = match &judge {
            JudgeSettings::Chat(ChatJudgeSettings { form, .. })
            | JudgeSettings::Model(ModelJudgeSettings { form, .. }) => Some(*form),
            _ => None,
        };
        match (form, &reader) {
            (None, Some(_)) => Err(D::Error::custom("this kind of judge has no words for a `reader` to read")),
            (Some(VerdictForm::Structured), Some(_)) => {
                Err(D::Error::custom("verdicts of form \"structured\" need no `reader` (hint: leave it out)"))
            }
            _ => Ok(Self { weight, reader, judge }),
        }
    }
}

/// Which judge, and what it needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum JudgeSettings {
    /// The share of rules kept.
    Rules {
        /// Which; all if left out.
        #[serde(default)]
        rules: Vec<Rule>,
    },
    /// A reward model on the base that is there anyway: style, relevance, or preferences.
    Learned {
        /// The folder that `elenchus train reward` gave.
        reward: PathBuf,
    },
    /// Several reward models, whose disagreement may count against a reply.
    Ensemble {
        /// The folders that `elenchus train reward` gave.
        rewards: Vec<PathBuf>,
        /// How their scores become one.
        #[serde(default)]
        combination: Combination,
        /// What logs call it.
        #[serde(default = "ensemble")]
        name: String,
    },
    /// A chat model behind an endpoint.
    Chat(ChatJudgeSettings),
    /// The base itself, asked in this process.
    Model(ModelJudgeSettings),
    /// A control: 1 for a reply of so many words, less the further it is away, -1 at the least.
    Length {
        /// How many.
        words: usize,
    },
    /// A control: 1 for a reply that ends in a question, -1 for one that does not.
    Questions,
    /// A control: -1 to 1 by chance, the same for the same reply.
    Random {
        /// The chance.
        #[serde(default)]
        seed: u64,
    },
}

fn ensemble() -> String {
    "ensemble".to_owned()
}

/// Who makes a number of a judge's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReaderSettings {
    /// A leading word where there is one, the words and pairs that ship where a verdict is long enough to hold some, VADER
    /// elsewhere. On 960 labelled verdicts of questions it had not seen it has a macro-F1 of 0.65 (87% right, a quarter of
    /// the blame taken for praise), VADER alone 0.42, praising everything 0.31.
    #[default]
    Words,
    /// A leading word alone.
    LeadingWord,
    /// VADER.
    Lexicon,
    /// A five-star classifier: a Hugging Face folder of a BERT.
    Sentiment(PathBuf),
}

impl ReaderSettings {
    /// The reader; paths are relative to `folder`.
    pub fn open(&self, folder: &Path) -> Result<Box<dyn VerdictReader>> {
        Ok(match self {
            Self::Words => Box::new(by_words(Words::shipped()?)),
            Self::LeadingWord => Box::new(LeadingWord),
            Self::Lexicon => Box::new(Lexicon::default()),
            Self::Sentiment(classifier) => Box::new(Sentiment::open(&folder.join(classifier))?),
        })
    }
}

/// The default reader, around some words and pairs.
pub fn by_words(words: Words) -> impl VerdictReader {
    Or(LeadingWord, Or(words, Lexicon::default()))
}

/// What judges may share with the characters.
#[derive(Clone)]
pub struct JudgeContext<'a> {
    /// What paths are relative to.
    pub folder: &'a Path,
    /// The base in training numerics.
    pub executor: Arc<CandleExecutor>,
    /// The base as a game runs it.
    pub model: Model,
    /// Whose replies are judged.
    pub character: Arc<Character>,
    /// What an environment variable holds: only a program knows.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

impl JudgeSettings {
    /// The folders of the reward models that it asks, as they are written.
    pub fn rewards(&self) -> &[PathBuf] {
        match self {
            Self::Learned { reward } => std::slice::from_ref(reward),
            Self::Ensemble { rewards, .. } => rewards,
            _ => &[],
        }
    }
}

impl WeightedJudgeSettings {
    /// All judges of a configuration.
    ///
    /// # Errors
    /// What a judge needs is not there; or two judges have one name, so that nobody could tell their scores apart.
    pub fn open_all(all: &[Self], context: &JudgeContext<'_>) -> Result<Judges> {
        let mut judges: Vec<WeightedJudge> = Vec::new();
        for settings in all {
            let judge = settings.open(context)?;
            if judges.iter().any(|weighted| weighted.judge.name() == judge.name()) {
                let reason = "is the name of two judges (hint: give chat and model judges a `name` each)".to_owned();
                return Err(Error::Judge { judge: judge.name().to_owned(), reason });
            }
            judges.push(WeightedJudge { judge, weight: settings.weight });
        }
        Ok(Judges::new(judges))
    }

    fn open(&self, context: &JudgeContext<'_>) -> Result<Box<dyn Judge>> {
        let JudgeContext { folder, variable, .. } = *context;
        let reader = |form: VerdictForm| match form {
            VerdictForm::Structured => Ok(Box::new(Structured) as Box<dyn VerdictReader>),
            VerdictForm::Words => self.reader.clone().unwrap_or_default().open(folder),
        };
        Ok(match self.judge.clone() {
            JudgeSettings::Learned { reward } => Box::new(learned(&reward, context)?),
            JudgeSettings::Ensemble { rewards, combination, name } => {
                if rewards.len() < 2 {
                    let reason =
                        "has one member or none in `rewards`, and nobody to disagree (hint: kind = \"learned\")";
                    return Err(Error::Judge { judge: name, reason: reason.to_owned() });
                }
                let members = rewards.iter().map(|reward| learned(reward, context)).collect::<Result<_>>()?;
                Box::new(EnsembleJudge::new(name, members, combination))
            }
            JudgeSettings::Chat(ChatJudgeSettings { criterion, form, mut chat }) => {
                chat.cache = chat.cache.map(|cache| folder.join(cache));
                let key = chat.key_env.as_deref().and_then(variable);
                Box::new(ChatJudge::new(chat, Question { criterion, form }, key.as_deref(), reader(form)?)?)
            }
            JudgeSettings::Model(settings) => {
                let reader = reader(settings.form)?;
                Box::new(ModelJudge::new(settings, context.model.clone(), None, reader)?)
            }
            JudgeSettings::Rules { rules } => Box::new(Rules::new(rules)),
            JudgeSettings::Length { words } => control("length", move |exchange| near(exchange, words)),
            JudgeSettings::Questions => {
                control("questions", |exchange| if is_question(&exchange.reply) { 1.0 } else { -1.0 })
            }
            JudgeSettings::Random { seed } => control("random", move |exchange| by_chance(exchange, seed)),
        })
    }
}

/// A reward model, called by what it prefers.
fn learned(reward: &Path, context: &JudgeContext<'_>) -> Result<LearnedJudge> {
    let JudgeContext { folder, executor, model, character, .. } = context.clone();
    let folder = folder.join(reward);
    let (reward, card) = RewardModel::open(&folder, &executor, &model.sha256)?;
    if card.loss == RewardLoss::Value {
        let reason = "predicts the outcome of replies and scores none (hint: method = { name = \"dvpo\", value_model = .. }, or train it without `training.loss`)";
        return Err(Error::RewardModel { folder, reason: reason.to_owned() });
    }
    Ok(LearnedJudge::new(card.name(), reward, card.max_tokens, executor, model, character))
}

fn control(name: &str, score: impl Fn(&Exchange) -> f32 + Send + Sync + 'static) -> Box<dyn Judge> {
    Box::new(Scripted::new(name, move |exchange: &Exchange| Some(score(exchange))))
}

/// 1 at so many words, -1 at three times as many.
fn near(exchange: &Exchange, wanted: usize) -> f32 {
    let (count, wanted) = (words(&exchange.reply).len() as f32, wanted.max(1) as f32);
    (1.0 - (count - wanted).abs() / wanted).max(-1.0)
}

fn by_chance(exchange: &Exchange, seed: u64) -> f32 {
    let hash = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(&exchange.reply).finalize();
    f32::from(u16::from_le_bytes([hash[0], hash[1]])) / f32::from(u16::MAX) * 2.0 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_score_what_they_name() {
        let exchange = |reply: &str| Exchange { context: Vec::new(), reply: reply.into(), is_ended: true };
        assert_eq!(near(&exchange("one two three four"), 4), 1.0);
        assert_eq!(near(&exchange("one two"), 4), 0.5);
        assert_eq!(near(&exchange(&"word ".repeat(50)), 4), -1.0);
        assert_eq!(by_chance(&exchange("a"), 1), by_chance(&exchange("a"), 1));
        let scores: Vec<f32> = (0..200).map(|at| by_chance(&exchange(&at.to_string()), 1)).collect();
        let mean = scores.iter().sum::<f32>() / 200.0;
        assert!(mean.abs() < 0.15 && scores.iter().all(|score| (-1.0..=1.0).contains(score)), "{mean}");
    }

    #[test]
    fn the_default_reader_knows_praise_and_blame_long_and_short() {
        use super::super::Opinion::{Against, For};
        let reader = ReaderSettings::default().open(Path::new(".")).unwrap();
        for (verdict, expected) in [
            ("Positive. He speaks as Socrates would.", For),
            ("Negative: this does not sound like Socrates; it is rambling and confused.", Against),
            ("The response is clear, detailed and very helpful.", For),
            ("The response fails to answer the question and is not relevant at all.", Against),
            ("It is an excellent reply in character.", For),
            ("The answer is dull and repeats itself.", Against),
            ("No.", Against),
        ] {
            assert_eq!(reader.read(verdict).unwrap(), Some(expected), "{verdict}");
        }
    }

    #[test]
    fn a_weighted_judge_is_a_judge_a_weight_and_a_reader() {
        let read = |text: &str| toml::from_str::<WeightedJudgeSettings>(text);
        let chat = "kind = \"chat\"\nurl = \"http://localhost/v1\"\nmodel = \"m\"\ncriterion = \"Good?\"\n";
        let weighted = read(&format!("{chat}weight = 0.5\nreader = \"lexicon\"")).unwrap();
        assert_eq!((weighted.weight, weighted.reader), (0.5, Some(ReaderSettings::Lexicon)));
        let weighted = read(&format!("{chat}reader = {{ sentiment = \"bert\" }}")).unwrap();
        assert_eq!(weighted.reader, Some(ReaderSettings::Sentiment("bert".into())));
        for (text, says) in [
            ("kind = \"rules\"\nreader = \"words\"".to_owned(), "no words"),
            (format!("{chat}form = \"structured\"\nreader = \"words\""), "need no `reader`"),
            (format!("{chat}temprature = 1"), "temprature"),
            ("kind = \"rules\"\nweight = \"much\"".to_owned(), "expected a number"),
            ("kind = \"nobody\"".to_owned(), "nobody"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
