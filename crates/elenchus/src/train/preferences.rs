//! `elenchus train preferences`: a chat model compares a character's answers, in both orders.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use elenchus_lm::ComputeDevice;
use elenchus_train::{
    RunFolder, Speaker,
    virtue::{JudgedReport, Outcome, PreferencesLesson, judge_preferences},
};

use super::{
    interrupts,
    revise::{bar, client, show, tell},
};
use crate::{
    base::{open_model, prepared},
    output::{print, say},
};

#[derive(Debug, Args)]
pub struct PreferencesArgs {
    /// Who answers what, in which aspects it is compared, and who judges
    #[arg(value_name = "PREFERENCES.TOML")]
    config: PathBuf,
    /// The run's folder: every verdict in `judgements.jsonl`, preferences in `preferences.jsonl`
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// GGUF file, Hugging Face folder or `hf:OWNER/REPO[/FILE]`; the default model if left out
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// cpu, cuda, or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: ComputeDevice,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: PreferencesArgs) -> Result<()> {
    let mut lesson = PreferencesLesson::open(&args.config, &args.out)?;
    let (client, run) = (client(&lesson.config.chat)?, RunFolder::open(&args.out, &lesson.text)?);
    let base = open_model(args.base, args.device)?;
    let adapter = prepared(&base, lesson.start.take(), lesson.character.adapter_scale)?;
    let speaker = Speaker { model: &base, character: &lesson.character, adapter: adapter.as_ref() };
    let (bar, should_stop) = (bar()?, interrupts()?);
    let report = judge_preferences(&lesson, speaker, &client, &run, &should_stop, |done, of| show(&bar, done, of));
    bar.finish_and_clear();
    tell(&client.counters());
    let Some(report) = report? else {
        say("Stopped. Run the same command to resume.\n");
        return Ok(());
    };
    if args.json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&report)?));
    }
    print(&(table(&report) + &format!("the preferences are in {}\n", run.file("preferences.jsonl").display())))
}

fn table(report: &JudgedReport) -> String {
    let columns = [
        ("one", Outcome::One),
        ("other", Outcome::Other),
        ("tie", Outcome::Tie),
        ("order decided", Outcome::OrderDecided),
        ("unread", Outcome::Unread),
        ("unanswered", Outcome::Unanswered),
        ("wordless", Outcome::Wordless),
    ];
    let width = report.outcomes.keys().map(|name| name.chars().count()).max().unwrap_or(0) + 2;
    let heads: String = columns.iter().map(|(name, _)| format!("{name:>15}")).collect();
    let mut text = format!("{:width$}{heads}\n", "");
    for (aspect, outcomes) in &report.outcomes {
        let cell = |outcome| format!("{:>15}", outcomes.get(outcome).copied().unwrap_or_default());
        let cells: String = columns.iter().map(|(_, outcome)| cell(outcome)).collect();
        text += &format!("{aspect:width$}{cells}\n");
    }
    let rate = report.parse_rate.map_or("none".to_owned(), |rate| format!("{:.1}%", rate * 100.0));
    text + &format!("{} preferences; of verdicts in words {rate} could be read\n", report.preferences)
}
