//! `elenchus model`: base models, and tools to compare them with other engines.

mod fetch;
mod list;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Subcommand, ValueEnum};
use elenchus_lm::{
    Adapter, BlockType, ChatTemplate, CpuExecutor, CpuSettings, Executor, Linear, Logits, LoraAdapter, Markup, Message,
    Numerics, Role, Row, TensorName, Tokenizer, Weights, gguf::Gguf,
};
use safetensors::{Dtype, tensor::TensorView};

pub use self::fetch::base_or_default;
use crate::output::print;

#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Fetch a model into the user's cache, or check the default one that is there
    Fetch {
        /// `hf:OWNER/REPO` or `hf:OWNER/REPO/FILE.gguf` of the Hugging Face hub; the default model if left out
        #[arg(value_name = "MODEL")]
        model: Option<String>,
    },
    /// List the models that are there, what they are, and whether they fit this machine's memory
    List {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write a model as a GGUF file with quantised weights, as a game ships it
    Quantize {
        /// Hugging Face folder, GGUF file in F32, F16, BF16 or Q8_0, or `hf:OWNER/REPO[/FILE]`
        #[arg(value_name = "IN")]
        input: PathBuf,
        /// The file to write
        #[arg(value_name = "OUT.gguf")]
        out: PathBuf,
        /// The block type of its matrices; the head keeps eight bits
        #[arg(long = "type", value_name = "TYPE")]
        block_type: QuantisedArg,
    },
    /// Show a model's architecture, sizes, block types, tokenizer and chat template
    Inspect {
        /// GGUF file, Hugging Face folder or `hf:OWNER/REPO[/FILE]`; the default model if left out
        #[arg(long, value_name = "FILE")]
        base: Option<PathBuf>,
    },
    /// Print a conversation as a chat template writes it
    Render {
        /// The template, in Jinja
        #[arg(long, value_name = "FILE.jinja")]
        template: PathBuf,
        /// JSON object with `messages` and what else the template reads: `add_generation_prompt`, `bos_token`, `tools`, ..
        #[arg(long, value_name = "FILE.json")]
        context: PathBuf,
    },
    /// Turn texts into token ids: a JSON list of strings to a list of lists
    Tokenize {
        /// GGUF file, also of a vocabulary alone, Hugging Face folder or `hf:OWNER/REPO[/FILE]`; the default model if left out
        #[arg(long, value_name = "FILE")]
        base: Option<PathBuf>,
        /// JSON list of strings
        #[arg(long, value_name = "TEXTS.json")]
        texts_file: PathBuf,
        /// Read markup such as `<|im_end|>` as control tokens, not as text
        #[arg(long)]
        special: bool,
        /// File to write the ids to
        #[arg(long, value_name = "IDS.json")]
        out: PathBuf,
    },
    /// Write the logits after each list of ids: f32 tensors `last_0`, `last_1`, ... of shape (vocab)
    Logits {
        /// GGUF file, Hugging Face folder or `hf:OWNER/REPO[/FILE]`; the default model if left out
        #[arg(long, value_name = "FILE")]
        base: Option<PathBuf>,
        /// PEFT folder of an adapter to apply
        #[arg(long, value_name = "DIR")]
        adapter: Option<PathBuf>,
        /// JSON list of lists of token ids
        #[arg(long, value_name = "IDS.json")]
        ids_file: PathBuf,
        /// How products use the base weights
        #[arg(long)]
        numerics: NumericsArg,
        /// The executor that runs the model
        #[arg(long, value_name = "NAME")]
        executor: String,
        /// File to write the logits to
        #[arg(long, value_name = "F.safetensors")]
        out: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum NumericsArg {
    /// Dequantised to f32: the reference
    Exact,
    /// Blocks as they are: fast
    Quantised,
}

/// What weights are quantised to.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum QuantisedArg {
    /// Eight bits: hardly a loss
    #[value(name = "q8_0")]
    Q8_0,
    /// Four bits, a scale and an offset
    #[value(name = "q4_k")]
    Q4K,
    /// Four bits and a scale
    #[value(name = "q4_0")]
    Q4_0,
}

impl From<QuantisedArg> for BlockType {
    fn from(arg: QuantisedArg) -> Self {
        match arg {
            QuantisedArg::Q8_0 => Self::Q8_0,
            QuantisedArg::Q4K => Self::Q4K,
            QuantisedArg::Q4_0 => Self::Q4_0,
        }
    }
}

impl From<NumericsArg> for Numerics {
    fn from(arg: NumericsArg) -> Self {
        match arg {
            NumericsArg::Exact => Self::Exact,
            NumericsArg::Quantised => Self::Quantised,
        }
    }
}

/// Executors by the name used on the command line.
const EXECUTORS: &[(&str, BuildExecutor)] = &[
    #[cfg(feature = "train")]
    ("candle", |weights, numerics| {
        let device = candle_core::Device::Cpu;
        Ok(Box::new(elenchus_candle::CandleExecutor::new(weights, &device, numerics)?))
    }),
    ("cpu", |weights, numerics| {
        ensure!(
            numerics == Numerics::Quantised,
            "the CPU engine has quantised numerics only (hint: --numerics quantised, or --executor candle in a build with `--features train`)"
        );
        Ok(Box::new(CpuExecutor::new(weights, CpuSettings::default())?))
    }),
];

type BuildExecutor = fn(&Arc<Weights>, Numerics) -> Result<Box<dyn Executor>>;

pub fn run(command: ModelCommand) -> Result<()> {
    match command {
        ModelCommand::Fetch { model } => fetch::run(model.as_deref()),
        ModelCommand::List { json } => list::run(json),
        ModelCommand::Quantize { input, out, block_type } => quantize(input, &out, block_type.into()),
        ModelCommand::Inspect { base } => inspect(&base_or_default(base)?),
        ModelCommand::Render { template, context } => render(&template, &context),
        ModelCommand::Tokenize { base, texts_file, special, out } => {
            let markup = if special { Markup::AsControl } else { Markup::AsText };
            tokenize(&base_or_default(base)?, &texts_file, markup, &out)
        }
        ModelCommand::Logits { base, adapter, ids_file, numerics, executor, out } => {
            let build = executor_named(&executor)?;
            logits(&base_or_default(base)?, adapter.as_deref(), &ids_file, build, numerics.into(), &out)
        }
    }
}

/// Opens a model file or folder.
pub fn open(path: &Path) -> Result<Arc<Weights>> {
    Ok(Arc::new(Weights::open(path, &mut |_| ())?))
}

/// Bytes in human-readable form.
pub fn size(bytes: usize) -> String {
    const KI: usize = 1 << 10;
    const MI: usize = 1 << 20;
    const GI: usize = 1 << 30;
    match bytes {
        0..KI => format!("{bytes} B"),
        KI..MI => format!("{:.1} KiB", bytes as f64 / KI as f64),
        MI..GI => format!("{:.1} MiB", bytes as f64 / MI as f64),
        _ => format!("{:.1} GiB", bytes as f64 / GI as f64),
    }
}

fn quantize(input: PathBuf, out: &Path, block_type: BlockType) -> Result<()> {
    let input = base_or_default(Some(input))?;
    ensure!(
        out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")),
        "{} does not end in .gguf (hint: `elenchus model quantize IN OUT.gguf --type q8_0`)",
        out.display()
    );
    // The input is mapped: replacing it would be reading what is being written.
    ensure!(!out.exists(), "{} exists already (hint: name another file, or delete it)", out.display());
    let weights = open(&input)?;
    let bar = fetch::bar("Quantising:");
    weights.save_gguf(out, block_type, &mut |share| bar.set_position((share * 1000.0) as u64))?;
    bar.finish_and_clear();
    let written = Weights::summary(out)?;
    print(&format!(
        "{}: {}, {:.0} M parameters, {}, {} (from {})\n",
        out.display(),
        written.architecture,
        written.parameters as f64 / 1e6,
        written.block_type,
        size(written.file_bytes),
        size(weights.file_bytes())
    ))
}

fn inspect(path: &Path) -> Result<()> {
    let weights = open(path)?;
    let (config, tokenizer) = (weights.config(), weights.tokenizer()?);
    let line = |name: &str, value: String| print(&format!("{name:<14}{value}\n"));
    line("file", path.display().to_string())?;
    line("size", size(weights.file_bytes()))?;
    line("sha256", weights.sha256())?;
    line("architecture", format!("{:?}", config.architecture))?;
    line("layers", config.num_layers().to_string())?;
    line("hidden", format!("{} (feed-forward {})", config.hidden_size, config.intermediate_size))?;
    line("heads", format!("{} (keys and values {}), {} wide", config.num_heads, config.num_kv_heads, config.head_dim))?;
    let named = |(theta, scaling): &(Option<f32>, f32)| match (theta, scaling) {
        (None, _) => "none in some layers".to_owned(),
        (Some(theta), 1.0) => theta.to_string(),
        (Some(theta), scaling) => format!("{theta} (positions divided by {scaling})"),
    };
    let bases: Vec<String> = config.rope_bases().0.iter().map(named).collect();
    let part = match config.rotary_dim {
        all if all == config.head_dim => String::new(),
        part => format!(", {part} of {} dimensions", config.head_dim),
    };
    match config.has_position_embedding {
        true => line("positions", "an embedding each".to_owned())?,
        false => line("rotary", format!("base {}, {:?}{part}", bases.join(" and "), config.rope_layout))?,
    }
    let biases: Vec<&str> = Linear::ALL
        .into_iter()
        .filter(|&linear| config.layers.iter().any(|layer| layer.biases[linear as usize]))
        .map(Linear::hf_name)
        .collect();
    if !biases.is_empty() {
        line("biases", biases.join(", "))?;
    }
    let window = config.layers.iter().find_map(|layer| layer.sliding_window);
    let window = window.map_or(String::new(), |window| format!(", each sees {window}"));
    line("context", format!("{} tokens{window}", config.max_positions))?;
    line("vocabulary", format!("{} tokens, begin {:?}", tokenizer.vocab_size(), tokenizer.bos()))?;

    let (mut total, mut kinds) = (0, BTreeMap::<String, (usize, usize, usize)>::new());
    for name in TensorName::all(config) {
        if name == TensorName::Output && weights.is_tied() {
            line("head", "tied to the embedding".to_owned())?;
            continue;
        }
        let tensor = weights.tensor(name)?;
        let kind = kinds.entry(tensor.dtype.to_string()).or_default();
        total += tensor.bytes.len();
        kind.0 += 1;
        kind.1 += tensor.shape.iter().product::<usize>();
        kind.2 += tensor.bytes.len();
    }
    for (kind, (tensors, numbers, bytes)) in kinds {
        line("blocks", format!("{kind}: {tensors} tensors, {:.1} M numbers, {}", numbers as f64 / 1e6, size(bytes)))?;
    }
    let per_token = config.num_layers() * 2 * config.kv_dim() * size_of::<f32>();
    line("memory", format!("weights {}, each token of a conversation {}", size(total), size(per_token)))?;

    let message = |role, content: &str| Message { role, content: content.to_owned() };
    let messages = [message(Role::System, "PERSONA"), message(Role::User, "LINE")];
    let template = weights.chat_template()?;
    let ids = template.encode(&tokenizer, &messages, true)?;
    let shown: String = ids.iter().map(|&id| shown(&tokenizer, id)).collect();
    line("chat template", format!("{shown:?}"))?;
    line("template from", template.origin().to_owned())?;
    match template.think_marks() {
        Some(marks) => line("thoughts", format!("between {:?} and {:?}", marks.open, marks.close)),
        None => Ok(()),
    }
}

/// A token's text; a control token's number.
fn shown(tokenizer: &Tokenizer, id: u32) -> String {
    match tokenizer.token_bytes(id) {
        [] => format!("<{id}>"),
        bytes => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn tokenize(base: &Path, texts_file: &Path, markup: Markup, out: &Path) -> Result<()> {
    let texts: Vec<String> = read_json(texts_file, "a JSON list of strings")?;
    let tokenizer = match base.is_dir() {
        true => Tokenizer::from_folder(base)?,
        false => Tokenizer::from_gguf(&Gguf::open(base)?)?,
    };
    let ids = texts.iter().map(|text| tokenizer.encode(text, markup)).collect::<elenchus_lm::Result<Vec<_>>>()?;
    fs::write(out, serde_json::to_string(&ids)?).with_context(|| out.display().to_string())
}

fn render(template: &Path, context: &Path) -> Result<()> {
    let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
    let source = ChatTemplate::from_source(&read(template)?).with_context(|| template.display().to_string())?;
    let rendered = source.render_context(&read(context)?);
    print(&rendered.with_context(|| format!("{} with {}", template.display(), context.display()))?)
}

fn executor_named(name: &str) -> Result<BuildExecutor> {
    match EXECUTORS.iter().find(|(known, _)| *known == name) {
        Some((_, build)) => Ok(*build),
        None => {
            let known: Vec<&str> = EXECUTORS.iter().map(|(known, _)| *known).collect();
            bail!("there is no executor `{name}` (hint: known are {})", known.join(", "))
        }
    }
}

fn logits(
    base: &Path,
    adapter: Option<&Path>,
    ids_file: &Path,
    build: BuildExecutor,
    numerics: Numerics,
    out: &Path,
) -> Result<()> {
    let lists: Vec<Vec<u32>> = read_json(ids_file, "a JSON list of lists of token ids")?;
    if let Some(index) = lists.iter().position(Vec::is_empty) {
        bail!("{}: list {index} is empty, so there is nothing to read logits after", ids_file.display());
    }
    let weights = open(base)?;
    let adapter = match adapter {
        Some(folder) => Some(Adapter::new(Arc::new(LoraAdapter::open(folder)?))),
        None => None,
    };
    let executor = build(&weights, numerics)?;
    if let Some(adapter) = &adapter {
        executor.prepare(adapter)?;
    }
    let mut tensors = Vec::with_capacity(lists.len());
    for (index, tokens) in lists.iter().enumerate() {
        let mut cache = executor.new_cache();
        let row = Row { tokens, adapter: adapter.as_ref(), cache: &mut cache, logits: Logits::Last };
        let logits =
            executor.forward(&mut [row]).with_context(|| format!("{}: list {index}", ids_file.display()))?.concat();
        tensors.push((format!("last_{index}"), logits.len(), logits.into_iter().flat_map(f32::to_le_bytes).collect()));
    }
    let views = tensors.iter().map(|(name, length, bytes): &(String, usize, Vec<u8>)| {
        Ok((name.as_str(), TensorView::new(Dtype::F32, vec![*length], bytes)?))
    });
    let views: Vec<_> = views.collect::<Result<_, safetensors::SafeTensorError>>()?;
    safetensors::serialize_to_file(views, None, out).with_context(|| out.display().to_string())
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| format!("{} is not {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_executor_lists_what_there_is() {
        assert!(executor_named("cpu").is_ok());
        let error = executor_named("vulkan").unwrap_err().to_string();
        assert!(error.contains("`vulkan`") && error.contains("cpu"), "{error}");
    }

    #[test]
    fn sizes_read_well() {
        let check = |bytes, expected| assert_eq!(size(bytes), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.0 KiB");
        check(98_362_432, "93.8 MiB");
        check(5 << 30, "5.0 GiB");
    }
}
