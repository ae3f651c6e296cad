//! `elenchus`: talk to characters, fetch and inspect models and adapters.
//!
//! Thin on purpose: arguments in, library calls, messages out. Everything a game needs is in the libraries.

// They panic when standard output is closed.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod adapter;
#[cfg(feature = "train")]
mod base;
mod bench;
mod characters;
#[cfg(feature = "train")]
mod data;
#[cfg(feature = "train")]
mod eval;
mod model;
mod output;
mod talk;
#[cfg(feature = "train")]
mod train;

use std::{io::ErrorKind, process::ExitCode};

use clap::{Parser, Subcommand};

use output::{OutputClosed, note};

/// NPC characters that speak from one small language model, each in its own voice.
#[derive(Debug, Parser)]
#[command(name = "elenchus", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Talk to a character in the terminal, or say lines from the command line
    Talk(talk::TalkArgs),
    /// Fetch, list, inspect and run base models
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Inspect, compare and merge LoRA adapters, convert them to llama.cpp's format and back
    #[command(subcommand)]
    Adapter(adapter::AdapterCommand),
    /// Inspect texts that a character could learn from
    #[cfg(feature = "train")]
    #[command(subcommand)]
    Data(data::DataCommand),
    /// Train adapters
    #[cfg(feature = "train")]
    #[command(subcommand)]
    Train(train::TrainCommand),
    /// Measure what adapters have learned
    #[cfg(feature = "train")]
    #[command(subcommand)]
    Eval(eval::EvalCommand),
    /// Inspect texts that a character could learn from (in a build with the trainer)
    #[cfg(not(feature = "train"))]
    Data(Absent),
    /// Train adapters (in a build with the trainer)
    #[cfg(not(feature = "train"))]
    Train(Absent),
    /// Measure what adapters have learned (in a build with the trainer)
    #[cfg(not(feature = "train"))]
    Eval(Absent),
    /// Measure how fast the engine is on this machine
    Bench(bench::BenchArgs),
}

/// Arguments after a command that this build does not have.
#[cfg(not(feature = "train"))]
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
struct Absent {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<String>,
}

#[cfg(not(feature = "train"))]
fn absent(command: &str, Absent { rest }: &Absent) -> anyhow::Result<()> {
    let rest = rest.join(" ");
    anyhow::bail!(
        "this program was built without the trainer (hint: `cargo run --release --features train -- {command} {rest}`)"
    )
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => {
            // Help and version arrive here too, and are not failures.
            let code = if message.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            return match message.print() {
                Err(cause) if cause.kind() != ErrorKind::BrokenPipe => ExitCode::FAILURE,
                _ => code,
            };
        }
    };
    let result = match cli.command {
        Command::Talk(args) => talk::run(args),
        Command::Model(command) => model::run(command),
        Command::Adapter(command) => adapter::run(command),
        #[cfg(feature = "train")]
        Command::Data(command) => data::run(command),
        #[cfg(feature = "train")]
        Command::Train(command) => train::run(command),
        #[cfg(feature = "train")]
        Command::Eval(command) => eval::run(command),
        #[cfg(not(feature = "train"))]
        Command::Data(rest) => absent("data", &rest),
        #[cfg(not(feature = "train"))]
        Command::Train(rest) => absent("train", &rest),
        #[cfg(not(feature = "train"))]
        Command::Eval(rest) => absent("eval", &rest),
        Command::Bench(args) => bench::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<OutputClosed>() => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    fn check(line: &str, fits: bool) {
        let result = Cli::try_parse_from(line.split(' '));
        assert_eq!(result.is_ok(), fits, "{line}: {result:?}");
    }

    #[test]
    fn flags_are_read_as_documented() {
        check("elenchus talk", true);
        check("elenchus talk --character hippias --say a --say b --seed 1 --max-tokens 9 --adapter none --json", true);
        check("elenchus talk --json", false);
        check("elenchus talk --max-tokens 0 --say a", false);
        check("elenchus model fetch", true);
        check("elenchus model fetch hf:owner/repo", true);
        check("elenchus model list --json", true);
        check("elenchus model quantize folder out.gguf --type q4_k", true);
        check("elenchus model quantize folder out.gguf --type q5_k", false);
        check("elenchus talk --base hf:owner/repo/file.gguf --quantize q4_0", true);
        check("elenchus model tokenize --texts-file a.json --special --out b.json", true);
        check("elenchus model logits --ids-file a --numerics exact --executor candle --out b", true);
        check("elenchus model logits --ids-file a --numerics rough --executor candle --out b", false);
        check("elenchus adapter inspect folder --base model.gguf", true);
        check("elenchus adapter export folder --gguf a.gguf --base model.gguf --f32", true);
        check("elenchus adapter export folder", false);
        check("elenchus adapter import a.gguf folder --base model.gguf --f32", true);
        check("elenchus adapter merge out a b=0.5 c=-1 --f32", true);
        check("elenchus adapter merge out a=much", false);
        check("elenchus adapter merge out", false);
        check("elenchus adapter diff a b --json", true);
        check("elenchus bench", true);
        check("elenchus bench --base a.gguf --adapters a,b --sequences 2 --threads 1 --prompt 9 --gen 9 --json", true);
        check("elenchus bench --adapters none --kv int8 --repetitions 1", true);
        check("elenchus bench --kv f32", false);
        check("elenchus bench --threads 0", false);
        check("elenchus", false);
    }

    #[cfg(feature = "train")]
    #[test]
    fn flags_of_the_trainer_are_read_as_documented() {
        check("elenchus train sft training.toml --out runs/a --base-numerics quantised --device cuda:1", true);
        check("elenchus train sft training.toml", false);
        check("elenchus eval perplexity --pairs a.jsonl --adapter none --character meno --json", true);
        check("elenchus eval perplexity --pairs a.jsonl --device tpu", false);
        check(
            "elenchus eval compare --adapters a,rl=b --prompts p.jsonl --style-works Meno,Gorgias --html c.html",
            true,
        );
        check("elenchus eval compare --adapters a --prompts p.jsonl --optimised rl.toml --best-of 4 --json", true);
        check("elenchus eval compare --adapters a --prompts p.jsonl --best-of 4", false);
        check("elenchus eval compare --prompts p.jsonl", false);
        check("elenchus eval virtue --after a --rewards r,mine=s --prompts p.jsonl --rl rl.toml --html h.html", true);
        check("elenchus eval virtue --before b --after a --roles r.toml --draws 2 --judges j.toml --json", true);
        check("elenchus eval virtue --after a", false);
        check("elenchus eval virtue --after a --roles r.toml --prompts p.jsonl", false);
        check("elenchus train revise revise.toml --out runs/r --device cuda", true);
        check("elenchus train preferences preferences.toml --out runs/p --json", true);
        check("elenchus train reward reward.toml --out runs/r --folds", true);
        check("elenchus train reward reward.toml --out runs/r --folds --shuffled-labels", false);
        check("elenchus eval blind --compare-json a.json --out b --voices a,b --pairs 9 --seed 2", true);
        check("elenchus eval blind --score b --json", true);
        check("elenchus eval blind --compare-json a.json", false);
        check("elenchus eval blind --score b --out c", false);
        check("elenchus eval blind", false);
        check(
            "elenchus data inspect a b --character Socrates --context 2 --alias SOC=Socrates --skip-broken --json",
            true,
        );
        check("elenchus data inspect a --character Socrates --context 0", false);
        check("elenchus data inspect a --character Socrates --alias SOC", false);
        check("elenchus data inspect --character Socrates", false);
    }

    #[cfg(not(feature = "train"))]
    #[test]
    fn a_build_without_the_trainer_says_how_to_get_it() {
        let cli = Cli::try_parse_from("elenchus train sft a.toml --out runs/a".split(' ')).unwrap();
        let Command::Train(rest) = cli.command else { panic!("{cli:?}") };
        let error = absent("train", &rest).unwrap_err().to_string();
        assert!(error.contains("--features train -- train sft a.toml --out runs/a"), "{error}");
    }
}
