//! The battery of a run's report: what the character could do before it, and can after it.

use std::fmt::Write;

use crate::{
    draw::{escaped, markdown_escaped},
    eval::character_eval::{CheckRow, RunBattery},
};

const TITLE: &str = "The battery";
const ABOUT: &str = "Short conversations, judged by rules; [] is Wilson's interval at 95%.";

/// "7/10 [40, 89]%"
fn shown(row: &CheckRow) -> String {
    let share = row.share.map(|share| format!(" [{:.0}, {:.0}]%", share.low * 100.0, share.high * 100.0));
    format!("{}/{}{}", row.right, row.of, share.unwrap_or_default())
}

fn failure(row: &CheckRow) -> String {
    let reply = |reply: &str| if reply.is_empty() { "(nothing)".to_owned() } else { reply.to_owned() };
    let shown = row.failure.as_ref().map(|of| format!("{} > {} ({})", of.line, reply(&of.reply), of.fault));
    shown.unwrap_or_default()
}

pub(super) fn to_markdown(page: &mut String, battery: Option<&RunBattery>) {
    let Some(battery) = battery else { return };
    let _ = writeln!(page, "\n## {TITLE}\n\n{ABOUT}\n\n| Check | Before | After | A failure |\n|---|---|---|---|");
    for (before, after) in battery.pairs() {
        let cells = [&after.check, &shown(before), &shown(after), &failure(after)].map(|cell| markdown_escaped(cell));
        let _ = writeln!(page, "| {} |", cells.join(" | "));
    }
}

pub(super) fn to_html(page: &mut String, battery: Option<&RunBattery>) {
    let Some(battery) = battery else { return };
    let _ = writeln!(
        page,
        "<h2>{TITLE}</h2>\n<p class=\"quiet\">{ABOUT}</p>\n<table class=\"replies\">\n\
         <thead><tr><th>Check</th><th>Before</th><th>After</th><th>A failure</th></tr></thead>\n<tbody>"
    );
    for (before, after) in battery.pairs() {
        let cells = [&after.check, &shown(before), &shown(after), &failure(after)];
        let cells: Vec<String> = cells.iter().map(|cell| format!("<td>{}</td>", escaped(cell))).collect();
        let _ = writeln!(page, "<tr>{}</tr>", cells.concat());
    }
    page.push_str("</tbody>\n</table>\n");
}
