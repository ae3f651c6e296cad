//! `training.toml`: everything a run depends on besides the texts themselves. Unknown keys are errors: a misspelt
//! learning rate must not train with the default.

use std::{num::NonZeroUsize, path::PathBuf};

use elenchus_lm::Linear;
use serde::{Deserialize, Serialize};

use crate::{
    Result, Schedule,
    config_file::{self, Misfit},
    data::{self, FilterReport, Filters, Pair, Split},
    optim::{OptimSettings, training_settings},
};

/// One run of supervised fine-tuning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftConfig {
    /// The `character.toml` whose prompt is trained under; paths are relative to the configuration's folder.
    pub character: PathBuf,
    /// Texts: plain with labels, or JSON Lines of turns or pairs.
    pub data: Vec<PathBuf>,
    /// Continue after a line of the texts that cannot be read, instead of stopping there.
    #[serde(default)]
    pub skip_broken: bool,
    /// Turns before a reply, at most.
    #[serde(default = "config_file::four")]
    pub context: NonZeroUsize,
    /// Works whose pairs are measured on and never trained on; or, for a voice that lives in one work,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_out_works: Vec<String>,
    /// the share of its pairs that is: the last ones in the work's order, after a gap as wide as a context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_fraction: Option<f64>,
    /// Works that are neither trained on nor measured on.
    #[serde(default)]
    pub excluded_works: Vec<String>,
    /// Lines as a player says them, answered by real replies: trained on beside the texts, never measured on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub player_lines: Option<PathBuf>,
    /// How often those are seen in an epoch whose replies are written in that file.
    #[serde(default = "one")]
    pub player_lines_times: usize,
    /// Under which names the texts have the lines to learn, if not under the character's own: an invented olive seller
    /// learns from the women of several plays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub speakers: Vec<String>,
    /// Which pairs are fit to learn from.
    #[serde(default)]
    pub filters: Filters,
    /// What keeps the persona while the manner is learned.
    #[serde(default)]
    pub persona: PersonaSettings,
    /// Whether the report ends with the battery of `elenchus eval character`, the base beside the adapter.
    #[serde(default = "config_file::yes")]
    pub battery: bool,
    /// The adapter.
    #[serde(default)]
    pub lora: LoraSettings,
    /// The steps.
    #[serde(default)]
    pub training: SftSettings,
}

fn one() -> usize {
    1
}

/// Examples beside the character's own, each as a share: so many for each example of texts and player lines. Without them
/// an adapter unlearns to read its prompt (names, facts, what was said); see `data/persona.rs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PersonaSettings {
    /// Conversations of invented people: name, trade, facts, memory, not knowing, attempts on the role.
    pub invented: f64,
    /// The same of the character itself, from its `character.toml` alone.
    pub own: f64,
    /// What the base itself says under invented personas (self-distillation): a pull towards its own distribution, so that
    /// a manner is added and nothing else changes.
    pub base: f64,
    /// Player lines of `neighbours`, under their own personas.
    pub neighbour: f64,
    /// Folders of other characters with a `character.toml` and a `player_lines.jsonl`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub neighbours: Vec<PathBuf>,
    /// How often a token of these examples counts in the loss, where one of the character's texts counts once: their
    /// replies are short.
    pub weight: f32,
    /// Share of the texts' pairs whose prompt gets facts that have nothing to do with them, as a game's prompts have.
    pub facts: f64,
    /// Share of all prompts with facts where they are notes beside the newest line, as a game tells what it looks up for one
    /// reply, in place of standing facts. The base's own replies are sampled with standing facts.
    pub notes: f64,
}

impl Default for PersonaSettings {
    fn default() -> Self {
        Self {
            invented: 0.2,
            own: 0.15,
            base: 0.05,
            neighbour: 0.0,
            neighbours: Vec::new(),
            weight: 1.0,
            facts: 0.05,
            notes: 0.0,
        }
    }
}

/// Shape of a fresh adapter; the defaults are AIRL's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraSettings {
    /// The rank.
    pub rank: usize,
    /// The update is multiplied by `alpha / rank`.
    pub alpha: f32,
    /// Share of the inputs that is left out at random while training.
    pub dropout: f32,
    /// The linears that learn, by Hugging Face's names; `"all-linear"` names them all.
    #[serde(deserialize_with = "config_file::one_or_more")]
    pub targets: Vec<String>,
    /// A PEFT folder to begin from in place of a fresh adapter, of the same rank, alpha and targets: a voice with few lines
    /// learns sooner from a neighbour's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
}

impl Default for LoraSettings {
    fn default() -> Self {
        Self { rank: 16, alpha: 32.0, dropout: 0.05, targets: vec!["q_proj".into(), "v_proj".into()], start: None }
    }
}

training_settings! {
    /// How it is trained. `eval_steps` is how often held-out perplexity and samples are taken.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct SftSettings {
        /// Determines the fresh adapter, the order of examples and the dropout.
        pub seed: u64,
        /// Times every example is seen.
        pub epochs: u64,
        /// Examples in a step.
        pub batch: usize,
        /// Tokens of an example at most, prompt included; longer replies are cut.
        pub max_tokens: usize,
        ..
        /// Held-out examples measured in each evaluation, the same ones every time; the measure after the run takes all.
        pub eval_examples: usize,
        /// Evaluations without a better held-out perplexity after which the run ends; it never ends early if left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub patience: Option<u64>,
        /// What the character is asked at each evaluation, so that one can read how its manner comes.
        pub samples: Vec<String>,
    }
}

impl Default for SftSettings {
    fn default() -> Self {
        let OptimSettings { pass_tokens, gradient_checkpointing, warmup_steps, decay, max_grad_norm, adamw, .. } =
            OptimSettings::DEFAULT;
        Self {
            seed: 0,
            epochs: 1,
            batch: 8,
            max_tokens: 256,
            pass_tokens,
            gradient_checkpointing,
            learning_rate: 3e-4,
            warmup_steps,
            decay,
            max_grad_norm,
            adamw,
            checkpoint_steps: OptimSettings::DEFAULT.checkpoint_steps,
            eval_steps: 50,
            eval_examples: 64,
            patience: None,
            // Fit for anybody in the agora.
            samples: [
                "Good day. Who are you?",
                "What do people speak of in the agora today?",
                "Tell me, what makes a good life?",
            ]
            .map(str::to_owned)
            .to_vec(),
        }
    }
}

impl SftSettings {
    /// The learning rates of a run over so many examples.
    pub fn schedule(&self, examples: usize) -> Schedule {
        self.optim().schedule(self.epochs * examples.div_ceil(self.batch) as u64)
    }
}

impl SftConfig {
    /// Reads the text of a `training.toml`; `file` is what errors call it, with the line.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        config_file::parse_checked(text, file, Self::check)
    }

    fn check(&self) -> Result<(), Misfit> {
        let (lora, training) = (&self.lora, &self.training);
        let misfit = |field, reason| Err(Misfit { field, reason });
        match (self.held_out_works.is_empty(), self.held_out_fraction) {
            (true, None) => {
                let hint = "or `held_out_fraction = 0.2` for a voice that lives in one work";
                return misfit("held_out_works", format!("names no work to measure on (hint: name one, {hint})"));
            }
            (false, Some(_)) => {
                let reason = "stands beside `held_out_works` (hint: keep one of them)";
                return misfit("held_out_fraction", reason.to_owned());
            }
            (true, Some(share)) if !(share > 0.0 && share < 1.0) => {
                return misfit("held_out_fraction", format!("is {share}, expected more than 0 and less than 1"));
            }
            _ => {}
        }
        if self.data.is_empty() {
            return misfit("data", "names no file (hint: data = [\"texts/meno.txt\"])".to_owned());
        }
        let positive = [
            ("lora.rank", lora.rank as u64),
            ("training.epochs", training.epochs),
            ("training.batch", training.batch as u64),
            ("training.max_tokens", training.max_tokens as u64),
            ("training.eval_examples", training.eval_examples as u64),
            ("training.patience", training.patience.unwrap_or(1)),
        ];
        config_file::at_least_one(&positive)?;
        training.optim().check()?;
        config_file::at_least_one(&[("player_lines_times", self.player_lines_times as u64)])?;
        let PersonaSettings { invented, own, base, neighbour, ref neighbours, weight, facts, notes } = self.persona;
        config_file::not_negative(&[
            ("persona.invented", invented),
            ("persona.own", own),
            ("persona.base", base),
            ("persona.neighbour", neighbour),
        ])?;
        config_file::at_most_one(&[("persona.facts", facts), ("persona.notes", notes)])?;
        if neighbour > 0.0 && neighbours.is_empty() {
            let hint = "hint: neighbours = [\"../hermes\"]";
            return misfit("persona.neighbour", format!("is {neighbour}, but `persona.neighbours` is empty ({hint})"));
        }
        config_file::below_one(&[("lora.dropout", f64::from(lora.dropout))])?;
        config_file::above_zero(&[("persona.weight", f64::from(weight)), ("lora.alpha", f64::from(lora.alpha))])?;
        if let Some(number) = training.samples.iter().position(|line| line.trim().is_empty()) {
            return misfit("training.samples", format!("holds no words in line {number} (hint: remove it)"));
        }
        self.linears().map(drop).map_err(|reason| Misfit { field: "lora.targets", reason })
    }

    /// `lora.targets` as linears.
    pub fn linears(&self) -> Result<Vec<Linear>, String> {
        config_file::linears(&self.lora.targets)
    }

    /// Excludes works, filters, and holds out: pairs to train on and pairs to measure on, and what the filters did.
    pub fn split(&self, mut pairs: Vec<Pair>) -> Result<(Split, FilterReport)> {
        pairs.retain(|pair| !self.excluded_works.contains(&pair.work));
        let (pairs, report) = data::filter(pairs, &self.filters);
        let split = match self.held_out_fraction {
            Some(fraction) => data::last_part(pairs, fraction, self.context)?,
            None => data::by_work(pairs, &self.held_out_works)?,
        };
        Ok((split, report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "character = \"character.toml\"\ndata = [\"a.jsonl\"]\nheld_out_works = [\"Meno\"]\n";

    #[test]
    fn defaults_are_there_and_a_written_configuration_reads_the_same() {
        let config = SftConfig::parse(LEAST, "it").unwrap();
        assert_eq!((config.lora.rank, config.training.batch, config.context.get()), (16, 8, 4));
        let written = toml::to_string(&config).unwrap();
        assert_eq!(SftConfig::parse(&written, "it").unwrap(), config);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let check = |more: &str, says: &str| {
            let error = SftConfig::parse(&format!("{LEAST}{more}"), "training.toml").unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        check(
            "[training]\nlearning_rat = 1",
            "training.toml:5: unknown field `learning_rat` (hint: did you mean `learning_rate`?)",
        );
        check("[training]\n\nfavourite = 1", "training.toml:6: unknown field `favourite`, expected one of `seed`");
        check(
            "held_out_work = []",
            "training.toml:4: unknown field `held_out_work` (hint: did you mean `held_out_works`?)",
        );
        check("[training]\nadamw = { beta3 = 1 }", "did you mean `beta");
        check("[training]\nseed = 1\nbatch = 0", "training.toml:6: `training.batch` is 0, expected at least 1");
        check("[training]\npatience = 0", "`training.patience` is 0");
        check(
            "[training]\nlearning_rate = -1.0",
            "training.toml:5: `training.learning_rate` is -1, expected a number above 0",
        );
        check("[training]\nadamw = { beta1 = 1.0 }", "training.toml:5: `training.adamw.beta1` is 1, expected");
        check("[training]\nsamples = [\"a\", \" \"]", "`training.samples` holds no words in line 1");
        check("[training]\nbatch = \"two\"", "training.toml:5: `training.batch`: invalid type: string");
        check("[training]\nbatch = ", "training.toml:5: ");
        check("[lora]\nalpha = 0.0", "`lora.alpha` is 0");
        check("[lora]\ndropout = 1.0", "training.toml:5: `lora.dropout` is 1, expected");
        check("[lora]\ntargets = [\"lm_head\"]", "`lora.targets` names `lm_head`");
        check("[lora]\ntargets = [\"all-linear\", \"q_proj\"]", "`lora.targets` names `all-linear`");
        check("[lora]\ntargets = 3", "training.toml:5: `lora.targets`: expected a list of linears, or \"all-linear\"");
        check("[lora]\ntargets = []", "`lora.targets` is empty");
        check(
            "[training]\ndecay = \"cosin\"",
            "training.toml:5: `training.decay`: unknown variant `cosin` (hint: did you mean `cosine`?)",
        );
        check("held_out_fraction = 0.2", "training.toml:4: `held_out_fraction` stands beside `held_out_works`");
    }

    #[test]
    fn something_is_held_out() {
        let check = |held_out: &str, says: Result<(), &str>| {
            let text = LEAST.replace("held_out_works = [\"Meno\"]", held_out);
            match (SftConfig::parse(&text, "it"), says) {
                (Ok(_), Ok(())) => {}
                (Err(error), Err(says)) => assert!(error.to_string().contains(says), "{error}"),
                (found, _) => panic!("{found:?} is not {says:?}"),
            }
        };
        check("held_out_fraction = 0.2", Ok(()));
        check("held_out_fraction = 1.0", Err("it:3: `held_out_fraction` is 1, expected more than 0 and less than 1"));
        check("held_out_fraction = nan", Err("it:3: `held_out_fraction` is NaN"));
        check("", Err("it: `held_out_works` names no work to measure on (hint: name one, or `held_out_fraction"));
        check("held_out_works = []", Err("it:3: `held_out_works` names no work"));
    }

    #[test]
    fn all_linears_have_one_name() {
        let config = SftConfig::parse(&format!("{LEAST}[lora]\ntargets = \"all-linear\""), "it").unwrap();
        assert_eq!(config.linears().unwrap(), Linear::ALL);
        let written = toml::to_string(&config).unwrap();
        assert_eq!(SftConfig::parse(&written, "it").unwrap(), config);
    }
}
