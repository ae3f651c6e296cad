//! Training beside transformers + PEFT: the same base, adapter, batches and rates, two threads each, f32.
//!
//! ```text
//! cargo bench -p elenchus_train --bench peft [-- --quick] [--training FILE]
//! cargo bench -p elenchus_train --bench peft -- export TRAINING.TOML FOLDER
//! ```
//!
//! Each side is a process of its own and steps alternate: a busy machine slows both, so ratios hold where times drift.
//! Nothing fails because it is slow; gates are printed with whether they are met. The peer is set up by
//! `tools/python/venv`, trains with the faster of transformers' two attentions, and gets an allocator that keeps its
//! memory. `export` writes the batches of a run for `tools/python/peft_train.py`.
//! Paths are relative to the repository.

mod ours;
#[path = "../peer/mod.rs"]
mod peer;
mod task;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use peer::{ROOT, Result, Side, gate, median, output, seconds};
use serde_json::{Value, json};
use task::{Base, DENSE, RECOMPUTED, Task};

const TRAINING: &str = "adapters/socrates/training.toml";
const PLATO: &str = "plato";
/// Dense: times the peer's speed, and GB at most.
const DENSE_GATE: (f64, f64) = (1.1, 1.9);
const DENSE_GOAL: f64 = 1.3;
/// Real batches: times the peer's target tokens a second.
const PLATO_GATE: f64 = 1.5;

fn main() -> Result<()> {
    // cargo starts a bench in its crate's folder.
    env::set_current_dir(ROOT)?;
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["ours", task] => ours::steps(task),
        ["phases", repetitions] => ours::phases(repetitions.parse()?),
        ["export", training, folder] => export(training, Path::new(folder)),
        [] => compare(5, TRAINING),
        ["--quick"] => compare(1, TRAINING),
        ["--training", training] => compare(5, training),
        ["--quick", "--training", training] => compare(1, training),
        _ => {
            Err(format!("{} is no way to call it (hint: --quick, --training FILE, or export)", words.join(" ")).into())
        }
    }
}

fn export(training: &str, folder: &Path) -> Result<()> {
    let base = Base::open()?;
    let task = Task::named(training, &base)?;
    let steps = task.export(&base, folder, u64::MAX)?;
    println!("{}: {steps} steps, {} held-out examples", folder.display(), task.held_out.len());
    println!("the base is {}", base.path.display());
    Ok(())
}

fn compare(repetitions: usize, training: &str) -> Result<()> {
    let python = output(&mut Command::new("tools/python/venv"))?;
    let peer = Peer::find(python);
    println!("peer's allocator: {}", peer.allocator.0);

    let folder = Path::new("target/bench_peft");
    let base = Base::open()?;
    Task::named(DENSE, &base)?.export(&base, &folder.join(DENSE), 1)?;
    let plato = match Task::named(training, &base) {
        Ok(task) => {
            task.export(&base, &folder.join(PLATO), repetitions as u64 + 1)?;
            true
        }
        Err(error) => {
            println!("left out: real batches, {training} cannot be prepared: {error}");
            false
        }
    };
    let base_path = base.path.clone();
    drop(base);
    let folders: Vec<PathBuf> = [DENSE, PLATO][..1 + usize::from(plato)].iter().map(|name| folder.join(name)).collect();

    let chosen = output(peer.command("choose").arg(&base_path).arg(&folders[0]))?;
    let chosen: Value = serde_json::from_str(&chosen)?;
    let [sdpa, eager] = ["sdpa", "eager"].map(|kind| chosen["attention"][kind].as_f64().unwrap_or(f64::INFINITY));
    let attention = if sdpa <= eager { "sdpa" } else { "eager" };
    println!("peer's attention: {attention} (sdpa {sdpa:.2} s, eager {eager:.2} s a dense step)");

    let mut theirs = Side::start("peer", peer.command("steps").arg(attention).arg(&base_path).args(&folders))?;
    dense(&mut theirs, repetitions)?;
    if plato {
        real(&mut theirs, training, repetitions)?;
    }
    drop(theirs);
    where_time_goes(repetitions, &chosen["products"])
}

fn our_side(task: &str) -> Result<Side> {
    Side::start("ours", Command::new(env::current_exe()?).args(["ours", task]).env("RAYON_NUM_THREADS", "2"))
}

fn dense(theirs: &mut Side, repetitions: usize) -> Result<()> {
    println!("\ndense: 4 x 256 tokens, loss on all, no recomputation; one step: forward, backward, AdamW");
    let mut ours = our_side(DENSE)?;
    let (mut our_times, mut their_times, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..=repetitions {
        // Both see the same batch each time.
        let our = ours.ask(&json!({"step": 0}))?;
        let their = theirs.ask(&json!({"folder": 0, "step": 0, "head": "stock"}))?;
        let (our_time, their_time) = (seconds(&our)?, seconds(&their)?);
        println!("  ours {our_time:6.2} s   peer {their_time:6.2} s   losses {} {}", loss(&our)?, loss(&their)?);
        if number > 0 {
            our_times.push(our_time);
            their_times.push(their_time);
            ratios.push(their_time / our_time);
        }
    }
    let (ours_gb, theirs_gb) = (ours.peak_gb()?, theirs.peak_gb()?);
    let tokens = 1024.0;
    println!("  ours {:6.0} tokens/s, {ours_gb:.2} GB", tokens / median(&our_times));
    println!("  peer {:6.0} tokens/s, {theirs_gb:.2} GB", tokens / median(&their_times));
    let ratio = median(&ratios);
    let (speed, memory) = DENSE_GATE;
    gate(&format!("{ratio:.2} x the peer, at least {speed} (goal {DENSE_GOAL})"), ratio >= speed);
    gate(&format!("{ours_gb:.2} GB, at most {memory}"), ours_gb <= memory);

    let mut recomputed = our_side(RECOMPUTED)?;
    let mut times = Vec::new();
    for number in 0..=repetitions {
        let (kept, again) = (seconds(&ours.ask(&json!({"step": 0}))?)?, recomputed.ask(&json!({"step": 0}))?);
        if number > 0 {
            times.push(seconds(&again)? / kept);
        }
    }
    let (ratio, gb) = (median(&times), recomputed.peak_gb()?);
    println!("  ours with gradient checkpointing: {ratio:.2} x the time, {gb:.2} GB");
    Ok(())
}

fn real(theirs: &mut Side, training: &str, repetitions: usize) -> Result<()> {
    println!("\nreal batches: the first steps of {training}; ours packed, the peer's padded; it takes each twice");
    let mut ours = our_side(training)?;
    // Seconds of ours, of the peer, and of the peer with its head at target positions only.
    let (mut sums, mut targets, mut ratios) = ([0.0; 3], 0.0, [Vec::new(), Vec::new()]);
    for step in 0..=repetitions {
        let our = ours.ask(&json!({"step": step}))?;
        let stock = theirs.ask(&json!({"folder": 1, "step": step, "head": "stock"}))?;
        let target_only = theirs.ask(&json!({"folder": 1, "step": step, "head": "targets"}))?;
        let times = [seconds(&our)?, seconds(&stock)?, seconds(&target_only)?];
        println!(
            "  ours {:6.2} s   peer {:6.2} s   peer, head at targets only {:6.2} s   losses {} {} {}   {} tokens, {} targets",
            times[0],
            times[1],
            times[2],
            loss(&our)?,
            loss(&stock)?,
            loss(&target_only)?,
            our["tokens"],
            our["targets"]
        );
        // The first of a process pays for fresh memory.
        if step > 0 {
            targets += our["targets"].as_f64().ok_or("no targets")?;
            sums.iter_mut().zip(times).for_each(|(sum, time)| *sum += time);
            ratios[0].push(times[1] / times[0]);
            ratios[1].push(times[2] / times[0]);
        }
    }
    let [our, stock, target_only] = sums.map(|sum| targets / sum);
    println!("  ours                       {our:6.0} target tokens/s, {:.2} GB", ours.peak_gb()?);
    println!("  peer                       {stock:6.0} target tokens/s, {:.2} GB", theirs.peak_gb()?);
    println!("  peer, head at targets only {target_only:6.0} target tokens/s");
    let [stock, target_only] = ratios.map(|ratios| median(&ratios));
    gate(&format!("{stock:.2} x the peer, at least {PLATO_GATE}"), stock >= PLATO_GATE);
    println!("  beside it: {target_only:.2} x the peer with its head at targets only");
    Ok(())
}

fn where_time_goes(repetitions: usize, their_products: &Value) -> Result<()> {
    println!("\nwhere our time goes: one dense step");
    let mut command = Command::new(env::current_exe()?);
    let phases = output(command.args(["phases", &repetitions.to_string()]).env("RAYON_NUM_THREADS", "2"))?;
    let phases: Value = serde_json::from_str(&phases)?;
    let of = |name: &str| phases[name].as_f64().unwrap_or(f64::NAN);
    let all = ["forward", "head", "backward", "optimiser"];
    let step: f64 = all.into_iter().map(of).sum();
    for name in all {
        println!("  {name:<10} {:6.2} s  {:4.0}%", of(name), of(name) / step * 100.0);
    }
    println!("  (`head` holds its own backward: its gradient is taken while the logits are at hand)");
    let ours = phases["products"].as_array().ok_or("no products")?;
    let products: f64 = ours.iter().filter_map(|product| product["seconds"].as_f64()).sum();
    let share = products / step;
    println!("  frozen products, timed alone: {products:.2} s, {:.0}% of a step;", share * 100.0);
    println!("  the rest is attention, norms, rotary embedding, SwiGLU, softmax, LoRA with its dropout, and memory");

    println!("\nproducts forward, 1024 tokens, GFLOP/s: ours f32 (gemm), torch f32, torch bf16 (oneDNN)");
    let has_bf16 = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("avx512_bf16"));
    println!("  this CPU has {}AVX-512 BF16", if has_bf16 { "" } else { "no " });
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let (mut f32_sum, mut bf16_sum) = (0.0, 0.0);
    for their in their_products.as_array().ok_or("no products")? {
        let (columns, rows) = (number(&their["in"]), number(&their["out"]));
        let speed = |seconds: f64| 2.0 * 1024.0 * columns * rows / seconds / 1e9;
        let our = ours.iter().find(|our| our["in"] == their["in"] && our["out"] == their["out"]);
        let our = our.map_or(f64::NAN, |our| speed(number(&our["forward"])));
        let (f32_time, bf16_time) = (number(&their["f32"]), number(&their["bf16"]));
        f32_sum += f32_time * number(&their["count"]);
        bf16_sum += bf16_time * number(&their["count"]);
        println!(
            "  {:<9} {columns:5} -> {rows:5}   {our:5.0}   {:5.0}   {:5.0}   bf16 {:.2} x torch's f32",
            their["name"].as_str().unwrap_or_default(),
            speed(f32_time),
            speed(bf16_time),
            f32_time / bf16_time
        );
    }
    let ratio = f32_sum / bf16_sum;
    println!("  all products of a forward: torch's bf16 takes 1/{ratio:.2} of the time of its f32");
    let whole = 1.0 / (1.0 - share + share / ratio);
    println!(
        "  an estimate: products faster by as much, and nothing else changed, would make our step {whole:.2} x as fast"
    );
    Ok(())
}

/// Python, and the allocator it runs on.
struct Peer {
    python: String,
    allocator: (String, Vec<(&'static str, String)>),
}

impl Peer {
    fn find(python: String) -> Self {
        let allocator = peer::allocator(&python);
        Self { python, allocator }
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.args(["-W", "ignore", "tools/python/peft_bench.py", verb]);
        command.envs([("OMP_NUM_THREADS", "2"), ("MKL_NUM_THREADS", "2"), ("PYTHONDONTWRITEBYTECODE", "1")]);
        command.envs(self.allocator.1.iter().map(|(name, value)| (*name, value)));
        command
    }
}

fn loss(answer: &Value) -> Result<String> {
    Ok(format!("{:.5}", answer["loss"].as_f64().ok_or_else(|| format!("no loss in {answer}"))?))
}
