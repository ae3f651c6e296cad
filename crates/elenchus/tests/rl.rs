//! From a voice and its judges to another voice: `train rl`.

#[expect(dead_code, reason = "each test binary uses its part")]
mod common;

use std::fs;

use common::{Stage, failed, succeeded};
use elenchus_lm::{Weights, testing::write_random_adapter};
use serde_json::Value;

const RL: &str = r#"
character = "adapters/socrates/character.toml"
start = "start"
prompts = ["lines.jsonl"]
method = "reinforce"
[[judges]]
kind = "rules"
weight = 0.5
[[judges]]
kind = "length"
words = 3
[sampling]
prompts = 3
group = 2
max_tokens = 12
held_out_prompts = 2
[training]
steps = 4
eval_steps = 2
learning_rate = 0.01
samples = ["Who are you?"]
"#;

fn stage() -> Stage {
    let stage = Stage::new();
    let weights = Weights::open(&stage.path("tiny.gguf"), &mut |_| {}).unwrap();
    fs::create_dir(stage.path("start")).unwrap();
    write_random_adapter(&stage.path("start"), weights.config(), 4, 7);
    let lines = (0..8).map(|at| format!("{{\"line\": \"What is thing {at}?\"}}\n"));
    fs::write(stage.path("lines.jsonl"), lines.collect::<String>()).unwrap();
    fs::write(stage.path("rl.toml"), RL).unwrap();
    stage
}

#[test]
fn judges_make_a_character_of_a_character() {
    let stage = stage();
    let train = "train rl rl.toml --base tiny.gguf --out runs/better";
    let told = succeeded(stage.run(train, &[]));
    assert!(told.contains("judges: rules, length") && told.contains("REPORT.html"), "{told}");
    for file in ["character.toml", "rl.toml", "REPORT.md", "adapter_config.json"] {
        assert!(stage.path("runs/better/adapter").join(file).is_file(), "{file}");
    }
    let inspected = succeeded(stage.run("adapter inspect runs/better/adapter --base tiny.gguf", &[]));
    assert!(inspected.contains("fits"), "{inspected}");
    let read = |file: &str| fs::read_to_string(stage.path("runs/better").join(file)).unwrap();
    let first: Value = serde_json::from_str(read("rollouts.jsonl").lines().next().unwrap()).unwrap();
    assert!(first["scores"]["rules"].is_number() && first["context"][0]["text"].is_string(), "{first}");
    assert_eq!(read("rollouts.jsonl").lines().count(), 4 * 3 * 2);
    assert_eq!(read("held_out.jsonl").lines().count(), 3 * 2);
    let report = read("REPORT.md");
    assert!(report.contains("| length |") && report.contains("| rules |"), "{report}");
    assert!(report.contains("## The battery\n") && report.contains("| own name | "), "{report}");

    // A run that is over is not trained again.
    let before = read("metrics.jsonl");
    succeeded(stage.run(train, &[]));
    assert_eq!(read("metrics.jsonl"), before);
}

#[test]
fn what_cannot_be_learned_from_ends_with_code_1_and_says_why() {
    let stage = stage();
    let check = |rl: &str, says: &[&str]| {
        fs::write(stage.path("bad.toml"), rl).unwrap();
        let _ = fs::remove_dir_all(stage.path("runs/bad"));
        let error = failed(stage.run("train rl bad.toml --base tiny.gguf --out runs/bad", &[]));
        for part in says {
            assert!(error.contains(part), "`{error}` does not say `{part}`");
        }
    };
    check(&RL.replace("steps = 4", "step = 4"), &["bad.toml:", "unknown field `step`"]);
    check(&RL.replace("reinforce", "reinforced"), &["bad.toml:5", "reinforced"]);
    check(&RL.replace("kind = \"length\"\nwords = 3", "kind = \"rules\""), &["`rules`", "two judges"]);
    check(&RL.replace("lines.jsonl", "none.jsonl"), &["none.jsonl"]);
    check(&RL.replace("held_out_prompts = 2", "held_out_prompts = 8"), &["held_out_prompts", "are 8"]);
    check(&RL.replace("\"start\"", "\"nowhere\""), &["nowhere"]);
    let learned = RL.replace("kind = \"rules\"", "kind = \"learned\"\nreward = \"no/reward\"");
    check(&learned, &["no/reward", "elenchus train reward"]);
    let chat = "kind = \"chat\"\nurl = \"http://127.0.0.1:9/v1\"\nmodel = \"m\"\ncriterion = \"Good?\"";
    let keyed = RL.replace("kind = \"rules\"", &format!("{chat}\nkey_env = \"NOBODY_SET_THIS\""));
    check(&keyed, &["NOBODY_SET_THIS"]);
    // Nobody listens there, and what was asked for is said.
    let unheard = RL.replace("kind = \"rules\"", &format!("{chat}\nretries = 0"));
    check(&unheard, &["127.0.0.1:9", "server"]);
}

const COMPARE: &str = r#"
rl = "rl.toml"
seeds = [1, 2]
budget = { updates = 4 }
kl = [0.001]

[[methods]]
method = { name = "rloo", kl_coef = 0.0 }

[[methods]]
method = "dpo"

[[methods]]
label = "DVPO, new"
method = { name = "dvpo", value_model = "runs/value/reward", epochs = 1, mini_batch = 0 }
"#;

const VALUE: &str = r#"
kind = "preferences"
character = "adapters/socrates/character.toml"
data = ["runs/preferences.jsonl"]
folds = 3
[training]
loss = "value"
batch = 2
max_tokens = 200
learning_rate = 0.01
"#;

/// Methods from one start: the first makes preferences, a value model learns from them, and the last learns from that.
#[test]
fn methods_are_compared_from_one_start() {
    let stage = stage();
    fs::write(stage.path("rl.toml"), RL.replace("\"reinforce\"", "\"rloo\"").replace("steps = 4", "steps = 9"))
        .unwrap();
    fs::write(stage.path("compare.toml"), COMPARE).unwrap();
    fs::write(stage.path("value.toml"), VALUE).unwrap();
    let compare = "train compare compare.toml --base tiny.gguf --out runs/family";
    let said = succeeded(stage.run(&format!("{compare} --only DPO"), &[]));
    assert!(said.contains("runs/family/REPORT.html"), "{said}");
    let made = "data preferences runs/family/dpo/seed-1/rollouts.jsonl --out runs/preferences.jsonl";
    let said = succeeded(stage.run(made, &[]));
    assert!(said.contains("preferences out of 24 replies"), "{said}");
    // No interval of so few is clear of a coin, and none is asked to be.
    fs::write(
        stage.path("rl.toml"),
        fs::read_to_string(stage.path("rl.toml")).unwrap() + "[guards]\nreward_accuracy = 0.0\n",
    )
    .unwrap();
    fs::remove_dir_all(stage.path("runs/family")).unwrap();
    succeeded(stage.run("train reward value.toml --base tiny.gguf --out runs/value", &[]));
    let card: Value = serde_json::from_slice(&fs::read(stage.path("runs/value/reward/reward.json")).unwrap()).unwrap();
    assert_eq!((card["loss"].as_str(), card["gain"].as_f64()), (Some("value"), Some(1.0)), "{card}");

    succeeded(stage.run(compare, &[]));
    let read = |file: &str| fs::read_to_string(stage.path("runs/family").join(file)).unwrap();
    let report: Value = serde_json::from_str(&read("report.json")).unwrap();
    let curves = report["curves"].as_array().unwrap();
    let ran: Vec<(&str, u64, bool)> = curves
        .iter()
        .map(|of| (of["label"].as_str().unwrap(), of["seed"].as_u64().unwrap(), of["is_over"].as_bool().unwrap()))
        .collect();
    let expected = [1, 2].map(|seed| ["RLOO", "DPO", "DVPO, new"].map(|label| (label, seed, true))).concat();
    assert_eq!(ran, expected);
    for curve in curves {
        let looks = curve["looks"].as_array().unwrap();
        assert_eq!(looks.last().unwrap()["spent"]["updates"], 4, "{curve}");
        assert_eq!(looks[0]["kl"], 0.0, "{curve}");
    }
    let (page, tables) = (read("REPORT.html"), read("REPORT.md"));
    for part in ["At 4 updates", "DVPO, new", "To RLOO", "What is thing", "<svg"] {
        assert!(page.contains(part), "`{part}` is not in the page");
    }
    assert!(tables.contains("| DVPO, new | 1 | 2 | no |") && tables.contains("| DPO | 1 | 1 | yes |"), "{tables}");
    assert_eq!(page.matches("<tr").count(), page.matches("</tr>").count());

    // What is over is not run again; the report alone can be written at any time.
    let before = read("rloo/seed-1/metrics.jsonl");
    succeeded(stage.run(&format!("{compare} --report"), &[]));
    assert_eq!((read("rloo/seed-1/metrics.jsonl"), read("REPORT.md")), (before, tables));
    let error = failed(stage.run(&format!("{compare} --only PPO"), &[]));
    assert!(error.contains("`PPO`") && error.contains("RLOO, DPO"), "{error}");

    // A value model judges nothing.
    let learned = RL.replace("kind = \"rules\"", "kind = \"learned\"\nreward = \"runs/value/reward\"");
    fs::write(stage.path("bad.toml"), learned + "[guards]\nreward_accuracy = 0.0\n").unwrap();
    let error = failed(stage.run("train rl bad.toml --base tiny.gguf --out runs/bad", &[]));
    assert!(error.contains("predicts") && error.contains("dvpo"), "{error}");
}

/// Preferences out of a file, and a paper's settings under a file's own.
#[test]
fn offline_methods_learn_from_files_and_presets_are_defaults() {
    let stage = stage();
    let lines: String = (0..4)
        .map(|at| format!("{{\"prompt\": \"What is thing {at}?\", \"chosen\": \"A thing.\", \"rejected\": \"No.\"}}\n"))
        .collect();
    fs::write(stage.path("preferences.jsonl"), lines).unwrap();
    let text = RL.replace(
        "method = \"reinforce\"",
        "method = \"dpo\"\npreset = \"paper\"\npreferences = [\"preferences.jsonl\"]",
    );
    fs::write(stage.path("dpo.toml"), text).unwrap();
    succeeded(stage.run("train rl dpo.toml --base tiny.gguf --out runs/dpo", &[]));
    let metrics = fs::read_to_string(stage.path("runs/dpo/metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    assert_eq!(last["responses"], 6, "three pairs: {last}");
    assert!(last["stats"]["preference_loss"].is_number(), "{last}");
    // Its warm-up is the paper's, its learning rate the file's.
    assert!((last["learning_rate"].as_f64().unwrap() - 0.01 * 3.0 / 150.0).abs() < 1e-9, "{last}");
}
