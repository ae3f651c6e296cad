//! `REPORT.html`: one file that opens anywhere. Text from texts, models and configurations is escaped without exception.

use std::fmt::Write;

use super::{
    super::battery,
    facts::{Comparison, Facts, Step},
};
use crate::{
    Sample,
    draw::{
        escaped, head,
        plot::{Plot, figure},
        scale::{byte_unit, bytes, count, duration, grouped, number, per_second},
    },
};

/// The page.
pub(crate) fn page(facts: &Facts) -> String {
    let mut page = head(&format!("{}: training report", facts.character), &facts.character);
    header(&mut page, facts);
    tiles(&mut page, facts);
    plots(&mut page, facts);
    battery::to_html(&mut page, facts.battery.as_ref());
    replies(&mut page, facts);
    let _ = write!(
        page,
        "<h2>Configuration</h2>\n<p class=\"quiet\">training.toml</p>\n<pre>{}</pre>\n</body>\n</html>\n",
        escaped(facts.config_text.trim_end())
    );
    page
}

fn header(page: &mut String, facts: &Facts) {
    let base = facts.base.as_ref().map(|base| format!(" on {}", escaped(base))).unwrap_or_default();
    let mut settings = facts.settings();
    let works = facts.config.held_out_works.join(", ");
    if !works.is_empty() {
        settings.push(format!("measured on {works}"));
    }
    let _ = writeln!(
        page,
        "<p class=\"quiet\">A LoRA adapter{base}, by supervised fine-tuning.<br>{}</p>",
        escaped(&settings.join(" · "))
    );
    for note in facts.notes() {
        let _ = writeln!(page, "<p class=\"note\">{}</p>", escaped(&note));
    }
    page.push_str("</header>\n");
}

fn tiles(page: &mut String, facts: &Facts) {
    page.push_str("<dl class=\"tiles\">\n");
    let mut tile = |name: &str, value: &str, more: &str| {
        let _ =
            writeln!(page, "<div><dt>{name}</dt><dd class=\"value\">{value}</dd><dd class=\"more\">{more}</dd></div>");
    };
    let learned = facts.learned();
    let over = if learned.is_final { "on all held-out replies" } else { "on what was measured so far" };
    match (learned.base, learned.best) {
        (Some(base), Some(best)) => {
            let change = (best / base - 1.0) * 100.0;
            let (class, word) = if change <= 0.0 { ("lower", "lower") } else { ("higher", "higher") };
            let change = format!("<span class=\"{class}\">{:.1}% {word}</span> than the base {over}", change.abs());
            tile("Held-out perplexity", &format!("{} → {}", number(base), number(best)), &change);
        }
        (None, Some(best)) => {
            tile("Held-out perplexity", &number(best), &format!("{over}; the base was not measured yet"));
        }
        (Some(base), None) => {
            tile("Held-out perplexity", &number(base), "of the base; the adapter was not measured yet");
        }
        (None, None) => tile("Held-out perplexity", "–", "not measured yet"),
    }
    if let Some(step) = learned.best_step {
        tile("Best step", &grouped(step as f64, 0), &format!("of {}", grouped(facts.last_step() as f64, 0)));
    } else {
        tile("Steps", &grouped(facts.last_step() as f64, 0), "taken");
    }
    let targets = format!("{} learned from", count(facts.targets()));
    tile("Tokens read", &count(facts.tokens()), &targets);
    tile("Time", &duration(facts.seconds()), "without evaluations");
    if let Some(speed) = facts.median_speed() {
        tile("Speed", &per_second(speed), "tokens/s, the median step");
    }
    if let Some(peak) = facts.peak_bytes() {
        tile("Memory", &bytes(peak), "resident at most");
    }
    page.push_str("</dl>\n");
}

fn plots(page: &mut String, facts: &Facts) {
    let series = |value: fn(&Step) -> Option<f64>| -> Vec<(u64, f64)> {
        facts.steps.iter().filter_map(|step| Some((step.step, value(step)?))).collect()
    };
    // What JSON could not write was not finite; a plot counts it as such.
    let always = |value: fn(&Step) -> Option<f64>| -> Vec<(u64, f64)> {
        facts.steps.iter().map(|step| (step.step, value(step).unwrap_or(f64::NAN))).collect()
    };
    let plain = |title, unit, points| Plot {
        title,
        unit,
        points,
        from_zero: false,
        smoothed_over: None,
        dots: false,
        level: None,
        remark: String::new(),
    };
    let window = (facts.steps.len() / 20).max(5);
    let measured = series(|step| step.held_out_perplexity);
    let perplexity = Plot {
        dots: true,
        level: facts.measured_base.map(|base| ("base over the same replies", base)),
        remark: format!("measured on {} replies at most", facts.config.training.eval_examples),
        ..plain("Held-out perplexity", "", measured)
    };
    let resident = series(|step| step.resident_bytes);
    let (unit, size) = byte_unit(facts.peak_bytes().unwrap_or_default());
    let resident = resident.into_iter().map(|(step, value)| (step, value / size)).collect();
    let figures = [
        Plot { smoothed_over: Some(window), ..plain("Loss", "nats a token", always(|step| step.loss)) },
        perplexity,
        Plot { from_zero: true, ..plain("Learning rate", "", always(|step| step.learning_rate)) },
        Plot {
            from_zero: true,
            smoothed_over: Some(window),
            ..plain("Gradient norm", "before clipping", always(|step| step.grad_norm))
        },
        Plot {
            from_zero: true,
            smoothed_over: Some(window),
            ..plain("Speed", "tokens/s", series(Step::tokens_per_second))
        },
        Plot { from_zero: true, ..plain("Resident memory", unit, resident) },
    ];
    page.push_str("<h2>The run</h2>\n<div class=\"plots\">\n");
    for plot in &figures {
        page.push_str(&figure(plot, facts.last_step()));
    }
    page.push_str("</div>\n");
}

fn replies(page: &mut String, facts: &Facts) {
    page.push_str("<h2>Replies before and after</h2>\n");
    if let Some(Comparison { step, rows }) = facts.comparison() {
        let _ = writeln!(
            page,
            "<p class=\"quiet\">The same prompt, the same decoding and the same seed for both; before is the base model without \
             an adapter.</p>\n<table class=\"replies\">\n<colgroup><col><col><col></colgroup>\n\
             <thead><tr><th>The player says</th><th>Before</th><th>After step {}</th></tr></thead>\n<tbody>",
            grouped(step as f64, 0)
        );
        for (line, before, after) in rows {
            let _ = writeln!(
                page,
                "<tr><td class=\"line\">{}</td><td>{}</td><td>{}</td></tr>",
                escaped(line),
                escaped(before),
                after.map_or_else(|| "–".to_owned(), escaped)
            );
        }
        page.push_str("</tbody>\n</table>\n");
    } else {
        page.push_str("<p>There are no replies of both base and adapter yet.</p>\n");
    }
    if facts.samples.is_empty() {
        return;
    }
    page.push_str("<details>\n<summary>All replies, step by step</summary>\n");
    for (step, samples) in &facts.samples {
        let heading = if *step == 0 { "Base".to_owned() } else { format!("Step {}", grouped(*step as f64, 0)) };
        let _ =
            writeln!(page, "<h3>{heading}</h3>\n<table class=\"replies\">\n<colgroup><col><col></colgroup>\n<tbody>");
        for Sample { line, reply, .. } in samples {
            let _ = writeln!(page, "<tr><td class=\"line\">{}</td><td>{}</td></tr>", escaped(line), escaped(reply));
        }
        page.push_str("</tbody>\n</table>\n");
    }
    page.push_str("</details>\n");
}
