//! The results of reward models on preferences they never saw: how often they are right, and whether their probabilities can
//! be believed. Several models are folds of one set of preferences, and are pooled; a control stands for itself.

use std::fmt::Write;

use crate::{
    Accuracy, Calibration, CalibrationBin, Result, RewardCard, RunFolder,
    draw::{
        escaped, head,
        scale::{Axis, grouped},
    },
};

const SIZE: f64 = 320.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;

/// Writes `REPORT.html` and `REPORT.md` of models that were trained in one run.
///
/// # Errors
/// What cannot be written.
pub fn reward_report(run: &RunFolder, cards: &[RewardCard]) -> Result<()> {
    run.write("REPORT.html", page(cards).as_bytes())?;
    run.write("REPORT.md", short(cards).as_bytes())
}

/// The models that learned, and the controls after them.
fn parts(cards: &[RewardCard]) -> (Vec<&RewardCard>, Vec<&RewardCard>) {
    cards.iter().partition(|card| !card.shuffled_labels)
}

fn pooled(cards: &[&RewardCard]) -> (Accuracy, Calibration) {
    let calibrations = cards.iter().filter_map(|card| card.calibration.as_ref());
    (Accuracy::pooled(cards.iter().map(|card| &card.held_out)), Calibration::pooled(calibrations))
}

const COLUMNS: [&str; 7] =
    ["model", "trained on", "held-out accuracy [95%]", "words alone", "tokens alone", "log loss", "calibration error"];

fn rows(cards: &[RewardCard]) -> Vec<[String; 7]> {
    let (learned, controls) = parts(cards);
    let percent = |share: f64| format!("{:.1}%", share * 100.0);
    let row = |name: String, card: &RewardCard| {
        let of = card.calibration.as_ref();
        [
            name,
            format!("{} pairs, {} steps", grouped(card.pairs as f64, 0), card.steps),
            card.held_out.to_string(),
            percent(card.length_only_accuracy),
            percent(card.token_count_only_accuracy),
            of.map_or_else(String::new, |of| format!("{:.3}", of.log_loss)),
            of.map_or_else(String::new, |of| percent(of.error())),
        ]
    };
    let name = |at: usize| if learned.len() > 1 { format!("fold {at}") } else { "model".to_owned() };
    let mut rows: Vec<_> = learned.iter().enumerate().map(|(at, card)| row(name(at), card)).collect();
    if learned.len() > 1 {
        let (accuracy, of) = pooled(&learned);
        let more = [format!("{:.3}", of.log_loss), percent(of.error())];
        let [log_loss, error] = more;
        let empty = String::new;
        rows.push(["pooled".to_owned(), empty(), accuracy.to_string(), empty(), empty(), log_loss, error]);
    }
    rows.extend(controls.iter().map(|card| row("control, labels shuffled".to_owned(), card)));
    rows
}

fn bins(of: &Calibration) -> Vec<[String; 3]> {
    let filled = of.bins.iter().filter(|bin| bin.pairs > 0);
    filled.map(|bin| [bin.pairs.to_string(), format!("{:.3}", bin.predicted), observed(bin)]).collect()
}

fn observed(bin: &CalibrationBin) -> String {
    let Accuracy { accuracy, low, high, .. } = bin.accuracy();
    format!("{accuracy:.3} [{low:.3}, {high:.3}]")
}

const BIN_COLUMNS: [&str; 3] = ["pairs", "predicted", "observed [95%]"];

const WHAT: &str = "The probability is the sigmoid of the distance of two scores, read from the side that the model favours; \
                    what is observed is how often that side was preferred. Intervals are Wilson's.";

fn title(cards: &[RewardCard]) -> String {
    cards.first().map_or_else(String::new, |card| format!("{}: a judge of {}", card.character, card.name()))
}

fn short(cards: &[RewardCard]) -> String {
    let (learned, _) = parts(cards);
    let mut text = format!("# {}\n\n", title(cards));
    table(&mut text, &COLUMNS, rows(cards).iter().map(<[String; 7]>::as_slice));
    let _ = write!(text, "\n## Calibration\n\n{WHAT}\n\n");
    table(&mut text, &BIN_COLUMNS, bins(&pooled(&learned).1).iter().map(<[String; 3]>::as_slice));
    text
}

fn table<'a>(text: &mut String, columns: &[&str], rows: impl Iterator<Item = &'a [String]>) {
    let _ = writeln!(text, "| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()));
    rows.for_each(|row| _ = writeln!(text, "| {} |", row.join(" | ")));
}

fn page(cards: &[RewardCard]) -> String {
    let title = title(cards);
    let mut page = head(&title, &title);
    let base = cards.first().map_or("", |card| &card.base_name);
    let _ = writeln!(page, "<p class=\"quiet\">A reward model on {}.</p>\n</header>", escaped(base));
    page.push_str("<h2>On what it never saw</h2>\n");
    html_table(&mut page, &COLUMNS, rows(cards).iter().map(<[String; 7]>::as_slice));
    let (learned, _) = parts(cards);
    let (_, of) = pooled(&learned);
    let _ =
        writeln!(page, "<h2>Calibration</h2>\n<p class=\"quiet\">{WHAT}</p>\n<div class=\"plots\">{}</div>", plot(&of));
    html_table(&mut page, &BIN_COLUMNS, bins(&of).iter().map(<[String; 3]>::as_slice));
    page + "</body>\n</html>\n"
}

fn html_table<'a>(page: &mut String, columns: &[&str], rows: impl Iterator<Item = &'a [String]>) {
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        cells.map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect::<String>()
    };
    let head = cells("th", &mut columns.iter().copied());
    let _ = write!(page, "<div class=\"wide\"><table class=\"numbers\">\n<tr>{head}</tr>\n");
    rows.for_each(|row| _ = writeln!(page, "<tr>{}</tr>", cells("td", &mut row.iter().map(String::as_str))));
    page.push_str("</table></div>\n");
}

/// Predicted against observed, both from one half to one, with what would be perfect as a line.
fn plot(of: &Calibration) -> String {
    let (floor, wall) = (SIZE - BOTTOM, SIZE - RIGHT);
    let bins: Vec<&CalibrationBin> = of.bins.iter().filter(|bin| bin.pairs > 0).collect();
    let lows = bins.iter().map(|bin| bin.accuracy().low);
    let (across, up) = (Axis::around([0.5, 1.0], 5), Axis::around(lows.chain([0.5, 1.0]), 6));
    let x = |value: f64| LEFT + across.share(value) * (wall - LEFT);
    let y = |value: f64| floor - up.share(value) * (floor - TOP);
    let mut svg = format!("<svg viewBox=\"0 0 {SIZE} {SIZE}\" role=\"img\" aria-label=\"Calibration\">\n");
    for &tick in &up.ticks {
        let (top, label) = (y(tick), up.label(tick));
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{top:.1}\" x2=\"{wall}\" y2=\"{top:.1}\"/>\
             <text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
            LEFT - 8.0,
            top + 4.5
        );
    }
    for &tick in &across.ticks {
        let (left, label) = (x(tick), across.label(tick));
        let _ = writeln!(
            svg,
            "<text class=\"tick\" text-anchor=\"middle\" x=\"{left:.1}\" y=\"{:.1}\">{label}</text>",
            floor + 18.0
        );
    }
    let _ = writeln!(
        svg,
        "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{floor}\" x2=\"{wall}\" y2=\"{floor}\"/>\
         <text class=\"name\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">predicted</text>\
         <line class=\"level\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
        (LEFT + wall) / 2.0,
        SIZE - 7.0,
        x(0.5),
        y(0.5),
        x(1.0),
        y(1.0)
    );
    for bin in bins {
        let (left, Accuracy { accuracy, low, high, .. }) = (x(bin.predicted), bin.accuracy());
        let _ = writeln!(
            svg,
            "<g><title>{} pairs: {}</title><line class=\"line\" stroke-width=\"2\" x1=\"{left:.1}\" y1=\"{:.1}\" x2=\"{left:.1}\" \
             y2=\"{:.1}\"/><circle class=\"dot\" cx=\"{left:.1}\" cy=\"{:.1}\" r=\"5\"/></g>",
            bin.pairs,
            observed(bin),
            y(low),
            y(high),
            y(accuracy)
        );
    }
    format!(
        "<figure>\n<h3>Observed share</h3>\n{svg}</svg>\n<figcaption><span><span class=\"key level\"></span>what would be \
         perfect</span></figcaption>\n</figure>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RewardKind;

    fn card(right: usize, shuffled_labels: bool) -> RewardCard {
        let scores: Vec<(f32, f32)> = (0..40).map(|at| (at as f32 * 0.1 - (40 - right) as f32 * 0.1, 0.0)).collect();
        RewardCard {
            kind: RewardKind::Preferences,
            loss: crate::RewardLoss::BradleyTerry,
            aspect: Some("<action>".to_owned()),
            character: "Meno".to_owned(),
            base_name: "tiny".to_owned(),
            base_sha256: String::new(),
            max_tokens: 64,
            steps: 9,
            pairs: 80,
            held_out: Accuracy::of(scores.iter().copied()),
            calibration: Some(Calibration::of(&scores)),
            length_only_accuracy: 0.5,
            token_count_only_accuracy: 0.5,
            shuffled_labels,
            gain: 1.0,
            bias: 0.0,
        }
    }

    #[test]
    fn folds_are_pooled_and_a_control_is_not() {
        let cards = [card(30, false), card(20, false), card(5, true)];
        let text = short(&cards);
        assert!(text.contains("| fold 1 |") && text.contains("| control, labels shuffled |"), "{text}");
        let pooled = text.lines().find(|line| line.starts_with("| pooled |")).unwrap();
        // 30 and 20 of 40, less the two ties.
        assert!(pooled.contains("61.3% [") && pooled.contains("of 80"), "{pooled}");
        let alone = short(&cards[..1]);
        assert!(alone.contains("| model |") && !alone.contains("pooled"), "{alone}");
    }

    #[test]
    fn what_is_drawn_lies_inside_and_text_is_escaped() {
        for cards in [&[card(30, false)][..], &[card(0, false), card(40, false)]] {
            let page = page(cards);
            assert!(page.contains("judge of &lt;action&gt;") && !page.contains("NaN"), "{page}");
            for name in [" y=\"", " y1=\"", " y2=\"", " cy=\"", " x1=\"", " cx=\""] {
                for value in page.split(name).skip(1).map(|rest| rest.split('"').next().unwrap()) {
                    let value: f64 = value.parse().unwrap();
                    assert!((0.0..=SIZE).contains(&value), "{name}{value} in {page}");
                }
            }
        }
    }
}
