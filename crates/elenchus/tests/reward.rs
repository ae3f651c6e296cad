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

const PREFERENCES: &str = r#"
kind = "preferences"
character = "adapters/socrates/character.toml"
data = ["preferences.jsonl"]
folds = 2
[lora]
rank = 2
dropout = 0.0
[training]
epochs = 8
batch = 4
max_tokens = 256
learning_rate = 0.01
eval_steps = 100
"#;

#[test]
fn preferences_out_of_a_file_become_a_judge_measured_over_folds() {
    let stage = Stage::new();
    let said = |reply: &str, at: usize| format!("\n\nHuman: Is number {at} good?\n\nAssistant: {reply}");
    let line = |at: usize| {
        let rejected = if at < 3 { "It is good." } else { "Go away!" };
        json!({"prompt": "", "chosen": said("It is good.", at), "rejected": said(rejected, at)}).to_string() + "\n"
    };
    fs::write(stage.path("preferences.jsonl"), (0..24).map(line).collect::<String>()).unwrap();
    fs::write(stage.path("reward.toml"), PREFERENCES).unwrap();

    let train = "train reward reward.toml --base tiny.gguf --out runs/r --folds --json";
    let output = stage.run(train, &[]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let all: Value = serde_json::from_str(&succeeded(output)).unwrap();
    assert!(told.contains("3 ties dropped") && told.contains("held-out accuracy over 2 folds"), "{told}");
    assert_eq!(all["folds"].as_array().unwrap().len(), 2);
    let held_out = &all["held_out"];
    assert_eq!(held_out["pairs"], 21, "each is measured once");
    let number = |field: &str| held_out[field].as_f64().unwrap();
    assert!(number("accuracy") > 0.9 && number("low") < number("accuracy"), "{held_out}");
    assert!(all["calibration"]["log_loss"].is_number(), "{all}");
    assert!(stage.path("runs/r/fold-1/reward/reward.json").is_file());
    let report = fs::read_to_string(stage.path("runs/r/REPORT.md")).unwrap();
    for part in ["| fold 1 |", "| pooled |", "## Calibration"] {
        assert!(report.contains(part), "{part} is not in {report}");
    }
    // The same command measures again and trains nothing.
    let again: Value = serde_json::from_str(&succeeded(stage.run(train, &[]))).unwrap();
    assert_eq!(again, all);

    let text = succeeded(stage.run("train reward reward.toml --base tiny.gguf --out runs/one --shuffled-labels", &[]));
    assert!(text.contains("held-out accuracy: ") && text.contains("control with shuffled labels: "), "{text}");
    let report = fs::read_to_string(stage.path("runs/one/REPORT.md")).unwrap();
    assert!(report.contains("| model |") && report.contains("| control, labels shuffled |"), "{report}");

    // What it was trained on, measured like what it was not: the command does not know.
    let eval = "eval reward runs/r/fold-0/reward --preferences preferences.jsonl --character adapters/socrates/character.toml --base tiny.gguf --json";
    let measured: Value = serde_json::from_str(&succeeded(stage.run(eval, &[]))).unwrap();
    assert_eq!(measured["accuracy"]["pairs"], 21, "ties are dropped: {measured}");
    assert!(measured["accuracy"]["accuracy"].as_f64().unwrap() > 0.9, "{measured}");
    assert!(measured["calibration"]["log_loss"].is_number(), "{measured}");
    let error = failed(stage.run(&eval.replace("fold-0/reward", "fold-0"), &[]));
    assert!(error.contains("reward.json"), "{error}");

    fs::write(stage.path("bad.toml"), PREFERENCES.replace("folds = 2", "aspect = \"motive\"")).unwrap();
    let error = failed(stage.run("train reward bad.toml --base tiny.gguf --out runs/bad", &[]));
    assert!(error.contains("none of 24 preferences is of the aspect `motive`"), "{error}");
}
