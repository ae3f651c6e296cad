//! llama.cpp's own programs, an independent check of how the bench drives it: its server, and `llama-bench`.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::{
    material::{File::*, Material},
    report::Report,
    side::{Kind::*, Sides, output},
    turns::median,
};

const PROMPT: usize = 128;
const PATIENCE: Duration = Duration::from_secs(600);

/// So many conversations at once over HTTP, each with its adapter; every prompt is new. Ours is the same work without
/// HTTP: in a game, requests are function calls.
pub fn server(sides: &mut Sides<'_>, report: &mut Report, turns: usize, reply: usize) -> Result<()> {
    let programs = output(&mut Command::new("tools/llama_cpp/server"))?;
    for count in [4, 8] {
        report.task(&format!("llama-server, {count} requests"), sides.threads);
        let server = Server::start(&programs, sides.material, sides.threads, count)?;
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for turn in 0..=turns as u64 {
            let of = |base: u64, tokens| -> Vec<Vec<u32>> {
                (0..count as u64).map(|voice| sides.material.ids(turn, base + voice, tokens)).collect()
            };
            let (prompts, replies) = (of(0, PROMPT), of(100, reply));
            let adapters: Vec<usize> = (0..count).collect();
            let order = json!({"do": "decode", "prompts": prompts, "replies": replies, "adapters": adapters});
            let answer = sides.ask(Ours(Source), &order)?;
            let seconds = |name: &str| answer[name].as_f64().with_context(|| format!("no {name}"));
            let our = seconds("seconds")? + seconds("prefill_seconds")?;
            let their = server.answer_all(&prompts, reply)?;
            if turn > 0 {
                ours.push(our);
                theirs.push(their);
                ratios.push(their / our);
            }
        }
        let what = format!("{count} x ({PROMPT} read, {reply} spoken), {count} adapters");
        let speed = |seconds: &[f64]| (count * reply) as f64 / median(seconds);
        report.figure(&format!("{}, without HTTP", Ours(Source)), speed(&ours), "tokens/s", &what);
        report.figure(&format!("llama-server, {Requantised}"), speed(&theirs), "tokens/s", "");
        report.result("ours / llama-server", median(&ratios), "x", None);
        if count == 4 {
            first_token(&server, sides.material, report, turns)?;
        }
    }
    Ok(())
}

/// A slot that has read this persona with another line before, against one that reads both from the start.
fn first_token(server: &Server, material: &Material, report: &mut Report, turns: usize) -> Result<()> {
    let (persona, count) = (&material.persona, material.line.len());
    let (mut warm, mut cold) = (Vec::new(), Vec::new());
    for turn in 0..=turns as u64 {
        let timed = |prompt: &[u32], expected: usize| -> Result<f64> {
            let started = Instant::now();
            let remembered = server.complete(prompt, 0, 1)?;
            ensure!(remembered == expected, "llama-server remembers {remembered} tokens, not {expected}");
            Ok(started.elapsed().as_secs_f64())
        };
        // Numbers that no earlier request had.
        let with_line = |number| [&persona[..], &material.ids(turn, number, count)].concat();
        let unread = timed(&material.ids(turn, 200, persona.len() + count), 0)?;
        server.complete(&with_line(201), 0, 1)?;
        let read = timed(&with_line(202), persona.len())?;
        if turn > 0 {
            cold.push(unread);
            warm.push(read);
        }
    }
    report.figure("llama-server: first token, cold", median(&cold) * 1e3, "ms", "");
    report.figure("llama-server: first token, prompt cached", median(&warm) * 1e3, "ms", "");
    Ok(())
}

/// llama.cpp's speed by its own `llama-bench`, to check the results of the other tasks.
pub fn llama_bench(sides: &Sides<'_>, report: &mut Report, turns: usize) -> Result<()> {
    report.task("llama-bench", sides.threads);
    let programs = output(&mut Command::new("tools/llama_cpp/server"))?;
    // Decoding after a prompt, as in the other tasks.
    let tests = [vec!["-p", "128,512", "-n", "0"], vec!["-p", "0", "-n", "64", "-d", "128"]];
    for (file, test) in [Requantised, Source].into_iter().flat_map(|file| tests.iter().map(move |test| (file, test))) {
        let mut command = Command::new(format!("{programs}/llama-bench"));
        command.arg("-m").arg(sides.material.path(file)).args(test).args(["-o", "json"]);
        command.args(["-t", &sides.threads.to_string(), "-r", &turns.to_string()]);
        let results: Value = serde_json::from_str(&output(&mut command)?)?;
        for result in results.as_array().context("llama-bench answers with no list")? {
            let tokens = |name: &str| result[name].as_u64().unwrap_or(0);
            let name = match (tokens("n_prompt"), tokens("n_gen")) {
                (prompt, 0) => format!("prefill {prompt}"),
                (_, count) => format!("decode {count} after {}", tokens("n_depth")),
            };
            let speed = result["avg_ts"].as_f64().context("llama-bench tells no speed")?;
            report.figure(&format!("llama.cpp, {file}: {name}"), speed, "tokens/s", "");
        }
    }
    Ok(())
}

struct Server {
    child: Child,
    address: String,
    client: Client,
}

impl Server {
    fn start(programs: &str, material: &Material, threads: usize, slots: usize) -> Result<Self> {
        // Free now, and most likely a moment later.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (threads, slots_text) = (threads.to_string(), slots.to_string());
        let mut command = Command::new(format!("{programs}/llama-server"));
        command.arg("-m").arg(material.path(Requantised));
        for adapter in &material.adapters[..slots] {
            command.arg("--lora").arg(&adapter.gguf);
        }
        command.args(["--lora-init-without-apply", "--no-ui", "--host", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["-t", &threads, "-tb", &threads, "-np", &slots_text, "-c", &(1024 * slots).to_string()]);
        command.args(["-b", "512", "-ub", "512", "--log-disable"]).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("llama-server does not start")?;
        let client = Client::builder().timeout(PATIENCE).no_proxy().build()?;
        let mut server = Self { child, address: format!("http://127.0.0.1:{port}"), client };
        let started = Instant::now();
        let health = format!("{}/health", server.address);
        while !server.client.get(&health).send().is_ok_and(|answer| answer.status().is_success()) {
            ensure!(server.child.try_wait()?.is_none(), "llama-server ended before it was ready");
            ensure!(started.elapsed() < PATIENCE, "llama-server is not ready after {} s", PATIENCE.as_secs());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// Requests all replies at once; returns the seconds until the last arrives.
    fn answer_all(&self, prompts: &[Vec<u32>], reply: usize) -> Result<f64> {
        let started = Instant::now();
        thread::scope(|scope| {
            let requests: Vec<_> = prompts
                .iter()
                .enumerate()
                .map(|(voice, prompt)| scope.spawn(move || self.complete(prompt, voice, reply)))
                .collect();
            requests.into_iter().try_for_each(|request| request.join().expect("a request does not panic").map(drop))
        })?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// One reply; returns how many of the prompt's tokens were cached.
    fn complete(&self, prompt: &[u32], voice: usize, reply: usize) -> Result<usize> {
        let body = json!({
            "prompt": prompt, "n_predict": reply, "ignore_eos": true, "samplers": ["top_k"], "top_k": 1,
            "id_slot": voice, "lora": [{"id": voice, "scale": 1.0}],
        });
        let request = self.client.post(format!("{}/completion", self.address));
        let answer = request.header("Content-Type", "application/json").body(body.to_string()).send()?;
        let status = answer.status();
        let text = answer.text()?;
        ensure!(status.is_success(), "llama-server answers {status}: {text}");
        let answer: Value = serde_json::from_str(&text)?;
        ensure!(answer["tokens_predicted"] == reply, "llama-server spoke {} tokens", answer["tokens_predicted"]);
        let remembered = answer["timings"]["cache_n"].as_u64().context("llama-server tells no cache_n")?;
        Ok(usize::try_from(remembered)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("llama-server: {error}");
        }
    }
}
