//! The result of a run of reinforcement learning: what judges said before and after of prompts that were never learned
//! from, how far the policy went for it, and replies side by side.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use super::battery;
use crate::{
    Error, Result, RunFolder, Sample,
    bootstrap::{Interval, mean, mean_difference},
    draw::{
        escaped, head, markdown_escaped,
        plot::{Plot, figure},
        scale::{duration, grouped},
    },
    eval::character_eval::RunBattery,
    rl::{HELD_OUT, JudgedRollout, Methods, RESULT, RlConfig, RlReport, RlResult, write_review},
    run_folder::SAMPLES,
};

/// Seeds the bootstraps, so that a report says the same each time.
const SEED: u64 = 1;
/// Replies that are shown side by side.
const SHOWN: usize = 24;

/// Everything the pages say.
struct Facts {
    config: RlConfig,
    text: String,
    reports: Vec<RlReport>,
    /// By iterations done.
    held_out: BTreeMap<u64, Vec<JudgedRollout>>,
    samples: BTreeMap<u64, Vec<Sample>>,
    result: Option<RlResult>,
    /// Of the adapter it began from and of its own.
    battery: Option<RunBattery>,
}

/// One judge on held-out prompts.
struct Change {
    judge: String,
    before: Interval,
    after: Interval,
    /// After less before, prompt by prompt.
    difference: Interval,
}

/// Writes `REPORT.html` and `REPORT.md` of a run, which may be anywhere in its course, and `review.jsonl`, the replies that
/// the members of an ensemble disagree on most. `methods` has the run's.
///
/// # Errors
/// Files of the run that cannot be read or written, or a `training.toml` that is no `rl.toml`.
pub fn rl_report(run: &RunFolder, methods: &Methods) -> Result<()> {
    let facts = read(run, methods)?;
    run.write("REPORT.html", page(&facts).as_bytes())?;
    run.write("REPORT.md", short(&facts).as_bytes())?;
    write_review(run)
}

fn read(run: &RunFolder, methods: &Methods) -> Result<Facts> {
    let text = std::fs::read_to_string(run.file("training.toml")).map_err(|cause| Error::File {
        file: run.file("training.toml"),
        cause,
        hint: "",
    })?;
    let mut held_out = BTreeMap::<u64, Vec<JudgedRollout>>::new();
    for rollout in run.lines::<JudgedRollout>(HELD_OUT)? {
        held_out.entry(rollout.step).or_default().push(rollout);
    }
    let mut samples = BTreeMap::<u64, Vec<Sample>>::new();
    for sample in run.lines::<Sample>(SAMPLES)? {
        samples.entry(sample.step).or_default().push(sample);
    }
    Ok(Facts {
        config: RlConfig::parse(&text, "training.toml", methods)?,
        text,
        reports: run.metrics()?,
        held_out,
        samples,
        result: run.json(RESULT)?,
        battery: RunBattery::of(run)?,
    })
}

impl Facts {
    fn last_step(&self) -> u64 {
        self.reports.last().map_or(0, |report| report.step)
    }

    /// The first and the last look at held-out prompts, if there are two.
    fn ends(&self) -> Option<(&[JudgedRollout], u64, &[JudgedRollout])> {
        let (first, before) = self.held_out.first_key_value()?;
        let (last, after) = self.held_out.last_key_value()?;
        (first != last && before.len() == after.len()).then_some((before, *last, after))
    }

    fn changes(&self) -> Vec<Change> {
        let Some((before, _, after)) = self.ends() else { return Vec::new() };
        let judges: BTreeSet<&String> = before.iter().flat_map(|rollout| rollout.scores.keys()).collect();
        let change = |judge: &String| {
            let of = |rollout: &JudgedRollout| rollout.scores.get(judge).copied().flatten().map(f64::from);
            let pairs: Vec<(f64, f64)> =
                before.iter().zip(after).filter_map(|(before, after)| of(after).zip(of(before))).collect();
            let (now, then): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
            Some(Change {
                judge: judge.clone(),
                before: mean(&then, SEED)?,
                after: mean(&now, SEED)?,
                difference: mean_difference(&pairs, SEED)?,
            })
        };
        judges.into_iter().filter_map(change).collect()
    }

    fn about(&self) -> String {
        let RlConfig { method, sampling, training, .. } = &self.config;
        format!(
            "{} on {} prompts of {} responses an iteration, learning rate {:e}, seed {}",
            method.name(),
            sampling.prompts,
            sampling.group,
            training.learning_rate,
            training.seed
        )
    }

    fn notes(&self) -> Vec<String> {
        match &self.result {
            Some(RlResult { halted: Some(reason), steps, .. }) => {
                vec![format!("Halted after step {steps}: {reason}.")]
            }
            Some(_) => Vec::new(),
            None => vec![format!("The run has not ended: this is its state after step {}.", self.last_step())],
        }
    }
}

fn shown(interval: &Interval) -> String {
    format!("{:+.3} [{:+.3}, {:+.3}]", interval.value, interval.low, interval.high)
}

fn page(facts: &Facts) -> String {
    let mut page = head("Learning from judges", "Learning from judges");
    let _ = writeln!(page, "<p class=\"quiet\">{}</p>", escaped(&facts.about()));
    for note in facts.notes() {
        let _ = writeln!(page, "<p class=\"note\">{}</p>", escaped(&note));
    }
    page.push_str("</header>\n");
    let changes = facts.changes();
    if let Some((before, step, _)) = facts.ends() {
        let _ = writeln!(
            page,
            "<h2>What judges say of {} prompts that were never learned from</h2>\n\
             <p class=\"quiet\">Means with 95% bootstrap intervals; the difference is paired prompt by prompt. These are the \
             judges that were optimised: what others say is what <code>elenchus eval compare</code> is for.</p>\n\
             <table>\n<thead><tr><th>Judge</th><th>Before</th><th>After step {step}</th><th>Difference</th></tr></thead>\n<tbody>",
            before.len()
        );
        for change in &changes {
            let _ = writeln!(
                page,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escaped(&change.judge),
                shown(&change.before),
                shown(&change.after),
                shown(&change.difference)
            );
        }
        page.push_str("</tbody>\n</table>\n");
    }
    plots(&mut page, facts);
    battery::to_html(&mut page, facts.battery.as_ref());
    side_by_side(&mut page, facts);
    let _ = write!(page, "<h2>Configuration</h2>\n<pre>{}</pre>\n</body>\n</html>\n", escaped(facts.text.trim_end()));
    page
}

fn plots(page: &mut String, facts: &Facts) {
    let window = (facts.reports.len() / 20).max(5);
    let series = |value: &dyn Fn(&RlReport) -> Option<f64>| -> Vec<(u64, f64)> {
        facts.reports.iter().filter_map(|report| Some((report.step, value(report)?))).collect()
    };
    let smooth = |title, unit, points| Plot {
        title,
        unit,
        points,
        from_zero: false,
        smoothed_over: Some(window),
        dots: false,
        level: None,
        remark: String::new(),
    };
    let judges: BTreeSet<&String> = facts.reports.iter().flat_map(|report| report.scores.keys()).collect();
    let titles: Vec<(String, &String)> = judges.into_iter().map(|judge| (escaped(judge), judge)).collect();
    page.push_str("<h2>The run</h2>\n<div class=\"plots\">\n");
    let mut draw = |plot: Plot<'_>| page.push_str(&figure(&plot, facts.last_step()));
    draw(smooth("Score", "weighted sum, what was learned from", series(&|report| Some(report.score))));
    for (title, judge) in &titles {
        draw(smooth(title, "judge's mean", series(&|report| report.scores.get(*judge).copied())));
    }
    let from_zero = |plot| Plot { from_zero: true, ..plot };
    draw(from_zero(smooth("Divergence", "nats a reply from where it began", series(&|report| Some(report.kl)))));
    draw(from_zero(smooth("Length", "words a reply", series(&|report| Some(report.reply_words)))));
    draw(from_zero(smooth("Questions", "share of replies that end in one", series(&|report| Some(report.questions)))));
    draw(from_zero(smooth("Distinct pairs of words", "share", series(&|report| Some(report.distinct_2)))));
    draw(from_zero(smooth("Engine against trainer", "nats a token", series(&|report| Some(report.engine_kl)))));
    draw(from_zero(smooth("Time", "seconds an iteration", series(&|report| Some(report.seconds.total())))));
    page.push_str("</div>\n");
}

fn side_by_side(page: &mut String, facts: &Facts) {
    let Some((before, step, after)) = facts.ends() else { return };
    let _ = writeln!(
        page,
        "<h2>Replies before and after</h2>\n<p class=\"quiet\">Prompts that were never learned from, drawn from the softmax \
         itself with the same seed.</p>\n<table class=\"replies\">\n<colgroup><col><col><col></colgroup>\n\
         <thead><tr><th>The player says</th><th>Before</th><th>After step {step}</th></tr></thead>\n<tbody>"
    );
    for (before, after) in before.iter().zip(after).take(SHOWN) {
        let said = before.exchange.context.last().map_or("", |turn| turn.text.as_str());
        let cell = |rollout: &JudgedRollout| {
            let score = rollout.score.map_or("no score".to_owned(), |score| format!("{score:+.2}"));
            format!("{}\n<span class=\"quiet\">{score}</span>", escaped(&rollout.exchange.reply))
        };
        let _ = writeln!(
            page,
            "<tr><td class=\"line\">{}</td><td>{}</td><td>{}</td></tr>",
            escaped(said),
            cell(before),
            cell(after)
        );
    }
    page.push_str("</tbody>\n</table>\n");
}

fn short(facts: &Facts) -> String {
    let mut page = format!("# Learning from judges\n\n{}.\n", markdown_escaped(&facts.about()));
    for note in facts.notes() {
        let _ = writeln!(page, "\n**{}**", markdown_escaped(&note));
    }
    if let Some((before, step, _)) = facts.ends() {
        let _ = write!(
            page,
            "\nOf {} prompts that were never learned from, 95% bootstrap intervals, differences paired:\n\n\
             | Judge | Before | After step {step} | Difference |\n|---|---:|---:|---:|\n",
            before.len()
        );
        for change in facts.changes() {
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} |",
                markdown_escaped(&change.judge),
                shown(&change.before),
                shown(&change.after),
                shown(&change.difference)
            );
        }
    }
    if !facts.reports.is_empty() {
        page.push_str(
            "\n| Step | Score | KL | Words | Questions | Distinct-2 | Time |\n|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        let rows = facts.reports.len().div_ceil(12);
        let mut seconds = 0.0;
        for part in facts.reports.chunks(rows) {
            let mean = |of: fn(&RlReport) -> f64| part.iter().map(of).sum::<f64>() / part.len() as f64;
            seconds += part.iter().map(|report| report.seconds.total()).sum::<f64>();
            let _ = writeln!(
                page,
                "| {} | {:+.3} | {:.2} | {:.1} | {:.0}% | {:.3} | {} |",
                grouped(part[part.len() - 1].step as f64, 0),
                mean(|report| report.score),
                mean(|report| report.kl),
                mean(|report| report.reply_words),
                mean(|report| report.questions) * 100.0,
                mean(|report| report.distinct_2),
                duration(seconds)
            );
        }
    }
    battery::to_markdown(&mut page, facts.battery.as_ref());
    let (first, last) = (facts.samples.first_key_value(), facts.samples.last_key_value());
    if let (Some((_, before)), Some((step, after))) = (first, last) {
        let _ =
            write!(page, "\nAs a game hears it:\n\n| The player says | Before | After step {step} |\n|---|---|---|\n");
        for (before, after) in before.iter().zip(after) {
            let cell = markdown_escaped;
            let _ = writeln!(page, "| {} | {} | {} |", cell(&before.line), cell(&before.reply), cell(&after.reply));
        }
    }
    page
}
