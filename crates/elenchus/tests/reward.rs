//! From texts to a learned judge: `train reward`.

#[expect(dead_code, reason = "each test binary uses its part")]
mod common;

use std::fs;

use common::{Stage, failed, succeeded};
use serde_json::{Value, json};

const REWARD: &str = r#"
kind = "style"
character = "adapters/socrates/character.toml"
data = ["texts.jsonl"]
others = ["texts.jsonl"]
held_out_works = ["second"]
[filters]
deduplicate = false
[lora]
rank = 2
dropout = 0.0
[training]
batch = 4
max_tokens = 512
eval_steps = 2
"#;

#[test]
fn texts_become_a_learned_judge() {
    let stage = Stage::new();
    let turns = |count: usize, what: &str| -> Vec<Value> {
        let pair = |at: usize| {
            [
                json!({"speaker": "MENO", "text": format!("Tell me number {at} of the {what} virtues, my friend.")}),
                json!({"speaker": "SOCRATES", "text": format!("Know thyself {at} times, my good Meno, then ask.")}),
            ]
        };
        (0..count).flat_map(pair).collect()
    };
    let work = |name: &str, count| json!({"work": name, "turns": turns(count, name)}).to_string();
    fs::write(stage.path("texts.jsonl"), work("first", 20) + "\n" + &work("second", 8) + "\n").unwrap();
    fs::write(stage.path("reward.toml"), REWARD).unwrap();

    let train = "train reward reward.toml --base tiny.gguf --out runs/style --shuffled-labels --json";
    let cards: Vec<Value> = serde_json::from_str(&succeeded(stage.run(train, &[]))).unwrap();
    let shuffled: Vec<&Value> = cards.iter().map(|card| &card["shuffled_labels"]).collect();
    assert_eq!(shuffled, [&json!(false), &json!(true)]);
    assert_eq!((&cards[0]["kind"], &cards[0]["character"]), (&json!("style"), &json!("Socrates")));
    for (folder, card) in ["runs/style", "runs/style/shuffled_labels"].into_iter().zip(&cards) {
        let kept = fs::read(stage.path(folder).join("reward/reward.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&kept).unwrap()["pairs"], card["pairs"]);
        for file in ["adapter_config.json", "adapter_model.safetensors", "head.safetensors"] {
            assert!(stage.path(folder).join("reward").join(file).is_file(), "{file}");
        }
    }

    fs::write(stage.path("bad.toml"), REWARD.replace("second", "third")).unwrap();
    let error = failed(stage.run("train reward bad.toml --base tiny.gguf --out runs/bad", &[]));
    assert!(error.contains("no fit replies of the work `third` (hint: there are first, second)"), "{error}");
}
