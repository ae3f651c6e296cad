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
