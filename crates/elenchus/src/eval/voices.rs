//! A voice is learned when its adapter predicts its replies better than anything else does. So each voice's held-out
//! replies are read under every adapter, and under none: with the persona alone, and with two example turns before the
//! conversation, the alternative without training.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use elenchus_candle::TrainableLora;
use elenchus_lm::{ComputeDevice, LoraAdapter, Numerics};
use elenchus_train::{Example, Lesson, Perplexity, data::Pair, eval::example_turns, example, perplexity, spread};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::{
    base::TrainingBase,
    characters::Characters,
    output::{note, print},
};

#[derive(Debug, Args)]
pub struct VoicesArgs {
    /// The folder of all characters; found as `talk` finds it if left out
    #[arg(long, value_name = "DIR")]
    adapters: Option<PathBuf>,
    /// GGUF file, Hugging Face folder or `hf:OWNER/REPO[/FILE]`; the default model if left out
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Maximum held-out pairs of each voice, spread evenly over them: a quick look
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// cpu, cuda, or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: ComputeDevice,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The base model with the persona alone, and with example turns besides.
const BASELINES: [&str; 2] = ["persona", "examples"];

/// The whole table.
#[derive(Debug, Serialize)]
struct Table {
    /// Folders of the voices, one adapter each, then the two ways to go without one.
    columns: Vec<String>,
    voices: Vec<Row>,
    left_out: Vec<LeftOut>,
    /// Voices whose own adapter is the best of their row.
    own_is_best: usize,
}

/// One voice's held-out replies.
#[derive(Debug, Serialize)]
struct Row {
    voice: String,
    pairs: usize,
    tokens: usize,
    /// Reply perplexity in the order of the table's columns.
    perplexity: Vec<f64>,
    /// The column with the lowest.
    best: String,
    own_is_best: bool,
}

#[derive(Debug, PartialEq, Serialize)]
struct LeftOut {
    voice: String,
    reason: &'static str,
}

pub fn run(args: VoicesArgs) -> Result<()> {
    let characters = match &args.adapters {
        Some(folder) => Characters::open(folder)?,
        None => Characters::find()?,
    };
    let (ids, left_out) = trained(&characters);
    ensure!(
        !ids.is_empty(),
        "no folder of {} holds both a training.toml and an adapter (hint: train one with `elenchus train sft`)",
        characters.folder.display()
    );
    let lessons = ids
        .iter()
        .map(|id| Lesson::open(&characters.folder.join(id).join("training.toml")))
        .collect::<elenchus_train::Result<Vec<_>>>()?;

    let voice = TrainingBase::open(args.base, Numerics::Exact, args.device)?;
    let loras = ids
        .iter()
        .map(|id| {
            let folder = characters.folder.join(id);
            let lora = TrainableLora::new(&LoraAdapter::open(&folder)?, &voice.executor);
            lora.with_context(|| folder.display().to_string())
        })
        .collect::<Result<Vec<_>>>()?;
    let columns: Vec<String> = ids.iter().cloned().chain(BASELINES.map(str::to_owned)).collect();

    let mut voices = Vec::new();
    for (id, lesson) in ids.iter().zip(&lessons) {
        let pairs = spread(&lesson.split.held_out, args.limit.map_or(usize::MAX, NonZeroUsize::get));
        let max_tokens = lesson.config.training.max_tokens;
        let bare = voice.examples(&pairs, &lesson.character, max_tokens)?;
        let shown = with_shown_turns(lesson, &pairs, &voice).with_context(|| format!("the voice `{id}`"))?;
        let bar = ProgressBar::new((bare.len() * columns.len()) as u64)
            .with_style(ProgressStyle::with_template("{msg:<16} {wide_bar} {pos}/{len}  {eta} left")?)
            .with_message(id.clone());
        // Where no terminal shows the bar, a line reports the progress.
        note(&format!("{id}: {} replies under {} adapters and none", bare.len(), loras.len()));
        let ways = loras.iter().map(|lora| (Some(lora), &bare)).chain([(None, &bare), (None, &shown)]);
        let mut measures = Vec::new();
        for (column, (lora, examples)) in ways.enumerate() {
            let position = |read| bar.set_position((column * bare.len() + read) as u64);
            measures.push(perplexity(&voice.executor, lora, examples, position)?);
        }
        bar.finish_and_clear();
        let tokens = measures.first().map_or(0, |measure| measure.tokens);
        let perplexity = measures.iter().map(Perplexity::of_tokens).collect();
        voices.push(row(id, bare.len(), tokens, perplexity, &columns));
    }
    let own_is_best = voices.iter().filter(|row| row.own_is_best).count();
    let table = Table { columns, voices, left_out, own_is_best };
    let text = if args.json { serde_json::to_string(&table)? + "\n" } else { shown_table(&table) };
    print(&text)
}

/// Which characters have an adapter and what it learned from, and why the others are left out.
fn trained(characters: &Characters) -> (Vec<String>, Vec<LeftOut>) {
    let (mut ids, mut left_out) = (Vec::new(), Vec::new());
    for id in &characters.ids {
        let has = |file: &str| Path::new(&characters.folder).join(id).join(file).is_file();
        match (has("training.toml"), has("adapter_config.json")) {
            (true, true) => ids.push(id.clone()),
            (true, false) => left_out.push(LeftOut { voice: id.clone(), reason: "has no adapter" }),
            (false, _) => left_out.push(LeftOut { voice: id.clone(), reason: "has no training.toml" }),
        }
    }
    (ids, left_out)
}

/// The same replies after a prompt in which the character has answered twice: the two training pairs in the middle when
/// ordered by the words of their last turn and reply. Exactly the same tokens are measured as without.
fn with_shown_turns(lesson: &Lesson, pairs: &[Pair], voice: &TrainingBase) -> Result<Vec<Example>> {
    let shown = example_turns(&lesson.split.train, &lesson.character.name)?;
    let max_tokens = lesson.config.training.max_tokens;
    let mut examples = Vec::new();
    for pair in pairs {
        let of = |pair, max| example(pair, &lesson.character, &voice.model, max);
        let Some(bare) = of(pair, max_tokens)? else { continue };
        let longer = Pair { context: [shown.as_slice(), &pair.context].concat(), ..pair.clone() };
        if let Some(mut example) = of(&longer, usize::MAX)? {
            example.tokens.truncate(example.reply_start + bare.tokens.len() - bare.reply_start);
            examples.push(Example { is_ended: bare.is_ended, ..example });
        }
    }
    Ok(examples)
}

fn row(id: &str, pairs: usize, tokens: usize, perplexity: Vec<f64>, columns: &[String]) -> Row {
    let lowest = columns.iter().zip(&perplexity).min_by(|a, b| a.1.total_cmp(b.1));
    let best = lowest.map_or_else(String::new, |(name, _)| name.clone());
    Row { voice: id.to_owned(), pairs, tokens, perplexity, own_is_best: best == id, best }
}

fn shown_table(table: &Table) -> String {
    let width = table.columns.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(8) + 2;
    let mut text = format!("{:width$}{:>8}", "", "replies");
    for name in &table.columns {
        text += &format!("{name:>width$}");
    }
    for row in &table.voices {
        text += &format!("\n{:width$}{:>8}", row.voice, row.pairs);
        for (name, perplexity) in table.columns.iter().zip(&row.perplexity) {
            let mark = if *name == row.best { "*" } else { "" };
            text += &format!("{:>width$}", format!("{mark}{perplexity:.2}"));
        }
    }
    text += "\n\nReply perplexity; * is the best of a row.\n";
    text += "persona: no adapter. examples: no adapter, two of the voice's training pairs as earlier turns.\n";
    let others: Vec<String> =
        table.voices.iter().filter(|row| !row.own_is_best).map(|row| format!("{} ({})", row.voice, row.best)).collect();
    text += &format!("The own adapter is the best for {} of {} voices", table.own_is_best, table.voices.len());
    text += &if others.is_empty() { ".\n".to_owned() } else { format!(", but not for {}.\n", others.join(", ")) };
    for LeftOut { voice, reason } in &table.left_out {
        text += &format!("left out: {voice} {reason}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_a_row_is_marked_and_counted() {
        let columns: Vec<String> = ["meno", "ion", "persona", "examples"].map(String::from).to_vec();
        let voices = vec![
            row("meno", 3, 30, vec![2.0, 3.0, 9.0, 8.0], &columns),
            row("ion", 4, 40, vec![2.5, 2.6, 9.0, 2.25], &columns),
        ];
        let left_out = vec![LeftOut { voice: "boy".into(), reason: "has no adapter" }];
        let text = shown_table(&Table { columns, voices, left_out, own_is_best: 1 });
        for part in
            ["*2.00", "*2.25", "  2.60", "1 of 2 voices, but not for ion (examples).", "left out: boy has no adapter"]
        {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
        assert_eq!(text.matches('*').count(), 3);
    }
}
