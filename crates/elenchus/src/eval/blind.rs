//! `elenchus eval blind`: a person chooses the better reply without knowing whose it is.

use std::{fs, num::NonZeroUsize, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use elenchus_lab::blind::{self, ANSWERS, BlindScore, KEY, PAIRS};
use elenchus_train::eval::compare::Comparison;
use serde_json::json;

use crate::output::print;

#[derive(Debug, Args)]
pub struct BlindArgs {
    /// What `eval compare --json` printed
    #[arg(long, value_name = "FILE", required_unless_present = "score", requires = "out")]
    compare_json: Option<PathBuf>,
    /// Folder to write the pairs and their key to
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Voices to compare, each with each; all if left out
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    voices: Vec<String>,
    /// Maximum pairs of replies for each two voices
    #[arg(long, value_name = "N", default_value = "20")]
    pairs: NonZeroUsize,
    /// Determines which pairs, in which order
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// Count the answers in a folder of pairs instead
    #[arg(long, value_name = "DIR", conflicts_with_all = ["compare_json", "out", "voices"])]
    score: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: BlindArgs) -> Result<()> {
    let BlindArgs { compare_json, out, voices, pairs: most, seed, score, json } = args;
    if let Some(folder) = score {
        let scores = blind::score(&folder)?;
        return print(&if json { as_json(&scores) } else { as_table(&scores) });
    }
    let (file, folder) = compare_json.zip(out).context("--compare-json FILE and --out DIR belong together")?;
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let comparison: Comparison = serde_json::from_str(&text).with_context(|| {
        format!("{} is no comparison (hint: elenchus eval compare .. --json > FILE)", file.display())
    })?;
    let (pairs, key, same) = blind::draw(&comparison, &voices, most.get(), seed)?;
    blind::write(&folder, &pairs, &key)?;
    let folder = folder.display();
    let count = pairs.len();
    if json {
        return print(&format!("{}\n", json!({"pairs": count, "same": same})));
    }
    print(&format!(
        "{count} pairs in {folder}/{PAIRS}; {same} more were the same word for word\n\
         who said what is in {folder}/{KEY}: do not look\n\
         write {folder}/{ANSWERS}, a line for each: {{\"id\": \"0001\", \"better\": \"one\"}}, \"two\" or \"same\"\n\
         and count them with `elenchus eval blind --score {folder}`\n"
    ))
}

fn as_table(scores: &[BlindScore]) -> String {
    let names = scores.iter().map(|score| score.voice.chars().count() + score.against.chars().count() + 9);
    let width = names.chain([16]).max().unwrap_or_default() + 2;
    let mut table = format!("{:<width$}{:<17}win rate\n", "", "won/same/lost");
    for BlindScore { voice, against, wins } in scores {
        let rate = wins.rate().map_or("-".to_owned(), |rate| {
            format!("{:.0}% [{:.0}, {:.0}]", rate.value * 100.0, rate.low * 100.0, rate.high * 100.0)
        });
        let counts = format!("{}/{}/{}", wins.won, wins.tied, wins.lost);
        table += &format!("{:<width$}{counts:<17}{rate}\n", format!("{voice} against {against}"));
    }
    table + "[]: 95%, Wilson's interval; ties are halves\n"
}

fn as_json(scores: &[BlindScore]) -> String {
    let row = |score: &BlindScore| {
        let BlindScore { voice, against, wins } = score;
        json!({"voice": voice, "against": against, "wins": wins, "rate": wins.rate()})
    };
    format!("{}\n", json!(scores.iter().map(row).collect::<Vec<_>>()))
}
