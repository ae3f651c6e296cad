//! A comparison as one page that opens anywhere: plots, and what was said side by side. Text is escaped without exception.

use std::fmt::Write;

use super::{
    comparison::{Comparison, JudgeAbout, VoiceReport},
    planted::Bad,
    table::{difference, interval, rejected, shares},
};
use crate::{
    bootstrap::{Interval, Wins},
    draw::{
        escaped, head,
        rows::{Drawn, figure},
        scale::number,
    },
};

/// The page.
pub fn page(comparison: &Comparison) -> String {
    let mut page = head(&format!("{}: voices compared", comparison.character), &comparison.character);
    let _ = writeln!(
        page,
        "<p class=\"quiet\">{} voices answered {} prompts by the same sampler, the same stop rules and the same seed for each \
         prompt (seed {}). Differences and wins are to {}. Intervals hold 95% of a paired bootstrap over prompts; * is clear \
         of 0.</p>\n</header>",
        comparison.voices.len(),
        comparison.prompts.len(),
        comparison.seed,
        escaped(&comparison.baseline)
    );
    judges(&mut page, comparison);
    manner(&mut page, comparison);
    planted(&mut page, comparison);
    replies(&mut page, comparison);
    page.push_str("</body>\n</html>\n");
    page
}

fn judges(page: &mut String, comparison: &Comparison) {
    page.push_str(
        "<h2>What judges say</h2>\n<p class=\"quiet\">Each reply is scored by itself, so that no order of replies can \
         matter. Higher is better.</p>\n<div class=\"plots\">\n",
    );
    let titled = |judge: &JudgeAbout| {
        format!("{}{}", judge.name, if judge.optimised { " (a voice was trained to please it)" } else { "" })
    };
    for judge in &comparison.judges {
        let means = comparison.voices.iter().filter_map(|voice| {
            let Interval { value, low, high } = voice.scores.get(&judge.name)?.mean;
            Some(Drawn { name: voice.name.clone(), low, value, high, middle: None })
        });
        let rows: Vec<Drawn> = means.collect();
        let level = rows.iter().find(|row| row.name == comparison.baseline);
        let level = level.map(|row| (comparison.baseline.as_str(), row.value));
        page.push_str(&figure(&titled(judge), "mean score and its interval", &rows, level));
    }
    page.push_str("</div>\n");
    for judge in &comparison.judges {
        let rows = comparison.voices.iter().filter_map(|voice| {
            let report = voice.scores.get(&judge.name)?;
            let wins = report.wins.map(|wins| format!("{} / {} / {}", wins.won, wins.tied, wins.lost));
            Some(vec![
                voice.name.clone(),
                interval(&report.mean),
                report.difference.as_ref().map_or(String::new(), difference),
                wins.unwrap_or_default(),
                report.wins.and_then(Wins::rate).as_ref().map_or(String::new(), shares),
                format!("{} of {}", report.scored, voice.replies.len()),
            ])
        });
        let _ = writeln!(page, "<h3>{}</h3>", escaped(&titled(judge)));
        numbers(page, &["Voice", "Mean", "Difference", "Won / same / lost", "Win rate", "Scored"], rows);
    }
}

fn manner(page: &mut String, comparison: &Comparison) {
    page.push_str("<h2>How they speak</h2>\n<div class=\"plots\">\n");
    let own = &comparison.own;
    let own_name = format!("{}, in the texts", comparison.character);
    let all = [(own_name.as_str(), own)].into_iter();
    let all = all.chain(comparison.voices.iter().map(|voice| (voice.name.as_str(), &voice.manner)));
    let rows: Vec<Drawn> = all
        .clone()
        .map(|(name, manner)| {
            let of = |words: usize| words as f64;
            let words = manner.words;
            let middle = Some((of(words.p25), of(words.p75)));
            Drawn { name: name.to_owned(), low: of(words.p5), value: of(words.median), high: of(words.p95), middle }
        })
        .collect();
    let level = Some((own_name.as_str(), own.words.median as f64));
    page.push_str(&figure("Length of replies", "words: the middle 90%, the middle half, the median", &rows, level));
    let kl: Vec<Drawn> = (comparison.voices.iter())
        .filter_map(|voice| {
            let Interval { value, low, high } = voice.kl?;
            Some(Drawn { name: voice.name.clone(), low, value, high, middle: None })
        })
        .collect();
    if !kl.is_empty() {
        let title = format!("KL from {} along a voice's own replies", comparison.baseline);
        page.push_str(&figure(&title, "nats a token", &kl, None));
    }
    page.push_str("</div>\n");
    let share = |share: f64| format!("{:.0}%", share * 100.0);
    let distinct = |of: &[f64]| of.iter().map(|share| format!("{share:.2}")).collect::<Vec<_>>().join(" / ");
    let own_row = vec![
        own_name.clone(),
        own.words.median.to_string(),
        String::new(),
        String::new(),
        share(own.questions),
        distinct(&own.distinct),
        String::new(),
        String::new(),
        String::new(),
    ];
    let rows = comparison.voices.iter().map(|voice| {
        let VoiceReport { manner, .. } = voice;
        vec![
            voice.name.clone(),
            manner.words.median.to_string(),
            number(voice.length_distance),
            voice.length_distance_difference.as_ref().map_or(String::new(), difference),
            share(manner.questions),
            distinct(&manner.distinct),
            voice.kl.as_ref().map_or(String::new(), interval),
            voice.perplexity.map_or(String::new(), number),
            format!("{:.2}", voice.seconds),
        ]
    });
    let columns =
        ["Voice", "Words", "Distance", "Difference", "Questions", "Distinct 1 / 2 / 3", "KL", "Perplexity", "Seconds"];
    numbers(page, &columns, [own_row].into_iter().chain(rows));
    let _ = writeln!(
        page,
        "<p class=\"quiet\">Distance: of all word counts from the character's own {} replies (Wasserstein-1, in words). KL: \
         nats a token to {}, over the whole vocabulary, without the sampler's cuts. Perplexity: of the held-out replies. \
         Seconds: a reply's share of the time that all replies of the voice took, generated in batches, prompts included.</p>",
        own.replies,
        escaped(&comparison.baseline)
    );
}

fn planted(page: &mut String, comparison: &Comparison) {
    if comparison.style.is_none() && comparison.planted.is_empty() {
        return;
    }
    page.push_str("<h2>Can the judges tell?</h2>\n");
    if let Some(style) = &comparison.style {
        let _ = writeln!(
            page,
            "<p class=\"quiet\">The judge “ngrams” learned from {} lines of each kind in {}, and tells {} of lines right that \
             were kept back.</p>",
            style.pairs,
            escaped(&style.works.join(", ")),
            shares(&style.accuracy)
        );
    }
    if comparison.planted.is_empty() {
        return;
    }
    page.push_str(
        "<p class=\"quiet\">Share of planted bad replies that are scored below the real one; =: scored alike.</p>\n",
    );
    let columns: Vec<&str> = ["Judge"].into_iter().chain(Bad::ALL.map(Bad::name)).collect();
    let tried = |judge: &&JudgeAbout| comparison.planted.iter().any(|row| row.judge == judge.name);
    let rows = comparison.judges.iter().filter(tried).map(|judge| {
        [judge.name.clone()].into_iter().chain(Bad::ALL.map(|bad| rejected(comparison, &judge.name, bad))).collect()
    });
    numbers(page, &columns, rows);
}

fn replies(page: &mut String, comparison: &Comparison) {
    page.push_str("<h2>What was said</h2>\n");
    for (place, prompt) in comparison.prompts.iter().enumerate() {
        page.push_str("<section class=\"prompt\">\n<blockquote>");
        for turn in prompt {
            let _ = write!(page, "<div>{}: {}</div>", escaped(&turn.speaker), escaped(&turn.text));
        }
        page.push_str("</blockquote>\n<div class=\"said\">\n");
        for voice in &comparison.voices {
            let Some(reply) = voice.replies.get(place) else { continue };
            let scores = comparison.judges.iter().map(|judge| {
                let score = reply.scores.get(&judge.name).copied().flatten();
                format!("{} {}", judge.name, score.map_or("–".to_owned(), |score| number(f64::from(score))))
            });
            let cut = if reply.is_ended { "" } else { " · cut off" };
            let _ = writeln!(
                page,
                "<div><h4>{}</h4>{}<p class=\"quiet\">{}{cut}</p></div>",
                escaped(&voice.name),
                escaped(&reply.text),
                escaped(&scores.collect::<Vec<_>>().join(" · "))
            );
        }
        page.push_str("</div>\n</section>\n");
    }
}

fn numbers(page: &mut String, columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    page.push_str("<div class=\"wide\"><table class=\"numbers\">\n<thead><tr>");
    columns.iter().for_each(|column| page.push_str(&format!("<th>{}</th>", escaped(column))));
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        page.push_str("<tr>");
        row.iter().for_each(|cell| page.push_str(&format!("<td>{}</td>", escaped(cell))));
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table></div>\n");
}
