//! Whole runs on the tiny model.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use candle_core::{Device, backprop::GradStore};
use elenchus_candle::{CandleExecutor, LoraDropout, TrainableLora};
use elenchus_dialogue::{Character, Model};
use elenchus_lm::{
    LoraAdapter, Numerics, Weights,
    testing::{TinyModel, write_random_adapter},
};
use elenchus_train::{
    Example, Learner, RunFolder, Sample, SftConfig, SftEvent, SftOutcome, SftResult, StepReport, gradients, perplexity,
    report::sft_report, spread, train,
};

const CONFIG: &str = r#"
character = "character.toml"
data = ["texts.jsonl"]
held_out_works = ["Meno"]
[lora]
rank = 4
alpha = 8.0
dropout = 0.1
targets = ["q_proj", "v_proj", "down_proj"]
[training]
seed = 3
epochs = 6
batch = 4
pass_tokens = 60
learning_rate = 0.01
warmup_steps = 2
checkpoint_steps = 3
eval_steps = 4
eval_examples = 2
samples = ["Who are you?", "What is courage?"]
"#;

/// Replies that follow from their prompts: each letter of the prompt, so many further in the alphabet.
fn examples(count: u32, further: u32) -> Vec<Example> {
    let example = |seed: u32| {
        let prompt: Vec<u32> = (0..12).map(|at| 97 + (seed * 7 + at * (seed % 5 + 1)) % 25).collect();
        let reply = prompt.iter().map(|letter| letter + further);
        Example { tokens: prompt.iter().copied().chain(reply).collect(), reply_start: 12, is_ended: false, weight: 1.0 }
    };
    (0..count).map(example).collect()
}

struct Lab {
    executor: Arc<CandleExecutor>,
    model: Model,
    character: Character,
    examples: Vec<Example>,
    held_out: Vec<Example>,
    config: String,
    _folder: tempfile::TempDir,
}

impl Lab {
    fn new(numerics: Numerics) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        let executor = Arc::new(CandleExecutor::new(&weights, &Device::Cpu, numerics).unwrap());
        let character = "version = 1\nname = \"Meno\"\npersona = \"You are Meno.\"\nfallbacks = [\"Hm.\"]\n\
                         [stop]\nmax_tokens = 12\nmax_sentences = 0\nother_speaker = false";
        Self {
            model: Model::new(executor.clone(), &weights).unwrap(),
            executor,
            character: Character::parse(character, "character.toml").unwrap(),
            examples: examples(14, 1),
            held_out: examples(18, 1).split_off(14),
            config: CONFIG.to_owned(),
            _folder: folder,
        }
    }

    fn learner(&self) -> Learner<'_> {
        let Self { executor, model, character, examples, held_out, .. } = self;
        Learner { executor, model, character, examples, held_out, start: None }
    }

    fn open(&self, folder: &Path) -> RunFolder {
        RunFolder::open(folder, &self.config).unwrap()
    }

    /// Trains in a folder until `at_step`, which hears each event, asks to stop.
    fn run(&self, folder: &Path, mut stops: impl FnMut(&SftEvent) -> bool) -> (Vec<StepReport>, SftOutcome) {
        let (mut reports, should_stop) = (Vec::new(), AtomicBool::new(false));
        let config = SftConfig::parse(&self.config, "training.toml").unwrap();
        let outcome = train(&self.learner(), &config, &self.open(folder), &should_stop, |event| {
            if stops(&event) {
                should_stop.store(true, Ordering::Relaxed);
            }
            if let SftEvent::Step(report) = event {
                // What a machine's mood decides is left out, so that reports can be compared.
                reports.push(StepReport { seconds: 0.0, resident_bytes: None, ..report });
            }
        });
        (reports, outcome.unwrap())
    }

    fn finish(&self, folder: &Path) -> (Vec<StepReport>, SftResult) {
        match self.run(folder, |_| false) {
            (reports, SftOutcome::Finished(adapter, result)) => {
                assert_eq!(adapter, folder.join("adapter"));
                sft_report(&self.open(folder)).unwrap();
                (reports, result)
            }
            (_, stopped) => panic!("{stopped:?}"),
        }
    }

    fn samples(&self, folder: &Path) -> Vec<Sample> {
        self.open(folder).samples().unwrap()
    }
}

/// A run that begins from another's adapter loses at first what the other lost at last, and one that does not fit its
/// configuration is refused.
#[test]
fn a_run_begins_from_another_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::new(Numerics::Exact);
    let (first, _) = lab.finish(&folder.path().join("first"));
    let neighbour = LoraAdapter::open(&folder.path().join("first/adapter")).unwrap();
    let go = |config: &str| {
        let learner = Learner { start: Some(&neighbour), ..lab.learner() };
        let runs = tempfile::tempdir().unwrap();
        let run = RunFolder::open(runs.path(), config).unwrap();
        let (mut losses, should_stop) = (Vec::new(), AtomicBool::new(false));
        let config = SftConfig::parse(config, "training.toml").unwrap();
        let outcome = train(&learner, &config, &run, &should_stop, |event| {
            if let SftEvent::Step(report) = event {
                losses.push(report.loss);
                should_stop.store(true, Ordering::Relaxed);
            }
        });
        outcome.map(|_| losses[0])
    };
    let loss = go(&lab.config).unwrap();
    assert!(loss < first[0].loss, "{loss} after {}", first[0].loss);
    let other_rank = lab.config.replace("rank = ", "rank = 1");
    assert_ne!(other_rank, lab.config);
    let error = go(&other_rank).unwrap_err().to_string();
    assert!(error.contains("`lora.start` has rank"), "{error}");
}

fn is_step(event: &SftEvent, step: u64) -> bool {
    matches!(event, SftEvent::Step(report) if report.step == step)
}

fn hash(adapter: &Path) -> [u8; 32] {
    LoraAdapter::open(adapter).unwrap().hash()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_file() {
            fs::copy(&path, to).unwrap();
        } else {
            copy(&path, &to);
        }
    }
}

/// The best of some reports: its step and its perplexity.
fn best(reports: &[StepReport]) -> (u64, f64) {
    let measured = reports.iter().filter_map(|report| Some((report.step, report.held_out_perplexity?)));
    measured.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap()
}

#[test]
fn a_run_learns_in_either_numerics() {
    for numerics in [Numerics::Exact, Numerics::Quantised] {
        let (lab, folder) = (Lab::new(numerics), tempfile::tempdir().unwrap());
        let (reports, result) = lab.finish(folder.path());
        assert_eq!(reports.len(), 24);
        let (first, last) = (reports[0].loss, reports[23].loss);
        assert!(last < first - 0.5, "{numerics:?}: {first} to {last}");
        let measured: Vec<f64> = reports.iter().filter_map(|report| report.held_out_perplexity).collect();
        assert_eq!(measured.len(), 6);
        assert!(measured[5] < measured[0], "{numerics:?}: {measured:?}");
        assert_eq!((result.steps, result.total_steps, result.tokens), (24, 24, 4 * 12));
        assert_eq!((result.end_tokens, result.end_perplexity), (0, None));
        assert_eq!(result.best_step, best(&reports).0);
        assert!(result.perplexity < 0.7 * result.base_perplexity, "{result:?}");
        // What evaluations are compared with is the base over what they measure: two of the four examples.
        let base = perplexity(&lab.executor, None, &spread(&lab.held_out, 2), |_| {}).unwrap();
        let text = fs::read_to_string(folder.path().join("base.json")).unwrap();
        let written: serde_json::Value = serde_json::from_str(&text).unwrap();
        let written = (written["perplexity"].as_f64().unwrap(), written["tokens"].as_u64());
        assert!((written.0 / base.of_tokens() - 1.0).abs() < 1e-9 && written.1 == Some(2 * 12), "{written:?}");
        let adapter = LoraAdapter::open(&folder.path().join("adapter")).unwrap();
        assert_eq!(adapter.pairs().len(), 6);
        assert!(adapter.pairs().values().all(|pair| pair.b.iter().any(|&b| b != 0.0)), "every linear has learned");
        assert_eq!(adapter.hash(), hash(&folder.path().join("best")));
        for file in ["REPORT.md", "REPORT.html"] {
            let report = fs::read_to_string(folder.path().join(file)).unwrap();
            assert!(report.contains("What is courage?"), "{file}: {report}");
        }
    }
}

/// Three times the weight is three times the example.
#[test]
fn a_weight_counts_an_example_so_often() {
    let lab = Lab::new(Numerics::Exact);
    let config = SftConfig::parse(&lab.config, "training.toml").unwrap();
    let start = tempfile::tempdir().unwrap();
    let weights = Weights::open(&lab._folder.path().join("tiny.gguf"), &mut |_| {}).unwrap();
    write_random_adapter(start.path(), weights.config(), 4, 7);
    let lora = TrainableLora::new(&LoraAdapter::open(start.path()).unwrap(), &lab.executor).unwrap();
    let [short, long] = [&lab.examples[0], &lab.examples[1]];
    let short = Example { tokens: short.tokens[..20].to_vec(), ..short.clone() };
    let heavy = Example { weight: 3.0, ..short.clone() };
    let of = |batch: &[&Example]| {
        gradients(&lab.executor, &lora, batch, &mut LoraDropout::new(0.0, 1), &config.training).unwrap()
    };
    let (weighted, targets, grads) = of(&[&heavy, long]);
    let (expected, _, expected_grads) = of(&[&short, &short, &short, long]);
    assert_eq!(targets, 8 + 12);
    assert!((weighted - expected).abs() < 1e-5, "{weighted}, {expected}");
    for (name, var) in lora.vars() {
        let of = |grads: &GradStore| -> Vec<f32> { grads.get(&var).unwrap().flatten_all().unwrap().to_vec1().unwrap() };
        let (grad, expected) = (of(&grads), of(&expected_grads));
        let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        assert!(largest > 0.0, "{name}");
        for (grad, expected) in grad.iter().zip(&expected) {
            assert!((grad - expected).abs() < 1e-4 * largest, "{name}: {grad}, {expected}");
        }
    }
}

/// What a killed run leaves is what lies in its folder at that moment.
#[test]
fn a_killed_run_goes_on_bit_for_bit() {
    let (folder, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let lab = Lab::new(Numerics::Exact);
    let (whole, _) = lab.run(folder.path(), |event| {
        if is_step(event, 8) {
            copy(folder.path(), killed.path());
        }
        false
    });
    // A kill may cut the last line short.
    for file in ["metrics.jsonl", "samples.jsonl"] {
        let text = fs::read_to_string(killed.path().join(file)).unwrap();
        fs::write(killed.path().join(file), text + "{\"step\":9,").unwrap();
    }
    let (resumed, result) = lab.finish(killed.path());
    // The newest checkpoint is that of step 6; steps 7 and 8 are taken again.
    assert_eq!(resumed, whole[6..]);
    for folder in ["adapter", "best"].map(|name| (folder.path().join(name), killed.path().join(name))) {
        assert_eq!(hash(&folder.0), hash(&folder.1));
    }
    let metrics: Vec<StepReport> = lab.open(killed.path()).metrics().unwrap();
    assert_eq!(metrics.iter().map(|report| report.step).collect::<Vec<_>>(), (1..=24).collect::<Vec<_>>());
    let samples = lab.samples(folder.path());
    assert_eq!(samples.len(), 2 * 7);
    assert_eq!(lab.samples(killed.path()), samples);

    // A run that is over is not trained again, and says the same.
    let files = |name: &str| fs::read(killed.path().join(name)).unwrap();
    let before = ["metrics.jsonl", "samples.jsonl", "checkpoint.safetensors", "result.json"].map(files);
    let (nothing, again) = lab.finish(killed.path());
    assert_eq!((nothing, again.best_step), (Vec::new(), result.best_step));
    assert_eq!(["metrics.jsonl", "samples.jsonl", "checkpoint.safetensors", "result.json"].map(files), before);
}

#[test]
fn a_stopped_run_loses_nothing() {
    let (folder, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let lab = Lab::new(Numerics::Exact);
    let (whole, result) = lab.finish(folder.path());
    let (before, outcome) = lab.run(stopped.path(), |event| is_step(event, 5));
    assert_eq!(outcome, SftOutcome::Stopped(5));
    assert!(!stopped.path().join("result.json").exists());
    // Also where training is over and only the last measure is left.
    let (after, outcome) = lab.run(stopped.path(), |event| matches!(event, SftEvent::Measured(..)));
    assert_eq!(outcome, SftOutcome::Stopped(24));
    assert_eq!([before, after].concat(), whole);
    assert_eq!(lab.finish(stopped.path()), (Vec::new(), result));
    assert_eq!(lab.samples(stopped.path()), lab.samples(folder.path()));
}

#[test]
fn a_run_that_gets_no_better_ends_early_with_its_best_adapter() {
    let mut lab = Lab::new(Numerics::Exact);
    // What is learned is wrong for these: the more is learned, the worse they are foreseen.
    lab.held_out = examples(18, 2).split_off(14);
    lab.config = CONFIG.replace("eval_steps = 4", "eval_steps = 2\npatience = 3").replace("epochs = 6", "epochs = 40");
    let folder = tempfile::tempdir().unwrap();
    let best_hash = |event: &SftEvent| match event {
        SftEvent::Evaluated { step, best: Some((best, _)), .. } if step == best => {
            Some(hash(&folder.path().join("best")))
        }
        _ => None,
    };
    let mut known = None;
    let (reports, outcome) = lab.run(folder.path(), |event| {
        known = best_hash(event).or(known);
        false
    });
    let SftOutcome::Finished(adapter, result) = outcome else { panic!("{outcome:?}") };
    let (best_step, _) = best(&reports);
    assert_eq!(result.best_step, best_step);
    assert_eq!((result.steps, reports.len() as u64), (best_step + 3 * 2, best_step + 3 * 2));
    assert!(result.steps < result.total_steps, "{result:?}");
    assert_eq!(Some(hash(&adapter)), known);

    // Patience survives a kill: one that is cut off behind the best step ends where the whole one ended.
    let cut = tempfile::tempdir().unwrap();
    lab.run(cut.path(), |event| is_step(event, best_step + 3));
    let (rest, again) = lab.finish(cut.path());
    assert_eq!((rest.as_slice(), again), (&reports[best_step as usize + 3..], result));
    assert_eq!(hash(&cut.path().join("adapter")), hash(&adapter));
}

#[test]
fn samples_show_what_was_learned_and_change_nothing() {
    let (folder, silent) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut lab = Lab::new(Numerics::Exact);
    let mut told = Vec::new();
    let (reports, _) = lab.run(folder.path(), |event| {
        if let SftEvent::Evaluated { samples, .. } = event {
            told.extend(samples.clone());
        }
        false
    });
    let samples = lab.samples(folder.path());
    assert_eq!(told, samples);
    let steps: Vec<u64> = samples.iter().map(|sample| sample.step).collect();
    assert_eq!(steps, [0, 4, 8, 12, 16, 20, 24].map(|step| [step; 2]).concat());
    assert!(samples.chunks(2).all(|both| both[0].line == "Who are you?" && both[1].line == "What is courage?"));
    assert_ne!(samples[0].reply, samples[12].reply, "twenty-four steps change what is said");
    let text = fs::read_to_string(folder.path().join("samples.jsonl")).unwrap();
    assert!(text.starts_with("{\"step\":0,\"line\":\"Who are you?\",\"reply\":\""), "{text}");

    lab.config = CONFIG.replace("samples = [\"Who are you?\", \"What is courage?\"]", "samples = []");
    assert_eq!(lab.finish(silent.path()).0, reports);
    assert_eq!(lab.samples(silent.path()), []);
}

#[test]
fn a_folder_of_another_run_is_refused() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new(Numerics::Exact));
    let run = lab.open(folder.path());
    let error = RunFolder::open(folder.path(), "other").unwrap_err().to_string();
    assert!(error.contains("another configuration"), "{error}");

    let config = SftConfig::parse(CONFIG, "training.toml").unwrap();
    let refused = || {
        let outcome = train(&lab.learner(), &config, &run, &AtomicBool::new(true), |_| {});
        outcome.unwrap_err().to_string()
    };
    fs::write(folder.path().join("checkpoint.safetensors"), "half").unwrap();
    let error = refused();
    assert!(error.contains("checkpoint.safetensors"), "{error}");
    fs::remove_file(folder.path().join("checkpoint.safetensors")).unwrap();

    lab.run(folder.path(), |event| {
        if is_step(event, 2) {
            let error = refused();
            assert!(error.contains("another process"), "{error}");
        }
        is_step(event, 3)
    });
}

#[test]
fn memory_is_reported_where_the_system_tells() {
    let (folder, lab) = (tempfile::tempdir().unwrap(), Lab::new(Numerics::Exact));
    lab.run(folder.path(), |event| is_step(event, 1));
    let metrics: Vec<StepReport> = lab.open(folder.path()).metrics().unwrap();
    assert_eq!(metrics[0].resident_bytes.is_some(), Path::new("/proc/self/status").exists());
    assert!(metrics[0].seconds > 0.0);
}
