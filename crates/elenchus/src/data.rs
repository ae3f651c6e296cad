//! `elenchus data`: what a character could learn from texts.

use std::{
    io::{self, Write},
    num::NonZeroUsize,
    path::PathBuf,
};

use anyhow::{Result, ensure};
use clap::Subcommand;
use elenchus_train::data::{self, FilterReport, Filters, OnBroken, Quantiles, Speakers, Stats, Texts};
use serde::Serialize;

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Count a character's replies in texts, and show their lengths and what the filters would leave of them
    Inspect {
        /// Plain text with labels (`SOCRATES: ...`), JSON Lines of turns or pairs, or either in gzip
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Whose replies; pairs that do not say who replies are this character's
        #[arg(long, value_name = "NAME")]
        character: String,
        /// Turns before a reply, at most
        #[arg(long, value_name = "N", default_value = "4")]
        context: NonZeroUsize,
        /// A name in the texts and the name it stands for; may be given several times
        #[arg(long = "alias", value_name = "FROM=TO", value_parser = alias)]
        aliases: Vec<(String, String)>,
        /// Go on behind a broken line; each is listed on stderr
        #[arg(long)]
        skip_broken: bool,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
}

pub fn run(command: DataCommand) -> Result<()> {
    match command {
        DataCommand::Inspect { files, character, context, aliases, skip_broken, json } => {
            let speakers = Speakers::new(aliases)?;
            let character = speakers.normalise(&character);
            ensure!(!character.is_empty(), "--character names nobody (hint: --character Socrates)");
            let texts = data::read(&files, &speakers, if skip_broken { OnBroken::Skip } else { OnBroken::Stop })?;
            for line in &texts.broken {
                eprintln!("left out: {line}");
            }
            let report = inspect(&files, &texts, character, context)?;
            let text = if json { serde_json::to_string_pretty(&report)? + "\n" } else { table(&report) };
            // Not `print!`, which panics when nobody reads on, as in `| head`.
            io::stdout().write_all(text.as_bytes())?;
            Ok(())
        }
    }
}

fn alias(text: &str) -> Result<(String, String), String> {
    let (from, to) = text.split_once('=').ok_or("an alias is written FROM=TO (hint: --alias SOC=Socrates)")?;
    Ok((from.to_owned(), to.to_owned()))
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    files: usize,
    dialogues: usize,
    turns: usize,
    written_pairs: usize,
    broken_lines: usize,
    character: String,
    context: NonZeroUsize,
    all: Stats,
    filters: FilterReport,
    filtered: Stats,
}

fn inspect(files: &[PathBuf], texts: &Texts, character: String, context: NonZeroUsize) -> Result<Report> {
    let pairs = data::pairs(texts, &character, context)?;
    let all = Stats::of(&pairs);
    let (pairs, filters) = data::filter(pairs, &Filters::default());
    Ok(Report {
        files: files.len(),
        dialogues: texts.dialogues.len(),
        turns: texts.dialogues.iter().map(|dialogue| dialogue.turns.len()).sum(),
        written_pairs: texts.pairs.len(),
        broken_lines: texts.broken.len(),
        character,
        context,
        all,
        filters,
        filtered: Stats::of(&pairs),
    })
}

fn table(report: &Report) -> String {
    let Report { files, dialogues, turns, written_pairs, broken_lines, all, filters, filtered, .. } = report;
    let causes = filters.by_cause().map(|(cause, count)| format!("{count} {cause}")).join(", ");
    let least_to_most = ["least", "10%", "half", "90%", "most"].map(|name| format!("{name:>6}")).concat();
    let row = |name: &str, stats: &Stats| {
        let (reply, last_turn) = (quantiles(stats.reply_words), quantiles(stats.last_turn_words));
        format!("{name:<10}{:>7}{:>11}  {reply}  {last_turn}", stats.pairs, percent(stats.questions))
    };
    let mut lines = vec![
        format!(
            "{files} files: {dialogues} dialogues of {turns} turns, {written_pairs} written pairs, {broken_lines} broken lines"
        ),
        format!("{}, with up to {} turns before a reply\n", report.character, report.context),
        format!("{:<28}  {:<30}  words of the turn before it", "", "words of a reply"),
        format!("{:<10}{:>7}{:>11}  {least_to_most}  {least_to_most}", "", "pairs", "questions"),
        row("all", all),
        row("filtered", filtered),
        format!("dropped {}: {causes}; {} long replies were cut\n", filters.dropped(), filters.cut),
    ];
    let width = all.works.keys().map(|work| work.chars().count()).max().unwrap_or(0).max(4);
    lines.push(format!("{:<width$}  {:>7}  {:>8}  {:>9}  median reply", "work", "pairs", "filtered", "questions"));
    for (work, stats) in &all.works {
        let kept = filtered.works.get(work).map_or(0, |stats| stats.pairs);
        let (questions, words) = (percent(stats.questions), stats.median_reply_words);
        lines.push(format!("{work:<width$}  {:>7}  {kept:>8}  {questions:>9}  {words:>6} words", stats.pairs));
    }
    lines.join("\n") + "\n"
}

fn quantiles(quantiles: Option<Quantiles>) -> String {
    match quantiles {
        Some(Quantiles { min, p10, median, p90, max }) => {
            [min, p10, median, p90, max].map(|words| format!("{words:>6}")).concat()
        }
        None => ["-"; 5].map(|none| format!("{none:>6}")).concat(),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_alias_has_two_sides() {
        assert_eq!(alias("SOC=Socrates"), Ok(("SOC".to_owned(), "Socrates".to_owned())));
        assert!(alias("SOC").unwrap_err().contains("FROM=TO"));
    }

    #[test]
    fn a_table_shows_what_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("well.txt");
        let text = "ANNA: Is the well deep here?\nBEN: Yes.\nANNA: And who has measured it?\nBEN: My father did, with a rope. Why?";
        fs::write(&file, text).unwrap();
        let files = [file];
        let texts = data::read(&files, &Speakers::default(), OnBroken::Stop).unwrap();
        let report = inspect(&files, &texts, "Ben".to_owned(), NonZeroUsize::MIN).unwrap();
        let table = table(&report);
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(rows.contains(&"all 2 50% 1 1 1 7 7 5 5 5 5 5".split(' ').collect()), "{table}");
        assert!(rows.contains(&"filtered 1 100% 7 7 7 7 7 5 5 5 5 5".split(' ').collect()), "{table}");
        assert!(rows.contains(&"well 2 1 50% 1 words".split(' ').collect()), "{table}");
        assert!(
            table.contains(
                "dropped 1: 0 unsure, 0 short last turn, 0 long last turn, 0 long reply, 1 short reply, 0 duplicate"
            ),
            "{table}"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["filtered"]["pairs"], &json["all"]["works"]["well"]["pairs"]), (&1.into(), &2.into()));
        let error = inspect(&files, &texts, "Eva".to_owned(), NonZeroUsize::MIN).unwrap_err().to_string();
        assert!(error.contains("Eva") && error.contains("Anna (2), Ben (2)"), "{error}");
    }
}
