//! Decoding, reading prompts, eight voices at once, what an adapter costs, and the first token of a reply.

use anyhow::Result;
use serde_json::json;

use crate::{
    bandwidth::read_bandwidth,
    material::{ALL_LINEAR, File::*, VOICES},
    report::{Gate, Report},
    side::{Kind, Kind::*, Sides},
    turns::{Contestant, Times, in_turns},
};

const PROMPT: usize = 128;
/// The prompt of a voice where only its reply counts.
const SHORT_PROMPT: usize = 32;
/// Turns of tasks that take many seconds each.
const LONG_TURNS: usize = 3;

/// One stream.
pub fn decode(sides: &mut Sides<'_>, report: &mut Report, turns: usize, reply: usize) -> Result<()> {
    report.task(&format!("decode {reply} after {PROMPT}"), sides.threads);
    let material = sides.material;
    let order = |turn| {
        json!({"do": "decode", "prompts": [material.ids(turn, 0, PROMPT)], "replies": [material.ids(turn, 1, reply)],
            "adapters": [null]})
    };
    let kinds = [Ours(Source), LlamaCpp(Requantised), LlamaCpp(Source), Ours(Requantised), OpenVino];
    let before = read_bandwidth(sides.threads)?;
    let times = in_turns(sides, turns, &kinds.map(|kind| Contestant::new(kind, order)))?;
    let after = read_bandwidth(sides.threads)?;
    let wall = (before + after) / 2.0;
    report.figure("this machine reads", wall / 1e9, "GB/s", &format!("{:.1}, {:.1}", before / 1e9, after / 1e9));
    for times in &times {
        let speed = reply as f64 / times.median();
        let note = match times.kind {
            Ours(file) | LlamaCpp(file) => {
                let rate = speed * material.bytes_per_token(file)? as f64;
                format!("{:5.1} GB/s of weights, {:.0}% of it", rate / 1e9, rate / wall * 100.0)
            }
            _ => String::new(),
        };
        report.figure(&times.label, speed, "tokens/s", &note);
    }
    overhead(report, &times);
    let [ours, llama_q4_0, llama_q4_1, ours_q4_0, openvino] = &times[..] else { unreachable!("five took turns") };
    ratio(report, ours, llama_q4_0, Some(Gate::AtLeast(1.5, 2.0)));
    ratio(report, ours, llama_q4_1, Some(Gate::AtLeast(2.2, 3.0)));
    ratio(report, ours_q4_0, llama_q4_0, None);
    ratio(report, ours, openvino, None);
    Ok(())
}

/// Logits of the last position only; another prompt each time.
pub fn prefill(sides: &mut Sides<'_>, report: &mut Report, turns: usize) -> Result<()> {
    let material = sides.material;
    for count in [128, 512] {
        report.task(&format!("prefill {count}"), sides.threads);
        let order = |turn| json!({"do": "prefill", "tokens": material.ids(turn, count as u64, count), "adapter": null});
        let kinds = [Ours(Source), LlamaCpp(Requantised), OpenVino, LlamaCpp(Source), Ours(Requantised)];
        let times = in_turns(sides, turns, &kinds.map(|kind| Contestant::new(kind, order)))?;
        speeds(report, &times, count);
        overhead(report, &times);
        let [ours, llama_q4_0, openvino, llama_q4_1, ours_q4_0] = &times[..] else { unreachable!("five took turns") };
        ratio(report, ours, llama_q4_0, Some(Gate::AtLeast(1.6, 2.2)));
        ratio(report, ours, openvino, Some(Gate::AtLeast(1.0, 1.4)));
        ratio(report, ours, llama_q4_1, None);
        ratio(report, ours_q4_0, llama_q4_0, None);
    }
    Ok(())
}

/// Eight conversations, each with its own adapter: ours in one batch; llama.cpp's in one batch with a single adapter,
/// or whole replies in sequence, changing the adapter in between.
pub fn eight(sides: &mut Sides<'_>, report: &mut Report, turns: usize, reply: usize) -> Result<()> {
    let material = sides.material;
    let order = |what: &'static str, adapters: [usize; VOICES]| {
        move |turn: u64| {
            let prompts: Vec<_> = (0..VOICES as u64).map(|voice| material.ids(turn, voice, SHORT_PROMPT)).collect();
            let replies: Vec<_> = (0..VOICES as u64).map(|voice| material.ids(turn, 100 + voice, reply)).collect();
            json!({"do": what, "prompts": prompts, "replies": replies, "adapters": adapters})
        }
    };
    let each = std::array::from_fn(|voice| voice);
    let contestants = || {
        [
            Contestant::new(Ours(Source), order("decode", each)).labelled("eight adapters"),
            Contestant::new(LlamaCpp(Requantised), order("one_after_another", each)).labelled("in sequence"),
            Contestant::new(LlamaCpp(Requantised), order("decode", [0; VOICES])).labelled("one adapter"),
            Contestant::new(LlamaCpp(Source), order("one_after_another", each)).labelled("in sequence"),
            Contestant::new(LlamaCpp(Source), order("decode", [0; VOICES])).labelled("one adapter"),
            Contestant::new(Ours(Requantised), order("decode", each)).labelled("eight adapters"),
        ]
    };

    report.task(&format!("eight voices, {reply} tokens each"), sides.threads);
    let times = in_turns(sides, turns, &contestants())?;
    speeds(report, &times, VOICES * reply);
    overhead(report, &times);
    let [ours, after, together, after_q4_1, together_q4_1, ours_q4_0] = &times[..] else {
        unreachable!("six took turns")
    };
    ratio(report, ours, after, Some(Gate::AtLeast(6.0, 10.0)));
    ratio(report, ours, together, Some(Gate::AtLeast(1.5, 3.0)));
    ratio(report, ours, after_q4_1, None);
    ratio(report, ours, together_q4_1, None);
    ratio(report, ours_q4_0, after, None);

    report.task(&format!("eight voices, {SHORT_PROMPT} read first"), sides.threads);
    let [ours, after, ..] = contestants().map(Contestant::with_prompts);
    let times = in_turns(sides, turns.min(LONG_TURNS), &[ours, after])?;
    speeds(report, &times, VOICES * reply);
    ratio(report, &times[0], &times[1], None);
    Ok(())
}

/// What a LoRA costs one stream.
pub fn lora(sides: &mut Sides<'_>, report: &mut Report, turns: usize, reply: usize) -> Result<()> {
    report.task("a LoRA's cost, decode", sides.threads);
    let material = sides.material;
    let order = |adapter: Option<usize>| {
        move |turn| {
            json!({"do": "decode", "prompts": [material.ids(turn, 0, SHORT_PROMPT)],
                "replies": [material.ids(turn, 1, reply)], "adapters": [adapter]})
        }
    };
    let of = |kind: Kind| {
        [
            Contestant::new(kind, order(None)).labelled("no adapter"),
            Contestant::new(kind, order(Some(0))).labelled("rank 16 on q, v"),
            Contestant::new(kind, order(Some(ALL_LINEAR))).labelled("rank 16 on all linears"),
        ]
    };
    for (kind, gate) in [(Ours(Source), Some(Gate::AtMost(8.0))), (LlamaCpp(Requantised), None)] {
        let times = in_turns(sides, turns, &of(kind))?;
        speeds(report, &times, reply);
        let [none, narrow, wide] = &times[..] else { unreachable!("three took turns") };
        let cost = |times: &Times| (1.0 - times.faster_than(none)) * 100.0;
        report.result(&format!("{kind}: cost of q, v"), cost(narrow), "%", gate);
        report.result(&format!("{kind}: cost of all linears"), cost(wide), "%", None);
    }
    Ok(())
}

/// A character that had read everything before the player spoke, against one that reads it now: a persona, and one with
/// a conversation after it.
pub fn first_token(sides: &mut Sides<'_>, report: &mut Report, turns: usize) -> Result<()> {
    let material = sides.material;
    let line = &material.line;
    for (history, gate) in [(0, Some(Gate::AtMost(0.25))), (256, None)] {
        let read = material.persona.len() + history;
        report.task(&format!("first token, {} after {read}", line.len()), sides.threads);
        let of = |kind: Kind| {
            [true, false].map(|warm| {
                let order = move |turn| {
                    let persona = [&material.persona[..], &material.ids(turn, 0, history)].concat();
                    json!({"do": "first_token", "persona": persona, "line": line, "adapter": 0, "warm": warm})
                };
                Contestant::new(kind, order).labelled(if warm { "warm" } else { "cold" })
            })
        };
        let [kept, cold] = of(LlamaCpp(Requantised));
        let [warm, fresh] = of(Ours(Source));
        let times = in_turns(sides, turns, &[warm, kept, fresh, cold])?;
        for times in &times {
            report.figure(&times.label, times.median() * 1e3, "ms", "");
        }
        let [warm, kept, fresh, cold] = &times[..] else { unreachable!("four took turns") };
        report.result("ours: warm / cold", fresh.faster_than(warm), "x", gate);
        report.result("llama.cpp: warm / cold", cold.faster_than(kept), "x", None);
        ratio(report, warm, kept, None);
    }
    Ok(())
}

fn speeds(report: &mut Report, times: &[Times], tokens: usize) {
    for times in times {
        report.figure(&times.label, tokens as f64 / times.median(), "tokens/s", "");
    }
}

/// How much of a peer's time was not its engine's, as a check of the bench itself.
fn overhead(report: &mut Report, times: &[Times]) {
    for times in times {
        if let Some(share) = times.overhead {
            let label = format!("{}: not its engine's, at most", times.label);
            report.figure(&label, share * 100.0, "%", "of the time, by its own account");
        }
    }
}

fn ratio(report: &mut Report, ours: &Times, peer: &Times, gate: Option<Gate>) {
    report.result(&format!("{} / {}", ours.label, peer.label), ours.faster_than(peer), "x", gate);
}
