//! `elenchus train compare`: methods of reinforcement learning on one start, under the same judges, with the same budget.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result, bail};
use clap::Args;
use elenchus_lab::{
    method_comparison::{Entrant, MethodComparisonConfig, MethodComparisonReport, MethodRun},
    methods::methods,
};
use elenchus_train::{
    RunFolder,
    rl::{RlLesson, RlOutcome},
};

use super::{
    BaseArgs, interrupts,
    rl::{RlSetup, Screen},
};
use crate::output::{note, say};

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The comparison's `compare.toml`
    #[arg(value_name = "COMPARE.TOML")]
    config: PathBuf,
    /// The comparison's folder: a run of each method with each seed, and the report
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Run these methods only, by their labels; the report is of all that have begun
    #[arg(long, value_name = "LABEL", value_delimiter = ',')]
    only: Vec<String>,
    /// Write the report of what is there, and run nothing
    #[arg(long)]
    report: bool,
    /// Nothing but the run in this folder of the comparison's, in this process
    #[arg(long, hide = true, value_name = "DIR")]
    run: Option<PathBuf>,
    #[command(flatten)]
    base: BaseArgs,
}

pub fn run(args: CompareArgs) -> Result<()> {
    let CompareArgs { config: file, out, only, report, run, base } = args;
    let config = MethodComparisonConfig::open(&file, &methods())?;
    let runs = config.runs(&file, &methods())?;
    if let Some(folder) = run {
        let run = runs.iter().find(|run| run.folder == folder);
        let run = run.with_context(|| format!("no run of {} has the folder {}", file.display(), folder.display()))?;
        return learn(run, &config.shared(&file), &out, base);
    }
    if let Some(label) = only.iter().find(|label| !runs.iter().any(|run| run.label == **label)) {
        let known: Vec<&str> = config.methods.iter().map(Entrant::label).collect();
        bail!("no method is called `{label}` (hint: {})", known.join(", "));
    }
    let should_stop = Arc::new(AtomicBool::new(false));
    let asked = should_stop.clone();
    // The run hears Ctrl-C too, finishes its step, and says so.
    ctrlc::set_handler(move || asked.store(true, Ordering::Relaxed)).context("Ctrl-C cannot be heard")?;
    for run in runs.iter().filter(|run| only.is_empty() || only.contains(&run.label)).filter(|_| !report) {
        let folder = RunFolder::open(&out.join(&run.folder), &run.text)?;
        if folder.file("result.json").is_file() {
            continue;
        }
        note(&format!("== {}, seed {}", run.label, run.seed));
        // In a process of its own: what an earlier run held would count as this one's memory.
        let program = env::current_exe().context("this program's own file")?;
        let arguments = env::args_os().skip(1);
        let mut process = Command::new(&program);
        process.args(arguments).arg("--run").arg(&run.folder);
        let status = process.status().with_context(|| format!("{} cannot be started", program.display()))?;
        if !status.success() {
            bail!("the run of {} with seed {} ended with {status}", run.label, run.seed);
        }
        write(&config, &runs, &out)?;
        if should_stop.load(Ordering::Relaxed) {
            break;
        }
    }
    write(&config, &runs, &out)?;
    say(&format!("the report is in {}\n", out.join("REPORT.html").display()));
    Ok(())
}

fn learn(run: &MethodRun, shared: &Path, out: &Path, base: BaseArgs) -> Result<()> {
    let lesson = RlLesson::with_text(shared, run.text.clone(), &methods())?;
    let setup = RlSetup::open(base, &lesson, shared)?;
    let folder = RunFolder::open(&out.join(&run.folder), &run.text)?;
    let screen = Screen::new(&lesson.character.name)?;
    match setup.learn(&lesson, &folder, &*interrupts()?, &screen)? {
        RlOutcome::Finished(_) => {}
        RlOutcome::Halted(step, reason) => note(&format!("{} halted after step {step}: {reason}", run.label)),
        RlOutcome::Stopped(step) => {
            note(&format!("Stopped after step {step} of {}. Run the same command to resume.", run.label));
        }
    }
    Ok(())
}

fn write(config: &MethodComparisonConfig, runs: &[MethodRun], out: &PathBuf) -> Result<()> {
    let report = MethodComparisonReport::read(config, runs, out)?;
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let json = serde_json::to_string_pretty(&report).context("the report as JSON")?;
    for (name, text) in [("REPORT.html", report.page()), ("REPORT.md", report.markdown()), ("report.json", json)] {
        let file = out.join(name);
        fs::write(&file, text).with_context(|| file.display().to_string())?;
    }
    Ok(())
}
