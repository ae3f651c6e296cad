//! `elenchus eval verdicts`: measures what turns a judge's words into a number, before anything is learned from it.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use elenchus_train::judge::{
    LeadingWord, Lexicon, Opinion, Sentiment, Structured, VerdictReader, VerdictScores, Words, WordsSettings, by_words,
    measure, measure_in_folds, read_labelled,
};
use serde_json::json;

use crate::output::print;

/// Folds that are held out in turn from a reader that learns.
const FOLDS: usize = 5;

#[derive(Debug, Args)]
pub struct VerdictsArgs {
    /// JSON Lines of {verdict, label: -1, 0 or 1, idx: number of what was judged}
    #[arg(long, value_name = "FILE")]
    labelled: PathBuf,
    /// Hugging Face folder of a five-star BERT classifier, to be measured as well
    #[arg(long, value_name = "FOLDER")]
    sentiment: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Praises everything: the baseline that a reader must beat.
struct Constant;

impl VerdictReader for Constant {
    fn name(&self) -> &str {
        "always +1"
    }

    fn read(&self, _: &str) -> elenchus_train::Result<Option<Opinion>> {
        Ok(Some(Opinion::For))
    }
}

pub fn run(args: VerdictsArgs) -> Result<()> {
    let verdicts = read_labelled(&args.labelled)?;
    ensure!(!verdicts.is_empty(), "{} holds no verdicts", args.labelled.display());
    let mut readers: Vec<Box<dyn VerdictReader>> =
        vec![Box::new(Constant), Box::new(LeadingWord), Box::new(Structured), Box::new(Lexicon::default())];
    if let Some(folder) = &args.sentiment {
        readers.push(Box::new(Sentiment::open(folder)?));
    }
    let mut rows = Vec::new();
    for reader in readers {
        rows.push((reader.name().to_owned(), measure(&*reader, &verdicts)?));
    }
    let words = |others: &[&_]| Words::train(others, WordsSettings::default());
    rows.push((format!("words, {FOLDS} folds"), measure_in_folds(&verdicts, FOLDS, words)?));
    let whole = |others: &[&_]| words(others).map(by_words);
    rows.push((format!("default, {FOLDS} folds"), measure_in_folds(&verdicts, FOLDS, whole)?));
    print(&if args.json { as_json(&rows) } else { as_table(&rows) })
}

fn as_table(rows: &[(String, VerdictScores)]) -> String {
    let share = |share: Option<f64>| share.map_or("-".into(), |share| format!("{:.1}%", 100.0 * share));
    let mut table = format!(
        "{:<16} {:>9} {:>9} {:>15} {:>15} {:>8}\n",
        "reader", "accuracy", "macro-F1", "blame as praise", "praise as blame", "unread"
    );
    for (name, scores) in rows {
        table += &format!(
            "{name:<16} {:>9} {:>9.3} {:>15} {:>15} {:>8}\n",
            share(Some(scores.accuracy())),
            scores.macro_f1(),
            share(scores.share(Opinion::Against, Opinion::For)),
            share(scores.share(Opinion::For, Opinion::Against)),
            share(Some(scores.unread())),
        );
    }
    table + &format!("{} verdicts\n", rows[0].1.total())
}

fn as_json(rows: &[(String, VerdictScores)]) -> String {
    let row = |(name, scores): &(String, VerdictScores)| {
        json!({
            "reader": name,
            "verdicts": scores.total(),
            "accuracy": scores.accuracy(),
            "macro_f1": scores.macro_f1(),
            "blame_as_praise": scores.share(Opinion::Against, Opinion::For),
            "praise_as_blame": scores.share(Opinion::For, Opinion::Against),
            "unread": scores.unread(),
        })
    };
    format!("{}\n", json!(rows.iter().map(row).collect::<Vec<_>>()))
}
