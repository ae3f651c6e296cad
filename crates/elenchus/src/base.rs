//! Opens a base model, in the same way for training and measuring.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
    thread::available_parallelism,
};

use anyhow::{Result, bail};
use elenchus_candle::{CandleExecutor, open_device};
use elenchus_dialogue::{Character, Model};
use elenchus_lm::{Adapter, ComputeDevice, CpuExecutor, CpuSettings, Executor, LoraAdapter, Numerics, Weights};
use elenchus_train::{
    Example,
    data::Pair,
    examples,
    judge::{JudgeContext, Judges, WeightedJudgeSettings},
};

use crate::{model, output::note};

/// A base as a game runs it: on all cores, or on a GPU.
pub fn open_model(base: Option<PathBuf>, device: ComputeDevice) -> Result<Model> {
    let weights = model::open(&model::base_or_default(base)?)?;
    let executor: Arc<dyn Executor> = match device {
        ComputeDevice::Cpu => Arc::new(cpu_engine(&weights)?),
        ComputeDevice::Cuda(_) => Arc::new(CandleExecutor::new(&weights, &open_device(device)?, Numerics::Exact)?),
    };
    Ok(Model::new(executor, &weights)?)
}

fn cpu_engine(weights: &Weights) -> Result<CpuExecutor> {
    let threads = available_parallelism().map_or(1, usize::from);
    Ok(CpuExecutor::new(weights, CpuSettings { threads, ..CpuSettings::default() })?)
}

/// An adapter that fits a model, at a character's scale, ready for its first reply.
pub fn prepared(model: &Model, lora: Option<LoraAdapter>, scale: f32) -> Result<Option<Adapter>> {
    let Some(lora) = lora else { return Ok(None) };
    lora.check_fits(model.executor.config())?;
    let adapter = Adapter::new(Arc::new(scaled(lora, scale)?));
    model.executor.prepare(&adapter)?;
    Ok(Some(adapter))
}

/// An adapter at a character's scale.
pub fn scaled(lora: LoraAdapter, scale: f32) -> Result<LoraAdapter> {
    Ok(if scale == 1.0 { lora } else { LoraAdapter::merge("scaled", &[(&lora, scale)])? })
}

/// The adapter of a character's folder, or the one named in its place, and its folder's name for people; nothing if
/// `none` is named or the folder holds no adapter.
pub fn own_adapter(folder: &Path, named: Option<&Path>) -> Result<(Option<String>, Option<LoraAdapter>)> {
    let folder = match named {
        Some(named) if named.as_os_str() == "none" => return Ok((None, None)),
        Some(named) => named,
        None if ADAPTER_FILES.iter().any(|file| folder.join(file).exists()) => folder,
        None => return Ok((None, None)),
    };
    let working = env::current_dir().ok();
    let shown = working.and_then(|working| folder.strip_prefix(working).ok()).unwrap_or(folder);
    Ok((Some(shown.display().to_string()), Some(LoraAdapter::open(folder)?)))
}

/// Either file makes a folder an adapter's; one without the other is an error.
const ADAPTER_FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// A base that adapters are trained on.
pub struct TrainingBase {
    /// In training numerics.
    pub executor: Arc<CandleExecutor>,
    /// Prompts, and speaks if it was opened for that.
    pub model: Model,
}

impl TrainingBase {
    /// To train and measure: its model runs in training numerics as well.
    pub fn open(base: Option<PathBuf>, numerics: Numerics, device: ComputeDevice) -> Result<Self> {
        Ok(Self::open_weights(base, numerics, device)?.0)
    }

    /// To speak too, as a game does: with the CPU engine, or on a GPU with what it trains with.
    pub fn open_speaking(base: Option<PathBuf>, numerics: Numerics, device: ComputeDevice) -> Result<Self> {
        let (mut this, weights) = Self::open_weights(base, numerics, device)?;
        if device == ComputeDevice::Cpu {
            this.model.executor = Arc::new(cpu_engine(&weights)?);
        }
        Ok(this)
    }

    fn open_weights(base: Option<PathBuf>, numerics: Numerics, device: ComputeDevice) -> Result<(Self, Arc<Weights>)> {
        let weights = model::open(&model::base_or_default(base)?)?;
        let executor = Arc::new(CandleExecutor::new(&weights, &open_device(device)?, numerics)?);
        note(&format!("base weights: {} in memory", model::size(executor.weight_bytes())));
        let model = Model::new(executor.clone(), &weights)?;
        Ok((Self { executor, model }, weights))
    }

    /// The judges that a configuration file names.
    pub fn judges(&self, judges: &[WeightedJudgeSettings], file: &Path, character: &Character) -> Result<Judges> {
        let context = JudgeContext {
            folder: file.parent().unwrap_or(Path::new(".")),
            executor: self.executor.clone(),
            model: self.model.clone(),
            character: Arc::new(character.clone()),
            variable: &|name| env::var(name).ok(),
        };
        Ok(WeightedJudgeSettings::open_all(judges, &context)?)
    }

    pub fn examples(&self, pairs: &[Pair], character: &Character, max_tokens: usize) -> Result<Vec<Example>> {
        let examples = examples(pairs, character, &self.model, max_tokens)?;
        if examples.len() < pairs.len() {
            let left_out = pairs.len() - examples.len();
            note(&format!("left out: {left_out} pairs whose prompt alone has {max_tokens} tokens or more"));
        }
        if examples.is_empty() {
            bail!("no pair fits {max_tokens} tokens (hint: raise the limit)");
        }
        Ok(examples)
    }
}
