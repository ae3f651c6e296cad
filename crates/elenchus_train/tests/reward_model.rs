//! Whole runs on the tiny model: a planted preference is found, and a control finds nothing.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use candle_core::Device;
use elenchus_candle::CandleExecutor;
use elenchus_dialogue::{Model, Turn};
use elenchus_lm::{
    Numerics, Weights,
    testing::{IM_END, TinyModel},
};
use elenchus_train::{
    Example, ExamplePair, RewardCard, RewardConfig, RewardEvent, RewardLearner, RewardLesson, RewardModel,
    RewardOutcome, RewardStep, RunFolder,
    judge::{Exchange, Judge, LearnedJudge},
    train_reward,
};

const CONFIG: &str = r#"
kind = "relevance"
character = "character.toml"
data = ["texts.jsonl"]
held_out_works = ["Meno"]
[lora]
rank = 4
alpha = 8.0
dropout = 0.05
targets = "all-linear"
[training]
seed = 3
epochs = 3
batch = 8
pass_tokens = 300
learning_rate = 0.01
warmup_steps = 3
checkpoint_steps = 4
eval_steps = 10
eval_pairs = 20
"#;

/// What is preferred: a reply that says it.
const LIKED: u32 = 122;

/// Pairs of which the chosen reply has one token that the other lacks.
fn planted(count: u32, seed: u32) -> Vec<ExamplePair> {
    let noise = |number: u32, at: u32| {
        let mut hash =
            (seed ^ number.wrapping_mul(0x9e37_79b9) ^ at.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0xc2b2_ae35);
        hash ^= hash >> 15;
        hash.wrapping_mul(0x2c1b_3c6d) >> 8
    };
    let pair = |number: u32| {
        let letters = |from: u32, count: u32| (from..from + count).map(move |at| 97 + noise(number, at) % 25);
        let prompt: Vec<u32> = (0..6).map(|at| 65 + at).chain(letters(0, 6)).collect();
        let reply = |from: u32, liked: bool| {
            let mut reply: Vec<u32> = letters(from, 8).collect();
            if liked {
                reply[noise(number, 99) as usize % 8] = LIKED;
            }
            let tokens = prompt.iter().copied().chain(reply).chain([IM_END]).collect();
            Example { tokens, reply_start: prompt.len(), is_ended: true, weight: 1.0 }
        };
        ExamplePair { chosen: reply(20, true), rejected: reply(40, false) }
    };
    (0..count).map(pair).collect()
}

struct Lab {
    model: Model,
    executor: Arc<CandleExecutor>,
    train: Vec<ExamplePair>,
    held_out: Vec<ExamplePair>,
    _folder: tempfile::TempDir,
}

impl Lab {
    fn new(pairs: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        let executor = Arc::new(CandleExecutor::new(&weights, &Device::Cpu, Numerics::Exact).unwrap());
        Self {
            model: Model::new(executor.clone(), &weights).unwrap(),
            executor,
            train: planted(pairs, 1),
            held_out: planted(200, 2),
            _folder: folder,
        }
    }

    /// Trains in a folder until an event asks to stop.
    fn run(&self, folder: &Path, stops: impl Fn(&RewardEvent) -> bool) -> (Vec<RewardStep>, RewardOutcome) {
        let learner = RewardLearner {
            executor: &self.executor,
            model: &self.model,
            character: "Meno",
            train: &self.train,
            held_out: &self.held_out,
            length_only_accuracy: 0.5,
            shuffled_labels: false,
        };
        let (mut steps, should_stop) = (Vec::new(), AtomicBool::new(false));
        let config = RewardConfig::parse(CONFIG, "reward.toml").unwrap();
        let run = RunFolder::open(folder, CONFIG).unwrap();
        let outcome = train_reward(&learner, &config, &run, &should_stop, |event| {
            if stops(&event) {
                should_stop.store(true, Ordering::Relaxed);
            }
            if let RewardEvent::Step(step) = event {
                // What a machine's mood decides is left out, so that steps can be compared.
                steps.push(RewardStep { seconds: 0.0, resident_bytes: None, ..step });
            }
        });
        (steps, outcome.unwrap())
    }

    fn finish(&self, folder: &Path) -> (Vec<RewardStep>, RewardCard) {
        match self.run(folder, |_| false) {
            (steps, RewardOutcome::Finished(model, card)) => {
                assert_eq!(model, folder.join("reward"));
                (steps, *card)
            }
            (_, stopped) => panic!("{stopped:?}"),
        }
    }
}

#[test]
fn a_planted_preference_is_found_and_shuffled_labels_hold_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = Lab::new(320);
    let (steps, card) = lab.finish(&folder.path().join("planted"));
    assert_eq!((card.steps, card.pairs, steps.len()), (120, 320, 120));
    assert!(card.held_out.accuracy >= 0.9, "{}", card.held_out);
    assert!((0.4..=0.6).contains(&card.token_count_only_accuracy), "{card:?}");
    assert_eq!(steps.iter().filter(|step| step.held_out_accuracy.is_some()).count(), 12);

    // What was saved scores as it was measured, and is of mean 0 and variance 1 near where it was normalised.
    let (model, known) =
        RewardModel::open(&folder.path().join("planted/reward"), &lab.executor, &lab.model.sha256).unwrap();
    assert_eq!((known.steps, known.gain, known.bias), (card.steps, card.gain, card.bias));
    let examples: Vec<Example> =
        lab.held_out.iter().flat_map(|pair| [pair.chosen.clone(), pair.rejected.clone()]).collect();
    let scores = model.scores(&lab.executor, &examples).unwrap();
    let right = scores.chunks(2).filter(|pair| pair[0] > pair[1]).count();
    assert!((right as f64 / 200.0 - card.held_out.accuracy).abs() < 0.006);
    let mean = scores.iter().sum::<f32>() / 400.0;
    assert!(mean.abs() < 0.5, "{mean}");

    ExamplePair::shuffle_labels(&mut lab.train, 1);
    ExamplePair::shuffle_labels(&mut lab.held_out, 2);
    let (_, control) = lab.finish(&folder.path().join("shuffled"));
    assert!((0.4..=0.6).contains(&control.held_out.accuracy), "{}", control.held_out);
}

#[test]
fn a_stopped_run_goes_on_bit_for_bit() {
    let lab = Lab::new(40);
    let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (expected, card) = lab.finish(whole.path());
    assert_eq!(expected.len(), 15);
    let is_step = |event: &RewardEvent, number: u64| matches!(event, RewardEvent::Step(step) if step.step == number);
    let (mut steps, outcome) = lab.run(stopped.path(), |event| is_step(event, 6));
    assert_eq!(outcome, RewardOutcome::Stopped(6));
    let (rest, again) = lab.finish(stopped.path());
    steps.extend(rest);
    assert_eq!((steps, again), (expected, card));
    let files = ["adapter_model.safetensors", "head.safetensors", "reward.json"];
    for name in files.map(|name| format!("reward/{name}")) {
        let read = |folder: &Path| std::fs::read(folder.join(&name)).unwrap();
        assert!(read(whole.path()) == read(stopped.path()), "{name}");
    }
}

/// From texts to a judge: the files of a `reward.toml`, its model, and what it says of exchanges.
#[test]
fn texts_become_a_judge() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("character.toml", "version = 1\nname = \"Meno\"\npersona = \"You are Meno.\"\nfallbacks = [\"Hm.\"]");
    let line = |work: &str, who: &str, at: usize| {
        let letter = |by: usize| char::from(b'a' + ((at * 7 + by) % 26) as u8);
        let words = |count: usize| (0..count).map(|by| format!("{}{at}", letter(by))).collect::<Vec<_>>().join(" ");
        let (asked, said) = (words(6), words(5 + at % 3));
        format!(
            "{{\"character\": \"{who}\", \"work\": \"{work}\", \"context\": [{{\"speaker\": \"A\", \"text\": \"{asked}?\"}}], \"reply\": \"{who} {said}.\"}}\n"
        )
    };
    let lines = |who: &str, from: usize| {
        let of = |at: usize| line(["Phaedrus", "Phaedrus", "Ion", "Meno"][at % 4], who, from + at);
        (0..40).map(of).collect::<String>()
    };
    write("own.jsonl", &lines("Meno", 0));
    write("others.jsonl", &(lines("Anytus", 100) + &lines("Meno", 200)));
    let config = CONFIG
        .replace("relevance", "style")
        .replace("texts.jsonl\"]", "own.jsonl\"]\nothers = [\"others.jsonl\"]\nexcluded_works = [\"Ion\"]");
    write("reward.toml", &config);
    let lesson = RewardLesson::open(&folder.path().join("reward.toml")).unwrap();
    let preferences = &lesson.preferences;
    assert_eq!(lesson.works.iter().map(String::as_str).collect::<Vec<_>>(), ["Phaedrus"]);
    assert_eq!((preferences.train.len(), preferences.held_out.len(), preferences.unmatched), (20, 10, 0));
    for preference in preferences.train.iter().chain(&preferences.held_out) {
        assert!(preference.chosen.starts_with("Meno") && preference.rejected.starts_with("Anytus"), "{preference:?}");
    }
    assert!((0.4..=0.6).contains(&preferences.length_only_accuracy()));

    let lab = Lab::new(8);
    let pairs = ExamplePair::all(&preferences.train, &lesson.character, &lab.model, 256).unwrap();
    assert_eq!(pairs.len(), 20);
    let model = RewardModel::fresh(&lab.executor, &[elenchus_lm::Linear::V], 2, 4.0, 1).unwrap();
    let chosen: Vec<Example> = pairs.iter().map(|pair| pair.chosen.clone()).collect();
    let expected = model.scores(&lab.executor, &chosen).unwrap();
    let judge = LearnedJudge::new(
        "style",
        model,
        256,
        lab.executor.clone(),
        lab.model.clone(),
        Arc::new(lesson.character.clone()),
    );
    let exchange = |preference: &elenchus_train::Preference| Exchange {
        context: preference.context.clone(),
        reply: preference.chosen.clone(),
        is_ended: false,
    };
    let mut exchanges: Vec<Exchange> = preferences.train.iter().map(exchange).collect();
    exchanges[3].context = vec![Turn { speaker: "A".into(), text: "too long ".repeat(60) }];
    let verdicts = judge.judge(&exchanges).unwrap();
    assert_eq!((judge.name(), verdicts.len()), ("style", 20));
    for (at, (verdict, expected)) in verdicts.iter().zip(expected).enumerate() {
        match verdict.score {
            None => assert_eq!(at, 3),
            Some(score) => assert!(at != 3 && (score - expected).abs() < 1e-4, "{at}: {score} instead of {expected}"),
        }
    }
}
