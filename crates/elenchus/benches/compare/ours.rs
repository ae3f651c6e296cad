//! Our side: the executor in a separate process that runs commands.
//!
//! A command is `{"do": NAME, ..}`; ids are forced, so that all sides do the same work:
//!
//! | do | with | seconds of |
//! |---|---|---|
//! | `prefill` | `tokens`, `adapter` | reading them, logits of the last |
//! | `decode` | `prompts`, `replies`, `adapters`, one a sequence | the replies in one batch; prompts apart |
//! | `first_token` | `persona`, `line`, `adapter`, `warm` | reading both, or the line after a cached persona |
//! | `logits` | `tokens`, `file` | nothing: writes every position's logits, little-endian f32 |
//! | `memory` | | nothing: returns the resident memory |
//!
//! An adapter is its number among those on the command line, or null.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use elenchus_candle::CandleExecutor;
use elenchus_lm::{Adapter, CpuExecutor, CpuSettings, Executor, KvCache, Logits, LoraAdapter, Numerics, Row, Weights};
use serde::Deserialize;
use serde_json::{Value, json};

/// The measured engine.
fn executor(weights: &Weights, threads: usize) -> Result<Box<dyn Executor>> {
    Ok(Box::new(CpuExecutor::new(weights, CpuSettings { threads, ..CpuSettings::default() })?))
}

#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Order {
    Prefill { tokens: Vec<u32>, adapter: Option<usize> },
    Decode { prompts: Vec<Vec<u32>>, replies: Vec<Vec<u32>>, adapters: Vec<Option<usize>> },
    FirstToken { persona: Vec<u32>, line: Vec<u32>, adapter: Option<usize>, warm: bool },
    Logits { tokens: Vec<u32>, file: String },
    Memory,
}

struct Ours {
    executor: Box<dyn Executor>,
    adapters: Vec<Adapter>,
    /// Kept as a game keeps its conversations, until the next `decode` command.
    caches: Vec<KvCache>,
}

/// Answers each line on stdin with one, until its end.
pub fn serve(numerics: &str, base: &Path, threads: usize, adapters: &[String]) -> Result<()> {
    let before = resident()?;
    let started = Instant::now();
    let weights = Weights::open(base, &mut |_| {})?;
    let executor: Box<dyn Executor> = match numerics {
        "quantised" => executor(&weights, threads)?,
        "exact" => Box::new(CandleExecutor::new(&weights, &Device::Cpu, Numerics::Exact)?),
        other => bail!("{other} is neither quantised nor exact"),
    };
    // The executor has its own copy; the mapped file can go.
    drop(weights);
    let (load_seconds, loaded) = (started.elapsed().as_secs_f64(), resident()?);
    let adapters = adapters
        .iter()
        .map(|folder| {
            let adapter = Adapter::new(Arc::new(LoraAdapter::open(Path::new(folder))?));
            executor.prepare(&adapter)?;
            Ok(adapter)
        })
        .collect::<Result<Vec<_>>>()?;
    say(&json!({
        "build": "",
        "load_seconds": load_seconds,
        "before": before,
        "loaded": loaded,
        "with_adapters": resident()?,
        "kv_bytes_per_token": executor.cache_bytes_per_token(),
    }))?;
    let mut ours = Ours { executor, adapters, caches: Vec::new() };
    for line in io::stdin().lines() {
        say(&ours.answer(serde_json::from_str(&line?)?)?)?;
    }
    Ok(())
}

impl Ours {
    fn answer(&mut self, order: Order) -> Result<Value> {
        match order {
            Order::Prefill { tokens, adapter } => {
                let seconds = self.read(&mut self.executor.new_cache(), &tokens, adapter)?;
                Ok(json!({"seconds": seconds}))
            }
            Order::Decode { prompts, replies, adapters } => self.decode(&prompts, &replies, &adapters),
            Order::FirstToken { persona, line, adapter, warm } => {
                let mut cache = self.executor.new_cache();
                if warm {
                    self.read(&mut cache, &persona, adapter)?;
                    let started = Instant::now();
                    let mut conversation = cache.clone();
                    self.read(&mut conversation, &line, adapter)?;
                    Ok(json!({"seconds": started.elapsed().as_secs_f64()}))
                } else {
                    Ok(json!({"seconds": self.read(&mut cache, &[persona, line].concat(), adapter)?}))
                }
            }
            Order::Logits { tokens, file } => {
                let mut cache = self.executor.new_cache();
                let row = Row { tokens: &tokens, adapter: None, cache: &mut cache, logits: Logits::All };
                let logits = self.executor.forward(&mut [row])?.pop().context("no logits")?;
                let mut file = BufWriter::new(File::create(file)?);
                for value in logits {
                    file.write_all(&value.to_le_bytes())?;
                }
                file.flush()?;
                Ok(json!({}))
            }
            Order::Memory => Ok(json!({"resident": resident()?})),
        }
    }

    /// Reads tokens into a cache, logits of the last; returns the seconds it took.
    fn read(&self, cache: &mut KvCache, tokens: &[u32], adapter: Option<usize>) -> Result<f64> {
        let row = Row { tokens, adapter: self.adapter(adapter)?, cache, logits: Logits::Last };
        let started = Instant::now();
        self.executor.forward(&mut [row])?;
        Ok(started.elapsed().as_secs_f64())
    }

    fn decode(&mut self, prompts: &[Vec<u32>], replies: &[Vec<u32>], adapters: &[Option<usize>]) -> Result<Value> {
        let count = prompts.len();
        ensure!(replies.len() == count && adapters.len() == count, "{count} prompts need as many replies and adapters");
        ensure!(replies.windows(2).all(|pair| pair[0].len() == pair[1].len()), "replies differ in length");
        self.caches.clear();
        let mut caches = Vec::new();
        let mut prefill_seconds = 0.0;
        for (prompt, &adapter) in prompts.iter().zip(adapters) {
            let mut cache = self.executor.new_cache();
            prefill_seconds += self.read(&mut cache, prompt, adapter)?;
            caches.push(cache);
        }
        let voices = adapters.iter().map(|&adapter| self.adapter(adapter)).collect::<Result<Vec<_>>>()?;
        let started = Instant::now();
        for at in 0..replies.first().map_or(0, Vec::len) {
            let mut rows: Vec<Row<'_>> = caches
                .iter_mut()
                .zip(replies)
                .zip(&voices)
                .map(|((cache, reply), adapter)| Row {
                    tokens: &reply[at..=at],
                    adapter: *adapter,
                    cache,
                    logits: Logits::Last,
                })
                .collect();
            self.executor.forward(&mut rows)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        self.caches = caches;
        Ok(json!({"seconds": seconds, "prefill_seconds": prefill_seconds}))
    }

    fn adapter(&self, number: Option<usize>) -> Result<Option<&Adapter>> {
        let find = |number: usize| self.adapters.get(number).with_context(|| format!("there is no adapter {number}"));
        number.map(find).transpose()
    }
}

/// Resident bytes of this process: in total, without mapped files, and of mapped files.
fn resident() -> Result<Value> {
    let status = fs::read_to_string("/proc/self/status").context("the resident set is read where Linux says it")?;
    let bytes = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib: u64 = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no such line")?.parse()?;
        Ok(kib * 1024)
    };
    Ok(json!({"VmRSS": bytes("VmRSS")?, "RssAnon": bytes("RssAnon")?, "RssFile": bytes("RssFile")?}))
}

fn say(answer: &Value) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{answer}")?;
    Ok(stdout.flush()?)
}
