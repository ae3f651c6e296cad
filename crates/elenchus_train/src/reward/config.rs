//! `reward.toml`: which preferences a reward model learns, and how. Unknown keys are errors, as in `training.toml`.

use std::{num::NonZeroUsize, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    Result, Schedule,
    config_file::{self, Misfit},
    data::Filters,
    optim::{OptimSettings, training_settings},
};

/// One reward model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardConfig {
    /// What is preferred to what.
    pub kind: RewardKind,
    /// The `character.toml` whose prompt replies are read under; paths are relative to the configuration's folder.
    pub character: PathBuf,
    /// Texts in which the character speaks, as `elenchus train sft` reads them; for `preferences` files of those.
    pub data: Vec<PathBuf>,
    /// Texts in which others speak, for `style`; may be the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<PathBuf>,
    /// Continue after a line of the texts that cannot be read, instead of stopping there.
    #[serde(default)]
    pub skip_broken: bool,
    /// Under which names the texts have the character's lines, if not under its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub speakers: Vec<String>,
    /// Turns before a reply, at most.
    #[serde(default = "config_file::four")]
    pub context: NonZeroUsize,
    /// Works that are measured on and never trained on: neither the character's replies nor the others' in them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_out_works: Vec<String>,
    /// What preferences were given for, which is also what the judge is called; those of other aspects are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aspect: Option<String>,
    /// Into how many parts the prompts of preferences fall.
    #[serde(default = "five", skip_serializing_if = "is_five")]
    pub folds: usize,
    /// Which of the parts is measured on, from 0.
    #[serde(default, skip_serializing_if = "is_default")]
    pub fold: usize,
    /// Train on as many preferences as there are, drawn with replacement: for an ensemble out of one set of preferences.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bootstrap: bool,
    /// Works that are neither trained on nor measured on.
    #[serde(default)]
    pub excluded_works: Vec<String>,
    /// Which replies are fit to learn from.
    #[serde(default)]
    pub filters: Filters,
    /// Preferences trained on, at most, from all over the works; all of them if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pairs: Option<usize>,
    /// The adapter.
    #[serde(default)]
    pub lora: RewardLora,
    /// The steps.
    #[serde(default)]
    pub training: RewardSettings,
}

/// What is preferred to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RewardKind {
    /// The character's replies to others', both under a context that neither replies to.
    Style,
    /// A reply under its own context to another of the character's.
    Relevance,
    /// What somebody preferred, as files say.
    Preferences,
}

impl RewardKind {
    /// As a configuration names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Style => "style",
            Self::Relevance => "relevance",
            Self::Preferences => "preferences",
        }
    }
}

fn five() -> usize {
    5
}

fn is_five(folds: &usize) -> bool {
    *folds == five()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Shape of the adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardLora {
    /// The rank.
    pub rank: usize,
    /// The update is multiplied by `alpha / rank`.
    pub alpha: f32,
    /// Share of the inputs that is left out at random while training.
    pub dropout: f32,
    /// The linears that learn, by Hugging Face's names; `"all-linear"` names them all.
    #[serde(deserialize_with = "config_file::one_or_more")]
    pub targets: Vec<String>,
}

impl Default for RewardLora {
    /// `EthicalLLM`'s.
    fn default() -> Self {
        Self { rank: 8, alpha: 32.0, dropout: 0.1, targets: vec!["q_proj".into(), "v_proj".into()] }
    }
}

/// What moves adapter and head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RewardLoss {
    /// Whole replies are scored, so that the chosen one has the higher score.
    #[default]
    BradleyTerry,
    /// Before each token of a reply its outcome is predicted: 1 chosen, -1 rejected. A value model judges
    /// nothing; `method = "dvpo"` learns from it, and `"ppo-max"` may begin its critic as one.
    Value,
}

training_settings! {
    /// How it is trained. `eval_steps` is how often held-out accuracy is measured; both replies of a pair are in one pass.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct RewardSettings {
        /// What moves adapter and head.
        #[serde(skip_serializing_if = "is_default")]
        pub loss: RewardLoss,
        /// Of the returns that values are drawn to: at 1 the reply's worth itself, below it the values that follow as well.
        pub lam: f32,
        /// Determines the fresh model, who is matched with whom, the order of pairs and the dropout.
        pub seed: u64,
        /// Times every pair is seen.
        pub epochs: u64,
        /// Pairs in a step.
        pub batch: usize,
        /// Tokens of a prompt and its reply, at most; longer replies are cut, and their end token put after the cut.
        pub max_tokens: usize,
        ..
        /// By how much the preferred score should be the higher one.
        pub margin: f64,
        /// How strongly scores are drawn towards 0.
        pub center: f64,
        /// Held-out pairs of an evaluation, the same ones every time; the measure after the run takes all.
        pub eval_pairs: usize,
    }
}

impl Default for RewardSettings {
    fn default() -> Self {
        let OptimSettings { pass_tokens, gradient_checkpointing, learning_rate, warmup_steps, decay, .. } =
            OptimSettings::DEFAULT;
        let OptimSettings { max_grad_norm, adamw, checkpoint_steps, eval_steps, .. } = OptimSettings::DEFAULT;
        Self {
            loss: RewardLoss::BradleyTerry,
            lam: 0.95,
            seed: 0,
            epochs: 1,
            batch: 8,
            max_tokens: 256,
            pass_tokens,
            gradient_checkpointing,
            learning_rate,
            warmup_steps,
            decay,
            max_grad_norm,
            adamw,
            checkpoint_steps,
            eval_steps,
            margin: 0.0,
            center: 0.0,
            eval_pairs: 64,
        }
    }
}

impl RewardSettings {
    /// The learning rates of a run over so many pairs.
    pub fn schedule(&self, pairs: usize) -> Schedule {
        self.optim().schedule(self.epochs * pairs.div_ceil(self.batch) as u64)
    }
}

impl RewardConfig {
    /// Reads the text of a `reward.toml`; `file` is what errors call it, with the line.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        config_file::parse_checked(text, file, Self::check)
    }

    fn check(&self) -> Result<(), Misfit> {
        let (lora, training) = (&self.lora, &self.training);
        let misfit = |field, reason: &str| Err(Misfit { field, reason: reason.to_owned() });
        if self.data.is_empty() {
            return misfit("data", "names no file (hint: data = [\"texts/meno.txt\"])");
        }
        match (self.kind, self.others.is_empty()) {
            (RewardKind::Style, true) => {
                return misfit(
                    "others",
                    "names no file, but style is told from other speakers' (hint: those of `data`)",
                );
            }
            (RewardKind::Relevance | RewardKind::Preferences, false) => {
                return misfit(
                    "others",
                    "has a use for style alone, which is told from other speakers' (hint: remove it)",
                );
            }
            _ => {}
        }
        let is_written = self.kind == RewardKind::Preferences;
        if self.held_out_works.is_empty() && !is_written {
            return misfit("held_out_works", "names no work to measure on (hint: name one)");
        }
        // What a kind has no use for would be thought to work.
        let of_texts = [
            ("held_out_works", !self.held_out_works.is_empty()),
            ("excluded_works", !self.excluded_works.is_empty()),
            ("speakers", !self.speakers.is_empty()),
            ("filters", self.filters != Filters::default()),
        ];
        if let Some((field, _)) = of_texts.iter().find(|(_, is_set)| is_written && *is_set) {
            return misfit(field, "has no use for preferences, which are taken as they are (hint: remove it)");
        }
        let of_preferences = [
            ("aspect", self.aspect.is_some()),
            ("folds", !is_five(&self.folds)),
            ("fold", self.fold != 0),
            ("bootstrap", self.bootstrap),
        ];
        if let Some((field, _)) = of_preferences.iter().find(|(_, is_set)| !is_written && *is_set) {
            return misfit(field, "is for `kind = \"preferences\"` alone (hint: remove it)");
        }
        if self.folds < 2 || self.fold >= self.folds {
            let reason =
                format!("is {} of {} `folds` (hint: 0 to folds - 1, of two folds or more)", self.fold, self.folds);
            return Err(Misfit { field: "fold", reason });
        }
        let positive = [
            ("max_pairs", self.max_pairs.unwrap_or(1) as u64),
            ("lora.rank", lora.rank as u64),
            ("training.epochs", training.epochs),
            ("training.batch", training.batch as u64),
            ("training.max_tokens", training.max_tokens as u64),
            ("training.eval_pairs", training.eval_pairs as u64),
        ];
        config_file::at_least_one(&positive)?;
        training.optim().check()?;
        config_file::above_zero(&[("lora.alpha", f64::from(lora.alpha))])?;
        config_file::at_most_one(&[("training.lam", f64::from(training.lam))])?;
        config_file::not_negative(&[("training.margin", training.margin), ("training.center", training.center)])?;
        config_file::below_one(&[("lora.dropout", f64::from(lora.dropout))])?;
        config_file::linears(&lora.targets).map(drop).map_err(|reason| Misfit { field: "lora.targets", reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "kind = \"relevance\"\ncharacter = \"c.toml\"\ndata = [\"a\"]\nheld_out_works = [\"Meno\"]\n";

    #[test]
    fn defaults_are_there_and_a_written_configuration_reads_the_same() {
        let config = RewardConfig::parse(&format!("{LEAST}[lora]\ndropout = 0.0"), "it").unwrap();
        assert_eq!((config.lora.rank, config.lora.alpha, config.training.learning_rate), (8, 32.0, 1e-4));
        let written = toml::to_string(&config).unwrap();
        assert_eq!(RewardConfig::parse(&written, "it").unwrap(), config);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let check = |text: &str, says: &str| {
            let error = RewardConfig::parse(text, "reward.toml").unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        let more = |more: &str| format!("{LEAST}{more}");
        check(&more("[training]\nmargn = 1"), "reward.toml:6: unknown field `margn` (hint: did you mean `margin`?)");
        check(&LEAST.replace("relevance", "styl"), "reward.toml:1: `kind`: unknown variant `styl` (hint: did you mean");
        check(&LEAST.replace("relevance", "style"), "`others` names no file");
        check(&more("others = [\"b\"]"), "reward.toml:5: `others` has a use for style alone");
        check(&more("fold = 1"), "reward.toml:5: `fold` is for `kind = \"preferences\"` alone");
        let written = LEAST.replace("relevance", "preferences");
        check(&written, "reward.toml:4: `held_out_works` has no use for preferences");
        let written = written.replace("held_out_works = [\"Meno\"]\n", "");
        RewardConfig::parse(&format!("{written}aspect = \"action\"\nfold = 4\nbootstrap = true"), "it").unwrap();
        check(&format!("{written}fold = 5"), "reward.toml:4: `fold` is 5 of 5 `folds`");
        check(&format!("{written}folds = 1"), "`fold` is 0 of 1 `folds`");
        check(&LEAST.replace("\"Meno\"", ""), "reward.toml:4: `held_out_works` names no work");
        check(&LEAST.replace("\"a\"", ""), "reward.toml:3: `data` names no file");
        check(&more("max_pairs = 0"), "reward.toml:5: `max_pairs` is 0");
        check(&more("[training]\nbatch = 0"), "`training.batch` is 0");
        check(&more("[training]\ncenter = -1.0"), "`training.center` is -1, expected 0 or more");
        check(&more("[training]\nlearning_rate = 0.0"), "`training.learning_rate` is 0, expected a number above 0");
        check(&more("[lora]\ndropout = 1.0"), "`lora.dropout` is 1, expected");
        check(&more("[lora]\ntargets = [\"head\"]"), "`lora.targets` names `head`");
    }
}
