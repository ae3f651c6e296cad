//! `elenchus train revise`: principles and a chat model make better answers of a character's own.

use std::{env, path::PathBuf};

use anyhow::Result;
use clap::Args;
use elenchus_lm::ComputeDevice;
use elenchus_train::{
    RunFolder, Speaker,
    chat::{ChatClient, ChatCounters},
    virtue::{ReviseLesson, Revised, RevisedReport, revise},
};
use indicatif::{ProgressBar, ProgressStyle};

use super::interrupts;
use crate::{
    base::{open_model, prepared},
    output::{note, say},
};

#[derive(Debug, Args)]
pub struct ReviseArgs {
    /// Who answers what, by which principles, and who revises
    #[arg(value_name = "REVISE.TOML")]
    config: PathBuf,
    /// The run's folder: every step in `revisions.jsonl`, pairs to learn from in `pairs.jsonl`
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// GGUF file, Hugging Face folder or `hf:OWNER/REPO[/FILE]`; the default model if left out
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// cpu, cuda, or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: ComputeDevice,
}

pub fn run(args: ReviseArgs) -> Result<()> {
    let mut lesson = ReviseLesson::open(&args.config, &args.out)?;
    let (client, run) = (client(&lesson.config.chat)?, RunFolder::open(&args.out, &lesson.text)?);
    let base = open_model(args.base, args.device)?;
    let adapter = prepared(&base, lesson.start.take(), lesson.character.adapter_scale)?;
    let speaker = Speaker { model: &base, character: &lesson.character, adapter: adapter.as_ref() };
    let (prompts, principles) = (lesson.prompts.len(), lesson.principles.principles.len());
    say(&format!("{prompts} prompts, revised by {principles} principles in turn\n"));
    let (bar, should_stop) = (bar()?, interrupts()?);
    let outcome = revise(&lesson, speaker, &client, &run, &should_stop, |done, of| show(&bar, done, of));
    bar.finish_and_clear();
    tell(&client.counters());
    match outcome? {
        Revised::Stopped(done) => say(&format!("Stopped after prompt {done}. Run the same command to resume.\n")),
        Revised::Finished(RevisedReport { pairs, changed, left_out }) => {
            say(&format!("{pairs} pairs to learn from, {changed} of them changed; {left_out} prompts left out\n"));
            let files = ["pairs.jsonl", "revisions.jsonl", "left_out.jsonl"].map(|name| run.file(name));
            let [pairs, steps, left] = files.each_ref().map(|file| file.display());
            say(&format!("the pairs are in {pairs}, every step in {steps}, what is left out and why in {left}\n"));
        }
    }
    Ok(())
}

/// The chat model of a configuration, with the key that it names.
pub fn client(settings: &elenchus_train::chat::ChatSettings) -> Result<ChatClient> {
    let key = settings.key_env.as_deref().and_then(|name| env::var(name).ok());
    Ok(ChatClient::new(settings.clone(), key.as_deref())?)
}

pub fn bar() -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} prompts  {eta} left")?;
    Ok(ProgressBar::new(0).with_style(style))
}

/// A bar where somebody looks; a line for every part everywhere.
pub fn show(bar: &ProgressBar, done: usize, of: usize) {
    bar.set_length(of as u64);
    bar.set_position(done as u64);
    bar.suspend(|| note(&format!("{done} of {of} prompts")));
}

/// What it took.
pub fn tell(counters: &ChatCounters) {
    let ChatCounters { cost, cache_hits, given_up, .. } = counters;
    note(&format!(
        "asked {} times ({} tokens read, {} written); {cache_hits} answers were there already, {given_up} could not be had",
        cost.calls, cost.prompt_tokens, cost.completion_tokens
    ));
}
