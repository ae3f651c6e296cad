//! Whole runs of reinforcement learning on the tiny model.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use candle_core::Device;
use elenchus_dialogue::{Character, Turn};
use elenchus_lm::{
    CandleExecutor, ChatTemplate, CpuExecutor, CpuSettings, LoraAdapter, Numerics, Tokenizer, Weights,
    testing::{TinyModel, write_random_adapter},
};
use elenchus_train::{
    Example, RunFolder,
    judge::{Exchange, Panel, Scripted, Seat},
    rl::{JudgedRollout, RlConfig, RlEvent, RlLearner, RlOutcome, RlReport, Seconds, train},
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

struct Lab {
    executor: CandleExecutor,
    engine: CpuExecutor,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    character: Character,
    start: LoraAdapter,
    prompts: Vec<Vec<Turn>>,
    offline: Vec<Example>,
    config: String,
}

/// The share of characters of a reply that are of the first half of ASCII: what a random model says by chance.
fn plain(exchange: &Exchange) -> Option<f32> {
    let count = exchange.reply.chars().count().max(1);
    Some(exchange.reply.chars().filter(|c| (*c as u32) < 80).count() as f32 / count as f32)
}

fn panel(weight: f32, score: fn(&Exchange) -> Option<f32>) -> Panel {
    Panel::new(vec![Seat { judge: Box::new(Scripted::new("plain", score)), weight }])
}

impl Lab {
    fn new(method: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        write_random_adapter(folder.path(), weights.config(), 4, 7);
        let character = "version = 1\nname = \"Meno\"\npersona = \"You are Meno.\"\nfallbacks = [\"Hm.\"]\n\
                         [stop]\nmax_tokens = 12\nmax_sentences = 0\nother_speaker = false";
        let prompt = |text: String| vec![Turn { speaker: "Stranger".into(), text }];
        Self {
            executor: CandleExecutor::new(&weights, &Device::Cpu, Numerics::Exact).unwrap(),
            engine: CpuExecutor::new(&weights, CpuSettings::default()).unwrap(),
            tokenizer: weights.tokenizer().unwrap(),
            template: weights.chat_template().unwrap(),
            character: Character::parse(character, "character.toml").unwrap(),
            start: LoraAdapter::open(folder.path()).unwrap(),
            prompts: (0..11).map(|at| prompt(format!("Line {at}?"))).collect(),
            offline: Vec::new(),
            config: format!("method = {method}\n{CONFIG}"),
        }
    }

    fn run(
        &self,
        folder: &Path,
        judges: &Panel,
        mut stops: impl FnMut(&RlEvent) -> bool,
    ) -> (Vec<RlReport>, RlOutcome) {
        let Self { executor, engine, tokenizer, template, character, start, prompts, offline, .. } = self;
        let learner = RlLearner {
            executor,
            engine,
            tokenizer,
            template,
            character,
            base_model_name: "tiny",
            start,
            prompts,
            judges,
            offline,
            preferences: &[],
            value_model: None,
        };
        let config = RlConfig::parse(&self.config, "rl.toml").unwrap();
        let run = RunFolder::open(folder, &self.config).unwrap();
        let should_stop = AtomicBool::new(false);
        let mut reports = Vec::new();
        let outcome = train(&learner, &config, &run, &should_stop, |event| {
            if stops(&event) {
                should_stop.store(true, Ordering::Relaxed);
            }
            if let RlEvent::Step(report) = event {
                // What a machine's mood decides is left out, so that reports can be compared.
                reports.push(RlReport { seconds: Seconds::default(), resident_bytes: None, ..*report });
            }
        });
        (reports, outcome.unwrap())
    }

    /// Mean scores of the first and the last quarter of a whole run.
    fn learn(&self, judges: &Panel) -> (f64, f64) {
        let folder = tempfile::tempdir().unwrap();
        let (reports, outcome) = self.run(folder.path(), judges, |_| false);
        assert_eq!(outcome, RlOutcome::Finished(folder.path().join("adapter")));
        let quarter = reports.len() / 4;
        let mean = |reports: &[RlReport]| {
            reports.iter().map(|report| report.scores["plain"]).sum::<f64>() / reports.len() as f64
        };
        (mean(&reports[..quarter]), mean(&reports[reports.len() - quarter..]))
    }
}

const METHODS: [&str; 3] = [
    "{ name = \"rloo\", kl_coef = 0.0 }",
    "{ name = \"reinforce\", kl_coef = 0.0 }",
    "{ name = \"ppo\", kl_coef = 0.0, kl_target = 0.0, epochs = 2, mini_batch = 8 }",
];

#[test]
fn every_method_learns_what_is_praised_and_unlearns_what_is_blamed() {
    for method in METHODS {
        let mut lab = Lab::new(method);
        lab.config = lab.config.replace("steps = 12", "steps = 40");
        let (first, last) = lab.learn(&panel(1.0, plain));
        println!("{method}: {first:.3} to {last:.3}");
        assert!(last > first + 0.15, "{method}: {first} to {last}");
        let (first, last) = lab.learn(&panel(-1.0, plain));
        println!("{method}, inverted: {first:.3} to {last:.3}");
        assert!(last < first - 0.1, "{method}, inverted: {first} to {last}");
    }
}

#[test]
fn a_stopped_run_goes_on_bit_for_bit() {
    for method in METHODS {
        let lab = Lab::new(method);
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

        // Killed behind its last checkpoint: the iterations since are done again, and stand in the logs once.
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

/// What was said is learned from with the very numbers it is compared with: the first ratio is 1.
#[test]
fn the_first_ratio_is_one_and_the_reference_is_where_it_begins() {
    for method in
        ["{ name = \"ppo\", epochs = 1, mini_batch = 16 }", "{ name = \"rloo\", epochs = 1, mini_batch = 16 }"]
    {
        let mut lab = Lab::new(method);
        lab.config = lab.config.replace("steps = 12", "steps = 3");
        let folder = tempfile::tempdir().unwrap();
        let (reports, _) = lab.run(folder.path(), &panel(1.0, plain), |_| false);
        assert_eq!(reports[0].kl, 0.0, "{method}");
        assert!(reports[2].kl.abs() > 1e-4, "{method}: {}", reports[2].kl);
        for report in reports {
            assert!((report.stats["ratio"] - 1.0).abs() < 1e-5, "{method}: {:?}", report.stats);
            assert!(report.stats["approxkl"] < 1e-9, "{method}: {:?}", report.stats);
            assert_eq!((report.updates, report.skipped), (1, 0));
        }
    }
}

/// Passes kept from the comparison give the step that passes computed again give.
#[test]
fn keeping_passes_changes_nothing() {
    let run = |mini_batch: usize| {
        let mut lab = Lab::new(&format!("{{ name = \"rloo\", mini_batch = {mini_batch} }}"));
        lab.config = lab.config.replace("steps = 12", "steps = 2");
        let folder = tempfile::tempdir().unwrap();
        let (reports, _) = lab.run(folder.path(), &panel(1.0, plain), |_| false);
        reports.iter().map(|report| report.grad_norm).collect::<Vec<_>>()
    };
    let (kept, again) = (run(0), run(16));
    assert!((kept[0] / again[0] - 1.0).abs() < 1e-4, "{kept:?} {again:?}");
}

#[test]
fn what_cannot_be_scored_is_left_out_and_too_much_of_it_ends_the_run() {
    fn sometimes(exchange: &Exchange) -> Option<f32> {
        plain(exchange).filter(|_| !exchange.reply.len().is_multiple_of(3))
    }
    let lab = Lab::new("\"rloo\"");
    let folder = tempfile::tempdir().unwrap();
    let judges = panel(1.0, sometimes);
    let (reports, outcome) = lab.run(folder.path(), &judges, |_| false);
    assert!(matches!(&outcome, RlOutcome::Halted(1, reason) if reason.contains("rollouts.jsonl")), "{outcome:?}");
    let report = &reports[0];
    assert!(report.unscored > 0 && report.unscored < report.responses, "{report:?}");
    let lines = fs::read_to_string(folder.path().join("rollouts.jsonl")).unwrap();
    let rollouts: Vec<JudgedRollout> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rollouts.iter().filter(|rollout| rollout.score.is_none()).count(), report.unscored);
    // A halted run stays halted.
    let (again, outcome) = lab.run(folder.path(), &judges, |_| false);
    assert!(again.is_empty() && matches!(outcome, RlOutcome::Halted(1, _)), "{outcome:?}");
}

/// Nobody can be scored: nothing is learned, and nothing breaks before the guard ends it.
#[test]
fn a_judge_without_opinions_teaches_nothing() {
    let mut lab = Lab::new("\"ppo\"");
    lab.config = lab.config.replace("[guards]", "[guards]\nparse_rate = 0.0").replace("steps = 12", "steps = 2");
    let folder = tempfile::tempdir().unwrap();
    let (reports, outcome) = lab.run(folder.path(), &panel(1.0, |_| None), |_| false);
    assert!(matches!(outcome, RlOutcome::Finished(_)));
    assert!(reports.iter().all(|report| report.updates == 0 && report.unscored == report.responses));
    let (ours, start) = (LoraAdapter::open(&folder.path().join("adapter")).unwrap(), &lab.start);
    for (key, pair) in ours.pairs() {
        let expected = &start.pairs()[&key];
        let distance = pair.b.iter().zip(&expected.b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(distance < 1e-3, "{key:?}: {distance}");
    }
}

/// Pairs that were written beforehand become likelier beside what is sampled, and the baseline does not see them.
#[test]
fn hybrid_data_is_a_term_of_its_own() {
    const OFFLINE: &str = "[offline]\npairs = \"pairs.jsonl\"\nreward = 0.5\nweight = 20.0\nbatch = 2\n[guards]";
    let mut lab = Lab::new("{ name = \"reinforce\", kl_coef = 0.0 }");
    let tokens = |from: u32| (from..from + 14).map(|at| 40 + at * 3 % 60).collect::<Vec<u32>>();
    let example = |from: u32| Example { tokens: tokens(from), reply_start: 8, is_ended: false };
    lab.offline = (0..4).map(|at| example(at * 5)).collect();
    let folder = tempfile::tempdir().unwrap();
    let (without, _) = lab.run(folder.path(), &panel(1.0, plain), |_| false);
    lab.config = lab.config.replace("[guards]", OFFLINE);
    let folder = tempfile::tempdir().unwrap();
    let (with, _) = lab.run(folder.path(), &panel(1.0, plain), |_| false);
    let losses: Vec<f64> = with.iter().filter_map(|report| report.offline_loss).collect();
    assert_eq!(losses.len(), with.len());
    assert!(losses[losses.len() - 1] < losses[0] - 0.5, "{losses:?}");
    assert!(without.iter().all(|report| report.offline_loss.is_none()));
    assert_eq!(with[0].stats, without[0].stats, "the method sees what was sampled alone");
    assert_ne!(with[0].grad_norm, without[0].grad_norm);
}
