//! A run folder's files as a report needs them. While a run continues some are absent, and a kill may have cut the last line
//! of others short: what is missing is `None` and what cannot be read is counted, so that the report can say so.

use std::{collections::BTreeMap, fs, io};

use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    Error, Result, RunFolder, Sample, SftConfig, draw::scale::grouped, eval::character_eval::RunBattery, read_character,
};

/// Everything a report says.
pub(crate) struct Facts {
    /// The character's name.
    pub character: String,
    /// The base model's name.
    pub base: Option<String>,
    /// In order, each once.
    pub steps: Vec<Step>,
    /// By step, then by what the player says, in the order of the file.
    pub samples: Vec<(u64, Vec<Sample>)>,
    /// The base's perplexity over the held-out examples that are measured during the run.
    pub measured_base: Option<f64>,
    /// Measured at the end.
    pub outcome: Option<Outcome>,
    /// Of the base and the finished adapter.
    pub battery: Option<RunBattery>,
    /// `training.toml`, read and as it was written.
    pub config: SftConfig,
    pub config_text: String,
    /// Files with lines that could not be read, and how many.
    pub unreadable: Vec<(&'static str, usize)>,
}

/// A line of `metrics.jsonl`. JSON writes what is not finite as null.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Step {
    pub step: u64,
    pub loss: Option<f64>,
    pub grad_norm: Option<f64>,
    pub learning_rate: Option<f64>,
    pub tokens: u64,
    pub targets: u64,
    pub seconds: f64,
    pub held_out_perplexity: Option<f64>,
    pub resident_bytes: Option<f64>,
}

/// `base.json`: the base over the held-out examples that are measured during the run.
#[derive(Deserialize)]
struct Base {
    perplexity: Option<f64>,
}

/// `result.json`: base and best adapter over all held-out examples.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Outcome {
    pub steps: Option<u64>,
    pub total_steps: Option<u64>,
    pub best_step: Option<u64>,
    pub perplexity: Option<f64>,
    pub base_perplexity: Option<f64>,
    pub tokens: Option<u64>,
    pub end_perplexity: Option<f64>,
    pub base_end_perplexity: Option<f64>,
}

/// Reads a run.
pub(crate) fn read(run: &RunFolder) -> Result<Facts> {
    let config_text = text(run, "training.toml")?.ok_or_else(|| Error::Run {
        folder: run.file(""),
        reason: "has no training.toml (hint: name the folder that a run was written to)".to_owned(),
    })?;
    let config = SftConfig::parse(&config_text, "training.toml")?;
    let base: Option<Base> = json(run, "base.json")?;
    let outcome: Option<Outcome> = json(run, "result.json")?;
    let (steps, cut_steps) = lines::<Step>(run, "metrics.jsonl")?;
    let (samples, cut_samples) = lines::<Sample>(run, "samples.jsonl")?;

    // A step taken twice, before and after a kill, counts as it was taken last.
    let steps: BTreeMap<u64, Step> = steps.into_iter().map(|step| (step.step, step)).collect();
    let mut by_step: BTreeMap<u64, Vec<Sample>> = BTreeMap::new();
    for sample in samples {
        let of_step = by_step.entry(sample.step).or_default();
        match of_step.iter_mut().find(|known| known.line == sample.line) {
            Some(known) => *known = sample,
            None => of_step.push(sample),
        }
    }
    let adapter: Option<AdapterConfig> = match json(run, "adapter/adapter_config.json")? {
        None => json(run, "best/adapter_config.json")?,
        adapter => adapter,
    };
    Ok(Facts {
        character: character_of(&config, run),
        base: adapter.and_then(|adapter| adapter.base_model_name_or_path),
        steps: steps.into_values().collect(),
        samples: by_step.into_iter().collect(),
        measured_base: base.and_then(|base| base.perplexity),
        outcome,
        battery: RunBattery::of(run)?,
        config,
        config_text,
        unreadable: [("metrics.jsonl", cut_steps), ("samples.jsonl", cut_samples)]
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect(),
    })
}

#[derive(Deserialize)]
struct AdapterConfig {
    base_model_name_or_path: Option<String>,
}

/// The name in the character's folder that a finished run leaves; before that `../adapters/socrates/character.toml` is
/// Socrates', and a bare `character.toml` leaves the run folder's name.
fn character_of(config: &SftConfig, run: &RunFolder) -> String {
    if let Ok(character) = read_character(&run.file("adapter/character.toml")) {
        return character.name;
    }
    let named = |path: &std::path::Path| {
        path.file_name().map(|name| name.to_string_lossy().replace('_', " ")).filter(|name| !name.is_empty())
    };
    let name = config.character.parent().and_then(named).or_else(|| named(&run.file("")));
    let name = name.unwrap_or_else(|| "A character".to_owned());
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn text(run: &RunFolder, name: &str) -> Result<Option<String>> {
    match fs::read_to_string(run.file(name)) {
        Ok(text) => Ok(Some(text)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::File { file: run.file(name), cause, hint: "" }),
    }
}

fn json<T: DeserializeOwned>(run: &RunFolder, name: &str) -> Result<Option<T>> {
    let Some(text) = text(run, name)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| Error::Run {
        folder: run.file(""),
        reason: format!("{name}: {error} (hint: delete it; the run writes it again when it ends)"),
    })
}

/// The lines that could be read, and the number of those that could not.
fn lines<T: DeserializeOwned>(run: &RunFolder, name: &str) -> Result<(Vec<T>, usize)> {
    let text = text(run, name)?.unwrap_or_default();
    let lines: Vec<Option<T>> = text.lines().map(|line| serde_json::from_str(line).ok()).collect();
    let unreadable = lines.iter().filter(|line| line.is_none()).count();
    Ok((lines.into_iter().flatten().collect(), unreadable))
}

impl Step {
    /// Tokens read in a second; evaluations are not in a step's time.
    pub(crate) fn tokens_per_second(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.tokens as f64 / self.seconds)
    }
}

/// Replies of the base beside those after a step.
pub(crate) struct Comparison<'a> {
    pub step: u64,
    /// What the player says, what the base replies and, unless that line was not asked again, what the adapter does.
    pub rows: Vec<(&'a str, &'a str, Option<&'a str>)>,
}

/// Base and best held-out perplexity, over the same replies.
pub(crate) struct Learned {
    pub base: Option<f64>,
    pub best: Option<f64>,
    pub best_step: Option<u64>,
    /// Over all held-out examples, not over those measured during the run.
    pub is_final: bool,
}

impl Facts {
    /// From `result.json`; while there is none, the best of the measures so far.
    pub(crate) fn learned(&self) -> Learned {
        if let Some(Outcome { base_perplexity: base, perplexity: best @ Some(_), best_step, .. }) = self.outcome {
            return Learned { base, best, best_step, is_final: true };
        }
        let measured = self.steps.iter().filter_map(|step| Some((step.step, step.held_out_perplexity?)));
        let best = measured.filter(|(_, value)| value.is_finite()).min_by(|a, b| a.1.total_cmp(&b.1));
        Learned {
            base: self.measured_base,
            best: best.map(|best| best.1),
            best_step: best.map(|best| best.0),
            is_final: false,
        }
    }

    pub(crate) fn last_step(&self) -> u64 {
        self.steps.last().map_or(0, |step| step.step)
    }

    pub(crate) fn tokens(&self) -> u64 {
        self.steps.iter().map(|step| step.tokens).sum()
    }

    pub(crate) fn targets(&self) -> u64 {
        self.steps.iter().map(|step| step.targets).sum()
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.steps.iter().map(|step| step.seconds).sum()
    }

    pub(crate) fn median_speed(&self) -> Option<f64> {
        let mut speeds: Vec<f64> = self.steps.iter().filter_map(Step::tokens_per_second).collect();
        speeds.sort_by(f64::total_cmp);
        let middle = speeds.len() / 2;
        let upper = *speeds.get(middle)?;
        Some(if speeds.len().is_multiple_of(2) { (speeds[middle - 1] + upper) / 2.0 } else { upper })
    }

    pub(crate) fn peak_bytes(&self) -> Option<f64> {
        self.steps.iter().filter_map(|step| step.resident_bytes).max_by(f64::total_cmp)
    }

    /// Replies of the base, and after the best step or, where that has none, the newest.
    pub(crate) fn comparison(&self) -> Option<Comparison<'_>> {
        let (_, before) = self.samples.first().filter(|(step, _)| *step == 0)?;
        let trained = &self.samples[1..];
        let best = self.learned().best_step;
        let (step, after) = trained.iter().find(|(step, _)| Some(*step) == best).or(trained.last())?;
        let reply = |line: &str| after.iter().find(|sample| sample.line == line).map(|sample| sample.reply.as_str());
        let rows = before.iter().map(|base| (base.line.as_str(), base.reply.as_str(), reply(&base.line))).collect();
        Some(Comparison { step: *step, rows })
    }

    /// What a reader should know before trusting the numbers.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.steps.is_empty() {
            notes.push("No step was taken yet.".to_owned());
        } else if self.outcome.is_none() {
            notes.push(format!(
                "The run has not ended: this is its state after step {}.",
                grouped(self.last_step() as f64, 0)
            ));
        }
        if let Some(Outcome { steps: Some(steps), total_steps: Some(total), .. }) = self.outcome
            && steps < total
        {
            notes.push(format!("The run ended after step {steps} of {total}, for it had stopped getting better."));
        }
        let odd = self.steps.iter().filter(|step| {
            [step.loss, step.grad_norm, step.learning_rate].iter().any(|value| !value.is_some_and(f64::is_finite))
        });
        let odd: Vec<String> = odd.map(|step| step.step.to_string()).collect();
        if let Some(first) = odd.first() {
            let steps = if odd.len() == 1 {
                format!("step {first}")
            } else {
                format!("{} steps, the first being {first}", odd.len())
            };
            notes.push(format!("Loss, gradient norm or learning rate is not finite at {steps}; plots leave that out."));
        }
        for (file, count) in &self.unreadable {
            notes.push(if *count == 1 {
                format!("One line of {file} could not be read and is left out.")
            } else {
                format!("{count} lines of {file} could not be read and are left out.")
            });
        }
        notes
    }

    /// The shape of the adapter and of its training, a fact an entry.
    pub(crate) fn settings(&self) -> Vec<String> {
        let (lora, training) = (&self.config.lora, &self.config.training);
        let epochs = if training.epochs == 1 { "1 epoch".to_owned() } else { format!("{} epochs", training.epochs) };
        vec![
            format!("LoRA rank {}, alpha {} on {}", lora.rank, lora.alpha, lora.targets.join(", ")),
            format!("{epochs} in batches of {}, {} tokens an example at most", training.batch, training.max_tokens),
            format!("learning rate {:e}", training.learning_rate),
            format!("seed {}", training.seed),
        ]
    }
}
