//! Whole runs of the lab's methods on the tiny model.

#[path = "../../elenchus_train/tests/rl_lab/mod.rs"]
mod rl_lab;

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
};

use elenchus_candle::Activations;
use elenchus_lab::methods::methods;
use elenchus_lm::Linear;
use elenchus_train::{
    Example, RewardModel,
    judge::Exchange,
    rl::{RlOutcome, RlReport},
};
use rl_lab::{
    Lab, held_out_gets_better, learns_what_is_praised, panel, plain, resumes_bit_for_bit,
    written_preferences_are_learned,
};

/// Those that learn from what the policy says.
const METHODS: [&str; 6] = [
    "{ name = \"reinforce\", kl_coef = 0.0 }",
    "{ name = \"ppo-max\", ppo = { kl_coef = 0.0, kl_target = 0.0, epochs = 2, mini_batch = 8 } }",
    "{ name = \"rebel\", kl_coef = 0.0, eta = 10.0, mini_batch = 8, epochs = 2 }",
    "{ name = \"apa\", kl_coef = 0.0, lambda = 0.03, epochs = 2 }",
    "{ name = \"p3o\", kl_coef = 0.0, mini_batch = 8 }",
    "{ name = \"vine-ppo\", kl_coef = 0.0, rollouts = 2, epochs = 2, mini_batch = 8 }",
];

#[test]
fn every_method_learns_what_is_praised_and_unlearns_what_is_blamed() {
    learns_what_is_praised(&METHODS, &methods());
}

#[test]
fn a_stopped_run_resumes_bit_for_bit() {
    resumes_bit_for_bit(&METHODS, &methods());
}

#[test]
fn what_is_held_out_gets_better_as_well() {
    held_out_gets_better(&["{ name = \"ipo\", beta = 0.1, per_token = true }"], &methods());
}

#[test]
fn written_preferences_are_learned_and_nothing_is_said_for_them() {
    written_preferences_are_learned(&["{ name = \"ipo\", beta = 0.05 }"], &methods());
}

/// Pairs that were written beforehand become likelier beside what is sampled, and the baseline does not see them.
#[test]
fn hybrid_data_is_a_term_of_its_own() {
    const OFFLINE: &str = "[offline]\npairs = \"pairs.jsonl\"\nreward = 0.5\nweight = 20.0\nbatch = 2\n[guards]";
    let mut lab = Lab::new("{ name = \"reinforce\", kl_coef = 0.0 }", &methods());
    let tokens = |from: u32| (from..from + 14).map(|at| 40 + at * 3 % 60).collect::<Vec<u32>>();
    let example = |from: u32| Example { tokens: tokens(from), reply_start: 8, is_ended: false, weight: 1.0 };
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

/// Only the policy learns, and no judge hears what it says: they hear what is held out, and nothing else.
#[test]
fn dvpo_trains_one_model_and_asks_nobody() {
    static HEARD: AtomicUsize = AtomicUsize::new(0);
    fn counted(exchange: &Exchange) -> Option<f32> {
        HEARD.fetch_add(1, Ordering::Relaxed);
        plain(exchange)
    }
    let mut lab = Lab::new("{ name = \"dvpo\", value_model = \"value\", lam = 0.5 }", &methods());
    lab.value_model = Some(RewardModel::fresh(&lab.executor, &[Linear::Q, Linear::V], 4, 8.0, 5).unwrap());
    let before: Vec<f32> = values(&lab);
    let folder = tempfile::tempdir().unwrap();
    let (reports, outcome) = lab.run(folder.path(), &panel(1.0, counted), |_| false);
    assert!(matches!(outcome, RlOutcome::Finished(_)));
    assert_eq!(HEARD.load(Ordering::Relaxed), 3 * 2, "two held-out prompts, three times");
    assert!(reports.iter().all(|report| report.scores.is_empty() && report.unscored == 0));
    assert_eq!(values(&lab), before, "the value model is as it was");
    assert!(reports[11].kl != 0.0 && reports[11].stats.contains_key("last_value"));
}

/// A critic that begins as a model learns with the policy, by its own rate.
#[test]
fn a_critic_of_its_own_learns() {
    let mut lab = Lab::new("{ name = \"ppo-max\", critic = \"reward\", critic_rate = 2.0 }", &methods());
    lab.value_model = Some(RewardModel::fresh(&lab.executor, &[Linear::Q, Linear::V], 4, 8.0, 5).unwrap());
    let before = values(&lab);
    let folder = tempfile::tempdir().unwrap();
    let (reports, _) = lab.run(folder.path(), &panel(1.0, plain), |_| false);
    assert_ne!(values(&lab), before);
    let loss = |reports: &[RlReport]| reports.iter().map(|report| report.stats["vf_loss"]).sum::<f64>();
    assert!(loss(&reports[8..]) < loss(&reports[..4]), "{} {}", loss(&reports[..4]), loss(&reports[8..]));
}

fn values(lab: &Lab) -> Vec<f32> {
    let example = Example { tokens: vec![40, 41, 42, 43, 44], reply_start: 2, is_ended: true, weight: 1.0 };
    let model = lab.value_model.as_ref().unwrap();
    model.values(&lab.executor, &[&example], Activations::Drop).unwrap().to_vec1().unwrap()
}

/// A likelihood that counts nothing is none: PPO-max without its mix is what it was, bit for bit.
#[test]
fn a_mix_of_nothing_changes_no_bit() {
    let run = |offline: bool| {
        let mut lab = Lab::new("\"ppo-max\"", &methods());
        lab.config = lab.config.replace("steps = 12", "steps = 3");
        if offline {
            lab.config += "[offline]\npairs = \"p.jsonl\"\nweight = 0.0\n";
            lab.offline = vec![Example { tokens: vec![40, 41, 42, 43], reply_start: 2, is_ended: false, weight: 1.0 }];
        }
        let folder = tempfile::tempdir().unwrap();
        let (reports, _) = lab.run(folder.path(), &panel(1.0, plain), |_| false);
        let adapter = fs::read(folder.path().join("adapter/adapter_model.safetensors")).unwrap();
        (reports.into_iter().map(|report| RlReport { offline_loss: None, ..report }).collect::<Vec<_>>(), adapter)
    };
    assert_eq!(run(true), run(false));
}
