//! A run is a folder: its configuration, `metrics.jsonl`, the newest checkpoint, and the adapter.
//!
//! Whatever is replaced is written beside itself first and renamed, so that a run killed at any moment loses at most one
//! checkpoint interval.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result};

const CONFIG: &str = "training.toml";
const METRICS: &str = "metrics.jsonl";
const CHECKPOINT: &str = "checkpoint.safetensors";
const STEP: &str = "step";

/// One run's files.
#[derive(Debug)]
pub struct RunFolder {
    folder: PathBuf,
}

/// What a resumed run goes on from.
pub(crate) struct Checkpoint {
    /// Steps taken.
    pub step: u64,
    /// Variables and optimiser state by name.
    pub tensors: HashMap<String, Tensor>,
}

impl RunFolder {
    /// Opens a run, or makes it. A folder that was started with another configuration is refused.
    pub fn open(folder: &Path, config: &str) -> Result<Self> {
        let run = Self { folder: folder.to_owned() };
        fs::create_dir_all(folder).map_err(|cause| run.fail(cause))?;
        match fs::read_to_string(run.file(CONFIG)) {
            Ok(known) if known == config => {}
            Ok(_) => {
                let reason =
                    "was started with another configuration (hint: name another --out, or restore its training.toml)";
                return Err(Error::Run { folder: run.folder, reason: reason.to_owned() });
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => run.write(CONFIG, config.as_bytes())?,
            Err(cause) => return Err(run.fail(cause)),
        }
        Ok(run)
    }

    /// A file or folder of the run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Replaces a file as a whole.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let write = || {
            let mut file = tempfile::Builder::new().prefix(".run-").suffix(".tmp").tempfile_in(&self.folder)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(self.file(name)).map(drop).map_err(|error| error.error)
        };
        write().map_err(|cause| self.fail(cause))
    }

    /// Appends a line to the metrics.
    pub(crate) fn log(&self, line: &impl Serialize) -> Result<()> {
        let append = || {
            let mut file = OpenOptions::new().create(true).append(true).open(self.file(METRICS))?;
            file.write_all(format!("{}\n", serde_json::to_string(line)?).as_bytes())
        };
        append().map_err(|cause| self.fail(cause))
    }

    /// The metrics logged so far. A line that a kill cut short is left out.
    pub fn metrics<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        Ok(self.metrics_text()?.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Forgets metrics of steps that a resumed run takes again, and a line that a kill cut short.
    pub(crate) fn keep_metrics<T: DeserializeOwned>(&self, keep: impl Fn(&T) -> bool) -> Result<()> {
        let text = self.metrics_text()?;
        // Lines are kept as they were written: a number that is read and written again may change its last digit.
        let kept = text.split_inclusive('\n').filter(|line| serde_json::from_str(line).is_ok_and(|line| keep(&line)));
        self.write(METRICS, kept.collect::<String>().as_bytes())
    }

    fn metrics_text(&self) -> Result<String> {
        match fs::read_to_string(self.file(METRICS)) {
            Ok(text) => Ok(text),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(cause) => Err(self.fail(cause)),
        }
    }

    pub(crate) fn save_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let metadata = HashMap::from([(STEP.to_owned(), checkpoint.step.to_string())]);
        let bytes = safetensors::serialize(&checkpoint.tensors, Some(metadata))
            .map_err(|error| self.fail(io::Error::other(error)))?;
        self.write(CHECKPOINT, &bytes)
    }

    pub(crate) fn load_checkpoint(&self) -> Result<Option<Checkpoint>> {
        let path = self.file(CHECKPOINT);
        if !path.is_file() {
            return Ok(None);
        }
        let mut head = Vec::new();
        let read = File::open(&path).and_then(|mut file| io::Read::read_to_end(&mut file, &mut head));
        read.map_err(|cause| self.fail(cause))?;
        let broken =
            |error: String| Error::Run { folder: self.folder.clone(), reason: format!("{CHECKPOINT}: {error}") };
        let (_, metadata) =
            safetensors::SafeTensors::read_metadata(&head).map_err(|error| broken(error.to_string()))?;
        let step = metadata.metadata().as_ref().and_then(|metadata| metadata.get(STEP)?.parse().ok());
        let step = step.ok_or_else(|| broken("does not say its step (hint: delete it to start over)".to_owned()))?;
        let tensors = candle_core::safetensors::load_buffer(&head, &Device::Cpu)?;
        Ok(Some(Checkpoint { step, tensors }))
    }

    fn fail(&self, cause: io::Error) -> Error {
        Error::File { file: self.folder.clone(), cause, hint: "" }
    }
}
