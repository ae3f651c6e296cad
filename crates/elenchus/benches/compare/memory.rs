//! Resident memory with the base, eight adapters and eight conversations; in separate, fresh processes.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    material::{File::*, VOICES},
    report::{Gate, Report},
    side::{Kind::*, Sides},
};

const PROMPT: usize = 128;
const REPLY: usize = 16;
/// Bytes a token: f16 keys and values of the default model, and a little for pages' tables.
const KV_GATE: f64 = 23.5;

pub fn memory(sides: &Sides<'_>, report: &mut Report) -> Result<()> {
    report.task("memory", sides.threads);
    let material = sides.material;
    for kind in [Ours(Source), LlamaCpp(Source), LlamaCpp(Requantised)] {
        let (Ours(file) | Exact(file) | LlamaCpp(file)) = kind else { continue };
        let mut side = sides.start(kind, VOICES)?;
        let greeting = side.greeting.clone();
        let voices = 0..VOICES as u64;
        let prompts: Vec<_> = voices.clone().map(|voice| material.ids(0, voice, PROMPT)).collect();
        let replies: Vec<_> = voices.map(|voice| material.ids(1, voice, REPLY)).collect();
        // llama.cpp has one adapter per batch; the loaded memory is the same.
        let order = json!({"do": "decode", "prompts": prompts, "replies": replies, "adapters": vec![0; VOICES]});
        side.ask(&order)?;
        let speaking = side.ask(&json!({"do": "memory"}))?;

        let before = bytes(&greeting["before"], "VmRSS")?;
        let file_bytes = material.file_bytes(file)? as f64;
        let mut line = |what: &str, set: &Value| -> Result<f64> {
            let more = bytes(set, "VmRSS")? - before;
            let (anon, mapped) = (bytes(set, "RssAnon")? / 1e6, bytes(set, "RssFile")? / 1e6);
            let note = format!("{:.2} x the file; whole process {anon:.0} + {mapped:.0} of files", more / file_bytes);
            report.figure(&format!("{kind}: {what}"), more / 1e6, "MB", &note);
            Ok(more)
        };
        line("base", &greeting["loaded"])?;
        let with_adapters = line("base and adapters", &greeting["with_adapters"])?;
        let tokens = VOICES * (PROMPT + REPLY);
        // llama.cpp allocates whole contexts when they are made.
        let room = if matches!(kind, LlamaCpp(_)) { ", room for more" } else { "" };
        line(&format!("and {VOICES} conversations, {tokens} tokens{room}"), &speaking["resident"])?;
        let load = greeting["load_seconds"].as_f64().context("no load time")?;
        report.figure(&format!("{kind}: loads in"), load, "s", "");
        if kind == Ours(Source) {
            let ratio = with_adapters / file_bytes;
            report.result("ours: base and adapters / file", ratio, "x", Some(Gate::AtMost(1.3)));
            let kv = greeting["kv_bytes_per_token"].as_f64().context("no cache size")? / 1000.0;
            report.result("ours: keys and values a token", kv, "KB", Some(Gate::AtMost(KV_GATE)));
        }
    }
    Ok(())
}

fn bytes(set: &Value, name: &str) -> Result<f64> {
    set[name].as_f64().with_context(|| format!("no {name}"))
}
