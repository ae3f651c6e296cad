//! Each side runs in a separate process and answers each line of JSON with one: so turns alternate, memory is separate,
//! and a side that uses the CPU during another's turn is found out.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::material::{File, Material};

/// The sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Ours(File),
    /// Our model with weights in f32: the reference for the others.
    Exact(File),
    LlamaCpp(File),
    OpenVino,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ours(file) => write!(f, "ours, {file}"),
            Self::Exact(file) => write!(f, "exact, {file}"),
            Self::LlamaCpp(file) => write!(f, "llama.cpp, {file}"),
            Self::OpenVino => write!(f, "OpenVINO GenAI, {}", File::Source),
        }
    }
}

/// All sides at one number of threads, each started at its first use.
pub struct Sides<'a> {
    pub material: &'a Material,
    pub threads: usize,
    running: BTreeMap<Kind, Side>,
    /// Seconds of CPU a side used during others' turns, and how long those turns were.
    idle: BTreeMap<Kind, (f64, f64)>,
}

impl<'a> Sides<'a> {
    pub fn new(material: &'a Material, threads: usize) -> Self {
        Self { material, threads, running: BTreeMap::new(), idle: BTreeMap::new() }
    }

    /// Sends a side a command and waits for its answer.
    pub fn ask(&mut self, kind: Kind, order: &Value) -> Result<Value> {
        if !self.running.contains_key(&kind) {
            self.running.insert(kind, self.start(kind, self.material.adapters.len())?);
        }
        let waiting = |kind: Kind, running: &BTreeMap<Kind, Side>| -> Result<Vec<(Kind, f64)>> {
            let others = running.iter().filter(|(other, _)| **other != kind);
            others.map(|(other, side)| Ok((*other, side.cpu_seconds()?))).collect()
        };
        let before = waiting(kind, &self.running)?;
        let started = Instant::now();
        let side = self.running.get_mut(&kind).context("it was started above")?;
        let answer = side.ask(order).with_context(|| format!("{kind}: {}", order["do"]))?;
        let seconds = started.elapsed().as_secs_f64();
        for ((other, before), (_, after)) in before.into_iter().zip(waiting(kind, &self.running)?) {
            let idle = self.idle.entry(other).or_default();
            idle.0 += after - before;
            idle.1 += seconds;
        }
        Ok(answer)
    }

    /// Another process of a kind, with the first so many adapters, fresh for this task.
    pub fn start(&self, kind: Kind, adapters: usize) -> Result<Side> {
        let material = self.material;
        let adapters = &material.adapters[..adapters];
        let threads = self.threads.to_string();
        let ours = |numerics: &str, file: File| -> Result<Command> {
            let mut command = Command::new(env::current_exe()?);
            command.args(["serve", numerics]).arg(material.path(file)).arg(&threads);
            command.args(adapters.iter().map(|adapter| &adapter.folder));
            // For pools that belong to the process.
            command.env("RAYON_NUM_THREADS", &threads).env("CANDLE_NUM_THREADS", &threads);
            Ok(command)
        };
        let mut command = match kind {
            Kind::Ours(file) => ours("quantised", file)?,
            Kind::Exact(file) => ours("exact", file)?,
            Kind::LlamaCpp(file) => {
                let mut command = Command::new(&material.llama_python);
                command.arg("tools/llama_cpp/peer.py").arg("serve").arg(material.path(file)).arg(&threads);
                command.args(adapters.iter().map(|adapter| &adapter.gguf));
                command
            }
            Kind::OpenVino => {
                let python = output(&mut Command::new("tools/openvino/venv"))?;
                let mut command = Command::new(python);
                command.arg("tools/openvino/peer.py").arg("serve").arg(material.path(File::Source)).arg(&threads);
                command
            }
        };
        Side::start(&mut command).with_context(|| format!("{kind} does not start"))
    }

    /// The first line of each running side.
    pub fn greetings(&self) -> impl Iterator<Item = (Kind, &Value)> {
        self.running.iter().map(|(kind, side)| (*kind, &side.greeting))
    }

    /// The share of a core each side used during others' turns.
    pub fn idle_shares(&self) -> impl Iterator<Item = (Kind, f64)> {
        self.idle.iter().filter(|(_, (_, waited))| *waited > 0.0).map(|(kind, (cpu, waited))| (*kind, cpu / waited))
    }
}

/// One process.
pub struct Side {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// Its first line.
    pub greeting: Value,
}

impl Side {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let stdin = child.stdin.take();
        let mut side = Self { child, stdin, stdout, greeting: Value::Null };
        side.greeting = side.answer()?;
        Ok(side)
    }

    pub fn ask(&mut self, order: &Value) -> Result<Value> {
        let stdin = self.stdin.as_mut().context("no stdin")?;
        writeln!(stdin, "{order}")?;
        stdin.flush()?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            bail!("it ended early: {}", self.child.wait()?);
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// CPU time of all its threads so far.
    fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // After the name, which may hold spaces: fields 14 and 15 of proc(5), in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
        let (user, system) = ticks(11).zip(ticks(12)).context("the system does not say a process's CPU time")?;
        Ok((user + system) / 100.0)
    }
}

impl Drop for Side {
    /// End of input ends it.
    fn drop(&mut self) {
        drop(self.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("{error}");
        }
    }
}

/// The output of a command that must succeed; its stderr is shown.
pub fn output(command: &mut Command) -> Result<String> {
    let program = Path::new(command.get_program()).display().to_string();
    let output = command.stderr(Stdio::inherit()).output().with_context(|| program.clone())?;
    ensure!(output.status.success(), "{program} failed: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
