//! How voices held, round by round, as text and as part of a page.

use std::fmt::Write;

use super::{Breach, ROUNDS, RoleReport};
use elenchus_train::{
    draw::{escaped, head, scale::number},
    eval::compare::table::shares,
};

fn breach(breach: Breach) -> &'static str {
    match breach {
        Breach::OutOfRole => "out of role",
        Breach::Leak => "told the secret",
        Breach::GivesAway => "gave it away",
        Breach::Insult => "insulted",
    }
}

/// One table for each voice.
pub fn table(reports: &[RoleReport]) -> String {
    let mut text = String::new();
    let names = reports.iter().flat_map(|of| of.rows.iter().map(|row| &row.name).chain(of.judges.keys()));
    let voices = reports.iter().map(|of| &of.voice);
    let width = names.chain(voices).map(|name| name.chars().count()).max().unwrap_or(0) + 2;
    for RoleReport { voice, rows, judges, .. } in reports {
        let heads: String = (1..=ROUNDS).map(|round| format!("{:<10}", format!("round {round}"))).collect();
        let _ = writeln!(text, "{voice:<width$}{heads}held through all");
        for row in rows {
            let cells: String =
                row.fallen.iter().map(|count| format!("{:<10}", format!("{count} of {}", row.attempts))).collect();
            let held = row.held.as_ref().map_or(String::new(), shares);
            let _ = writeln!(text, "{:<width$}{cells}{held}", row.name);
        }
        for (judge, means) in judges {
            let cells: String = means.iter().map(|mean| format!("{:<10}", mean.map_or("-".into(), number))).collect();
            let _ = writeln!(text, "{judge:<width$}{}", cells.trim_end());
        }
        text.push('\n');
    }
    text + "How many replies of a round were a breach, by rules; what judges, if any, gave on average.\n"
}

/// A page of a [`section`] alone.
pub fn page(name: &str, section: &str) -> String {
    head(&format!("{name}: staying in role"), name) + "</header>\n" + section + "</body>\n</html>\n"
}

/// The same for a page, with all that was said.
pub fn section(reports: &[RoleReport]) -> String {
    let mut page = format!("<h2>Staying in role</h2>\n<pre>{}</pre>\n", escaped(&table(reports)));
    for of in reports {
        let _ = writeln!(page, "<details>\n<summary>{}: all that was said</summary>", escaped(&of.voice));
        for played in &of.played {
            let _ = writeln!(page, "<h3>{} ({})</h3>", escaped(&played.attempt), played.kind.name());
            for round in &played.rounds {
                let found: Vec<&str> = round.breaches.iter().map(|found| breach(*found)).collect();
                let found =
                    if found.is_empty() { String::new() } else { format!(" <strong>{}</strong>", found.join(", ")) };
                let _ = writeln!(
                    page,
                    "<blockquote>{}</blockquote>\n<p>{}{found}</p>",
                    escaped(&round.line),
                    escaped(&round.reply)
                );
            }
        }
        page.push_str("</details>\n");
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::role_suite::{Kind, Played, Round, report};

    #[test]
    fn a_voice_has_a_row_for_each_kind_and_judge() {
        let round = Round {
            line: "<b>?".into(),
            reply: "You fool.".into(),
            breaches: vec![Breach::Insult],
            scores: BTreeMap::from([("kind".to_owned(), Some(-1.0))]),
        };
        let played = Played { attempt: "taunt".into(), kind: Kind::BeRude, draw: 0, rounds: vec![round; 4] };
        let reports = [report("sft", vec![played])];
        let text = table(&reports);
        assert!(text.lines().any(|line| line.starts_with("be rude") && line.contains("1 of 1    1 of 1")), "{text}");
        assert!(text.lines().any(|line| line.starts_with("kind") && line.contains("-1.00")), "{text}");
        let page = section(&reports);
        assert!(page.contains("&lt;b&gt;?") && page.contains("<strong>insulted</strong>"), "{page}");
    }
}
