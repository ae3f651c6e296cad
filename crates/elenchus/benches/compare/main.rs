//! Our engine beside llama.cpp and OpenVINO GenAI: the same work in turns, at equal threads.
//!
//! ```text
//! cargo bench -p elenchus --bench compare [-- [--quick] [--only TASK,..] [--threads 1,2] [--turns N] [--json FILE]]
//! ```
//!
//! Every side is a separate process and they take turns, so that a busy machine slows all alike: ratios hold where
//! times drift, and are medians over turns. Nothing fails because it is slow; each gate is printed as met or missed.
//! The peers are set up by `tools/llama_cpp/venv`, `tools/llama_cpp/server` (for the tasks that need its programs)
//! and `tools/openvino/venv`; the first call builds llama.cpp twice, for the better part of an hour on two cores. One
//! thread is the reliable setting on a noisy machine: two threads of one side meet in every product.

mod bandwidth;
mod material;
mod memory;
mod ours;
mod programs;
mod quality;
mod report;
mod side;
mod speed;
mod turns;

use std::{env, path::PathBuf};

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use material::{File, Material};
use report::Report;
use side::Sides;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Our engine beside llama.cpp and OpenVINO GenAI.
#[derive(Debug, Parser)]
#[command(name = "compare")]
struct Args {
    #[command(subcommand)]
    serve: Option<Serve>,
    /// One turn, and less of it: shows that everything works
    #[arg(long)]
    quick: bool,
    /// Only these tasks
    #[arg(long, value_name = "TASK", value_enum, value_delimiter = ',')]
    only: Vec<Task>,
    /// Numbers of threads, one run each
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Turns after one warm-up
    #[arg(long, value_name = "N", default_value = "7")]
    turns: usize,
    /// File for all figures, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Passed by cargo to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Serve {
    /// Our side's process
    #[command(hide = true)]
    Serve { numerics: String, base: PathBuf, threads: usize, adapters: Vec<String> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Task {
    Decode,
    Prefill,
    Eight,
    Lora,
    FirstToken,
    Memory,
    Quality,
    Server,
    LlamaBench,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(Serve::Serve { numerics, base, threads, adapters }) = args.serve {
        return ours::serve(&numerics, &base, threads, &adapters);
    }
    let json = args.json.map(std::path::absolute).transpose()?;
    // cargo starts a bench in its crate's folder.
    env::set_current_dir(ROOT)?;
    let tasks = if args.only.is_empty() { Task::value_variants() } else { &args.only[..] };
    let turns = if args.quick { 1 } else { args.turns.max(1) };
    // Tokens of one stream's reply, and of one of several.
    let (reply, short_reply) = if args.quick { (16, 8) } else { (64, 48) };

    let material = Material::prepare()?;
    for file in [File::Source, File::Requantised] {
        println!("{file}: {}", material.types(file)?);
    }
    let mut report = Report::default();
    for &threads in &args.threads {
        let mut sides = Sides::new(&material, threads);
        for task in tasks {
            match task {
                Task::Decode => speed::decode(&mut sides, &mut report, turns, reply)?,
                Task::Prefill => speed::prefill(&mut sides, &mut report, turns)?,
                Task::Eight => speed::eight(&mut sides, &mut report, turns, short_reply)?,
                Task::Lora => speed::lora(&mut sides, &mut report, turns, reply)?,
                Task::FirstToken => speed::first_token(&mut sides, &mut report, turns)?,
                Task::Memory => memory::memory(&sides, &mut report)?,
                Task::Quality => quality::quality(&mut sides, &mut report, args.quick)?,
                Task::Server => programs::server(&mut sides, &mut report, turns.min(3), short_reply)?,
                Task::LlamaBench => programs::llama_bench(&sides, &mut report, turns)?,
            }
        }
        report.task("sides", threads);
        for (kind, greeting) in sides.greetings() {
            let load = greeting["load_seconds"].as_f64().unwrap_or(f64::NAN);
            let build = greeting["build"].as_str().unwrap_or_default();
            report.figure(&format!("{kind}: loads in"), load, "s", build);
        }
        for (kind, share) in sides.idle_shares() {
            report.figure(&format!("{kind}: of a core while others work"), share * 100.0, "%", "");
        }
        if let Some(file) = &json {
            report.write(file)?;
        }
    }
    report.summary();
    Ok(())
}
