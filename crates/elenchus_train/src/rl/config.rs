//! `rl.toml`: who learns, from whose judgement, and how. Unknown keys are errors, as in `training.toml`.

use std::{num::NonZeroUsize, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{Group, MethodSettings, Methods, Preset, RlReport, Source, Spent, WrittenMethod, guards::GuardSettings};
use crate::{
    AdamWSettings, Error, Result, Schedule,
    config_file::{self, Misfit},
    judge::WeightedJudgeSettings,
    optim::{OptimSettings, training_settings},
};

/// One run of reinforcement learning; paths are relative to the configuration's folder. `M` is the method: as it is written
/// until [`RlConfig::parse`] has read it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RlConfig<M = MethodSettings> {
    /// The `character.toml` whose prompt is answered under.
    pub character: PathBuf,
    /// The PEFT folder that the policy begins as, and that it is kept near to: the character after SFT.
    pub start: PathBuf,
    /// A `training.toml`: what its pairs and player lines say to the character is a prompt. Only what is trained on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lesson: Option<PathBuf>,
    /// Files of prompts: JSON Lines with `context` (turns), or `line` or `prompt` (one turn).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<PathBuf>,
    /// Turns before a reply, at most, of the files' prompts.
    #[serde(default = "config_file::four")]
    pub context: NonZeroUsize,
    /// Whose settings are the defaults; those of this crate, sane for a LoRA on a small model, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// How the policy learns: a name, or a table with the name and settings.
    #[serde(default)]
    #[serde(bound(deserialize = "M: Default + Deserialize<'de>"))]
    pub method: M,
    /// Who judges.
    pub judges: Vec<WeightedJudgeSettings>,
    /// What is sampled in an iteration.
    #[serde(default)]
    pub sampling: SamplingSettings,
    /// Files of preferences that `dpo`, `ipo` and `kto` learn from: JSON Lines as `elenchus train reward` reads them. Without
    /// them the judges prefer among what the character says as it begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preferences: Vec<PathBuf>,
    /// Pairs that were written beforehand, learned from beside what is sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<OfflineSettings>,
    /// What a run may spend before it ends, whatever `training.steps` says.
    #[serde(default, skip_serializing_if = "BudgetSettings::is_endless")]
    pub budget: BudgetSettings,
    /// Whether the report ends with the battery of `elenchus eval character`, the beginning beside the end.
    #[serde(default = "config_file::yes")]
    pub battery: bool,
    /// When a run must not continue.
    #[serde(default)]
    pub guards: GuardSettings,
    /// The steps.
    #[serde(default)]
    pub training: RlSettings,
}

/// What is sampled in an iteration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingSettings {
    /// Prompts.
    pub prompts: usize,
    /// Responses to each.
    pub group: usize,
    /// Tokens of a response at most.
    pub max_tokens: usize,
    /// Taken from the score of a response that did not end by then.
    pub missing_end_penalty: f32,
    /// Tokens of a prompt at most; longer ones are left out.
    pub max_prompt_tokens: usize,
    /// Prompts that are never learned from: what is said to them is judged at each evaluation.
    pub held_out_prompts: usize,
    /// Share of the prompts that get facts which have nothing to do with them, as a game's prompts have; those of the lesson
    /// that have facts keep them.
    pub facts: f64,
    /// Share of the prompts with facts where they are notes beside the newest line.
    pub notes: f64,
}

impl Default for SamplingSettings {
    fn default() -> Self {
        Self {
            prompts: 8,
            group: 4,
            max_tokens: 80,
            missing_end_penalty: 1.0,
            max_prompt_tokens: 384,
            held_out_prompts: 32,
            facts: 0.0,
            notes: 0.0,
        }
    }
}

/// What a run may spend; 0 is no limit. It ends after the iteration that reaches one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetSettings {
    /// Tokens said, those that are only said to value others among them.
    pub tokens: u64,
    /// Steps of the optimiser.
    pub updates: u64,
    /// Seconds of iterations; what is held out is measured on the house.
    pub seconds: f64,
}

impl BudgetSettings {
    fn is_endless(&self) -> bool {
        *self == Self::default()
    }

    /// Whether these iterations have spent it.
    pub(crate) fn is_spent(&self, reports: &[RlReport]) -> bool {
        let spent = Spent::of(reports);
        (self.tokens > 0 && spent.tokens >= self.tokens)
            || (self.updates > 0 && spent.updates >= self.updates)
            || (self.seconds > 0.0 && spent.seconds >= self.seconds)
    }
}

/// Pairs with a fixed reward (the pre-generated half of AIRL's hybrid data).
///
/// The policy did not say them, so no ratio and no baseline belongs to them: they are a weighted likelihood of their own,
/// outside of baseline, whitening and the price of divergence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfflineSettings {
    /// JSON Lines of pairs: `question` and `reply`, or `context` and `reply`.
    pub pairs: PathBuf,
    /// What every pair is worth.
    #[serde(default = "half")]
    pub reward: f32,
    /// Pairs beside each step of the optimiser.
    #[serde(default = "eight")]
    pub batch: usize,
    /// How much their mean negative log-probability a token counts, times the reward, beside the method's loss.
    #[serde(default = "half")]
    pub weight: f32,
}

fn half() -> f32 {
    0.5
}

fn eight() -> usize {
    8
}

training_settings! {
    /// How it is trained; a step is an iteration. Without weight decay `adamw` is Adam. Each checkpoint keeps its adapter.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct RlSettings {
        /// Determines prompts, responses and mini-batches.
        pub seed: u64,
        /// Iterations: each samples, judges and learns once.
        pub steps: u64,
        ..
        /// What the character is asked at each evaluation.
        pub samples: Vec<String>,
    }
}

impl Default for RlSettings {
    fn default() -> Self {
        let OptimSettings { pass_tokens, gradient_checkpointing, learning_rate, decay, max_grad_norm, adamw, .. } =
            OptimSettings::DEFAULT;
        Self {
            seed: 0,
            steps: 200,
            pass_tokens,
            gradient_checkpointing,
            learning_rate,
            warmup_steps: 5,
            decay,
            max_grad_norm,
            adamw: AdamWSettings { weight_decay: 0.0, ..adamw },
            checkpoint_steps: 20,
            eval_steps: 20,
            samples: crate::SftSettings::default().samples,
        }
    }
}

impl RlSettings {
    /// The learning rate of each iteration.
    pub fn schedule(&self) -> Schedule {
        self.optim().schedule(self.steps)
    }
}

impl<M> RlConfig<M> {
    fn with_method<N, E>(self, read: impl FnOnce(M) -> Result<N, E>) -> Result<RlConfig<N>, E> {
        let Self { character, start, lesson, prompts, context, preset, method, judges, .. } = self;
        let Self { sampling, preferences, offline, budget, battery, guards, training, .. } = self;
        let method = read(method)?;
        Ok(RlConfig {
            character,
            start,
            lesson,
            prompts,
            context,
            preset,
            method,
            judges,
            sampling,
            preferences,
            offline,
            budget,
            battery,
            guards,
            training,
        })
    }
}

impl RlConfig {
    /// Reads the text of an `rl.toml`; `file` is what errors call it, with the line. `methods` are those it can name.
    pub fn parse(text: &str, file: &str, methods: &Methods) -> Result<Self> {
        let mut written: RlConfig<WrittenMethod> = config_file::parse(text, file)?;
        if let Some(preset) = written.preset {
            let merged = preset.under(config_file::parse(text, file)?, methods);
            written =
                merged.map_err(|misfit| misfit.at(text, file))?.try_into().map_err(|error: toml::de::Error| {
                    Error::Config { file: file.to_owned(), reason: error.message().to_owned() }
                })?;
        }
        let config = written.with_method(|method| {
            let unread = |reason| Misfit { field: "method", reason: format!("cannot be read: {reason}") };
            methods.read(method).map_err(|reason| unread(reason).at(text, file))
        })?;
        config.check().map_err(|misfit| misfit.at(text, file))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Misfit> {
        let (sampling, training) = (&self.sampling, &self.training);
        let misfit = |field, reason| Err(Misfit { field, reason });
        if self.lesson.is_none() && self.prompts.is_empty() {
            let reason = "and `lesson` name no prompts (hint: prompts = [\"player_lines.jsonl\"])";
            return misfit("prompts", reason.to_owned());
        }
        if self.judges.is_empty() {
            return misfit("judges", "names no judge (hint: [[judges]] with a `kind`)".to_owned());
        }
        let named =
            |Misfit { field, reason }| Misfit { field: "method", reason: format!("has a `{field}` that {reason}") };
        self.method.check().map_err(named)?;
        let positive = [
            ("sampling.prompts", sampling.prompts as u64),
            ("sampling.group", sampling.group as u64),
            ("sampling.max_tokens", sampling.max_tokens as u64),
            ("sampling.max_prompt_tokens", sampling.max_prompt_tokens as u64),
            ("training.steps", training.steps),
            ("offline.batch", self.offline.as_ref().map_or(1, |offline| offline.batch as u64)),
        ];
        config_file::at_least_one(&positive)?;
        training.optim().check()?;
        let plan = self.method.method().plan();
        if plan.group > Group::Alone && sampling.group < 2 && self.preferences.is_empty() {
            let name = self.method.name();
            let reason = format!(
                "is 1, but {name} compares responses to one prompt (hint: 2 or more, or method = \"reinforce\")"
            );
            return misfit("sampling.group", reason);
        }
        if plan.source == Source::Policy && !self.preferences.is_empty() {
            let name = self.method.name();
            let reason = format!(
                "are not what {name} learns from: it learns from what the policy says (hint: method = \"dpo\", or leave them out)"
            );
            return misfit("preferences", reason);
        }
        let not_negative = [
            ("sampling.missing_end_penalty", f64::from(sampling.missing_end_penalty)),
            ("offline.weight", self.offline.as_ref().map_or(0.0, |offline| f64::from(offline.weight))),
        ];
        config_file::not_negative(&not_negative)?;
        config_file::at_most_one(&[("sampling.facts", sampling.facts), ("sampling.notes", sampling.notes)])?;
        let above_nothing = [
            ("guards.max_kl", self.guards.max_kl),
            ("guards.length_drift", self.guards.length_drift),
            ("guards.engine_kl", self.guards.engine_kl),
        ];
        config_file::above_zero(&above_nothing)?;
        config_file::not_negative(&[("budget.seconds", self.budget.seconds)])?;
        config_file::at_most_one(&[
            ("guards.parse_rate", self.guards.parse_rate),
            ("guards.distinct_2", self.guards.distinct_2),
            ("guards.reward_accuracy", self.guards.reward_accuracy),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{PpoSettings, RlooSettings},
        *,
    };

    const LEAST: &str = "character = \"character.toml\"\nstart = \".\"\nprompts = [\"lines.jsonl\"]\n";

    fn parse(more: &str) -> Result<RlConfig> {
        RlConfig::parse(&format!("{LEAST}{more}"), "rl.toml", &Methods::default())
    }

    #[test]
    fn one_word_chooses_a_method_and_a_table_tells_it_more() {
        const JUDGE: &str = "\n[[judges]]\nkind = \"rules\"\n";
        let method = |text: &str| parse(&format!("{text}{JUDGE}")).unwrap().method;
        assert_eq!(method(""), MethodSettings::of(RlooSettings::default()));
        assert_eq!(method("method = \"ppo\""), MethodSettings::of(PpoSettings::default()));
        let rloo = RlooSettings { kl_coef: 0.1, ..RlooSettings::default() };
        assert_eq!(method("method = { name = \"rloo\", kl_coef = 0.1 }"), MethodSettings::of(rloo));
        let config = parse(&format!("[method]\nname = \"ppo\"\nepochs = 2\n{JUDGE}weight = -2.5")).unwrap();
        assert_eq!(config.method, MethodSettings::of(PpoSettings { epochs: 2, ..PpoSettings::default() }));
        assert_eq!(config.judges[0].weight, -2.5);
        let written = toml::to_string(&config).unwrap();
        assert_eq!(RlConfig::parse(&written, "it", &Methods::default()).unwrap(), config, "{written}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let check = |more: &str, says: &[&str]| {
            let error = parse(more).unwrap_err().to_string();
            assert!(says.iter().all(|says| error.contains(says)), "{more}: {error}");
        };
        const RULES: &str = "[[judges]]\nkind = \"rules\"\n";
        check("judges = []", &["rl.toml:4", "`judges` names no judge"]);
        check(&format!("method = \"ppp\"\n{RULES}"), &["rl.toml:4", "method", "ppp"]);
        check(&format!("method = {{ name = \"rloo\", kl_cof = 1 }}\n{RULES}"), &["rl.toml:4", "kl_cof"]);
        check(&format!("method = {{ name = \"ppo\", lam = 2.0 }}\n{RULES}"), &["rl.toml:4", "lam", "is 2"]);
        check(&format!("{RULES}weigth = 1"), &["weigth"]);
        check("[[judges]]\nkind = \"rule\"", &["rule"]);
        check(&format!("{RULES}[sampling]\ngroup = 1"), &["`sampling.group` is 1", "RLOO"]);
        check(&format!("{RULES}[guards]\nparse_rate = 95.0"), &["`guards.parse_rate` is 95", "1 at most"]);
        check(&format!("{RULES}[training.adamw]\nbeta1 = 1.0"), &["`training.adamw.beta1` is 1"]);
        check(&format!("{RULES}[training]\nsteps = 0"), &["rl.toml:7", "`training.steps` is 0"]);
        check(&format!("{RULES}[training]\nlearning_rat = 1"), &["did you mean `learning_rate`"]);
        let none = "character = \"c\"\nstart = \".\"\n[[judges]]\nkind = \"rules\"";
        let error = RlConfig::parse(none, "rl.toml", &Methods::default()).unwrap_err().to_string();
        assert!(error.contains("name no prompts"), "{error}");
    }
}
