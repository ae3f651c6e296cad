//! `elenchus eval reward`: measures a reward model on preferences that it did not learn from.

use std::{num::NonZeroUsize, path::PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use elenchus_lm::{ComputeDevice, Numerics};
use elenchus_train::{
    Accuracy, Calibration, ExamplePair, RewardLoss, RewardModel, data::OnBroken, read_character, read_preferences,
};
use serde::Serialize;

use crate::{
    base::TrainingBase,
    characters::character_file,
    output::{note, print, say},
};

#[derive(Debug, Args)]
pub struct RewardArgs {
    /// A reward model of `elenchus train reward`
    #[arg(value_name = "DIR")]
    reward: PathBuf,
    /// Preferences that it was not trained on: JSON Lines as `train reward` reads them
    #[arg(long, required = true, value_name = "FILE", value_delimiter = ',')]
    preferences: Vec<PathBuf>,
    /// Character whose prompt replies are read under: a folder of `adapters/`, or a character.toml
    #[arg(long, value_name = "NAME", default_value = "socrates")]
    character: String,
    /// Maximum turns before a reply
    #[arg(long, value_name = "N", default_value = "4")]
    context: NonZeroUsize,
    /// Continue after a line that cannot be read
    #[arg(long)]
    skip_broken: bool,
    /// GGUF file, Hugging Face folder or `hf:OWNER/REPO[/FILE]`; the default model if left out
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// cpu, cuda, or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: ComputeDevice,
    /// Print JSON, the calibration with it
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Measured {
    accuracy: Accuracy,
    calibration: Calibration,
}

pub fn run(args: RewardArgs) -> Result<()> {
    let RewardArgs { reward, preferences: files, character, context, skip_broken, base, device, json } = args;
    let character = read_character(&character_file(&character)?)?;
    let on_broken = if skip_broken { OnBroken::Skip } else { OnBroken::Stop };
    let (preferences, broken) = read_preferences(&files, &character, context, on_broken)?;
    broken.iter().for_each(|line| note(&format!("left out: {line}")));
    let voice = TrainingBase::open(base, Numerics::Exact, device)?;
    let (model, card) = RewardModel::open(&reward, &voice.executor, &voice.model.sha256)?;
    ensure!(
        card.loss == RewardLoss::BradleyTerry,
        "{}: predicts outcomes of replies and scores none (hint: a model without `training.loss`)",
        reward.display()
    );
    let pairs = ExamplePair::all(&preferences, &character, &voice.model, card.max_tokens)?;
    ensure!(!pairs.is_empty(), "no preference has a prompt that fits the {} tokens of this model", card.max_tokens);
    let examples: Vec<_> = pairs.into_iter().flat_map(|pair| [pair.chosen, pair.rejected]).collect();
    let scores = model.scores(&voice.executor, &examples)?;
    // As training measures it: before normalisation, where the logistic of a difference is a probability.
    let raw: Vec<(f32, f32)> = scores.chunks_exact(2).map(|pair| (pair[0] / card.gain, pair[1] / card.gain)).collect();
    let measured = Measured { accuracy: Accuracy::of(raw.iter().copied()), calibration: Calibration::of(&raw) };
    if json {
        print(&(serde_json::to_string_pretty(&measured).context("the measure as JSON")? + "\n"))
    } else {
        say(&format!("accuracy: {} pairs\n", measured.accuracy));
        Ok(())
    }
}
