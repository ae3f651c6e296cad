//! Whole runs on the tiny model.

use std::{fs, path::Path};

use candle_core::Device;
use elenchus_lm::{CandleExecutor, LoraAdapter, Numerics, Weights, testing::TinyModel};
use elenchus_train::{Example, Learner, RunFolder, SftConfig, SftEvent, StepReport, train};

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
"#;

/// Replies that follow from their prompts: each letter of the prompt, one further in the alphabet.
fn examples(count: u32) -> Vec<Example> {
    let example = |seed: u32| {
        let prompt: Vec<u32> = (0..12).map(|at| 97 + (seed * 7 + at * (seed % 5 + 1)) % 25).collect();
        let reply = prompt.iter().map(|letter| letter + 1);
        Example { tokens: prompt.iter().copied().chain(reply).collect(), reply_start: 12, is_ended: false }
    };
    (0..count).map(example).collect()
}

struct Lab {
    executor: CandleExecutor,
    _folder: tempfile::TempDir,
}

impl Lab {
    fn new(numerics: Numerics) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        Self { executor: CandleExecutor::new(&weights, &Device::Cpu, numerics).unwrap(), _folder: folder }
    }

    /// Trains in a folder; `at_step` sees each report.
    fn run(&self, folder: &Path, mut at_step: impl FnMut(&StepReport)) -> Vec<StepReport> {
        let (examples, held_out) = (examples(14), examples(18).split_off(14));
        let learner =
            Learner { executor: &self.executor, base_model_name: "tiny", examples: &examples, held_out: &held_out };
        let run = RunFolder::open(folder, CONFIG).unwrap();
        let mut reports = Vec::new();
        let config = SftConfig::parse(CONFIG, "training.toml").unwrap();
        train(&learner, &config, &run, |event| {
            if let SftEvent::Step(report) = event {
                at_step(&report);
                reports.push(report);
            }
        })
        .unwrap();
        reports
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

#[test]
fn a_run_learns_in_either_numerics() {
    for numerics in [Numerics::Exact, Numerics::Quantised] {
        let folder = tempfile::tempdir().unwrap();
        let reports = Lab::new(numerics).run(folder.path(), |_| {});
        assert_eq!(reports.len(), 24);
        let (first, last) = (reports[0].loss, reports[23].loss);
        assert!(last < first - 0.5, "{numerics:?}: {first} to {last}");
        let measured: Vec<f64> = reports.iter().filter_map(|report| report.held_out_perplexity).collect();
        assert_eq!(measured.len(), 6);
        assert!(measured[5] < measured[0], "{numerics:?}: {measured:?}");
        let adapter = LoraAdapter::open(&folder.path().join("adapter")).unwrap();
        assert_eq!(adapter.pairs().len(), 6);
        assert!(adapter.pairs().values().all(|pair| pair.b.iter().any(|&b| b != 0.0)), "every linear has learned");
    }
}

/// What a killed run leaves is what lies in its folder at that moment.
#[test]
fn a_killed_run_goes_on_bit_for_bit() {
    let (folder, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let lab = Lab::new(Numerics::Exact);
    let whole = lab.run(folder.path(), |report| {
        if report.step == 8 {
            copy(folder.path(), killed.path());
        }
    });
    let resumed = lab.run(killed.path(), |_| {});
    // The newest checkpoint is that of step 6; steps 7 and 8 are taken again.
    let timeless = |reports: &[StepReport]| -> Vec<StepReport> {
        reports.iter().map(|report| StepReport { seconds: 0.0, ..report.clone() }).collect()
    };
    assert_eq!(timeless(&resumed), timeless(&whole[6..]));
    let adapter = |folder: &Path| LoraAdapter::open(&folder.join("adapter")).unwrap().hash();
    assert_eq!(adapter(killed.path()), adapter(folder.path()));
    let metrics: Vec<StepReport> = RunFolder::open(killed.path(), CONFIG).unwrap().metrics().unwrap();
    assert_eq!(metrics.iter().map(|report| report.step).collect::<Vec<_>>(), (1..=24).collect::<Vec<_>>());
}

#[test]
fn a_folder_of_another_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    RunFolder::open(folder.path(), CONFIG).unwrap();
    let error = RunFolder::open(folder.path(), "other").unwrap_err().to_string();
    assert!(error.contains("another configuration"), "{error}");
    fs::write(folder.path().join("checkpoint.safetensors"), "half").unwrap();
    let lab = Lab::new(Numerics::Exact);
    let (examples, run) = (examples(4), RunFolder::open(folder.path(), CONFIG).unwrap());
    let learner =
        Learner { executor: &lab.executor, base_model_name: "tiny", examples: &examples, held_out: &examples };
    let config = SftConfig::parse(CONFIG, "training.toml").unwrap();
    let error = train(&learner, &config, &run, |_| {}).unwrap_err().to_string();
    assert!(error.contains("checkpoint.safetensors"), "{error}");
}
