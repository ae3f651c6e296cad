//! `elenchus adapter`: what a PEFT folder holds and whether a base can wear it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Subcommand;
use elenchus_lm::{LoraAdapter, base_model, hex};

use crate::model::{self, size};

#[derive(Debug, Subcommand)]
pub enum AdapterCommand {
    /// Show an adapter's rank, alpha, targets, sizes and hash, and whether it fits a base
    Inspect {
        /// PEFT folder: `adapter_config.json` and `adapter_model.safetensors`
        folder: PathBuf,
        /// GGUF file or Hugging Face folder to hold it against; the default model if left out and present
        #[arg(long, value_name = "FILE")]
        base: Option<PathBuf>,
    },
}

pub fn run(command: AdapterCommand) -> Result<()> {
    match command {
        AdapterCommand::Inspect { folder, base } => inspect(&folder, base),
    }
}

fn inspect(folder: &Path, base: Option<PathBuf>) -> Result<()> {
    let adapter = LoraAdapter::open(folder)?;
    let config = folder.join("adapter_config.json");
    let text = fs::read_to_string(&config).with_context(|| config.display().to_string())?;
    let config: serde_json::Value = serde_json::from_str(&text).with_context(|| config.display().to_string())?;

    let pairs = adapter.pairs();
    let ranks: BTreeSet<usize> = pairs.values().map(|pair| pair.rank).collect();
    let scalings: BTreeSet<String> = pairs.values().map(|pair| pair.scaling.to_string()).collect();
    let targets: BTreeSet<_> = pairs.keys().map(|(_, linear)| linear).collect();
    let layers: BTreeSet<_> = pairs.keys().map(|(layer, _)| layer).collect();
    let numbers: usize = pairs.values().map(|pair| pair.a.len() + pair.b.len()).sum();

    let line = |name: &str, value: String| println!("{name:<12}{value}");
    line("folder", folder.display().to_string());
    line("hash", hex(&adapter.hash()));
    line("trained on", config["base_model_name_or_path"].as_str().unwrap_or("not said").to_owned());
    line("rank", list(&ranks));
    let rslora = if config["use_rslora"] == true { ", rank-stabilised" } else { "" };
    line("alpha", format!("{} (scaling {}{rslora})", config["lora_alpha"], list(&scalings)));
    line("targets", format!("{} in {} layers", list(&targets), layers.len()));
    line("numbers", format!("{:.2} M, {} as f32", numbers as f64 / 1e6, size(numbers * size_of::<f32>())));
    let base = match base {
        Some(base) => Some(model::base_or_default(Some(base))?),
        None => base_model::find_default(),
    };
    let Some(base) = base else {
        line("fits", "not checked: there is no default model yet (hint: --base FILE)".to_owned());
        return Ok(());
    };
    adapter.check_fits(model::open(&base)?.config())?;
    line("fits", base.display().to_string());
    Ok(())
}

fn list<T: std::fmt::Display>(values: &BTreeSet<T>) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}
