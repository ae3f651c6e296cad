//! The input of all sides: the model's two files, eight characters' adapters in both formats, prompts, and text.

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use elenchus_dialogue::{Turn, messages};
use elenchus_lm::{Linear, LoraAdapter, LoraPair, Markup, ModelConfig, Precision, Weights, gguf::Gguf};
use elenchus_train::read_character;

use crate::side::output;

/// The folder for generated files.
pub const FOLDER: &str = "runs/compare";
/// Characters that speak at once.
pub const VOICES: usize = 8;
/// The number of the adapter on all linears, after the voices'.
pub const ALL_LINEAR: usize = VOICES;
const RANK: usize = 16;
const EMBEDDING: &str = "token_embd.weight";
const HEAD: &str = "output.weight";
/// The character whose first token is measured, the player's line, and its number of tokens.
const CHARACTER: &str = "socrates";
const LINE: &str = "Tell me, my friend, what did you and the others speak about yesterday evening in the market, \
                    and did anybody there know what courage really is, or only pretend to know it and go home?";
const LINE_TOKENS: usize = 30;

/// A file of the model's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum File {
    /// The default model as it is fetched.
    Source,
    /// The same, requantised by llama.cpp to a type that its kernels prefer.
    Requantised,
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Source => "Q4_1",
            Self::Requantised => "Q4_0",
        })
    }
}

/// An adapter as PEFT's folder and as llama.cpp's file.
pub struct AdapterFiles {
    pub folder: PathBuf,
    pub gguf: PathBuf,
}

pub struct Material {
    source: PathBuf,
    requantised: PathBuf,
    pub llama_python: String,
    /// The eight voices, and the one on all linears.
    pub adapters: Vec<AdapterFiles>,
    /// What a character reads before its first line, and a player's line with the markup after it.
    pub persona: Vec<u32>,
    pub line: Vec<u32>,
    /// This project's documents.
    pub text: Vec<u32>,
    pub vocab_size: usize,
}

impl Material {
    /// Finds the input, and makes what is missing.
    pub fn prepare() -> Result<Self> {
        fs::create_dir_all(FOLDER)?;
        let source = elenchus_fetch::fetch_default(&mut |_| {})?;
        let llama_python = output(&mut Command::new("tools/llama_cpp/venv"))?;
        let requantised = env::current_dir()?.join(FOLDER).join("Q4_0.gguf");
        if !requantised.is_file() {
            let peer = "tools/llama_cpp/peer.py";
            output(Command::new(&llama_python).args([peer, "requantise"]).arg(&source).arg(&requantised))?;
        }
        let weights = Weights::open(&source, &mut |_| {})?;
        let config = weights.config();
        let (persona, line) = prompt(&weights)?;
        Ok(Self {
            adapters: adapters(config)?,
            text: text(&weights)?,
            vocab_size: config.vocab_size,
            source,
            requantised,
            llama_python,
            persona,
            line,
        })
    }

    pub fn path(&self, file: File) -> &Path {
        match file {
            File::Source => &self.source,
            File::Requantised => &self.requantised,
        }
    }

    /// Bytes of weights that a token reads: all but an embedding that is not also the head, of which it reads a row.
    pub fn bytes_per_token(&self, file: File) -> Result<usize> {
        let gguf = Gguf::open(self.path(file))?;
        let has_head = gguf.tensor(HEAD).is_some();
        let read = |name: &str| name != EMBEDDING || !has_head;
        Ok(gguf.tensors().iter().filter(|(name, _)| read(name)).map(|(_, info)| info.bytes).sum())
    }

    pub fn file_bytes(&self, file: File) -> Result<u64> {
        Ok(fs::metadata(self.path(file))?.len())
    }

    /// How many tensors a file has of each type, and the embedding's: `61 F32, 210 Q4_0; embedding and head Q8_0`.
    pub fn types(&self, file: File) -> Result<String> {
        let gguf = Gguf::open(self.path(file))?;
        let mut counts = BTreeMap::<String, usize>::new();
        for (_, info) in gguf.tensors() {
            *counts.entry(format!("{:?}", info.dtype)).or_default() += 1;
        }
        let counts: Vec<String> = counts.iter().map(|(dtype, count)| format!("{count} {dtype}")).collect();
        let (embedding, _) = gguf.tensor(EMBEDDING).context("there is no embedding")?;
        Ok(format!("{}; embedding and head {:?}", counts.join(", "), embedding.dtype))
    }

    /// Random ids, different for each turn and number, so that no prefix cache helps any side.
    pub fn ids(&self, turn: u64, number: u64, count: usize) -> Vec<u32> {
        // Control tokens stand at the beginning of the vocabulary.
        let (low, high) = (1000, self.vocab_size as u64);
        let mut state = mix(turn.wrapping_mul(1_000_003).wrapping_add(number));
        (0..count)
            .map(|_| {
                state = mix(state);
                (low + state % (high - low)) as u32
            })
            .collect()
    }
}

/// `SplitMix64`.
fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn adapters(config: &ModelConfig) -> Result<Vec<AdapterFiles>> {
    let mut folders: Vec<PathBuf> = fs::read_dir("adapters")?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .filter(|folder| folder.join("adapter_model.safetensors").is_file())
        .collect();
    folders.sort();
    ensure!(folders.len() >= VOICES, "adapters/ has {} trained adapters, {VOICES} are needed", folders.len());
    folders.truncate(VOICES);
    let all_linear = Path::new(FOLDER).join("all_linear");
    random_all_linear(config).save(&all_linear, "default", Precision::F16)?;
    folders.push(all_linear);
    folders.into_iter().map(|folder| export(folder, config)).collect()
}

fn export(folder: PathBuf, config: &ModelConfig) -> Result<AdapterFiles> {
    let name = folder.file_name().context("a folder has a name")?;
    let gguf = Path::new(FOLDER).join(name).with_extension("gguf");
    let adapter = LoraAdapter::open(&folder)?;
    for ((layer, linear), pair) in adapter.pairs() {
        ensure!(pair.rank == RANK, "{}: {linear} of layer {layer} has rank {}", folder.display(), pair.rank);
    }
    adapter.save_gguf(&gguf, config, Precision::F16)?;
    Ok(AdapterFiles { folder, gguf })
}

/// Small enough that the model still speaks; what it says does not matter.
fn random_all_linear(config: &ModelConfig) -> LoraAdapter {
    let mut state = 1;
    let mut values = |count: usize| -> Vec<f32> {
        (0..count)
            .map(|_| {
                state = mix(state);
                (state >> 40) as f32 / (1u64 << 24) as f32 * 0.02 - 0.01
            })
            .collect()
    };
    let mut pairs = BTreeMap::new();
    for layer in 0..config.num_layers() {
        for linear in Linear::ALL {
            let (rows, columns) = linear.shape(config);
            let (a, b) = (values(RANK * columns), values(rows * RANK));
            pairs.insert((layer, linear), LoraPair { a, b, rank: RANK, scaling: 2.0 });
        }
    }
    LoraAdapter::from_pairs("all_linear", pairs)
}

/// A character's prompt, cut where the player's line begins.
fn prompt(weights: &Weights) -> Result<(Vec<u32>, Vec<u32>)> {
    let character = read_character(&Path::new("adapters").join(CHARACTER).join("character.toml"))?;
    let (tokenizer, template) = (weights.tokenizer()?, weights.chat_template()?);
    let render = |text: &str| -> Result<Vec<u32>> {
        let turn = Turn { speaker: "Player".into(), text: text.into() };
        Ok(template.encode(&tokenizer, &messages(&character, &[], &[], &[turn]), true)?)
    };
    let line = tokenizer.encode(LINE, Markup::AsText)?;
    ensure!(line.len() >= LINE_TOKENS, "the player's line has {} tokens", line.len());
    let whole = render(&tokenizer.decode(&line[..LINE_TOKENS]))?;
    let other = render("Hello")?;
    let shared = whole.iter().zip(&other).take_while(|(one, other)| one == other).count();
    let (persona, line) = whole.split_at(shared);
    Ok((persona.to_vec(), line.to_vec()))
}

fn text(weights: &Weights) -> Result<Vec<u32>> {
    let mut files: Vec<PathBuf> = fs::read_dir("docs")?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    files.sort();
    let texts = files.iter().map(fs::read_to_string).collect::<Result<Vec<_>, _>>()?;
    Ok(weights.tokenizer()?.encode(&texts.concat(), Markup::AsText)?)
}
