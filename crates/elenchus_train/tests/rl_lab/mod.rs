//! A laboratory for whole runs of reinforcement learning on the tiny model, and what every method is held to in it.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use candle_core::Device;
use elenchus_candle::CandleExecutor;
use elenchus_dialogue::{Character, Model, Turn};
use elenchus_lm::{
    CpuExecutor, CpuSettings, LoraAdapter, Numerics, Weights,
    testing::{TinyModel, write_random_adapter},
};
use elenchus_train::{
    Example, ExamplePair, Preference, RewardModel, RunFolder,
    judge::{Exchange, Judges, Scripted, WeightedJudge},
    report::rl_report,
    rl::{JudgedRollout, Methods, RlConfig, RlEvent, RlLearner, RlOutcome, RlPrompt, RlReport, Seconds, train},
};

const CONFIG: &str = r#"
character = "character.toml"
start = "."
prompts = ["lines.jsonl"]
[[judges]]
kind = "rules"
[sampling]
prompts = 4
group = 4
max_tokens = 10
missing_end_penalty = 0.0
held_out_prompts = 2
[guards]
max_kl = 1000.0
distinct_2 = 0.0
length_drift = 100.0
[training]
seed = 3
steps = 12
learning_rate = 0.02
warmup_steps = 1
decay = "constant"
pass_tokens = 200
checkpoint_steps = 5
eval_steps = 6
samples = ["Who are you?"]
"#;

/// The tiny model, a character, and what it is asked.
pub struct Lab {
    pub executor: CandleExecutor,
    pub model: Model,
    pub character: Character,
    pub start: LoraAdapter,
    pub prompts: Vec<RlPrompt>,
    pub offline: Vec<Example>,
    pub preferences: Vec<ExamplePair>,
    pub value_model: Option<RewardModel>,
    pub config: String,
    /// Those that the configuration can name.
    pub methods: Methods,
}

/// The share of characters of a reply that are of the first half of ASCII: what a random model says by chance.
pub fn plain(exchange: &Exchange) -> Option<f32> {
    let count = exchange.reply.chars().count().max(1);
    Some(exchange.reply.chars().filter(|c| (*c as u32) < 80).count() as f32 / count as f32)
}

pub fn panel(weight: f32, score: fn(&Exchange) -> Option<f32>) -> Judges {
    Judges::new(vec![WeightedJudge { judge: Box::new(Scripted::new("plain", score)), weight }])
}

impl Lab {
    pub fn new(method: &str, methods: &Methods) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        write_random_adapter(folder.path(), weights.config(), 4, 7);
        let character = "version = 1\nname = \"Meno\"\npersona = \"You are Meno.\"\nfallbacks = [\"Hm.\"]\n\
                         [stop]\nmax_tokens = 12\nmax_sentences = 0\nother_speaker = false";
        let prompt = |text: String| RlPrompt::from(vec![Turn { speaker: "Stranger".into(), text }]);
        Self {
            executor: CandleExecutor::new(&weights, &Device::Cpu, Numerics::Exact).unwrap(),
            model: Model::new(Arc::new(CpuExecutor::new(&weights, CpuSettings::default()).unwrap()), &weights).unwrap(),
            character: Character::parse(character, "character.toml").unwrap(),
            start: LoraAdapter::open(folder.path()).unwrap(),
            prompts: (0..11).map(|at| prompt(format!("Line {at}?"))).collect(),
            offline: Vec::new(),
            preferences: Vec::new(),
            value_model: None,
            config: format!("method = {method}\n{CONFIG}"),
            methods: methods.clone(),
        }
    }

    pub fn run(
        &self,
        folder: &Path,
        judges: &Judges,
        stops: impl FnMut(&RlEvent) -> bool,
    ) -> (Vec<RlReport>, RlOutcome) {
        self.run_with(&self.config, folder, judges, stops)
    }

    pub fn run_with(
        &self,
        config: &str,
        folder: &Path,
        judges: &Judges,
        mut stops: impl FnMut(&RlEvent) -> bool,
    ) -> (Vec<RlReport>, RlOutcome) {
        let Self { executor, model, character, start, prompts, offline, preferences, .. } = self;
        let learner = RlLearner {
            executor,
            model,
            character,
            start,
            prompts,
            judges,
            offline,
            preferences,
            value_model: self.value_model.as_ref(),
        };
        let text = config;
        let config = RlConfig::parse(text, "rl.toml", &self.methods).unwrap();
        let run = RunFolder::open(folder, text).unwrap();
        let should_stop = AtomicBool::new(false);
        let mut reports = Vec::new();
        let outcome = train(&learner, &config, &run, &should_stop, |event| {
            if stops(&event) {
                should_stop.store(true, Ordering::Relaxed);
            }
            if let RlEvent::Step(report) = event {
                // What a machine's mood decides is left out, so that reports can be compared.
                reports.push(RlReport { seconds: Seconds::default(), peak_bytes: None, ..*report });
            }
        });
        let outcome = outcome.unwrap();
        rl_report(&run, &self.methods).unwrap();
        (reports, outcome)
    }

    /// Mean scores of what the start says and of the last quarter of a whole run, over runs of some seeds.
    pub fn learn(&self, judges: &Judges, seeds: &[u64]) -> (f64, f64) {
        let of_seed = |seed: &u64| {
            let folder = tempfile::tempdir().unwrap();
            let config = self.config.replace("seed = 3", &format!("seed = {seed}"));
            let (reports, outcome) = self.run_with(&config, folder.path(), judges, |_| false);
            assert_eq!(outcome, RlOutcome::Finished(folder.path().join("adapter")));
            let last = &reports[reports.len() - reports.len() / 4..];
            let mean = last.iter().map(|report| report.scores["plain"]).sum::<f64>() / last.len() as f64;
            (reports[0].scores["plain"], mean)
        };
        let runs: Vec<_> = seeds.iter().map(of_seed).collect();
        let mean = |of: fn(&(f64, f64)) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
        (mean(|run| run.0), mean(|run| run.1))
    }
}

/// Every method learns what is praised and unlearns what is blamed.
pub fn learns_what_is_praised(methods: &[&str], registry: &Methods) {
    for method in methods {
        let mut lab = Lab::new(method, registry);
        lab.config = lab.config.replace("steps = 12", "steps = 40");
        // APA without a divergence's price wanders: eight seeds end at 0.63 to 0.94, where RLOO's end at 0.93 to 1.00.
        let seeds: &[u64] = if method.contains("\"apa\"") { &[3, 4, 5] } else { &[3] };
        let (first, last) = lab.learn(&panel(1.0, plain), seeds);
        println!("{method}: {first:.3} to {last:.3}");
        assert!(last > first + 0.15, "{method}: {first} to {last}");
        let (first, last) = lab.learn(&panel(-1.0, plain), seeds);
        println!("{method}, inverted: {first:.3} to {last:.3}");
        assert!(last < first - 0.1, "{method}, inverted: {first} to {last}");
    }
}

/// A stopped run, and a killed one, resume bit for bit.
pub fn resumes_bit_for_bit(methods: &[&str], registry: &Methods) {
    for method in methods {
        let lab = Lab::new(method, registry);
        let judges = panel(1.0, plain);
        let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (expected, _) = lab.run(whole.path(), &judges, |_| false);
        let stops = |event: &RlEvent| matches!(event, RlEvent::Step(report) if report.step == 7);
        let (mut reports, outcome) = lab.run(stopped.path(), &judges, stops);
        assert_eq!(outcome, RlOutcome::Stopped(7), "{method}");
        reports.extend(lab.run(stopped.path(), &judges, |_| false).0);
        assert_eq!(reports, expected, "{method}");
        let read = |folder: &Path, file: &str| fs::read(folder.join(file)).unwrap();
        for file in ["adapter/adapter_model.safetensors", "rollouts.jsonl", "samples.jsonl", "held_out.jsonl"] {
            assert_eq!(read(whole.path(), file), read(stopped.path(), file), "{method}: {file}");
        }

        let held_out = String::from_utf8(read(whole.path(), "held_out.jsonl")).unwrap();
        let held_out: Vec<JudgedRollout> = held_out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let steps: Vec<u64> = held_out.iter().map(|rollout| rollout.step).collect();
        assert_eq!(steps, [0, 0, 6, 6, 12, 12], "two prompts at each evaluation");
        let trained = String::from_utf8(read(whole.path(), "rollouts.jsonl")).unwrap();
        let asked = &held_out[0].exchange.context[0].text;
        assert!(trained.contains("Line ") && !trained.contains(asked.as_str()), "{asked} was learned from");

        let page = String::from_utf8(read(whole.path(), "REPORT.html")).unwrap();
        for part in ["of 2 prompts", "plain", "Line ", "<svg"] {
            assert!(page.contains(part), "{method}: `{part}` is not in the report");
        }
        assert_eq!(page.matches("<tr").count(), page.matches("</tr>").count());

        // Killed after its last checkpoint: the iterations since are done again, and stand in the logs once.
        let killed = tempfile::tempdir().unwrap();
        let _ = lab.run(killed.path(), &judges, |event| matches!(event, RlEvent::Step(report) if report.step == 5));
        for file in ["metrics.jsonl", "rollouts.jsonl"] {
            let lines = String::from_utf8(read(whole.path(), file)).unwrap();
            let more: String =
                lines.lines().filter(|line| line.contains("\"step\":6,")).map(|line| format!("{line}\n")).collect();
            assert!(!more.is_empty());
            let torn = String::from_utf8(read(killed.path(), file)).unwrap() + &more + "{\"step\":7,\"resp";
            fs::write(killed.path().join(file), torn).unwrap();
        }
        let (rest, _) = lab.run(killed.path(), &judges, |_| false);
        assert_eq!(rest, expected[5..], "{method}");
        assert_eq!(read(killed.path(), "rollouts.jsonl"), read(whole.path(), "rollouts.jsonl"), "{method}");
    }
}

/// Mean scores of what is held out, first and last.
pub fn held_out(folder: &Path) -> (f64, f64) {
    let lines = fs::read_to_string(folder.join("held_out.jsonl")).unwrap();
    let lines: Vec<JudgedRollout> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mean = |step: u64| {
        let scores: Vec<f64> =
            lines.iter().filter(|line| line.step == step).filter_map(|line| line.score).map(f64::from).collect();
        scores.iter().sum::<f64>() / scores.len() as f64
    };
    let last = lines.last().unwrap();
    assert!(lines.iter().all(|line| line.kl.is_some_and(f64::is_finite)));
    assert!(lines[0].kl == Some(0.0) && last.kl.unwrap() > 0.0, "{:?}", last.kl);
    (mean(0), mean(last.step))
}

/// Forty prompts, most of them held out.
pub fn many_prompts(method: &str, steps: u32, registry: &Methods) -> Lab {
    let mut lab = Lab::new(method, registry);
    let prompt = |at: usize| vec![Turn { speaker: "Stranger".into(), text: format!("Line {at}?") }].into();
    lab.prompts = (0..40).map(prompt).collect();
    let steps = format!("steps = {steps}");
    lab.config = lab.config.replace("held_out_prompts = 2", "held_out_prompts = 24").replace("steps = 12", &steps);
    lab
}

/// Offline methods have the reference say what they learn from, so what the policy says is held out.
pub fn held_out_gets_better(methods: &[&str], registry: &Methods) {
    for method in methods {
        let lab = many_prompts(method, 60, registry);
        let folder = tempfile::tempdir().unwrap();
        let (reports, _) = lab.run(folder.path(), &panel(1.0, plain), |_| false);
        let (first, last) = held_out(folder.path());
        println!("{method}: {first:.3} to {last:.3}");
        assert!(last > first + 0.1, "{method}: {first} to {last}");
        assert!(reports.iter().all(|report| report.kl.is_finite() && report.engine_kl < 0.02), "{method}");
    }
}

/// The same out of a file: replies of one letter are chosen, and become likelier.
pub fn written_preferences_are_learned(methods: &[&str], registry: &Methods) {
    for method in methods {
        let mut lab = many_prompts(method, 30, registry);
        lab.config = lab
            .config
            .replace("prompts = [\"lines.jsonl\"]", "prompts = [\"lines.jsonl\"]\npreferences = [\"p.jsonl\"]");
        let preference = |at: usize| Preference {
            context: vec![Turn { speaker: "Stranger".into(), text: format!("Line {at}?") }],
            chosen: "aaaa".into(),
            rejected: "zzzz".into(),
        };
        let preferences: Vec<Preference> = (0..6).map(preference).collect();
        lab.preferences = ExamplePair::all(&preferences, &lab.character, &lab.model, 200).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (reports, _) = lab.run(folder.path(), &panel(1.0, plain), |_| false);
        assert!(
            !folder.path().join("rollouts.jsonl").exists()
                || fs::read(folder.path().join("rollouts.jsonl")).unwrap().is_empty()
        );
        assert!(reports.iter().all(|report| report.scores.is_empty()), "{method}: nobody is asked");
        assert_eq!(reports[0].responses, 8, "{method}: four pairs");
        // The policy has moved from the reference, by what was written.
        assert!(reports[29].kl != 0.0 && reports[0].kl == 0.0, "{method}");
        if let Some(accuracy) = reports[29].stats.get("preference_accuracy") {
            assert!(*accuracy > 0.9, "{method}: {accuracy}");
        }
    }
}
