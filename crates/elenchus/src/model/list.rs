//! `elenchus model list`: the models that are there, and what they need.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use elenchus_dialogue::{EngineSettings, base_model};
use elenchus_lm::{ModelSummary, Weights, machine_memory};
use serde_json::{Value, json};

use super::{fetch::hub, size};
use crate::output::print;

/// A model that was found.
struct Found {
    /// As `--base` takes it.
    name: String,
    path: PathBuf,
    is_default: bool,
    summary: elenchus_lm::Result<ModelSummary>,
}

pub fn run(as_json: bool) -> Result<()> {
    let found = find();
    let memory = machine_memory();
    if as_json {
        let models: Vec<Value> =
            found.iter().map(|model| model.to_json(memory.map(|memory| memory.available))).collect();
        let report = json!({
            "folders": base_model::folders(),
            "memory_bytes": memory.map(|memory| memory.total),
            "available_memory_bytes": memory.map(|memory| memory.available),
            "models": models,
        });
        return print(&format!("{}\n", serde_json::to_string_pretty(&report)?));
    }
    for model in &found {
        print(&format!("{}{}\n", model.name, if model.is_default { "  (default)" } else { "" }))?;
        print(&format!("    {}\n", model.described(memory.map(|memory| memory.available))))?;
    }
    if !found.iter().any(|model| model.is_default) {
        print("The default model is not there yet: `elenchus model fetch` fetches it.\n")?;
    }
    if let Some(memory) = memory {
        let (available, total) = (size(memory.available as usize), size(memory.total as usize));
        print(&format!("This machine has {available} of {total} memory available.\n"))?;
    }
    let folders: Vec<String> = base_model::folders().iter().map(|folder| folder.display().to_string()).collect();
    print(&format!("Searched: {}\n", folders.join(", ")))
}

/// GGUF files and model folders where the default model is searched, then models of the hub.
fn find() -> Vec<Found> {
    let default = base_model::find_default();
    let mut found = Vec::new();
    for folder in base_model::folders() {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| is_model(path)).collect();
        paths.sort();
        found.extend(paths.into_iter().map(|path| {
            let is_default = Some(&path) == default.as_ref();
            Found { name: path.display().to_string(), is_default, summary: Weights::summary(&path), path }
        }));
    }
    // Without a cache there are none of the hub.
    let cached = hub().map(|hub| hub.cached()).unwrap_or_default();
    found.extend(cached.into_iter().map(|model| {
        let summary = Weights::summary(&model.path);
        Found { name: model.name, path: model.path, is_default: false, summary }
    }));
    found
}

/// A GGUF file, of a split one the first part, or a folder as Hugging Face holds a model.
fn is_model(path: &Path) -> bool {
    if path.is_dir() {
        return path.join("config.json").is_file();
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let part = name.rsplit_once("-of-").and_then(|(rest, _)| rest.rsplit_once('-')).map(|(_, no)| no.to_owned());
    name.ends_with(".gguf") && part.and_then(|no| no.parse::<usize>().ok()).is_none_or(|no| no == 1)
}

impl Found {
    /// Bytes that a game's engine takes: the weights as it packs them, and the most that conversations take.
    fn memory(&self) -> Option<(u64, u64)> {
        let summary = self.summary.as_ref().ok()?;
        Some((summary.packed_bytes as u64, EngineSettings::default().kv_budget as u64))
    }

    /// Whether it fits what is available; unknown where the system does not say.
    fn fits(&self, available: Option<u64>) -> Option<bool> {
        let (weights, conversations) = self.memory()?;
        Some(weights + conversations <= available?)
    }

    fn described(&self, available: Option<u64>) -> String {
        let summary = match &self.summary {
            Ok(summary) => summary,
            Err(error) => return format!("cannot be used: {error}"),
        };
        let (weights, conversations) = self.memory().unwrap_or_default();
        let fits = match self.fits(available) {
            Some(true) => "fits",
            Some(false) => "does not fit what is available",
            None => "whether it fits is not known on this system",
        };
        format!(
            "{}, {:.0} M parameters, {}, {}; memory {} ({} weights, up to {} conversations): {fits}",
            summary.architecture,
            summary.parameters as f64 / 1e6,
            summary.block_type,
            size(summary.file_bytes),
            size((weights + conversations) as usize),
            size(weights as usize),
            size(conversations as usize),
        )
    }

    fn to_json(&self, available: Option<u64>) -> Value {
        let mut json = json!({ "name": self.name, "path": self.path, "default": self.is_default });
        let summary = match &self.summary {
            Ok(summary) => summary,
            Err(error) => {
                json["error"] = error.to_string().into();
                return json;
            }
        };
        let (weights, conversations) = self.memory().unwrap_or_default();
        json["architecture"] = summary.architecture.into();
        json["parameters"] = summary.parameters.into();
        json["quantisation"] = summary.block_type.to_string().into();
        json["file_bytes"] = summary.file_bytes.into();
        json["context_tokens"] = summary.max_positions.into();
        json["weight_memory_bytes"] = weights.into();
        json["conversation_memory_bytes"] = conversations.into();
        json["memory_bytes"] = (weights + conversations).into();
        json["fits"] = self.fits(available).into();
        json
    }
}
