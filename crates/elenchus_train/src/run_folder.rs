//! A run is a folder: its configuration, `metrics.jsonl`, `samples.jsonl`, the newest checkpoint, and the adapter.
//!
//! Whatever is replaced is written beside itself first and renamed, so that a run killed at any moment loses at most one
//! checkpoint interval.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor};
use elenchus_lm::write_whole;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{Error, Result, Sample};

const CONFIG: &str = "training.toml";
pub(crate) const METRICS: &str = "metrics.jsonl";
pub(crate) const SAMPLES: &str = "samples.jsonl";
const LOCK: &str = ".lock";
const CHECKPOINT: &str = "checkpoint.safetensors";
const STEP: &str = "step";
const STATE: &str = "state";
const BEST_STEP: &str = "best_step";
const BEST_PERPLEXITY: &str = "best_perplexity";

/// One run's files.
#[derive(Debug)]
pub struct RunFolder {
    folder: PathBuf,
}

/// What a run resumes from.
pub(crate) struct Checkpoint {
    /// Steps taken.
    pub step: u64,
    /// Variables and optimiser state by name, and the best variables so far.
    pub tensors: HashMap<String, Tensor>,
    /// The step of the best variables and their held-out perplexity.
    pub best: Option<(u64, f64)>,
    /// What else the run has to know.
    pub state: Value,
}

impl Checkpoint {
    /// A checkpoint of a run that keeps no best variables.
    pub(crate) fn new(step: u64, tensors: HashMap<String, Tensor>, state: &impl Serialize) -> Result<Self> {
        let state = serde_json::to_value(state).map_err(|error| Error::OptimiserState(error.to_string()))?;
        Ok(Self { step, tensors, best: None, state })
    }

    /// What else the run has to know, as it was given.
    pub(crate) fn state<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(self.state.clone())
            .map_err(|error| Error::OptimiserState(format!("the checkpoint's state is {}: {error}", self.state)))
    }
}

impl RunFolder {
    /// Opens a run, or makes it. A folder that was started with another configuration is refused.
    pub fn open(folder: &Path, config: &str) -> Result<Self> {
        let run = Self { folder: folder.to_owned() };
        fs::create_dir_all(folder).map_err(|cause| run.fail("", cause))?;
        match fs::read_to_string(run.file(CONFIG)) {
            Ok(known) if known == config => {}
            Ok(_) => {
                let reason =
                    "was started with another configuration (hint: name another --out, or restore its training.toml)";
                return Err(Error::Run { folder: run.folder, reason: reason.to_owned() });
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => run.write(CONFIG, config.as_bytes())?,
            Err(cause) => return Err(run.fail(CONFIG, cause)),
        }
        Ok(run)
    }

    /// A file or folder of the run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Replaces a file as a whole.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        write_whole(&self.file(name), bytes).map_err(|cause| self.fail(name, cause))
    }

    /// Keeps the run to one process until the file is dropped, or the process is gone.
    pub(crate) fn lock(&self) -> Result<File> {
        let file = File::create(self.file(LOCK)).map_err(|cause| self.fail(LOCK, cause))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                let reason = "is being trained by another process (hint: wait for it, or name another --out)";
                Err(Error::Run { folder: self.folder.clone(), reason: reason.to_owned() })
            }
            Err(TryLockError::Error(cause)) => Err(self.fail(LOCK, cause)),
        }
    }

    /// Appends a line to a file of JSON Lines.
    pub(crate) fn append(&self, name: &str, line: &impl Serialize) -> Result<()> {
        let append = || {
            let mut file = OpenOptions::new().create(true).append(true).open(self.file(name))?;
            file.write_all(format!("{}\n", serde_json::to_string(line)?).as_bytes())
        };
        append().map_err(|cause| self.fail(name, cause))
    }

    /// Replaces a file of JSON Lines as a whole.
    pub(crate) fn write_lines(&self, name: &str, lines: &[impl Serialize]) -> Result<()> {
        let line = |line| serde_json::to_string(line).map(|line| line + "\n");
        let text: String =
            lines.iter().map(line).collect::<Result<_, _>>().map_err(|cause| self.fail(name, cause.into()))?;
        self.write(name, text.as_bytes())
    }

    /// The metrics logged so far. A line that a kill cut short is left out.
    pub fn metrics<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        self.lines(METRICS)
    }

    /// The samples taken so far.
    pub fn samples(&self) -> Result<Vec<Sample>> {
        self.lines(SAMPLES)
    }

    /// The lines of a file that can be read; what a kill cut short is left out.
    pub fn lines<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>> {
        Ok(self.text(name)?.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Forgets lines of steps that a resumed run takes again, and a line that a kill cut short.
    pub(crate) fn keep_lines<T: DeserializeOwned>(&self, name: &str, keep: impl Fn(&T) -> bool) -> Result<()> {
        let text = self.text(name)?;
        // Lines are kept as they were written: a number that is read and written again may change its last digit.
        let kept = text.split_inclusive('\n').filter(|line| serde_json::from_str(line).is_ok_and(|line| keep(&line)));
        self.write(name, kept.collect::<String>().as_bytes())
    }

    fn text(&self, name: &str) -> Result<String> {
        match fs::read_to_string(self.file(name)) {
            Ok(text) => Ok(text),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(cause) => Err(self.fail(name, cause)),
        }
    }

    /// Replaces a file as a whole.
    pub(crate) fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(|error| self.fail(name, error.into()))?;
        self.write(name, text.as_bytes())
    }

    /// What was once written as JSON; `None` if the file is not there or does not hold it.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        Ok(serde_json::from_str(&self.text(name)?).ok())
    }

    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        match fs::remove_file(self.file(name)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(self.fail(name, cause)),
            _ => Ok(()),
        }
    }

    pub(crate) fn save_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let mut metadata = HashMap::from([(STEP.to_owned(), checkpoint.step.to_string())]);
        if !checkpoint.state.is_null() {
            metadata.insert(STATE.to_owned(), checkpoint.state.to_string());
        }
        if let Some((step, perplexity)) = checkpoint.best {
            metadata.insert(BEST_STEP.to_owned(), step.to_string());
            metadata.insert(BEST_PERPLEXITY.to_owned(), perplexity.to_string());
        }
        let bytes = safetensors::serialize(&checkpoint.tensors, Some(metadata))
            .map_err(|error| self.fail(CHECKPOINT, io::Error::other(error)))?;
        self.write(CHECKPOINT, &bytes)
    }

    pub(crate) fn load_checkpoint(&self) -> Result<Option<Checkpoint>> {
        let path = self.file(CHECKPOINT);
        if !path.is_file() {
            return Ok(None);
        }
        let bytes = fs::read(&path).map_err(|cause| self.fail(CHECKPOINT, cause))?;
        let broken =
            |error: String| Error::Run { folder: self.folder.clone(), reason: format!("{CHECKPOINT}: {error}") };
        let (_, metadata) =
            safetensors::SafeTensors::read_metadata(&bytes).map_err(|error| broken(error.to_string()))?;
        let text = |name: &str| metadata.metadata().as_ref().and_then(|metadata| metadata.get(name));
        let step = text(STEP).and_then(|text| text.parse().ok());
        let step = step.ok_or_else(|| broken("does not say its step (hint: delete it to start over)".to_owned()))?;
        let best = text(BEST_STEP).zip(text(BEST_PERPLEXITY));
        let best = best.and_then(|(step, perplexity)| Some((step.parse().ok()?, perplexity.parse().ok()?)));
        let state = text(STATE).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
        Ok(Some(Checkpoint { step, tensors, best, state }))
    }

    fn fail(&self, name: &str, cause: io::Error) -> Error {
        Error::File { file: self.file(name), cause, hint: "" }
    }
}
