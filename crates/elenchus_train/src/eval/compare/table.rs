//! A comparison as text.

use std::fmt::Write;

use super::{
    comparison::{Comparison, JudgeAbout, VoiceReport},
    planted::{Bad, Planted},
};
use crate::{
    bootstrap::{Interval, Wins},
    draw::scale::number,
};

/// All of it, in blocks: the judges' own test, each judge, and what needs no judge.
pub fn table(comparison: &Comparison) -> String {
    let Comparison { prompts, seed, baseline, .. } = comparison;
    let mut text = format!("{} prompts, seed {seed}; differences and wins are to {baseline}\n", prompts.len());
    let names = comparison.voices.iter().map(|voice| voice.name.chars().count());
    let titles = comparison.judges.iter().map(|judge| title(judge).chars().count());
    let width = names.chain(titles).chain([16]).max().unwrap_or_default() + 2;
    for judge in &comparison.judges {
        let _ = writeln!(
            text,
            "\n{:<width$}{:<26}{:<28}{:<17}win rate",
            title(judge),
            "mean",
            "difference",
            "won/same/lost"
        );
        for voice in &comparison.voices {
            let Some(report) = voice.scores.get(&judge.name) else {
                let _ = writeln!(text, "{:<width$}no reply could be scored", voice.name);
                continue;
            };
            let wins = report.wins.map(|wins| format!("{}/{}/{}", wins.won, wins.tied, wins.lost));
            let rate = report.wins.and_then(Wins::rate);
            let unscored = match voice.replies.len() - report.scored {
                0 => String::new(),
                unscored => format!("  {unscored} not scored"),
            };
            let line = format!(
                "{:<width$}{:<26}{:<28}{:<17}{}{unscored}",
                voice.name,
                interval(&report.mean),
                report.difference.as_ref().map_or(String::new(), difference),
                wins.unwrap_or_default(),
                rate.as_ref().map_or(String::new(), shares),
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    manner(&mut text, comparison, width);
    planted(&mut text, comparison, width);
    text + "\n[]: 95%, paired bootstrap over prompts; * is clear of 0; win rates: ties are halves, Wilson's interval.\n\
            Judges score each reply by itself, so that no order of replies can matter.\n\
            KL: nats a token to the baseline along a voice's own replies, exact, without the sampler's cuts.\n"
}

fn manner(text: &mut String, comparison: &Comparison, width: usize) {
    let _ = writeln!(
        text,
        "\n{:<width$}{:>6}{:>10}  {:<24}{:>10}  {:<18}{:<22}{:>11}{:>9}",
        "", "words", "distance", "difference", "questions", "distinct 1/2/3", "KL", "perplexity", "seconds"
    );
    let own = &comparison.own;
    let distinct = |of: &[f64]| of.iter().map(|share| format!("{share:.2}")).collect::<Vec<_>>().join("/");
    let _ = writeln!(
        text,
        "{:<width$}{:>6}{:>10}  {:<24}{:>9.0}%  {}",
        format!("({})", comparison.character),
        own.words.median,
        "",
        "",
        own.questions * 100.0,
        distinct(&own.distinct)
    );
    for voice in &comparison.voices {
        let VoiceReport { manner, .. } = voice;
        let _ = writeln!(
            text,
            "{:<width$}{:>6}{:>10}  {:<24}{:>9.0}%  {:<18}{:<22}{:>11}{:>9.2}",
            voice.name,
            manner.words.median,
            number(voice.length_distance),
            voice.length_distance_difference.as_ref().map_or(String::new(), difference),
            manner.questions * 100.0,
            distinct(&manner.distinct),
            voice.kl.as_ref().map_or(String::new(), interval),
            voice.perplexity.map_or("-".to_owned(), number),
            voice.seconds,
        );
    }
    let _ = writeln!(
        text,
        "words: of the middle reply. distance: of all word counts from the character's own {} (Wasserstein-1, in words).\n\
         seconds: a reply's share of the time that all replies of the voice took, generated in batches.",
        own.replies
    );
}

fn planted(text: &mut String, comparison: &Comparison, width: usize) {
    if let Some(style) = &comparison.style {
        let _ = writeln!(
            text,
            "\nthe judge `ngrams` learned from {} lines of each kind in {}, and tells {} of lines right that were kept back",
            style.pairs,
            style.works.join(", "),
            shares(&style.accuracy)
        );
    }
    if comparison.planted.is_empty() {
        return;
    }
    let _ = write!(text, "\n{:<width$}", "rejected");
    let _ = writeln!(text, "{}", Bad::ALL.map(|bad| format!("{:<20}", bad.name())).concat().trim_end());
    let tried = |judge: &&JudgeAbout| comparison.planted.iter().any(|row| row.judge == judge.name);
    for judge in comparison.judges.iter().filter(tried) {
        let cells = Bad::ALL.map(|bad| format!("{:<20}", rejected(comparison, &judge.name, bad)));
        let _ = writeln!(text, "{}", format!("{:<width$}{}", judge.name, cells.concat()).trim_end());
    }
    text.push_str("share of bad replies scored below the real one; =: scored alike\n");
}

fn title(judge: &JudgeAbout) -> String {
    format!("{}{}", judge.name, if judge.optimised { ", optimised" } else { "" })
}

/// `92% =5% of 120`
pub(super) fn rejected(comparison: &Comparison, judge: &str, bad: Bad) -> String {
    let row = comparison.planted.iter().find(|row| row.judge == judge && row.bad == bad);
    let Some(Planted { wins, .. }) = row.filter(|row| row.wins.total() > 0) else { return "-".to_owned() };
    let share = |count: usize| format!("{:.0}%", 100.0 * count as f64 / wins.total() as f64);
    let tied = if wins.tied > 0 { format!(" ={}", share(wins.tied)) } else { String::new() };
    format!("{}{tied} of {}", share(wins.won), wins.total())
}

/// `0.12 [0.10, 0.14]`
pub fn interval(of: &Interval) -> String {
    format!("{} [{}, {}]", number(of.value), number(of.low), number(of.high))
}

/// The same with its sign, and a mark where it is clear of 0.
pub fn difference(of: &Interval) -> String {
    let sign = if of.value > 0.0 { "+" } else { "" };
    format!("{sign}{}{}", interval(of), if of.is_clear_of(0.0) { "*" } else { "" })
}

/// `62% [55, 69]`
pub fn shares(of: &Interval) -> String {
    format!("{:.0}% [{:.0}, {:.0}]", of.value * 100.0, of.low * 100.0, of.high * 100.0)
}
