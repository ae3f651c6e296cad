//! `elenchus bench`: how fast the engine is on this machine.
//!
//! It measures the engine alone, without the thread, the prompts and the sampler of a game. Token ids are forced, so
//! that every repetition does the same work. Each repetition measures everything in turn, so that a machine that gets
//! busier slows all alike; figures are medians over repetitions, after one warm-up. Memory reads have their turn too,
//! right before the decoding that is compared with them. `cargo bench --bench compare` compares the engine with others.

mod bandwidth;
mod report;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, ValueEnum, value_parser};
use elenchus_lm::{
    Adapter, CpuExecutor, CpuSettings, Executor, KvCache, KvPrecision, Logits, LoraAdapter, Row, resident_bytes,
};

use self::{
    bandwidth::Memory,
    report::{Base, Decode, FirstToken, Kv, Machine, Report, Together},
};
use crate::{
    characters::Characters,
    model,
    output::{note, print},
};

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// GGUF file, Hugging Face folder or `hf:OWNER/REPO[/FILE]`; the default model, fetched at first use, if left out
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// PEFT folders of adapters; `none` for no adapter; all characters' that `talk` finds if left out
    #[arg(long, value_name = "A,B,..|none", value_delimiter = ',')]
    adapters: Vec<PathBuf>,
    /// Streams decoded together, each with the next adapter
    #[arg(long, value_name = "N", default_value = "8", value_parser = value_parser!(u16).range(1..))]
    sequences: u16,
    /// Compute threads; what a game gets if left out: half of the cores, at least one
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Prompt tokens before a reply
    #[arg(long, value_name = "N", default_value = "128", value_parser = value_parser!(u32).range(1..))]
    prompt: u32,
    /// Tokens of a reply
    #[arg(long = "gen", value_name = "N", default_value = "64", value_parser = value_parser!(u32).range(1..))]
    reply: u32,
    /// How keys and values are stored
    #[arg(long, value_name = "FORM", default_value = "f16")]
    kv: KvArg,
    /// How often everything is measured; figures are medians
    #[arg(long, value_name = "N", default_value = "5", value_parser = value_parser!(u16).range(1..))]
    repetitions: u16,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KvArg {
    /// Two bytes a number
    F16,
    /// One byte a number and a scale
    Int8,
}

/// Tokens of a player's line to a character that has cached everything before it.
const LINE: usize = 30;

const ADAPTERS_HINT: &str = "hint: --adapters A,B names PEFT folders of this base, --adapters none uses none";

/// What the bench measures.
struct Loaded {
    path: PathBuf,
    sha256: String,
    file_bytes: u64,
    load_seconds: f64,
    executor: CpuExecutor,
    names: Vec<String>,
    adapters: Vec<Adapter>,
    /// Bytes a token as f16 and as int8.
    kv_bytes: [usize; 2],
}

pub fn run(args: BenchArgs) -> Result<()> {
    let loaded = load(&args)?;
    note(&format!("measuring {} times, after one warm-up: {}", args.repetitions, loaded.path.display()));
    if cfg!(debug_assertions) {
        note("this is a development build, which reads memory slowly: build with --release for figures that count");
    }
    let bench = Bench::new(&args, &loaded)?;
    let turns = (0..=args.repetitions).map(|_| bench.turn()).collect::<Result<Vec<_>>>()?;
    let resident_bytes = bench.resident_bytes();
    let report = report(&args, &loaded, &turns[1..], resident_bytes)?;
    print(&if args.json { serde_json::to_string(&report)? + "\n" } else { report.table() })
}

fn load(args: &BenchArgs) -> Result<Loaded> {
    let (prompt, after) = (args.prompt as usize, LINE.max(args.reply as usize));
    let cores = cores()?;
    let threads = args.threads.map_or((cores / 2).max(1), usize::from);
    ensure!(
        threads <= cores,
        "--threads {threads}: this program may use {cores} cores (hint: more threads than cores wait for one another)"
    );
    let (names, adapters) = open_adapters(&args.adapters)?;
    let path = model::base_or_default(args.base.clone())?;
    let weights = model::open(&path)?;
    let most = weights.config().max_positions;
    ensure!(
        prompt + after <= most,
        "a --prompt of {prompt} tokens and {after} after it are more than the {most} tokens of {}'s context (hint: a \
         smaller --prompt or --gen)",
        path.display()
    );
    for adapter in &adapters {
        let fits = adapter.lora.check_fits(weights.config());
        fits.map_err(|error| anyhow!("{error} ({ADAPTERS_HINT})"))?;
    }
    let kv_precision = match args.kv {
        KvArg::F16 => KvPrecision::F16,
        KvArg::Int8 => KvPrecision::Int8,
    };
    drop(weights);

    let started = Instant::now();
    let weights = model::open(&path)?;
    let executor = CpuExecutor::new(&weights, CpuSettings { threads, kv_precision, ..CpuSettings::default() })?;
    let load_seconds = started.elapsed().as_secs_f64();
    for adapter in &adapters {
        executor.prepare(adapter)?;
    }
    let kv_bytes = [KvPrecision::F16, KvPrecision::Int8].map(|kv| kv.bytes_per_token(executor.config()));
    // The engine has its own copy: the file can go.
    let (sha256, file_bytes) = (weights.sha256(), weights.file_bytes() as u64);
    Ok(Loaded { path, sha256, file_bytes, load_seconds, executor, names, adapters, kv_bytes })
}

fn cores() -> Result<usize> {
    Ok(thread::available_parallelism().context("the number of cores")?.get())
}

fn report(args: &BenchArgs, loaded: &Loaded, turns: &[Turn], resident_bytes: Option<u64>) -> Result<Report> {
    let Loaded { path, sha256, file_bytes, load_seconds, executor, names, adapters: _, kv_bytes } = loaded;
    let (prompt, reply, sequences) = (f64::from(args.prompt), f64::from(args.reply), f64::from(args.sequences));
    let median = |figure: &dyn Fn(&Turn) -> f64| median(turns.iter().map(figure).collect());
    let decode = |adapter: Option<&String>, seconds: fn(&Turn) -> f64| {
        let bytes = reply * executor.bytes_per_token() as f64;
        Decode {
            adapter: adapter.cloned(),
            tokens_per_second: reply / median(&seconds),
            weights_gb_per_second: bytes / median(&seconds) / 1e9,
            percent_of_read_bandwidth: median(&|turn| bytes / seconds(turn) / turn.read_bytes_per_second * 100.0),
        }
    };
    let together = median(&|turn| turn.together);
    Ok(Report {
        machine: Machine {
            instruction_set: executor.instruction_set(),
            threads: executor.threads(),
            cores: cores()?,
            read_gb_per_second: median(&|turn| turn.read_bytes_per_second) / 1e9,
        },
        base: Base {
            file: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            sha256: sha256.clone(),
            file_bytes: *file_bytes,
            load_seconds: *load_seconds,
            packed_bytes: executor.weight_bytes(),
            bytes_per_token: executor.bytes_per_token(),
        },
        adapters: names.clone(),
        repetitions: args.repetitions,
        prompt_tokens: args.prompt,
        reply_tokens: args.reply,
        prefill_tokens_per_second: prompt / median(&|turn| turn.prefill),
        decode: decode(None, |turn| turn.alone),
        decode_with_adapter: names.first().map(|first| decode(Some(first), |turn| turn.adapted)),
        decode_together: Together {
            sequences: args.sequences,
            tokens_per_second: sequences * reply / together,
            tokens_per_second_per_stream: reply / together,
        },
        first_token: FirstToken {
            line_tokens: LINE,
            warm_ms: median(&|turn| turn.warm) * 1e3,
            cold_ms: median(&|turn| turn.cold) * 1e3,
        },
        kv: Kv {
            form: if matches!(args.kv, KvArg::F16) { "f16" } else { "int8" },
            f16_bytes_per_token: kv_bytes[0],
            int8_bytes_per_token: kv_bytes[1],
        },
        resident_bytes,
    })
}

/// The named adapters, or those of all characters, and what to call them.
fn open_adapters(named: &[PathBuf]) -> Result<(Vec<String>, Vec<Adapter>)> {
    let open = |folder: &Path| Ok(Adapter::new(Arc::new(LoraAdapter::open(folder)?)));
    if let [none] = named
        && none.as_os_str() == "none"
    {
        return Ok((Vec::new(), Vec::new()));
    }
    if !named.is_empty() {
        let names = named.iter().map(|folder| folder.display().to_string()).collect();
        return Ok((names, named.iter().map(|folder| open(folder)).collect::<Result<_>>()?));
    }
    let Characters { folder, mut ids } = Characters::find().map_err(|error| anyhow!("{error} ({ADAPTERS_HINT})"))?;
    ids.retain(|id| folder.join(id).join("adapter_config.json").is_file());
    ensure!(!ids.is_empty(), "no character of {} has an adapter ({ADAPTERS_HINT})", folder.display());
    let adapters = ids.iter().map(|id| open(&folder.join(id))).collect::<Result<_>>()?;
    Ok((ids, adapters))
}

/// What one repetition took, in seconds.
struct Turn {
    prefill: f64,
    read_bytes_per_second: f64,
    /// One stream without an adapter, and one in the first.
    alone: f64,
    adapted: f64,
    together: f64,
    /// The line after a cached prompt, and both from the start.
    warm: f64,
    cold: f64,
}

struct Bench<'a> {
    executor: &'a CpuExecutor,
    memory: Memory,
    prompt: Vec<u32>,
    line: Vec<u32>,
    /// Per stream: its adapter, its prefilled prompt, and its forced reply.
    voices: Vec<Option<&'a Adapter>>,
    prompts: Vec<KvCache>,
    replies: Vec<Vec<u32>>,
}

impl<'a> Bench<'a> {
    /// Prefills every stream's prompt.
    fn new(args: &BenchArgs, loaded: &'a Loaded) -> Result<Self> {
        let Loaded { executor, adapters, .. } = loaded;
        let (prompt, reply) = (args.prompt as usize, args.reply as usize);
        let sequences = usize::from(args.sequences);
        let vocab = executor.config().vocab_size;
        // Any ids will do: the work does not depend on them.
        let ids = |from: usize, count| (0..count).map(|at| ((from + at) * 7919 % vocab) as u32).collect::<Vec<_>>();
        let voices = if adapters.is_empty() {
            vec![None; sequences]
        } else {
            adapters.iter().map(Some).cycle().take(sequences).collect()
        };
        let mut bench = Self {
            executor,
            memory: Memory::new().context("allocating memory to measure its bandwidth")?,
            prompt: ids(0, prompt),
            line: ids(prompt, LINE),
            voices,
            prompts: (0..sequences).map(|_| executor.new_cache()).collect(),
            replies: (0..sequences).map(|stream| ids(prompt + stream * reply, reply)).collect(),
        };
        for stream in 0..sequences {
            let mut cache = executor.new_cache();
            bench.read(&mut cache, &bench.prompt, bench.voices[stream])?;
            bench.prompts[stream] = cache;
        }
        Ok(bench)
    }

    fn turn(&self) -> Result<Turn> {
        let (first, mut bare) = (self.voices[0], self.executor.new_cache());
        let cold = [&self.prompt[..], &self.line].concat();
        Ok(Turn {
            prefill: self.read(&mut bare, &self.prompt, None)?,
            read_bytes_per_second: self.memory.read(self.executor.threads()),
            alone: self.speak(&[bare], &[None])?,
            adapted: self.speak(&self.prompts[..1], &[first])?,
            together: self.speak(&self.prompts, &self.voices)?,
            warm: self.read(&mut self.prompts[0].clone(), &self.line, first)?,
            cold: self.read(&mut self.executor.new_cache(), &cold, first)?,
        })
    }

    /// Reads tokens after what is cached, logits of the last; in seconds.
    fn read(&self, cache: &mut KvCache, tokens: &[u32], adapter: Option<&Adapter>) -> Result<f64> {
        let started = Instant::now();
        self.executor.forward(&mut [Row { tokens, adapter, cache, logits: Logits::Last }])?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// Decodes the streams' replies together after their prompts, one token of each per step; in seconds.
    fn speak(&self, prompts: &[KvCache], voices: &[Option<&Adapter>]) -> Result<f64> {
        let mut caches = prompts.to_vec();
        let started = Instant::now();
        for at in 0..self.replies[0].len() {
            let streams = caches.iter_mut().zip(voices).zip(&self.replies);
            let mut rows: Vec<Row<'_>> = streams
                .map(|((cache, &adapter), reply)| Row { tokens: &reply[at..=at], adapter, cache, logits: Logits::Last })
                .collect();
            self.executor.forward(&mut rows)?;
        }
        Ok(started.elapsed().as_secs_f64())
    }

    /// With base, adapters and every stream's prompt, but without the memory that only measuring needs.
    fn resident_bytes(self) -> Option<u64> {
        drop(self.memory);
        resident_bytes()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
