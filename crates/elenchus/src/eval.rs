//! `elenchus eval`: measures what an adapter has learned, prompted as the game would.

mod blind;
mod character;
mod compare;
mod reward;
mod verdicts;
mod virtue;
mod voices;

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};
use elenchus_candle::TrainableLora;
use elenchus_lm::{ComputeDevice, Numerics};
use elenchus_train::{data::OnBroken, perplexity, read_character, read_pairs};
use indicatif::ProgressBar;
use serde_json::json;

pub use self::character::measure_run;
use self::{
    blind::BlindArgs, character::CharacterArgs, compare::CompareArgs, verdicts::VerdictsArgs, virtue::VirtueArgs,
    voices::VoicesArgs,
};
use crate::{
    base::{TrainingBase, own_adapter, scaled},
    characters::character_file,
    output::print,
};

#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    /// How well replies are predicted, in perplexity a token, prompted as the game would
    Perplexity(PerplexityArgs),
    /// A battery of conversations with one character: its name, facts, the player's words, its role, repetition
    Character(Box<CharacterArgs>),
    /// Every voice's held-out replies under every voice's adapter: is each adapter the best for its own?
    Voices(VoicesArgs),
    /// Measure every reader of verdicts on verdicts with labels
    Verdicts(VerdictsArgs),
    /// Compare adapters with the base on the same prompts, under judges that nothing was optimised against
    Compare(Box<CompareArgs>),
    /// How often a reward model prefers what people preferred, on pairs that it did not learn from
    Reward(reward::RewardArgs),
    /// Compare a voice before and after, by reward models on prompts never trained on, and by how it stays in role
    Virtue(Box<VirtueArgs>),
    /// Make pairs of replies for a person to choose from, without knowing whose they are
    Blind(BlindArgs),
}

#[derive(Debug, Args)]
pub struct PerplexityArgs {
    /// Pairs: JSON Lines, or any text that `data inspect` reads
    #[arg(long, value_name = "FILE")]
    pairs: PathBuf,
    /// GGUF file, Hugging Face folder or `hf:OWNER/REPO[/FILE]`; the default model if left out
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// PEFT folder to measure beside the base, in place of the character's own; `none` measures the base alone
    #[arg(long, value_name = "DIR|none")]
    adapter: Option<PathBuf>,
    /// Character whose replies and prompt are used: a folder of `adapters/`
    #[arg(long, value_name = "NAME", default_value = "socrates")]
    character: String,
    /// Maximum turns before a reply
    #[arg(long, value_name = "N", default_value = "4")]
    context: NonZeroUsize,
    /// Works to measure on, by name; all if left out
    #[arg(long = "work", value_name = "NAME")]
    works: Vec<String>,
    /// Maximum tokens of an example; longer replies are cut
    #[arg(long, value_name = "N", default_value = "256")]
    max_tokens: usize,
    /// cpu, cuda, or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: ComputeDevice,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(command: EvalCommand) -> Result<()> {
    match command {
        EvalCommand::Perplexity(args) => run_perplexity(args),
        EvalCommand::Character(args) => character::run(*args),
        EvalCommand::Voices(args) => voices::run(args),
        EvalCommand::Verdicts(args) => verdicts::run(args),
        EvalCommand::Compare(args) => compare::run(*args),
        EvalCommand::Virtue(args) => virtue::run(*args),
        EvalCommand::Reward(args) => reward::run(args),
        EvalCommand::Blind(args) => blind::run(args),
    }
}

fn run_perplexity(args: PerplexityArgs) -> Result<()> {
    let PerplexityArgs { pairs, base, adapter, character, context, works, max_tokens, device, json } = args;
    let file = character_file(&character)?;
    let character = read_character(&file)?;
    let (adapter, lora) = own_adapter(file.parent().unwrap_or(Path::new(".")), adapter.as_deref())?;
    let (mut read, _) = read_pairs(std::slice::from_ref(&pairs), &character, &[], context, OnBroken::Stop)?;
    if !works.is_empty() {
        read.retain(|pair| works.contains(&pair.work));
        ensure!(!read.is_empty(), "{} has no pairs of {}", pairs.display(), works.join(", "));
    }
    let voice = TrainingBase::open(base, Numerics::Exact, device)?;
    let lora = match lora {
        Some(lora) => Some(TrainableLora::new(&scaled(lora, character.adapter_scale)?, &voice.executor)?),
        None => None,
    };
    let examples = voice.examples(&read, &character, max_tokens)?;
    let bar = ProgressBar::new(examples.len() as u64 * (1 + u64::from(lora.is_some())));
    let base = perplexity(&voice.executor, None, &examples, |read| bar.set_position(read as u64))?;
    let adapted = match &lora {
        Some(lora) => {
            let position = |read| bar.set_position((examples.len() + read) as u64);
            perplexity(&voice.executor, Some(lora), &examples, position)?
        }
        None => base,
    };
    bar.finish_and_clear();
    let report = json!({
        "adapter": adapter,
        "pairs": examples.len(),
        "tokens": adapted.tokens,
        "perplexity": adapted.of_tokens(),
        "base_perplexity": base.of_tokens(),
        "end_tokens": adapted.end_tokens,
        "end_perplexity": adapted.of_ends(),
        "base_end_perplexity": base.of_ends(),
    });
    let text = if json {
        format!("{report}\n")
    } else {
        let line = |name: &str, adapted: f64, base: f64| {
            format!("{name:<12} {adapted:8.3}   base {base:8.3}   {:+.1}%\n", (adapted / base - 1.0) * 100.0)
        };
        let adapter = adapter.as_deref().unwrap_or("none, the base alone");
        let replies = format!("adapter: {adapter}\n{} replies, {} tokens\n", examples.len(), adapted.tokens);
        replies
            + &line("perplexity", adapted.of_tokens(), base.of_tokens())
            + &line("of its end", adapted.of_ends(), base.of_ends())
    };
    print(&text)
}
