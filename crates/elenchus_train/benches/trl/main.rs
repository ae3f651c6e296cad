//! Reinforcement learning beside TRL: one iteration of PPO and one step of RLOO, the same base, adapter shape, prompts'
//! length, responses' length and settings, two threads each, f32.
//!
//! ```text
//! cargo bench -p elenchus_train --bench trl [-- --quick]
//! ```
//!
//! PPO: TRL 0.11.4, the last with the classic trainer; 8 prompts of 32 tokens, 32 tokens said to each, 4 epochs of
//! mini-batches of 4. RLOO: TRL 1.16; 8 responses, 4 to a prompt. An iteration samples, scores, compares with the reference
//! and learns. Each side is a process of its own and iterations alternate. Nothing fails because it is slow; gates are
//! printed with whether they are met. The peers are set up by `tools/python/trl_venv`. Paths are relative to the repository.

#[path = "../peer/mod.rs"]
mod peer;

use std::{
    env, fs,
    io::{self, BufRead},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, atomic::AtomicBool},
};

use candle_core::Device;
use elenchus_candle::{CandleExecutor, TrainableLora};
use elenchus_dialogue::{Character, Model, Turn};
use elenchus_lm::{CpuExecutor, CpuSettings, Linear, Numerics, Weights};
use elenchus_train::{
    RunFolder,
    judge::{Exchange, Judges, Scripted, WeightedJudge},
    rl::{Methods, RlConfig, RlEvent, RlLearner, RlPrompt, train},
};
use peer::{ROOT, Result, Side, gate, median, output, say, seconds};
use serde_json::{Value, json};

const FOLDER: &str = "target/bench_trl";
const PROMPT_TOKENS: usize = 32;
const MAX_TOKENS: usize = 32;

/// What is compared: the method's table, responses, and the share of the peer's time (gate, goal) and memory (gate).
struct Task {
    name: &'static str,
    method: &'static str,
    prompts: usize,
    group: usize,
    time: (f64, f64),
    memory: Option<f64>,
}

const TASKS: [Task; 2] = [
    Task {
        name: "ppo",
        method: "{ name = \"ppo\", epochs = 4, mini_batch = 4 }",
        prompts: 8,
        group: 1,
        time: (0.65, 0.5),
        memory: Some(2.0 / 3.0),
    },
    Task {
        name: "rloo",
        method: "{ name = \"rloo\", kl_coef = 0.05 }",
        prompts: 2,
        group: 4,
        time: (1.0 / 3.0, 0.25),
        memory: None,
    },
];

const CHARACTER: &str = "version = 1\nname = \"Meno\"\npersona = \"You tell.\"\nfallbacks = [\"Hm.\"]";

fn main() -> Result<()> {
    env::set_current_dir(ROOT)?;
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["ours", name] => ours(TASKS.iter().find(|task| task.name == name).ok_or("no such task")?),
        [] => compare(5),
        ["--quick"] => compare(1),
        _ => Err(format!("{} is no way to call it (hint: --quick)", words.join(" ")).into()),
    }
}

fn compare(repetitions: usize) -> Result<()> {
    let pythons = output(&mut Command::new("tools/python/trl_venv"))?;
    let [ppo, rloo] = pythons.lines().collect::<Vec<_>>()[..] else { return Err("two pythons were expected".into()) };
    let torch = output(&mut Command::new("tools/python/venv"))?;
    let allocator = peer::allocator(&torch);
    println!("peer's allocator: {}", allocator.0);
    let base = elenchus_fetch::fetch_default(&mut |_| {})?;
    let folder = Path::new(FOLDER).join("base");
    if !folder.join("config.json").is_file() {
        fs::create_dir_all(&folder)?;
        output(Command::new(&torch).args(["tools/python/trl_bench.py", "export"]).arg(&base).arg(&folder))?;
    }
    let python = |python: &str, task: &Task, file: &Path| {
        let mut command = Command::new(python);
        command.args(["-W", "ignore", "tools/python/trl_bench.py", task.name]).arg(file).arg(&folder);
        command.envs([("OMP_NUM_THREADS", "2"), ("MKL_NUM_THREADS", "2"), ("PYTHONDONTWRITEBYTECODE", "1")]);
        command.envs(allocator.1.iter().map(|(name, value)| (*name, value)));
        command
    };
    for (task, interpreter) in TASKS.iter().zip([ppo, rloo]) {
        let file = export(task, repetitions + 1)?;
        println!(
            "\n{}: {} responses of {MAX_TOKENS} tokens to prompts of {PROMPT_TOKENS}, {}",
            task.name,
            task.prompts * task.group,
            task.method
        );
        let mut theirs = Side::start("peer", &mut python(interpreter, task, &file))?;
        let mut command = Command::new(env::current_exe()?);
        let mut ours = Side::start("ours", command.args(["ours", task.name]).env("RAYON_NUM_THREADS", "2"))?;
        let (mut our_times, mut their_times, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..=repetitions {
            let (our, their) = (ours.ask(&json!({}))?, theirs.ask(&json!({}))?);
            let (our_time, their_time) = (seconds(&our)?, seconds(&their)?);
            println!(
                "  ours {our_time:6.2} s ({} tokens said; {})   TRL {their_time:6.2} s ({} tokens said)",
                our["tokens"], our["parts"], their["tokens"]
            );
            // The first of a process pays for fresh memory.
            if number > 0 {
                our_times.push(our_time);
                their_times.push(their_time);
                ratios.push(our_time / their_time);
            }
        }
        let (ours_gb, theirs_gb) = (ours.peak_gb()?, theirs.peak_gb()?);
        println!("  ours {:6.2} s, {ours_gb:.2} GB", median(&our_times));
        println!("  TRL  {:6.2} s, {theirs_gb:.2} GB", median(&their_times));
        let (ratio, (most, goal)) = (median(&ratios), task.time);
        gate(&format!("{ratio:.2} of TRL's time, at most {most:.2} (goal {goal:.2})"), ratio <= most);
        if let Some(most) = task.memory {
            gate(
                &format!("{:.2} of TRL's memory, at most {most:.2}", ours_gb / theirs_gb),
                ours_gb / theirs_gb <= most,
            );
        }
    }
    Ok(())
}

/// Writes the task for the peer: prompts of the same length, whatever stands in them.
fn export(task: &Task, iterations: usize) -> Result<PathBuf> {
    let prompts: Vec<Vec<u32>> = (0..task.prompts * iterations)
        .map(|number| (0..PROMPT_TOKENS).map(|at| 300 + ((number * 7919 + at * 31) % 40_000) as u32).collect())
        .collect();
    let text = json!({
        "prompts": prompts, "prompts_each": task.prompts, "group": task.group, "max_tokens": MAX_TOKENS,
        "mini_batch": 4, "epochs": 4, "kl_coef": 0.05, "learning_rate": 1.41e-5, "rank": 16, "alpha": 32,
    });
    fs::create_dir_all(FOLDER)?;
    let file = Path::new(FOLDER).join(format!("{}.json", task.name));
    fs::write(&file, text.to_string())?;
    Ok(file)
}

/// Iterates as `elenchus train rl` does, once for each line on stdin.
fn ours(task: &Task) -> Result<()> {
    let weights = Arc::new(Weights::open(&elenchus_fetch::fetch_default(&mut |_| {})?, &mut |_| {})?);
    let executor = CandleExecutor::new(&weights, &Device::Cpu, Numerics::Exact)?;
    let engine = CpuExecutor::new(&weights, CpuSettings { threads: 2, ..CpuSettings::default() })?;
    let model = Model::new(Arc::new(engine), &weights)?;
    let character = Character::parse(CHARACTER, "character.toml")?;
    let fresh = TrainableLora::fresh(&executor, &[Linear::Q, Linear::V], 16, 32.0, 1)?;
    let start = fresh.to_adapter("start")?;
    let prompts = prompts(&character, &model)?;
    let distinct = |exchange: &Exchange| {
        let words: std::collections::BTreeSet<&str> = exchange.reply.split_whitespace().collect();
        Some(words.len() as f32 / MAX_TOKENS as f32)
    };
    let judges = Judges::new(vec![WeightedJudge { judge: Box::new(Scripted::new("distinct", distinct)), weight: 1.0 }]);
    let config = format!(
        "character = \"none\"\nstart = \"none\"\nprompts = [\"none\"]\nmethod = {}\n[[judges]]\nkind = \"rules\"\n\
         [sampling]\nprompts = {}\ngroup = {}\nmax_tokens = {MAX_TOKENS}\nheld_out_prompts = 0\n\
         [guards]\nmax_kl = 1e9\nlength_drift = 1e9\ndistinct_2 = 0.0\n\
         [training]\nsteps = 1000\nlearning_rate = 1.41e-5\nsamples = []\ncheckpoint_steps = 1000\neval_steps = 1000\n",
        task.method, task.prompts, task.group
    );
    let folder = Path::new(FOLDER).join(format!("ours-{}", task.name));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let run = RunFolder::open(&folder, &config)?;
    let learner = RlLearner {
        executor: &executor,
        model: &model,
        character: &character,
        start: &start,
        prompts: &prompts,
        judges: &judges,
        offline: &[],
        preferences: &[],
        value_model: None,
    };
    // Loading is not counted as memory of training, as it is not on the other side.
    fs::write("/proc/self/clear_refs", "5")?;
    say(&json!({"ready": true}))?;
    let (should_stop, mut orders) = (AtomicBool::new(false), io::stdin().lock().lines());
    let mut wait = |should_stop: &AtomicBool| {
        if orders.next().is_none() {
            should_stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    };
    wait(&should_stop);
    train(&learner, &RlConfig::parse(&config, "bench", &Methods::default())?, &run, &should_stop, |event| {
        if let RlEvent::Step(report) = event {
            let parts = report.seconds;
            let answer: Value = json!({
                "seconds": parts.total(),
                "tokens": (report.reply_tokens * report.responses as f64).round(),
                "parts": format!(
                    "respond {:.2}, compare {:.2}, learn {:.2}", parts.respond, parts.recompute, parts.learn
                ),
            });
            // A side that nobody hears any more is about to end.
            let _ = say(&answer);
            wait(&should_stop);
        }
    })?;
    Ok(())
}

/// Turns whose prompts have exactly [`PROMPT_TOKENS`] tokens.
fn prompts(character: &Character, model: &Model) -> Result<Vec<RlPrompt>> {
    let subjects = ["ships", "olives", "horses", "gods", "kings", "songs", "storms", "walls", "wine", "stars"];
    let mut prompts = Vec::new();
    for subject in subjects {
        for length in 0..PROMPT_TOKENS {
            let text = format!("Tell me a long story about {subject}{}", " and more".repeat(length));
            for text in [text.clone(), format!("{text} now"), format!("{text}, do")] {
                let turns = vec![Turn { speaker: "A".to_owned(), text }];
                let messages = elenchus_dialogue::messages(character, &[], &[], &turns);
                if model.template.encode(&model.tokenizer, &messages, true)?.len() == PROMPT_TOKENS {
                    prompts.push(turns.into());
                }
            }
        }
    }
    if prompts.is_empty() {
        return Err(format!("no prompt has {PROMPT_TOKENS} tokens").into());
    }
    Ok(prompts)
}
