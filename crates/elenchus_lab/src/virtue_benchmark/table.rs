//! A benchmark as text, and as a page that opens anywhere.

use std::fmt::Write;

use super::{Benchmark, LengthControlled, Scored};
use elenchus_train::{
    bootstrap::Interval,
    draw::{
        escaped, head,
        rows::{Drawn, figure},
        scale::number,
    },
    eval::compare::table::{difference, interval, shares},
};

/// Replies that a table shows.
const SHOWN: usize = 3;

const NOTE: &str = "[]: 95%, paired bootstrap over prompts; * is clear of 0; win rates: ties are halves, Wilson's interval. \
                    At equal length: the line of differences over the logarithm of the ratio of lengths, read at 0. \
                    Alike in length: pairs within 15% or two words.";

fn title(of: &Scored) -> String {
    format!("{}{}", of.name, if of.optimised { ", optimised" } else { "" })
}

fn intro(of: &Benchmark) -> String {
    let Benchmark { before, after, prompts, trained_on, seed, words, kl, .. } = of;
    let kl = kl.as_ref().map_or("not measured".to_owned(), interval);
    format!(
        "{after} beside {before} on {prompts} prompts that neither was trained on ({trained_on} others left out), seed {seed}\n\
         words of the middle reply: {} before, {} after; KL {kl} nats a token\n",
        words[0].median, words[1].median
    )
}

const COLUMNS: [&str; 7] = ["", "before", "after", "difference", "at equal length", "alike in length", "win rate"];

fn cells(of: &Scored) -> [String; 7] {
    let LengthControlled { at_equal_length, matched, of_matched, .. } = &of.length;
    let matched = of_matched
        .as_ref()
        .map_or_else(|| format!("too few ({matched})"), |interval| format!("{} of {matched}", difference(interval)));
    [
        title(of),
        interval(&of.before),
        interval(&of.after),
        difference(&of.difference),
        at_equal_length.as_ref().map_or("-".to_owned(), difference),
        matched,
        of.wins.rate().as_ref().map_or(String::new(), shares),
    ]
}

/// All of it but the replies, of which a few are shown.
pub fn table(of: &Benchmark) -> String {
    let mut text = intro(of);
    let rows: Vec<[String; 7]> =
        std::iter::once(COLUMNS.map(str::to_owned)).chain(of.scores.iter().map(cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0) + 2;
    let widths: [usize; 7] = std::array::from_fn(width);
    text.push('\n');
    for row in &rows {
        let line: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for reply in of.replies.iter().take(SHOWN) {
        let said = reply.context.last().map_or("", |turn| turn.text.as_str());
        let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let _ = write!(
            text,
            "\n> {}\n  {}: {}\n  {}: {}\n",
            line(said),
            of.before,
            line(&reply.before),
            of.after,
            line(&reply.after)
        );
    }
    let _ = writeln!(text, "\n{NOTE}");
    text
}

/// The page: the same with plots, and all replies side by side; after them `more`, which is markup already.
pub fn page(of: &Benchmark, more: &str) -> String {
    let mut page = head(&format!("{}: before and after", of.character), &of.character);
    let _ = writeln!(page, "<p class=\"quiet\">{}</p>\n</header>", escaped(&intro(of)).replace('\n', "<br>"));
    page.push_str("<h2>What reward models say</h2>\n<div class=\"plots\">\n");
    let rows = |value: fn(&Scored) -> Option<Interval>| {
        let row = |scored: &Scored| {
            let interval = value(scored)?;
            Some(Drawn {
                name: title(scored),
                low: interval.low,
                value: interval.value,
                high: interval.high,
                middle: None,
            })
        };
        of.scores.iter().filter_map(row).collect::<Vec<_>>()
    };
    let what = "after less before, and its interval";
    page.push_str(&figure("Difference", what, &rows(|of| Some(of.difference)), Some(("no difference", 0.0))));
    let controlled = rows(|of| of.length.at_equal_length);
    page.push_str(&figure("Difference at equal length", what, &controlled, Some(("no difference", 0.0))));
    page.push_str("</div>\n<div class=\"wide\"><table class=\"numbers\">\n");
    let row = |cells: &[String], tag: &str| {
        let cells: String = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    page.push_str(&row(&COLUMNS.map(str::to_owned), "th"));
    of.scores.iter().for_each(|scored| page.push_str(&row(&cells(scored), "td")));
    let _ = writeln!(page, "</table></div>\n<p class=\"quiet\">{}</p>\n<h2>What they say</h2>", escaped(NOTE));
    for reply in &of.replies {
        page.push_str("<div class=\"prompt\">\n");
        for turn in &reply.context {
            let _ = writeln!(page, "<blockquote>{}: {}</blockquote>", escaped(&turn.speaker), escaped(&turn.text));
        }
        page.push_str("<div class=\"said\">\n");
        for (side, (name, text)) in [(&of.before, &reply.before), (&of.after, &reply.after)].into_iter().enumerate() {
            let score = |(name, scores): (&String, &[Option<f32>; 2])| {
                format!("{name} {}", scores[side].map_or("-".to_owned(), |score| number(f64::from(score))))
            };
            let scores = reply.scores.iter().map(score).collect::<Vec<_>>().join(", ");
            let _ = writeln!(
                page,
                "<div><h4>{}</h4>{}<p class=\"quiet\">{}</p></div>",
                escaped(name),
                escaped(text),
                escaped(&scores)
            );
        }
        page.push_str("</div>\n</div>\n");
    }
    page + more + "</body>\n</html>\n"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use elenchus_dialogue::Turn;

    use super::*;
    use elenchus_train::{bootstrap::Wins, eval::compare::Lengths};

    use crate::virtue_benchmark::SideBySide;

    #[test]
    fn differences_stand_beside_their_controls_and_text_is_escaped() {
        let interval = |value: f64| Interval { value, low: value - 0.1, high: value + 0.1 };
        let scored = Scored {
            name: "action".into(),
            optimised: true,
            scored: 9,
            before: interval(0.0),
            after: interval(0.5),
            difference: interval(0.5),
            wins: Wins { won: 8, tied: 0, lost: 1 },
            length: LengthControlled {
                at_equal_length: Some(interval(0.05)),
                slope: Some(1.0),
                matched: 2,
                of_matched: None,
            },
        };
        let benchmark = Benchmark {
            character: "Meno".into(),
            before: "sft".into(),
            after: "rl".into(),
            prompts: 9,
            trained_on: 4,
            seed: 1,
            words: [Lengths::of([3]), Lengths::of([5])],
            kl: Some(interval(0.2)),
            scores: vec![scored],
            replies: vec![SideBySide {
                context: vec![Turn { speaker: "A".into(), text: "<b>Do it.</b>".into() }],
                before: "Yes.".into(),
                after: "No & no.".into(),
                scores: BTreeMap::from([("action".to_owned(), [Some(0.25), None])]),
            }],
        };
        let text = table(&benchmark);
        for part in [
            "9 prompts",
            "4 others left out",
            "3 before, 5 after",
            "action, optimised",
            "+0.50 [0.40, 0.60]*",
            "too few (2)",
            "rl: No & no.",
        ] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
        assert!(text.contains("+0.0500 [-0.0500, 0.15] "), "a difference that length explains has no mark\n{text}");
        let page = page(&benchmark, "<h2>More</h2>");
        assert!(
            page.contains("&lt;b&gt;Do it.") && page.contains("No &amp; no.") && page.contains("action 0.25"),
            "{page}"
        );
    }
}
