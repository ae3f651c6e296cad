//! A comparison of methods as a page and as tables.

use std::fmt::Write;

use super::{
    curves::{Curve, Look, Place, Standing},
    report::{MethodAbout, MethodComparisonReport},
};
use elenchus_train::{
    bootstrap::Interval,
    draw::{
        escaped, head, markdown_escaped,
        scale::{Axis, bytes, duration, grouped},
    },
};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 46.0;
/// Prompts whose replies are shown side by side.
const SHOWN: usize = 6;

impl MethodComparisonReport {
    /// A page with plots and replies side by side.
    pub fn page(&self) -> String {
        page(self)
    }

    /// The tables, for a repository page.
    pub fn markdown(&self) -> String {
        markdown(self)
    }
}

fn page(report: &MethodComparisonReport) -> String {
    let mut page = head("Methods compared", "Methods compared");
    let _ = writeln!(page, "<p class=\"quiet\">{}</p>\n</header>", escaped(&about(report)));
    for note in notes(report) {
        let _ = writeln!(page, "<p class=\"note\">{}</p>", escaped(&note));
    }
    page.push_str("<h2>What held-out prompts say</h2>\n");
    legend(&mut page, report);
    page.push_str("<div class=\"plots\">\n");
    plot(&mut page, report, "Score by divergence", "nats a reply", None, |look| look.kl);
    plot(&mut page, report, "Score by tokens said", "tokens", None, |look| look.spent.tokens as f64);
    plot(&mut page, report, "Score by updates", "steps of the optimiser", None, |look| look.spent.updates as f64);
    plot(&mut page, report, "Score by time", "seconds of iterations", None, |look| look.spent.seconds);
    let _ = writeln!(
        page,
        "</div>\n<h2>Score by divergence, method by method</h2>\n<p class=\"quiet\">Beside each, in grey, {}.</p>\n<div class=\"plots\">",
        escaped(&report.baseline)
    );
    for method in report.methods.iter().filter(|method| method.label != report.baseline) {
        plot(&mut page, report, &method.label, "nats a reply", Some(&method.label), |look| look.kl);
    }
    page.push_str("</div>\n");
    for (place, standings) in report.at_kl.iter().chain(&report.at_cost) {
        let _ = writeln!(page, "<h3>{}</h3>", escaped(&named(*place)));
        let rows: Vec<[String; 5]> = standings.iter().map(row).collect();
        table(&mut page, &standing_names(report), &rows);
    }
    page.push_str("<h2>What they take</h2>\n");
    table(&mut page, &COST, &report.methods.iter().map(|method| cost(report, &method.label)).collect::<Vec<_>>());
    replies(&mut page, report);
    page.push_str("</body>\n</html>\n");
    page
}

fn markdown(report: &MethodComparisonReport) -> String {
    let mut page = format!("# Methods compared\n\n{}\n", about(report));
    for note in notes(report) {
        let _ = writeln!(page, "\n**{}**", markdown_escaped(&note));
    }
    for (place, standings) in report.at_kl.iter().chain(&report.at_cost) {
        let _ = writeln!(page, "\n## {}\n", named(*place));
        let rows: Vec<[String; 5]> = standings.iter().map(row).collect();
        markdown_table(&mut page, &standing_names(report), &rows);
    }
    page.push_str("\n## What they take\n\n");
    let rows: Vec<_> = report.methods.iter().map(|method| cost(report, &method.label)).collect();
    markdown_table(&mut page, &COST, &rows);
    page
}

fn about(report: &MethodComparisonReport) -> String {
    let prompts = report.curves.iter().filter_map(|curve| curve.looks.first()).map(|look| look.scores.len()).max();
    let budget = [
        (report.budget.tokens > 0).then(|| format!("{} tokens", grouped(report.budget.tokens as f64, 0))),
        (report.budget.updates > 0).then(|| format!("{} updates", grouped(report.budget.updates as f64, 0))),
        (report.budget.seconds > 0.0).then(|| duration(report.budget.seconds)),
    ];
    let budget: Vec<String> = budget.into_iter().flatten().collect();
    format!(
        "{} runs from one start, under the same judges, of at most {} each. Scores are of {} prompts that were never learned \
         from; intervals hold 95% of a bootstrap over runs and prompts, differences are to {} with the same seeds, prompt by prompt, \
         and * is clear of 0. Between two looks a score is taken to lie on a line, over the square root of divergence where \
         that is what is equal.",
        report.curves.len(),
        budget.join(" or "),
        prompts.unwrap_or(0),
        report.baseline
    )
}

fn notes(report: &MethodComparisonReport) -> Vec<String> {
    let of = |curve: &Curve| {
        let name = format!("{}, seed {}", curve.label, curve.seed);
        match (&curve.halted, curve.is_over) {
            (Some(reason), _) => Some(format!("{name} was halted: {reason}.")),
            (None, false) => Some(format!("{name} has not ended.")),
            (None, true) => None,
        }
    };
    report.curves.iter().filter_map(of).collect()
}

fn named(place: Place) -> String {
    match place {
        Place::Kl(x) => format!("At {x} nats a reply"),
        Place::Tokens(x) => format!("At {} tokens said", grouped(x, 0)),
        Place::Updates(x) => format!("At {} updates", grouped(x, 0)),
        Place::Seconds(x) => format!("At {} of iterations", duration(x)),
    }
}

fn standing_names(report: &MethodComparisonReport) -> [String; 5] {
    [
        "Method".into(),
        "Runs there".into(),
        "Score".into(),
        "Deviation of runs".into(),
        format!("To {}", report.baseline),
    ]
}

fn row(standing: &Standing) -> [String; 5] {
    let shown = |of: &Option<Interval>| {
        of.map_or(String::new(), |Interval { value, low, high }| format!("{value:+.3} [{low:+.3}, {high:+.3}]"))
    };
    let is_clear = standing.difference.is_some_and(|difference| difference.is_clear_of(0.0));
    [
        standing.label.clone(),
        format!("{} of {}", standing.runs, standing.of),
        shown(&standing.score),
        standing.deviation.map_or(String::new(), |deviation| format!("{deviation:.3}")),
        shown(&standing.difference) + if is_clear { " *" } else { "" },
    ]
}

const COST: [&str; 10] = [
    "Method",
    "Adapters that learn",
    "Adapters only read",
    "Judged",
    "Seconds an iteration, median",
    "said",
    "judged",
    "learned",
    "Memory at most",
    "Updates, KL at the end",
];

fn cost(report: &MethodComparisonReport, label: &str) -> [String; 10] {
    let curves: Vec<&Curve> = report.curves.iter().filter(|curve| curve.label == label).collect();
    let mean = |of: &dyn Fn(&Curve) -> f64| curves.iter().map(|curve| of(curve)).sum::<f64>() / curves.len() as f64;
    let seconds =
        |at: usize| if curves.is_empty() { String::new() } else { format!("{:.1}", mean(&|of| of.seconds[at])) };
    let about = report.methods.iter().find(|method| method.label == label);
    let number = |of: &dyn Fn(&MethodAbout) -> String| about.map(of).unwrap_or_default();
    let ends = curves.iter().filter_map(|curve| curve.looks.last());
    let ends: Vec<String> = ends.map(|look| format!("{}, {:.2}", look.spent.updates, look.kl)).collect();
    [
        label.to_owned(),
        number(&|method| method.learning.to_string()),
        number(&|method| method.frozen.to_string()),
        number(&|method| if method.judged { "yes" } else { "no" }.to_owned()),
        seconds(0),
        seconds(1),
        seconds(2),
        seconds(3),
        curves.iter().filter_map(|curve| curve.peak_bytes).max().map_or(String::new(), |most| bytes(most as f64)),
        ends.join("; "),
    ]
}

fn table<const N: usize>(page: &mut String, names: &[impl AsRef<str>; N], rows: &[[String; N]]) {
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        cells.map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect::<String>()
    };
    let _ = writeln!(
        page,
        "<table>\n<thead><tr>{}</tr></thead>\n<tbody>",
        cells("th", &mut names.iter().map(AsRef::as_ref))
    );
    for row in rows {
        let _ = writeln!(page, "<tr>{}</tr>", cells("td", &mut row.iter().map(String::as_str)));
    }
    page.push_str("</tbody>\n</table>\n");
}

fn markdown_table<const N: usize>(page: &mut String, names: &[impl AsRef<str>; N], rows: &[[String; N]]) {
    // Numbers are none of a reader's markup; what the first column says may be.
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let first = cells.next().map(markdown_escaped).unwrap_or_default();
        let cells: Vec<String> = std::iter::once(first).chain(cells.map(str::to_owned)).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    page.push_str(&line(&mut names.iter().map(AsRef::as_ref)));
    let _ = writeln!(page, "|---{}|", "|---:".repeat(N - 1));
    rows.iter().for_each(|row| page.push_str(&line(&mut row.iter().map(String::as_str))));
}

/// Far enough apart on the wheel that neighbours in a legend are told apart, dark enough for paper and light enough for night.
fn colour(report: &MethodComparisonReport, label: &str) -> String {
    let at = report.methods.iter().position(|method| method.label == label).unwrap_or(0);
    format!("hsl({:.0} 65% {}%)", (at as f64 * 137.5) % 360.0, if at % 2 == 0 { 42 } else { 54 })
}

fn legend(page: &mut String, report: &MethodComparisonReport) {
    page.push_str("<p class=\"quiet\">");
    for method in &report.methods {
        let (colour, label) = (colour(report, &method.label), escaped(&method.label));
        let _ = write!(page, "<span style=\"color:{colour}\">&#9679; {label}</span> &nbsp; ");
    }
    page.push_str("</p>\n");
}

/// All runs, or those of one method and the baseline, on axes that hold all.
fn plot(
    page: &mut String,
    report: &MethodComparisonReport,
    title: &str,
    unit: &str,
    only: Option<&str>,
    x_of: fn(&Look) -> f64,
) {
    let title = escaped(title);
    let looks = || report.curves.iter().flat_map(|curve| &curve.looks);
    let (x, y) = (Axis::around(looks().map(x_of).chain([0.0]), 6), Axis::around(looks().map(|look| look.score), 5));
    let at = |look: &Look| {
        let left = LEFT + x.share(x_of(look)) * (WIDTH - LEFT - RIGHT);
        (left, HEIGHT - BOTTOM - y.share(look.score) * (HEIGHT - TOP - BOTTOM))
    };
    let (floor, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n");
    for &tick in &y.ticks {
        let top = floor - y.share(tick) * (HEIGHT - TOP - BOTTOM);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{top:.1}\" x2=\"{right}\" y2=\"{top:.1}\"/><text class=\"tick\" \
             text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT - 8.0,
            top + 4.5,
            y.label(tick)
        );
    }
    let _ = writeln!(svg, "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{floor}\" x2=\"{right}\" y2=\"{floor}\"/>");
    for &tick in &x.ticks {
        let left = LEFT + x.share(tick) * (WIDTH - LEFT - RIGHT);
        let _ = writeln!(
            svg,
            "<text class=\"tick\" text-anchor=\"middle\" x=\"{left:.1}\" y=\"{:.1}\">{}</text>",
            floor + 19.0,
            x.label(tick)
        );
    }
    let (middle, low) = (LEFT + (WIDTH - LEFT - RIGHT) / 2.0, HEIGHT - 7.0);
    let _ = writeln!(svg, "<text class=\"name\" text-anchor=\"middle\" x=\"{middle:.1}\" y=\"{low:.1}\">{unit}</text>");
    let is_shown =
        |curve: &&Curve| only.is_none_or(|only| [only, report.baseline.as_str()].contains(&curve.label.as_str()));
    for curve in report.curves.iter().filter(is_shown) {
        let is_beside = only.is_some_and(|only| only != curve.label);
        let colour = if is_beside { "hsl(0 0% 60%)".to_owned() } else { colour(report, &curve.label) };
        let points: Vec<String> = curve.looks.iter().map(at).map(|(left, top)| format!("{left:.1},{top:.1}")).collect();
        let name = escaped(&format!("{}, seed {}", curve.label, curve.seed));
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"><title>{name}</title></polyline>",
            points.join(" ")
        );
        for look in &curve.looks {
            let (left, top) = at(look);
            let _ = writeln!(
                svg,
                "<circle fill=\"{colour}\" cx=\"{left:.1}\" cy=\"{top:.1}\" r=\"3\"><title>{name}, step {}: {:+.3} at {:.2} nats</title></circle>",
                look.step, look.score, look.kl
            );
        }
    }
    svg.push_str("</svg>");
    let _ = writeln!(page, "<figure>\n<h3>{title}</h3>\n{svg}\n</figure>");
}

/// What each method's first run says in the end, and what all of them began with.
fn replies(page: &mut String, report: &MethodComparisonReport) {
    let mut ends: Vec<(&str, &Look)> = Vec::new();
    if let Some(start) = report.curves.first().and_then(|curve| curve.looks.first()) {
        ends.push(("the start", start));
    }
    for method in &report.methods {
        let first = report.curves.iter().find(|curve| curve.label == method.label);
        ends.extend(first.and_then(|curve| curve.looks.last()).map(|look| (method.label.as_str(), look)));
    }
    let Some((_, start)) = ends.first() else { return };
    page.push_str(
        "<h2>What they say in the end</h2>\n<p class=\"quiet\">Each method's first seed, by the same draws.</p>\n",
    );
    for (at, reply) in start.replies.iter().enumerate().take(SHOWN) {
        let said = reply.exchange.context.last().map_or("", |turn| turn.text.as_str());
        let _ = writeln!(page, "<h3>{}</h3>\n<table class=\"replies\">\n<tbody>", escaped(said));
        for (label, look) in &ends {
            let Some(reply) = look.replies.get(at) else { continue };
            let score = reply.score.map_or("no score".to_owned(), |score| format!("{score:+.2}"));
            let _ = writeln!(
                page,
                "<tr><td class=\"line\">{}</td><td>{}\n<span class=\"quiet\">{score}</span></td></tr>",
                escaped(label),
                escaped(&reply.exchange.reply)
            );
        }
        page.push_str("</tbody>\n</table>\n");
    }
}
