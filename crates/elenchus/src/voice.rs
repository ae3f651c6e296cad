//! A base model, opened in one way for whoever trains and whoever measures.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
    thread::available_parallelism,
};

use anyhow::{Result, bail};
use elenchus_dialogue::Character;
use elenchus_lm::{
    Adapter, CandleExecutor, ChatTemplate, ComputeDevice, CpuExecutor, CpuSettings, Executor, LoraAdapter, Numerics,
    Tokenizer, Weights,
};
use elenchus_train::{
    Example,
    data::Pair,
    examples,
    judge::{JudgeContext, Panel, SeatSettings},
};

use crate::{model, output::note};

/// A base that only speaks: as a game runs it, and nothing to train with.
pub struct SpeakingBase {
    pub weights: Arc<Weights>,
    pub engine: Arc<dyn Executor + Sync>,
    pub tokenizer: Arc<Tokenizer>,
    pub template: Arc<ChatTemplate>,
}

impl SpeakingBase {
    pub fn open(base: Option<PathBuf>, device: ComputeDevice) -> Result<Self> {
        let weights = model::open(&model::base_or_default(base)?)?;
        // The game's own engine where there is one.
        let engine: Arc<dyn Executor + Sync> = match device {
            ComputeDevice::Cpu => cpu_engine(&weights)?,
            ComputeDevice::Cuda(_) => Arc::new(CandleExecutor::new(&weights, &device.open()?, Numerics::Exact)?),
        };
        let (tokenizer, template) = (Arc::new(weights.tokenizer()?), Arc::new(weights.chat_template()?));
        Ok(Self { weights, engine, tokenizer, template })
    }

    /// What a character wears, if it fits.
    pub fn adapter(&self, lora: Option<LoraAdapter>, scale: f32) -> Result<Option<Adapter>> {
        let Some(lora) = lora else { return Ok(None) };
        lora.check_fits(self.weights.config())?;
        let adapter = Adapter::new(Arc::new(scaled(lora, scale)?));
        self.engine.prepare(&adapter)?;
        Ok(Some(adapter))
    }
}

/// An adapter at the strength a character wears it.
pub fn scaled(lora: LoraAdapter, scale: f32) -> Result<LoraAdapter> {
    Ok(if scale == 1.0 { lora } else { LoraAdapter::merge("scaled", &[(&lora, scale)])? })
}

/// The adapter of a character's folder, or the one named in its place, and its folder's name for people; nothing where
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

/// Either of them makes a folder an adapter's; one without the other is an error.
const ADAPTER_FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// The base as a game runs it, on all cores.
fn cpu_engine(weights: &Weights) -> Result<Arc<dyn Executor + Sync>> {
    let threads = available_parallelism().map_or(1, usize::from);
    Ok(Arc::new(CpuExecutor::new(weights, CpuSettings { threads, ..CpuSettings::default() })?))
}

/// A base model and what it takes to prompt it.
pub struct Voice {
    pub weights: Arc<Weights>,
    pub executor: Arc<CandleExecutor>,
    pub tokenizer: Arc<Tokenizer>,
    pub template: Arc<ChatTemplate>,
}

impl Voice {
    pub fn open(base: Option<PathBuf>, numerics: Numerics, device: ComputeDevice) -> Result<Self> {
        let weights = model::open(&model::base_or_default(base)?)?;
        let executor = CandleExecutor::new(&weights, &device.open()?, numerics)?;
        note(&format!("base weights: {} in memory", model::size(executor.weight_bytes())));
        let (tokenizer, template) = (Arc::new(weights.tokenizer()?), Arc::new(weights.chat_template()?));
        Ok(Self { tokenizer, template, executor: Arc::new(executor), weights })
    }

    /// The base as a game runs it, on all cores.
    pub fn engine(&self) -> Result<Arc<dyn Executor + Sync>> {
        cpu_engine(&self.weights)
    }

    /// The same base, speaking through an engine.
    pub fn speaking(&self, engine: Arc<dyn Executor + Sync>) -> SpeakingBase {
        let Self { weights, tokenizer, template, .. } = self;
        SpeakingBase { weights: weights.clone(), engine, tokenizer: tokenizer.clone(), template: template.clone() }
    }

    /// The judges that a configuration file names.
    pub fn judges(
        &self,
        judges: &[SeatSettings],
        file: &Path,
        engine: &Arc<dyn Executor + Sync>,
        character: &Character,
    ) -> Result<Panel> {
        let context = JudgeContext {
            folder: file.parent().unwrap_or(Path::new(".")),
            executor: self.executor.clone(),
            engine: engine.clone(),
            tokenizer: self.tokenizer.clone(),
            template: self.template.clone(),
            character: Arc::new(character.clone()),
            base_sha256: &self.weights.sha256(),
            variable: &|name| env::var(name).ok(),
        };
        Ok(SeatSettings::open_all(judges, &context)?)
    }

    pub fn examples(&self, pairs: &[Pair], character: &Character, max_tokens: usize) -> Result<Vec<Example>> {
        let examples = examples(pairs, character, &self.tokenizer, &self.template, max_tokens)?;
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
