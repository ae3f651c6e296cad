//! A language model as everything above it uses it: what computes, and how text becomes its tokens.

use std::sync::Arc;

use elenchus_lm::{ChatTemplate, Executor, Tokenizer, Weights};

use crate::{EngineSettings, Error, Result, base_model, compute};

/// A language model. A clone shares executor, tokenizer and template.
#[derive(Clone)]
pub struct Model {
    /// Token ids to logits.
    pub executor: Arc<dyn Executor>,
    /// Text to token ids and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Messages to token ids.
    pub template: Arc<ChatTemplate>,
    /// Name of the file or folder.
    pub name: String,
    /// SHA-256 of the weights, as hex digits.
    pub sha256: String,
}

impl Model {
    /// The model of some weights, run by an executor that was made from them.
    ///
    /// # Errors
    /// The file has no tokenizer or chat template that can be used.
    pub fn new(executor: Arc<dyn Executor>, weights: &Weights) -> Result<Self> {
        let path = weights.path();
        Ok(Self {
            executor,
            tokenizer: Arc::new(weights.tokenizer()?),
            template: Arc::new(weights.chat_template()?),
            name: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            sha256: weights.sha256(),
        })
    }

    /// The longest sequence that the model was made for, in tokens.
    pub fn max_tokens(&self) -> usize {
        self.executor.config().max_positions
    }
}

/// Loads the model on a thread of its own, and again on [`crate::Engine::reload`]; hears the share done, 0 to 1.
pub type ModelLoader = Arc<dyn Fn(&mut dyn FnMut(f32)) -> Result<Model> + Send + Sync>;

/// The loader for [`EngineSettings::base`]: the CPU engine for quantised numerics on a CPU, otherwise candle
/// (feature `candle`).
pub fn load_model(settings: &EngineSettings) -> ModelLoader {
    let settings = settings.clone();
    Arc::new(move |progress| {
        let path = settings.base.clone().or_else(base_model::find_default).ok_or_else(|| {
            Error::NoModel(format!(
                "{} is neither beside the program nor in the user's cache (hint: run `elenchus model fetch`, or name a \
                 model with `--base FILE` or `EngineSettings::base`)",
                base_model::DEFAULT_FILE
            ))
        })?;
        let weights = Weights::open(&path, progress)?;
        base_model::check_opened(&weights)?;
        Model::new(compute::executor(&settings, &weights)?, &weights)
    })
}
