//! `elenchus`: talk to characters, fetch and inspect models and adapters.
//!
//! Thin on purpose: arguments in, library calls, messages out. What a game needs is in the libraries.

// They panic where nobody reads on.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod adapter;
mod base;
mod bench;
mod characters;
mod data;
mod eval;
mod model;
mod output;
mod talk;
mod train;

use std::{io::ErrorKind, process::ExitCode};

use clap::{Parser, Subcommand};

use output::{NobodyReads, note};

/// Characters that speak from one small language model, each with a voice of its own.
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
    /// Look at LoRA adapters, compare and mix them, carry them to llama.cpp and back
    #[command(subcommand)]
    Adapter(adapter::AdapterCommand),
    /// Look at texts that a character could learn from
    #[command(subcommand)]
    Data(data::DataCommand),
    /// Train adapters
    #[command(subcommand)]
    Train(train::TrainCommand),
    /// Measure what adapters have learned
    #[command(subcommand)]
    Eval(eval::EvalCommand),
    /// Measure how fast the engine is on this machine
    Bench(bench::BenchArgs),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => {
            // Help and version arrive here too, and are no failure.
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
        Command::Data(command) => data::run(command),
        Command::Train(command) => train::run(command),
        Command::Eval(command) => eval::run(command),
        Command::Bench(args) => bench::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<NobodyReads>() => ExitCode::SUCCESS,
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

    #[test]
    fn flags_are_read_as_documented() {
        let check = |line: &str, fits: bool| {
            let result = Cli::try_parse_from(line.split(' '));
            assert_eq!(result.is_ok(), fits, "{line}: {result:?}");
        };
        check("elenchus talk", true);
        check("elenchus talk --character hippias --say a --say b --seed 1 --max-tokens 9 --adapter none --json", true);
        check("elenchus talk --json", false);
        check("elenchus talk --max-tokens 0 --say a", false);
        check("elenchus model fetch", true);
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
        check(
            "elenchus data inspect a b --character Socrates --context 2 --alias SOC=Socrates --skip-broken --json",
            true,
        );
        check("elenchus data inspect a --character Socrates --context 0", false);
        check("elenchus data inspect a --character Socrates --alias SOC", false);
        check("elenchus data inspect --character Socrates", false);
        check("elenchus bench", true);
        check("elenchus bench --base a.gguf --adapters a,b --sequences 2 --threads 1 --prompt 9 --gen 9 --json", true);
        check("elenchus bench --adapters none --kv int8 --repetitions 1", true);
        check("elenchus bench --kv f32", false);
        check("elenchus bench --threads 0", false);
        check("elenchus", false);
    }
}
