//! What a battery measured, as rows, as a table for a terminal and as Markdown for people who read the replies.

use std::{collections::BTreeMap, fmt::Write};

use super::{
    checks::ends_properly,
    play::{npc_faults, repetitions},
    results::{CharacterReport, CheckRow, Exchange, Failure, Played},
    setup::{CharacterEval, Group},
};
use crate::{bootstrap::wilson, data::words};

/// A reply to the player has at most so many words.
const MOST_WORDS: usize = 40;

/// A reply and what is wrong with it, if anything.
type Judged<'a> = (&'a Exchange, Option<&'a str>);

pub(super) fn report(of: &CharacterEval<'_>, conversations: Vec<Played>) -> CharacterReport {
    let rows = rows(&conversations);
    let exchanges = || conversations.iter().flat_map(|played| &played.exchanges);
    let to_player: Vec<usize> = said_to_player(&conversations).map(|exchange| words(&exchange.reply)).collect();
    let mut refused_by_rule = BTreeMap::new();
    for refused in exchanges().flat_map(|exchange| &exchange.refused) {
        *refused_by_rule.entry(refused.rule.clone()).or_default() += 1;
    }
    CharacterReport {
        character: of.speaker.character.name.clone(),
        partner: of.partner.as_ref().map(|partner| partner.character.name.clone()),
        lines: of.lines,
        seed: of.seed,
        seeds: of.seeds,
        is_filtered: of.filter.is_some(),
        replies: exchanges().count(),
        sampled_again: exchanges()
            .filter(|exchange| !exchange.refused.is_empty() && !exchange.reply.is_empty())
            .count(),
        refused: exchanges().filter(|exchange| !exchange.refused.is_empty() && exchange.reply.is_empty()).count(),
        refused_by_rule,
        mean_words: to_player.iter().sum::<usize>() as f64 / to_player.len().max(1) as f64,
        rows,
        conversations,
    }
}

/// Replies to the player that have words.
fn said_to_player(conversations: &[Played]) -> impl Iterator<Item = &Exchange> {
    let with_player = conversations.iter().filter(|played| played.group != Group::NpcToNpc);
    with_player.flat_map(|played| &played.exchanges).filter(|exchange| !exchange.reply.is_empty())
}

fn rows(conversations: &[Played]) -> Vec<CheckRow> {
    let mut rows = Vec::new();
    let judged_last = [
        Group::OwnName,
        Group::PersonaFacts,
        Group::GameFacts,
        Group::GameFactsOfThree,
        Group::PlayerName,
        Group::LastLine,
        Group::NotKnowing,
        Group::Role,
    ];
    for group in judged_last {
        let of: Vec<&Played> = conversations.iter().filter(|played| played.group == group).collect();
        let judged = |of: &[&Played]| -> Vec<(Exchange, Option<String>)> {
            let last =
                of.iter().filter_map(|played| Some((played.exchanges.last()?.clone(), played.faults.first().cloned())));
            last.collect()
        };
        if of.is_empty() {
            continue;
        }
        let of_all = judged(&of);
        rows.push(row(group.name(), false, of_all.iter().map(|(exchange, fault)| (exchange, fault.as_deref()))));
        let mut kinds: Vec<&str> = Vec::new();
        for played in &of {
            if !played.kind.is_empty() && !kinds.contains(&played.kind.as_str()) {
                kinds.push(&played.kind);
            }
        }
        for kind in kinds {
            let part: Vec<&Played> = of.iter().copied().filter(|played| played.kind == kind).collect();
            let part = judged(&part);
            rows.push(row(kind, true, part.iter().map(|(exchange, fault)| (exchange, fault.as_deref()))));
        }
    }
    let spam = || conversations.iter().filter(|played| played.group == Group::Repetition);
    let repeats = ["no near-repeat of the last six", "no near-repeat of the last"].into_iter().enumerate();
    for (at, check) in repeats.filter(|_| spam().next().is_some()) {
        let judged = spam().flat_map(|played| {
            let [of_six, of_one] = repetitions(&played.exchanges);
            played.exchanges.iter().skip(1).zip(if at == 0 { of_six } else { of_one })
        });
        rows.push(row(
            check,
            false,
            judged.map(|(exchange, repeats)| (exchange, repeats.then_some("nearly repeats itself"))),
        ));
    }
    let short = |exchange: &Exchange| (words(&exchange.reply) > MOST_WORDS).then_some("too long");
    rows.push(row(
        "at most 40 words",
        false,
        said_to_player(conversations).map(|exchange| (exchange, short(exchange))),
    ));
    let cut = |exchange: &Exchange| (!ends_properly(&exchange.reply)).then_some("does not end");
    rows.push(row("ends properly", false, said_to_player(conversations).map(|exchange| (exchange, cut(exchange)))));
    let among: Vec<(&str, &Exchange)> = conversations
        .iter()
        .filter(|played| played.group == Group::NpcToNpc)
        .flat_map(|played| played.exchanges.iter().map(|exchange| (played.kind.as_str(), exchange)))
        .collect();
    if !among.is_empty() {
        let checks = [
            ("NPC to NPC: whole line", "is cut"),
            ("NPC to NPC: no echo", "echoes the line before"),
            ("NPC to NPC: topic named", "does not name the topic"),
        ];
        for (at, (check, fault)) in checks.into_iter().enumerate() {
            let judged =
                among.iter().map(|(kind, exchange)| (*exchange, npc_faults(kind, exchange)[at].then_some(fault)));
            rows.push(row(check, false, judged));
        }
    }
    rows
}

fn row<'a>(check: &str, is_part: bool, judged: impl Iterator<Item = Judged<'a>>) -> CheckRow {
    let (mut right, mut of, mut failure) = (0, 0, None);
    for (exchange, fault) in judged {
        of += 1;
        match fault {
            None => right += 1,
            Some(fault) => {
                failure.get_or_insert_with(|| Failure {
                    line: exchange.line.clone(),
                    reply: exchange.reply.clone(),
                    fault: fault.to_owned(),
                });
            }
        }
    }
    CheckRow { check: check.to_owned(), is_part, right, of, share: wilson(right as f64, of), failure }
}

/// The rows, and an example of what failed in each.
pub fn table(report: &CharacterReport) -> String {
    let title = |row: &CheckRow| if row.is_part { format!("  {}", row.check) } else { row.check.clone() };
    let width = report.rows.iter().map(|row| title(row).chars().count()).max().unwrap_or_default() + 2;
    let mut text = format!("{:<width$}{:<10}{:<16}a failure\n", report.character, "right", "95%");
    for row in &report.rows {
        let share = row
            .share
            .map_or_else(String::new, |share| format!("[{:.0}, {:.0}]%", share.low * 100.0, share.high * 100.0));
        let failure = row.failure.as_ref().filter(|_| !row.is_part).map_or_else(String::new, |failure| {
            let Failure { line, reply, fault } = failure;
            let reply = if reply.is_empty() { "(nothing)".to_owned() } else { shortened(reply, 70) };
            format!("{} > {reply} ({fault})", shortened(line, 40))
        });
        let right = format!("{}/{}", row.right, row.of);
        let line = format!("{:<width$}{right:<10}{share:<16}{failure}", title(row));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let CharacterReport { replies, sampled_again, refused, mean_words, is_filtered, .. } = report;
    let _ = writeln!(
        text,
        "\n{replies} replies, {mean_words:.1} words each to the player; {}",
        match is_filtered {
            true => format!("{sampled_again} sampled again, {refused} refused{}", by_rule(report)),
            false => "not filtered".to_owned(),
        }
    );
    text + "[]: Wilson's interval. Rules see words and no sense: read the replies too (--replies FILE).\n"
}

fn by_rule(report: &CharacterReport) -> String {
    let rules: Vec<String> = report.refused_by_rule.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
    if rules.is_empty() { String::new() } else { format!(" ({})", rules.join(", ")) }
}

/// On one line, with its end left out if it is too long.
fn shortened(text: &str, most: usize) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= most { text } else { text.chars().take(most - 1).chain(['…']).collect() }
}

/// Every line and every reply.
pub fn markdown(report: &CharacterReport) -> String {
    let mut text = format!("# {}\n\n```text\n{}```\n", report.character, table(report));
    let mut heading = None;
    for played in &report.conversations {
        if heading.replace(played.group) != Some(played.group) {
            let _ = writeln!(text, "\n## {}\n", played.group.name());
        }
        let facts = if played.facts.is_empty() { String::new() } else { format!(" [{}]", played.facts.join(" ")) };
        let mark = if played.faults.is_empty() { String::new() } else { format!(" **{}**", played.faults.join(", ")) };
        let kind = if played.kind.is_empty() { String::new() } else { format!("{}: ", played.kind) };
        match played.exchanges.as_slice() {
            [only] => {
                let _ =
                    writeln!(text, "- {kind}{}{facts} > {}{mark}{}", flat(&only.line), flat(&only.reply), again(only));
            }
            several => {
                let _ = writeln!(
                    text,
                    "- {kind}{}{facts}{mark}",
                    several.first().map_or_else(String::new, |first| flat(&first.line))
                );
                for (at, exchange) in several.iter().enumerate() {
                    let line = if at == 0 || played.group == Group::NpcToNpc || played.group == Group::Repetition {
                        String::new()
                    } else {
                        format!("{} > ", flat(&exchange.line))
                    };
                    let _ =
                        writeln!(text, "  - {line}{}: {}{}", exchange.speaker, flat(&exchange.reply), again(exchange));
                }
            }
        }
    }
    text
}

/// What the filter did, after a reply.
fn again(exchange: &Exchange) -> String {
    match exchange.refused.first() {
        None => String::new(),
        Some(refused) => format!(" *(refused, {}: {})*", refused.rule, flat(&refused.text)),
    }
}

/// On one line, and without anything that Markdown would read as markup.
fn flat(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() { "(nothing)".to_owned() } else { text.replace(['<', '*', '`', '_'], " ") }
}
