//! Whole runs of reinforcement learning on the tiny model.

mod rl_lab;

use std::fs;

use elenchus_lm::LoraAdapter;
use elenchus_train::{
    judge::Exchange,
    rl::{JudgedRollout, Methods, RlOutcome, Spent},
};
use rl_lab::{
    Lab, held_out_gets_better, learns_what_is_praised, panel, plain, resumes_bit_for_bit,
    written_preferences_are_learned,
};

/// Those that learn from what the policy says.
const METHODS: [&str; 3] = [
    "{ name = \"rloo\", kl_coef = 0.0 }",
    "{ name = \"ppo\", kl_coef = 0.0, kl_target = 0.0, epochs = 2, mini_batch = 8 }",
    "{ name = \"grpo\", kl_coef = 0.0 }",
];

#[test]
fn every_method_learns_what_is_praised_and_unlearns_what_is_blamed() {
    learns_what_is_praised(&METHODS, &Methods::default());
}

#[test]
fn a_stopped_run_resumes_bit_for_bit() {
    resumes_bit_for_bit(&METHODS, &Methods::default());
}

#[test]
fn what_is_held_out_gets_better_as_well() {
    held_out_gets_better(&["{ name = \"dpo\", beta = 0.1 }", "{ name = \"kto\", beta = 0.1 }"], &Methods::default());
}

#[test]
fn written_preferences_are_learned_and_nothing_is_said_for_them() {
    written_preferences_are_learned(
        &["{ name = \"dpo\", beta = 0.1 }", "{ name = \"kto\", beta = 0.1 }"],
        &Methods::default(),
    );
}

/// What was said is learned from with the very numbers it is compared with: the first ratio is 1.
#[test]
fn the_first_ratio_is_one_and_the_reference_is_where_it_begins() {
    for method in
        ["{ name = \"ppo\", epochs = 1, mini_batch = 16 }", "{ name = \"rloo\", epochs = 1, mini_batch = 16 }"]
    {
        let mut lab = Lab::new(method, &Methods::default());
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
        let mut lab = Lab::new(&format!("{{ name = \"rloo\", mini_batch = {mini_batch} }}"), &Methods::default());
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
    let lab = Lab::new("\"rloo\"", &Methods::default());
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
    let mut lab = Lab::new("\"ppo\"", &Methods::default());
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

/// A budget ends a run as its last step would, and a run that is asked to resume stays where it is.
#[test]
fn a_run_ends_where_its_budget_does() {
    for budget in ["updates = 3", "tokens = 300"] {
        let mut lab = Lab::new("\"rloo\"", &Methods::default());
        lab.config += &format!("[budget]\n{budget}\n");
        let folder = tempfile::tempdir().unwrap();
        let (reports, outcome) = lab.run(folder.path(), &panel(1.0, plain), |_| false);
        assert_eq!(outcome, RlOutcome::Finished(folder.path().join("adapter")));
        let spent = Spent::of(&reports);
        match budget {
            "updates = 3" => assert_eq!(spent.updates, 3),
            _ => assert!(spent.tokens >= 300 && Spent::of(&reports[..reports.len() - 1]).tokens < 300, "{spent:?}"),
        }
        let (more, outcome) = lab.run(folder.path(), &panel(1.0, plain), |_| false);
        assert!(more.is_empty() && matches!(outcome, RlOutcome::Finished(_)), "{outcome:?}");
    }
}
