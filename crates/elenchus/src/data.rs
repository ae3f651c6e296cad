//! `elenchus data`: fetches texts, and shows what a character could learn from them.

mod preferences;

use std::{
    env, fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use elenchus_dialogue::Turn;
use elenchus_train::{
    SftConfig,
    data::{
        self, FilterReport, Filters, Gutenberg, GutenbergEvent, OnBroken, Pair, Quantiles, Speakers, Stats, Texts,
        reply_sha256,
    },
};
use serde::Serialize;

use crate::{
    model,
    output::{note, print},
};

/// Where works are downloaded from, if no flag says so.
const MIRROR: &str = "ELENCHUS_GUTENBERG_MIRROR";

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Count a character's replies in texts, with their lengths and what the filters would keep
    Inspect {
        /// Plain text with labels (`SOCRATES: ...`), JSON Lines of turns or pairs, or either in gzip
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Character whose replies are counted; pairs without a character count as this one's
        #[arg(long, value_name = "NAME")]
        character: String,
        /// Maximum turns before a reply; 4 if neither this nor --training says otherwise
        #[arg(long, value_name = "N")]
        context: Option<NonZeroUsize>,
        /// Filter as this `training.toml` does, and take its context and `speakers`
        #[arg(long, value_name = "TRAINING.TOML")]
        training: Option<PathBuf>,
        /// Show this many of the filtered pairs, each with the hash by which player lines name its reply
        #[arg(long, value_name = "N", default_value = "0")]
        pairs: usize,
        /// A name in the texts and the name it stands for; may be repeated
        #[arg(long = "alias", value_name = "FROM=TO", value_parser = alias)]
        aliases: Vec<(String, String)>,
        /// Continue after a broken line; each is listed on stderr
        #[arg(long)]
        skip_broken: bool,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Make preferences from the replies of a `train rl` run: for each prompt the best reply against the worst
    Preferences {
        /// A run's `rollouts.jsonl`
        #[arg(required = true, value_name = "FILE")]
        rollouts: Vec<PathBuf>,
        /// JSON Lines of {context, chosen, rejected}, for `train reward` and for `preferences` in an `rl.toml`
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Download works of Project Gutenberg as plain text, by the number in their address
    Gutenberg {
        /// Numbers, such as 1643 of gutenberg.org/ebooks/1643
        #[arg(required = true, value_name = "ID", value_parser = clap::value_parser!(u32).range(1..))]
        ids: Vec<u32>,
        /// Folder for the files `pgID.txt`
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// A mirror laid out like the site; else `ELENCHUS_GUTENBERG_MIRROR` of the environment, else gutenberg.org
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
        /// Fetch works that are on disk as well
        #[arg(long)]
        force: bool,
    },
}

pub fn run(command: DataCommand) -> Result<()> {
    match command {
        DataCommand::Inspect { files, character, context, training, pairs, aliases, skip_broken, json } => {
            let four = NonZeroUsize::MIN.saturating_add(3);
            let training = training.map(|file| read_training(&file)).transpose()?;
            let called = training.iter().flat_map(|config| &config.speakers);
            let called = called.map(|name| (name.clone(), character.clone()));
            let speakers = Speakers::new(aliases.into_iter().chain(called))?;
            let character = speakers.normalise(&character);
            ensure!(!character.is_empty(), "--character is empty (hint: --character Socrates)");
            let context = context.or(training.as_ref().map(|config| config.context)).unwrap_or(four);
            let filters = training.map_or_else(Filters::default, |config| config.filters);
            let texts = data::read(&files, &speakers, if skip_broken { OnBroken::Skip } else { OnBroken::Stop })?;
            for line in &texts.broken {
                note(&format!("left out: {line}"));
            }
            let report = inspect(&files, &texts, character, context, &filters, pairs)?;
            let text = if json { serde_json::to_string_pretty(&report)? + "\n" } else { table(&report) };
            print(&text)
        }
        DataCommand::Preferences { rollouts, out } => preferences::run(&rollouts, &out),
        DataCommand::Gutenberg { ids, out, mirror, force } => {
            let mut gutenberg = Gutenberg::default();
            let named = env::var(MIRROR).ok().filter(|mirror| !mirror.is_empty());
            gutenberg.mirror = mirror.or(named).unwrap_or(gutenberg.mirror);
            gutenberg.fetch(&ids, &out, force, |event| match event {
                GutenbergEvent::Cached(file) => {
                    note(&format!("{} exists (hint: --force fetches it again)", file.display()));
                }
                GutenbergEvent::Fetched(file, bytes) => note(&format!("{}: {}", file.display(), model::size(bytes))),
                GutenbergEvent::Waiting(wait, reason) => {
                    note(&format!("{reason}; again in {:.1} s", wait.as_secs_f64()));
                }
            })?;
            Ok(())
        }
    }
}

fn read_training(file: &Path) -> Result<SftConfig> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(SftConfig::parse(&text, &file.display().to_string())?)
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
    disliked: usize,
    broken_lines: usize,
    character: String,
    context: NonZeroUsize,
    all: Stats,
    filters: FilterReport,
    filtered: Stats,
    pairs: Vec<ShownPair>,
}

/// A pair that passed the filters, with the hash by which a player line names it.
#[derive(Debug, Serialize)]
struct ShownPair {
    work: String,
    reply_sha256: String,
    context: Vec<Turn>,
    reply: String,
}

impl From<Pair> for ShownPair {
    fn from(Pair { work, context, reply, .. }: Pair) -> Self {
        // As many digits as name a reply; all 64 would name it as well.
        let reply_sha256 = reply_sha256(&reply)[..12].to_owned();
        Self { work, reply_sha256, context, reply }
    }
}

fn inspect(
    files: &[PathBuf],
    texts: &Texts,
    character: String,
    context: NonZeroUsize,
    filters: &Filters,
    shown: usize,
) -> Result<Report> {
    let pairs = data::pairs(texts, &character, context)?;
    let all = Stats::of(&pairs);
    let (pairs, filters) = data::filter(pairs, filters);
    Ok(Report {
        files: files.len(),
        dialogues: texts.dialogues.len(),
        turns: texts.dialogues.iter().map(|dialogue| dialogue.turns.len()).sum(),
        written_pairs: texts.pairs.len(),
        disliked: texts.disliked,
        broken_lines: texts.broken.len(),
        character,
        context,
        all,
        filters,
        filtered: Stats::of(&pairs),
        pairs: pairs.into_iter().take(shown).map(ShownPair::from).collect(),
    })
}

fn table(report: &Report) -> String {
    let Report {
        files, dialogues, turns, written_pairs, disliked, broken_lines, all, filters, filtered, pairs, ..
    } = report;
    let causes = filters.by_cause().map(|(cause, count)| format!("{count} {cause}")).join(", ");
    let least_to_most = ["least", "10%", "half", "90%", "most"].map(|name| format!("{name:>6}")).concat();
    let row = |name: &str, stats: &Stats| {
        let (reply, last_turn) = (quantiles(stats.reply_words), quantiles(stats.last_turn_words));
        format!("{name:<10}{:>7}{:>11}  {reply}  {last_turn}", stats.pairs, percent(stats.questions))
    };
    let mut lines = vec![
        format!(
            "{files} files: {dialogues} dialogues of {turns} turns, {written_pairs} written pairs, {disliked} more voted down, {broken_lines} broken lines"
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
    for ShownPair { work, reply_sha256, context, reply } in pairs {
        lines.push(format!("\n{work}, {reply_sha256}"));
        lines.extend(context.iter().map(|turn| format!("  {}: {}", turn.speaker, turn.text)));
        lines.push(format!("  > {reply}"));
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
        let report = |character: &str, shown| {
            inspect(&files, &texts, character.to_owned(), NonZeroUsize::MIN, &Filters::default(), shown)
        };
        let error = report("Eva", 0).unwrap_err().to_string();
        assert!(error.contains("Eva") && error.contains("Anna (2), Ben (2)"), "{error}");
        assert!(!table(&report("Ben", 0).unwrap()).contains("rope"));
        let report = report("Ben", 9).unwrap();
        let table = table(&report);
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(rows.contains(&"all 2 50% 1 1 1 7 7 5 5 5 5 5".split(' ').collect()), "{table}");
        assert!(rows.contains(&"filtered 1 100% 7 7 7 7 7 5 5 5 5 5".split(' ').collect()), "{table}");
        assert!(rows.contains(&"well 2 1 50% 1 words".split(' ').collect()), "{table}");
        assert!(table.contains("\ndropped 1: ") && table.contains(", 1 short reply, "), "{table}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["filtered"]["pairs"], &json["all"]["works"]["well"]["pairs"]), (&1.into(), &2.into()));
        // python3 -c 'import hashlib; print(hashlib.sha256(b"My father did, with a rope. Why?").hexdigest()[:12])'
        let hash = "755a54ba6235";
        let shown = format!("\nwell, {hash}\n  Anna: And who has measured it?\n  > My father did, with a rope. Why?\n");
        assert!(table.ends_with(&shown), "{table}");
        assert_eq!((&json["pairs"][0]["reply_sha256"], &json["pairs"][1]), (&hash.into(), &serde_json::Value::Null));
    }
}
