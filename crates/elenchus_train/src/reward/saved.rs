//! A reward model as a folder: PEFT's two files, the head beside them, and a card that says what it is and how good.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor};
use elenchus_candle::{CandleExecutor, TrainableLora};
use elenchus_lm::{Executor, LoraAdapter, Precision, write_whole};
use serde::{Deserialize, Serialize};

use super::{Accuracy, Calibration, HEAD, RewardKind, RewardLoss, RewardModel};
use crate::{Error, Result};

const HEAD_FILE: &str = "head.safetensors";
const CARD: &str = "reward.json";

/// What a reward model is, and what it was measured to be worth; `reward.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RewardCard {
    /// What it prefers.
    pub kind: RewardKind,
    /// What it learned by: a value model predicts, the others score.
    #[serde(default)]
    pub loss: RewardLoss,
    /// What its preferences were given for, where their files say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aspect: Option<String>,
    /// Under whose prompt it reads.
    pub character: String,
    /// The base it adapts.
    pub base_name: String,
    /// That base's file.
    pub base_sha256: String,
    /// Tokens it reads at most.
    pub max_tokens: usize,
    /// Steps trained.
    pub steps: u64,
    /// Pairs trained on.
    pub pairs: usize,
    /// On works, or prompts, that it never saw.
    pub held_out: Accuracy,
    /// How much its probabilities can be believed, there as well; models of older versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// The accuracy of the number of words alone there; near 0.5, or length is part of what was learned.
    pub length_only_accuracy: f64,
    /// The same of the number of tokens.
    pub token_count_only_accuracy: f64,
    /// Trained as a control, on preferences whose sides were sampled at random: it has nothing to say.
    #[serde(default)]
    pub shuffled_labels: bool,
    /// The normalised score is `gain * score + bias`.
    pub gain: f32,
    /// See `gain`.
    pub bias: f32,
}

impl RewardCard {
    /// Reads the card of a folder that [`RewardModel::save`] wrote.
    pub fn open(folder: &Path) -> Result<Self> {
        let card = serde_json::from_slice(&read(folder, CARD)?);
        card.map_err(|error| Error::RewardModel { folder: folder.to_owned(), reason: format!("{CARD}: {error}") })
    }

    /// What a judge with this model is called.
    pub fn name(&self) -> &str {
        self.aspect.as_deref().unwrap_or(self.kind.name())
    }
}

impl RewardModel {
    /// Writes the model, f32. The card comes last: a folder with one is whole.
    pub fn save(&self, folder: &Path, card: &RewardCard) -> Result<()> {
        let fail = |name: &str| {
            let file = folder.join(name);
            move |cause: io::Error| Error::File { file, cause, hint: "" }
        };
        if let Err(cause) = fs::remove_file(folder.join(CARD))
            && cause.kind() != io::ErrorKind::NotFound
        {
            return Err(fail(CARD)(cause));
        }
        self.lora.to_adapter("reward")?.save(folder, &card.base_name, Precision::F32)?;
        // `(1, hidden_size)`, as a classifier's head lies in transformers' files.
        let head = HashMap::from([(HEAD, self.head.as_detached_tensor().t()?.contiguous()?)]);
        let bytes = safetensors::serialize(&head, None).map_err(|error| fail(HEAD_FILE)(io::Error::other(error)))?;
        write_whole(&folder.join(HEAD_FILE), &bytes).map_err(fail(HEAD_FILE))?;
        let card = RewardCard { gain: self.gain, bias: self.bias, ..card.clone() };
        let text = serde_json::to_string_pretty(&card).map_err(|error| fail(CARD)(error.into()))?;
        write_whole(&folder.join(CARD), text.as_bytes()).map_err(fail(CARD))
    }

    /// Reads a model that [`RewardModel::save`] wrote, on the base with this hash.
    ///
    /// # Errors
    /// A file that is missing or broken, or a model of another base.
    pub fn open(folder: &Path, executor: &CandleExecutor, base_sha256: &str) -> Result<(Self, RewardCard)> {
        let refuse = |reason: String| Error::RewardModel { folder: folder.to_owned(), reason };
        let card = RewardCard::open(folder)?;
        if card.base_sha256 != base_sha256 {
            return Err(refuse(format!(
                "was trained on {} ({}), not on a base with hash {base_sha256} (hint: name that base with --base, or train the model again)",
                card.base_name, card.base_sha256
            )));
        }
        if !(card.gain.is_finite() && card.bias.is_finite()) {
            return Err(refuse(format!("{CARD}: gain {} and bias {} are no numbers", card.gain, card.bias)));
        }
        let adapter = LoraAdapter::open(folder)?;
        let lora = TrainableLora::new(&adapter, executor)?;
        let tensors: HashMap<String, Tensor> =
            candle_core::safetensors::load_buffer(&read(folder, HEAD_FILE)?, &Device::Cpu)
                .map_err(|error| refuse(format!("{HEAD_FILE}: {error} (hint: train the model again)")))?;
        let hidden_size = executor.config().hidden_size;
        let head = tensors.get(HEAD).ok_or_else(|| refuse(format!("{HEAD_FILE} has no tensor `{HEAD}`")))?;
        if head.dims() != [1, hidden_size] {
            let shape = head.dims();
            return Err(refuse(format!(
                "{HEAD_FILE}: `{HEAD}` has shape {shape:?}, expected [1, {hidden_size}] (hint: trained on another base?)"
            )));
        }
        let head = head.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        if head.iter().any(|weight| !weight.is_finite()) {
            return Err(refuse(format!("{HEAD_FILE}: `{HEAD}` holds what is no number (hint: train the model again)")));
        }
        Ok((Self::new(executor, lora, &head, card.gain, card.bias)?, card))
    }
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let file: PathBuf = folder.join(name);
    fs::read(&file).map_err(|cause| Error::File {
        file,
        cause,
        hint: " (hint: name the folder `reward` of a finished `elenchus train reward`)",
    })
}
