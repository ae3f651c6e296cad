//! `elenchus adapter`: inspects, compares and merges adapters, and converts them for other engines and back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use elenchus_dialogue::base_model;
use elenchus_lm::{Linear, LoraAdapter, LoraDiff, Overlap, Precision, hex};

use crate::{
    model::{self, size},
    output::{note, print},
};

#[derive(Debug, Subcommand)]
pub enum AdapterCommand {
    /// Show an adapter's rank, alpha, targets, sizes and hash, and whether it fits a base
    Inspect {
        /// PEFT folder: `adapter_config.json` and `adapter_model.safetensors`
        folder: PathBuf,
        /// GGUF file, Hugging Face folder or `hf:OWNER/REPO[/FILE]` to check it against; the default model if left out and present
        #[arg(long, value_name = "FILE")]
        base: Option<PathBuf>,
    },
    /// Write an adapter as the GGUF file that llama.cpp loads with `--lora`
    Export {
        /// PEFT folder
        folder: PathBuf,
        /// File to write
        #[arg(long, value_name = "FILE")]
        gguf: PathBuf,
        /// GGUF file, Hugging Face folder or `hf:OWNER/REPO[/FILE]` it was trained on; the default model if left out
        #[arg(long, value_name = "FILE")]
        base: Option<PathBuf>,
        #[command(flatten)]
        precision: PrecisionArg,
    },
    /// Turn an adapter's GGUF file back into a PEFT folder
    Import {
        /// GGUF file of an adapter
        gguf: PathBuf,
        /// PEFT folder to write
        out: PathBuf,
        /// GGUF file, Hugging Face folder or `hf:OWNER/REPO[/FILE]` it was trained on; the default model if left out
        #[arg(long, value_name = "FILE")]
        base: Option<PathBuf>,
        #[command(flatten)]
        precision: PrecisionArg,
    },
    /// Mix adapters into one whose update is exactly the weighted sum of theirs; ranks add up
    Merge {
        /// PEFT folder to write
        out: PathBuf,
        /// PEFT folders, each with its weight; 1 if left out
        #[arg(value_name = "DIR[=WEIGHT]", required = true, value_parser = weighted)]
        parts: Vec<Weighted>,
        #[command(flatten)]
        precision: PrecisionArg,
    },
    /// Show the distance between the updates of two adapters, by linear
    Diff {
        /// PEFT folder
        first: PathBuf,
        /// PEFT folder to compare the first with
        second: PathBuf,
        /// One JSON object, with every layer
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Copy, Args)]
pub struct PrecisionArg {
    /// Write four bytes a weight, as training holds them, instead of two (f16)
    #[arg(long)]
    f32: bool,
}

/// A folder and its weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighted {
    folder: PathBuf,
    weight: f32,
}

impl From<PrecisionArg> for Precision {
    fn from(arg: PrecisionArg) -> Self {
        if arg.f32 { Self::F32 } else { Self::F16 }
    }
}

pub fn run(command: AdapterCommand) -> Result<()> {
    match command {
        AdapterCommand::Inspect { folder, base } => inspect(&folder, base),
        AdapterCommand::Export { folder, gguf, base, precision } => export(&folder, &gguf, base, precision.into()),
        AdapterCommand::Import { gguf, out, base, precision } => import(&gguf, &out, base, precision.into()),
        AdapterCommand::Merge { out, parts, precision } => merge(&out, &parts, precision.into()),
        AdapterCommand::Diff { first, second, json } => diff(&first, &second, json),
    }
}

fn inspect(folder: &Path, base: Option<PathBuf>) -> Result<()> {
    let adapter = LoraAdapter::open(folder)?;
    let config = config(folder)?;

    let pairs = adapter.pairs();
    let ranks: BTreeSet<usize> = pairs.values().map(|pair| pair.rank).collect();
    let scalings: BTreeSet<String> = pairs.values().map(|pair| pair.scaling.to_string()).collect();
    let targets: BTreeSet<_> = pairs.keys().map(|(_, linear)| linear).collect();
    let layers: BTreeSet<_> = pairs.keys().map(|(layer, _)| layer).collect();
    let numbers = adapter.num_parameters();

    line("folder", folder.display().to_string())?;
    line("hash", hex(&adapter.hash()))?;
    line("trained on", trained_on(&config).unwrap_or("unknown").to_owned())?;
    line("rank", list(&ranks))?;
    let rslora = if config["use_rslora"] == true { ", rank-stabilised" } else { "" };
    line("alpha", format!("{} (scaling {}{rslora})", config["lora_alpha"], list(&scalings)))?;
    line("targets", format!("{} in {} layers", list(&targets), layers.len()))?;
    line("numbers", format!("{:.2} M, {} as f32", numbers as f64 / 1e6, size(numbers * size_of::<f32>())))?;
    let base = match base {
        Some(base) => Some(model::base_or_default(Some(base))?),
        None => base_model::find_default(),
    };
    let Some(base) = base else {
        return line("fits", "not checked: there is no default model yet (hint: --base FILE)".to_owned());
    };
    adapter.check_fits(model::open(&base)?.config())?;
    line("fits", base.display().to_string())
}

fn export(folder: &Path, gguf: &Path, base: Option<PathBuf>, precision: Precision) -> Result<()> {
    let adapter = LoraAdapter::open(folder)?;
    let base = model::base_or_default(base)?;
    ensure!(
        !same_file(gguf, &base),
        "{} is the base model itself (hint: --gguf names the adapter's file)",
        gguf.display()
    );
    adapter.save_gguf(gguf, model::open(&base)?.config(), precision)?;
    let bytes = fs::metadata(gguf).with_context(|| gguf.display().to_string())?.len();
    line("written", format!("{}, {}, {precision:?}", gguf.display(), size(bytes as usize)))?;
    line("base", base.display().to_string())
}

fn import(gguf: &Path, out: &Path, base: Option<PathBuf>, precision: Precision) -> Result<()> {
    let base = model::base_or_default(base)?;
    let adapter = LoraAdapter::open_gguf(gguf, model::open(&base)?.config())?;
    let name = base.file_stem().unwrap_or_default().to_string_lossy();
    adapter.save(out, &name, precision)?;
    line("written", out.display().to_string())?;
    line("hash", hex(&LoraAdapter::open(out)?.hash()))
}

fn merge(out: &Path, parts: &[Weighted], precision: Precision) -> Result<()> {
    let mut adapters = Vec::with_capacity(parts.len());
    let mut bases = BTreeSet::new();
    for Weighted { folder, weight } in parts {
        let here = out.display();
        ensure!(!same_file(out, folder), "{here} is one of the adapters to merge (hint: name a new folder first)");
        adapters.push((LoraAdapter::open(folder)?, *weight));
        bases.extend(trained_on(&config(folder)?).map(str::to_owned));
    }
    let weighted: Vec<(&LoraAdapter, f32)> = adapters.iter().map(|(adapter, weight)| (adapter, *weight)).collect();
    let merged = LoraAdapter::merge(&out.display().to_string(), &weighted)?;
    // Folders and file names of one model differ; the shapes were compared.
    if bases.len() > 1 {
        note(&format!("note: the adapters name different base models: {}", list(&bases)));
    }
    merged.save(out, bases.first().map_or("", String::as_str), precision)?;
    let ranks: BTreeSet<usize> = merged.pairs().values().map(|pair| pair.rank).collect();
    line("written", out.display().to_string())?;
    line("rank", list(&ranks))?;
    line("hash", hex(&LoraAdapter::open(out)?.hash()))
}

fn diff(first: &Path, second: &Path, json: bool) -> Result<()> {
    let diff = LoraDiff::between(&LoraAdapter::open(first)?, &LoraAdapter::open(second)?)?;
    let mut linears = BTreeMap::<Linear, Overlap>::new();
    for (&(_, linear), &overlap) in &diff.overlaps {
        let sum = linears.entry(linear).or_default();
        *sum = [*sum, overlap].into_iter().sum();
    }
    if json {
        let modules = |keys: &BTreeSet<(usize, Linear)>| -> Vec<String> { keys.iter().map(module).collect() };
        let with_name = |(key, overlap): (&(usize, Linear), &Overlap)| (module(key), numbers(overlap));
        let report = serde_json::json!({
            "first": first, "second": second, "total": numbers(&diff.total()),
            "only_first": modules(&diff.only_first), "only_second": modules(&diff.only_second),
            "linears": linears.iter().map(|(linear, overlap)| (linear.to_string(), numbers(overlap)))
                .collect::<serde_json::Map<_, _>>(),
            "layers": diff.overlaps.iter().map(with_name).collect::<serde_json::Map<_, _>>(),
        });
        return print(&format!("{report}\n"));
    }
    line("first", first.display().to_string())?;
    line("second", second.display().to_string())?;
    for (name, only) in [("only first", &diff.only_first), ("only second", &diff.only_second)] {
        for linear in only.iter().map(|(_, linear)| *linear).collect::<BTreeSet<_>>() {
            let layers: BTreeSet<usize> =
                only.iter().filter(|(_, other)| *other == linear).map(|(layer, _)| *layer).collect();
            line(name, format!("{linear} in layers {}", list(&layers)))?;
        }
    }
    print(&format!(
        "\n{:<12}{:>12}{:>12}{:>14}{:>12}{:>10}\n",
        "update of", "|first|", "|second|", "|difference|", "relative", "cosine"
    ))?;
    let row = |name: &str, overlap: &Overlap| {
        let or_dash = |number: Option<f64>| number.map_or("-".to_owned(), |number| format!("{number:.4}"));
        let (first, second) = (overlap.first.sqrt(), overlap.second.sqrt());
        let (difference, relative, cosine) =
            (overlap.norm_of_difference(), or_dash(overlap.relative()), or_dash(overlap.cosine()));
        print(&format!("{name:<12}{first:>12.4}{second:>12.4}{difference:>14.4}{relative:>12}{cosine:>10}\n"))
    };
    linears.iter().try_for_each(|(linear, overlap)| row(linear.hf_name(), overlap))?;
    row("all", &diff.total())
}

fn numbers(overlap: &Overlap) -> serde_json::Value {
    serde_json::json!({
        "norm_first": overlap.first.sqrt(), "norm_second": overlap.second.sqrt(),
        "norm_difference": overlap.norm_of_difference(), "relative": overlap.relative(), "cosine": overlap.cosine(),
    })
}

fn module(&(layer, linear): &(usize, Linear)) -> String {
    format!("layers.{layer}.{}.{linear}", linear.hf_module())
}

/// `DIR` or `DIR=WEIGHT`.
fn weighted(text: &str) -> Result<Weighted> {
    let Some((folder, weight)) = text.rsplit_once('=') else {
        return Ok(Weighted { folder: text.into(), weight: 1.0 });
    };
    match weight.parse() {
        Ok(weight) if !folder.is_empty() => Ok(Weighted { folder: folder.into(), weight }),
        _ => bail!("expected DIR or DIR=WEIGHT (hint: write {text}=1 where = belongs to the folder's name)"),
    }
}

fn config(folder: &Path) -> Result<serde_json::Value> {
    let path = folder.join("adapter_config.json");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn trained_on(config: &serde_json::Value) -> Option<&str> {
    config["base_model_name_or_path"].as_str()
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn line(name: &str, value: String) -> Result<()> {
    print(&format!("{name:<12}{value}\n"))
}

fn list<T: std::fmt::Display>(values: &BTreeSet<T>) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_stands_behind_the_last_equals_sign() {
        let check = |text: &str, folder: &str, weight: f32| {
            assert_eq!(weighted(text).unwrap(), Weighted { folder: folder.into(), weight }, "{text}");
        };
        check("adapters/socrates", "adapters/socrates", 1.0);
        check("socrates=0.5", "socrates", 0.5);
        check("socrates=-1", "socrates", -1.0);
        check("lr=3e-4=1", "lr=3e-4", 1.0);
        for text in ["socrates=much", "socrates=", "=0.5"] {
            let error = weighted(text).unwrap_err().to_string();
            assert!(error.contains("DIR=WEIGHT") && error.contains(&format!("{text}=1")), "{error}");
        }
    }
}
