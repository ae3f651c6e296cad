//! From a file of preferences to a reward model, on the tiny model: a planted linear preference is found, and the same pairs
//! with sides drawn at random hold none.

use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use candle_core::Device;
use elenchus_candle::CandleExecutor;
use elenchus_dialogue::Model;
use elenchus_lm::{Numerics, Weights, testing::TinyModel};
use elenchus_train::{
    Accuracy, Calibration, ExamplePair, RewardCard, RewardLearner, RewardLesson, RewardOutcome, RunFolder,
    report::reward_report, train_reward,
};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

const CONFIG: &str = r#"
kind = "preferences"
character = "character.toml"
data = ["preferences.jsonl"]
aspect = "action"
folds = 2
[lora]
rank = 4
alpha = 8.0
dropout = 0.05
targets = "all-linear"
[training]
seed = 3
epochs = 4
batch = 8
pass_tokens = 600
learning_rate = 0.01
warmup_steps = 3
eval_steps = 1000
checkpoint_steps = 1000
"#;

const TIES: usize = 7;

/// Preferences that follow one linear rule, which is written nowhere but here: a `z` is worth 2, an `x` costs 1, and other
/// letters are worth nothing. Two stand under each prompt; a few are ties, and a few of another aspect.
fn planted(count: usize) -> String {
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    let mut reply = || {
        let letter = |rng: &mut Pcg64Mcg| match rng.random_range(0..8) {
            0 => 'z',
            1 => 'x',
            _ => char::from(b'a' + rng.random_range(0..20u8)),
        };
        (0..6).map(|_| letter(&mut rng)).collect::<String>()
    };
    let value = |reply: &str| {
        reply.chars().map(|letter| if letter == 'z' { 2 } else { -i32::from(letter == 'x') }).sum::<i32>()
    };
    let mut lines = String::new();
    let mut line = |prompt: usize, chosen: &str, rejected: &str, aspect: &str| {
        lines += &format!(
            "{{\"prompt\": \"p{prompt}?\", \"chosen\": \"{chosen}\", \"rejected\": \"{rejected}\", \"aspect\": \"{aspect}\"}}\n"
        );
    };
    let mut written = 0;
    while written < count {
        let (one, other) = (reply(), reply());
        let (one_value, other_value) = (value(&one), value(&other));
        if one_value == other_value {
            continue;
        }
        let (chosen, rejected) = if one_value > other_value { (one, other) } else { (other, one) };
        line(written / 2, &chosen, &rejected, "action");
        written += 1;
    }
    (0..TIES).for_each(|at| line(at, "same", " same ", "action"));
    line(0, "other", "aspect", "motivation");
    lines
}

struct Lab {
    model: Model,
    executor: Arc<CandleExecutor>,
    folder: tempfile::TempDir,
}

impl Lab {
    fn new(preferences: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::default().write_gguf(&path);
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        let executor = Arc::new(CandleExecutor::new(&weights, &Device::Cpu, Numerics::Exact).unwrap());
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("character.toml", "version = 1\nname = \"Meno\"\npersona = \"Meno.\"\nfallbacks = [\"Hm.\"]");
        write("preferences.jsonl", preferences);
        write("reward.toml", CONFIG);
        Self { model: Model::new(executor.clone(), &weights).unwrap(), executor, folder }
    }

    fn lesson(&self, fold: usize) -> RewardLesson {
        RewardLesson::open_fold(&self.folder.path().join("reward.toml"), Some(fold)).unwrap()
    }

    /// A model of one fold, as the command trains it.
    fn train(&self, fold: usize, shuffled_labels: bool, out: &Path) -> RewardCard {
        let lesson = self.lesson(fold);
        let examples = |preferences| {
            ExamplePair::all(preferences, &lesson.character, &self.model, lesson.config.training.max_tokens)
        };
        let mut train = examples(&lesson.preferences.train).unwrap();
        let mut held_out = examples(&lesson.preferences.held_out).unwrap();
        if shuffled_labels {
            ExamplePair::shuffle_labels(&mut train, 1);
            ExamplePair::shuffle_labels(&mut held_out, 2);
        }
        let learner = RewardLearner {
            executor: &self.executor,
            model: &self.model,
            character: "Meno",
            train: &train,
            held_out: &held_out,
            length_only_accuracy: lesson.preferences.length_only_accuracy(),
            shuffled_labels,
        };
        let run = RunFolder::open(out, &lesson.text).unwrap();
        match train_reward(&learner, &lesson.config, &run, &AtomicBool::new(false), |_| ()).unwrap() {
            RewardOutcome::Finished(_, card) => *card,
            stopped => panic!("{stopped:?}"),
        }
    }
}

#[test]
fn a_planted_linear_preference_is_found_over_folds_and_shuffled_labels_hold_none() {
    let lab = Lab::new(&planted(960));
    let out = tempfile::tempdir().unwrap();
    let run = |shuffled: bool| {
        let name = |fold: usize| out.path().join(format!("{shuffled}-{fold}"));
        (0..2).map(|fold| lab.train(fold, shuffled, &name(fold))).collect::<Vec<_>>()
    };
    let (cards, controls) = (run(false), run(true));

    // Every preference is measured once, none was trained on where it is measured, and ties are in neither part.
    let lessons = [lab.lesson(0), lab.lesson(1)];
    for lesson in &lessons {
        assert_eq!(lesson.preferences.unmatched, TIES);
        assert_eq!(lesson.preferences.train.len() + lesson.preferences.held_out.len(), 960);
        let seen = |context: &[_]| lesson.preferences.train.iter().any(|train| train.context == context);
        assert!(!lesson.preferences.held_out.iter().any(|held_out| seen(&held_out.context)));
    }
    let pooled = |cards: &[RewardCard]| Accuracy::pooled(cards.iter().map(|card| &card.held_out));
    let (found, control) = (pooled(&cards), pooled(&controls));
    assert_eq!((found.pairs, cards[0].aspect.as_deref()), (960, Some("action")));
    assert!(found.accuracy >= 0.9 && found.low > 0.85 && found.high < 1.0, "{found}");
    assert!((0.45..=0.55).contains(&control.accuracy) && control.low < 0.5 && control.high > 0.5, "{control}");

    // Where it is sure, it is right.
    let of = Calibration::pooled(cards.iter().filter_map(|card| card.calibration.as_ref()));
    let none = Calibration::pooled(controls.iter().filter_map(|card| card.calibration.as_ref()));
    assert!(of.log_loss < 0.4 && of.error() < 0.12, "{of:?}");
    assert!(none.log_loss > 0.67, "{none:?}");
    assert!(of.bins[4].pairs > 200 && of.bins[4].observed > 0.9, "{of:?}");

    let folder = RunFolder::open(&out.path().join("all"), "").unwrap();
    reward_report(&folder, &[cards, controls[..1].to_vec()].concat()).unwrap();
    let report = fs::read_to_string(folder.file("REPORT.md")).unwrap();
    assert!(report.contains("# Meno: a judge of action") && report.contains(&format!("| {found} |")), "{report}");
    assert!(fs::read_to_string(folder.file("REPORT.html")).unwrap().contains("<svg"));
}
