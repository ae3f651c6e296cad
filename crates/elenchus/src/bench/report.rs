//! The results, for programs and for people. A figure's name includes its unit.

use serde::Serialize;

use crate::model::size;

#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub base: Base,
    pub adapters: Vec<String>,
    pub repetitions: u16,
    pub prompt_tokens: u32,
    pub reply_tokens: u32,
    /// One stream without an adapter.
    pub prefill_tokens_per_second: f64,
    /// One stream after the prompt.
    pub decode: Decode,
    /// The same with the first adapter; left out without adapters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_with_adapter: Option<Decode>,
    pub decode_together: Together,
    pub first_token: FirstToken,
    pub kv: Kv,
    /// Base, adapters and every stream's prompt; left out where the system does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
pub struct Machine {
    pub instruction_set: &'static str,
    pub threads: usize,
    pub cores: usize,
    /// With as many threads.
    pub read_gb_per_second: f64,
}

#[derive(Debug, Serialize)]
pub struct Base {
    pub file: String,
    pub sha256: String,
    pub file_bytes: u64,
    /// Time to open, check and pack it, with the file in the system's cache.
    pub load_seconds: f64,
    pub packed_bytes: usize,
    /// Bytes read from it for one token.
    pub bytes_per_token: usize,
}

#[derive(Debug, Serialize)]
pub struct Decode {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    pub tokens_per_second: f64,
    /// The base's; an adapter's come on top.
    pub weights_gb_per_second: f64,
    pub percent_of_read_bandwidth: f64,
}

#[derive(Debug, Serialize)]
pub struct Together {
    pub sequences: u16,
    pub tokens_per_second: f64,
    pub tokens_per_second_per_stream: f64,
}

/// Reading the player's line after a cached prompt, and reading both.
#[derive(Debug, Serialize)]
pub struct FirstToken {
    pub line_tokens: usize,
    pub warm_ms: f64,
    pub cold_ms: f64,
}

#[derive(Debug, Serialize)]
pub struct Kv {
    /// The form that everything was measured with.
    pub form: &'static str,
    pub f16_bytes_per_token: usize,
    pub int8_bytes_per_token: usize,
}

impl Report {
    pub fn table(&self) -> String {
        let Self { machine, base, decode_together: together, first_token, kv, prompt_tokens, reply_tokens, .. } = self;
        let mut text = String::new();
        let mut line = |name: &str, value: &str| text += &format!("{name:<14}{value}\n");
        let (threads, cores) = (machine.threads, machine.cores);
        let reads = format!("which read {:.1} GB/s of memory", machine.read_gb_per_second);
        line("machine", &format!("{}, {threads} of {cores} cores, {reads}", machine.instruction_set));
        line("base", &base.file);
        line("sha256", &base.sha256);
        let (file, packed) = (size(base.file_bytes as usize), size(base.packed_bytes));
        line("", &format!("{file}, packed {packed} in {:.2} s", base.load_seconds));
        line("adapters", &if self.adapters.is_empty() { "none".to_owned() } else { self.adapters.join(", ") });
        let prefill = self.prefill_tokens_per_second;
        line("prefill", &format!("{prefill:8.1} tokens/s  reading {prompt_tokens} tokens"));
        for decode in [Some(&self.decode), self.decode_with_adapter.as_ref()].into_iter().flatten() {
            let Decode { adapter, tokens_per_second, weights_gb_per_second, percent_of_read_bandwidth } = decode;
            let voice = adapter.as_ref().map_or("no adapter".to_owned(), |adapter| format!("in {adapter}"));
            let wall = format!(
                "{weights_gb_per_second:.1} GB/s of weights, {percent_of_read_bandwidth:.0}% of memory bandwidth"
            );
            line("decode", &format!("{tokens_per_second:8.1} tokens/s  one stream, {voice}: {wall}"));
        }
        let (all, each) = (together.tokens_per_second, together.tokens_per_second_per_stream);
        line("", &format!("{all:8.1} tokens/s  {} streams together, {each:.1} each", together.sequences));
        let (line_tokens, all) = (first_token.line_tokens, first_token.line_tokens + *prompt_tokens as usize);
        let warm = format!("warm: {line_tokens} tokens after {prompt_tokens} cached ones");
        line("first token", &format!("{:8.1} ms        {warm}", first_token.warm_ms));
        line("", &format!("{:8.1} ms        cold: all {all}", first_token.cold_ms));
        let (f16, int8) = (kv.f16_bytes_per_token, kv.int8_bytes_per_token);
        line("kv", &format!("{f16} bytes a token as f16, {int8} as int8; measured with {}", kv.form));
        if let Some(bytes) = self.resident_bytes {
            let with = format!("with the prompts of {} streams", together.sequences);
            line("memory", &format!("{} resident, {with}", size(bytes as usize)));
        }
        let repetitions = self.repetitions;
        text + &format!(
            "Replies of {reply_tokens} tokens after prompts of {prompt_tokens}; medians of {repetitions}.\n"
        )
    }
}
