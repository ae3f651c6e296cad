//! From a text file to a character that speaks otherwise: `train sft`, `eval perplexity`, `talk`.

#[expect(dead_code, reason = "each test binary uses its part")]
mod common;

use std::fs;

use common::{Stage, failed, succeeded};
use serde_json::Value;

const TRAINING: &str = r#"
character = "adapters/socrates/character.toml"
data = ["texts.jsonl"]
held_out_works = ["second"]
[lora]
rank = 4
alpha = 8.0
dropout = 0.0
[training]
epochs = 8
batch = 4
learning_rate = 0.01
eval_steps = 4
"#;

/// Two works in which Socrates always answers with the same words.
fn stage() -> Stage {
    let stage = Stage::new();
    let turns = |count: usize, what: &str| -> Vec<Value> {
        let line = |speaker: &str, text: String| serde_json::json!({"speaker": speaker, "text": text});
        let pair = |at: usize| {
            let question = format!("Tell me the truth of {what} number {at}, Socrates.");
            [line("MENO", question), line("SOCRATES", "Know thyself, my good Meno.".into())]
        };
        (0..count).flat_map(pair).collect()
    };
    let work = |name: &str, count| serde_json::json!({"work": name, "turns": turns(count, name)}).to_string();
    fs::write(stage.path("texts.jsonl"), work("first", 12) + "\n" + &work("second", 3) + "\n").unwrap();
    // The same words are not twice the same pair here.
    fs::write(stage.path("training.toml"), TRAINING.to_owned() + "[filters]\ndeduplicate = false\n").unwrap();
    stage
}

#[test]
fn a_text_becomes_a_voice() {
    let stage = stage();
    let train = "train sft training.toml --base tiny.gguf --out runs/one";
    let told = succeeded(stage.run(train, &[]));
    assert!(told.contains("12 are trained on, 3 of second measured on"), "{told}");
    let inspected = succeeded(stage.run("adapter inspect runs/one/adapter --base tiny.gguf", &[]));
    assert!(inspected.contains("fits"), "{inspected}");
    assert!(stage.path("runs/one/adapter/character.toml").is_file());

    let eval = "eval perplexity --pairs texts.jsonl --work second --base tiny.gguf --adapter runs/one/adapter --json";
    let measured: Value = serde_json::from_str(&succeeded(stage.run(eval, &[]))).unwrap();
    let (worn, base) = (measured["perplexity"].as_f64().unwrap(), measured["base_perplexity"].as_f64().unwrap());
    assert_eq!(measured["pairs"], 3);
    assert!(worn < 0.7 * base, "{measured}");

    // What was trained is what is heard.
    let talk = |adapter: &str| {
        let arguments = format!("talk --base tiny.gguf --seed 1 --json --adapter {adapter}");
        let said = succeeded(stage.run(&arguments, &["Tell me the truth, Socrates."]));
        serde_json::from_str::<Value>(&said).unwrap()
    };
    let (trained, untrained) = (talk("runs/one/adapter"), talk("none"));
    assert!(trained["adapter"].is_string() && untrained["adapter"].is_null());
    assert_ne!(trained["text"], untrained["text"]);

    // A run that is over is not trained again.
    let metrics = || fs::read_to_string(stage.path("runs/one/metrics.jsonl")).unwrap();
    let before = metrics();
    succeeded(stage.run(train, &[]));
    assert_eq!(metrics(), before);
}

#[test]
fn what_cannot_be_trained_ends_with_code_1_and_says_why() {
    let stage = stage();
    let check = |training: &str, says: &[&str]| {
        fs::write(stage.path("bad.toml"), training).unwrap();
        let error = failed(stage.run("train sft bad.toml --base tiny.gguf --out runs/bad", &[]));
        for part in says {
            assert!(error.contains(part), "`{error}` does not say `{part}`");
        }
    };
    check("character = 1", &["bad.toml", "character"]);
    check(&TRAINING.replace("epochs", "epoch"), &["bad.toml", "epoch"]);
    check(&TRAINING.replace("texts.jsonl", "far.jsonl"), &["far.jsonl"]);
    check(&TRAINING.replace("second", "third"), &["third"]);
    check(&TRAINING.replace("rank = 4", "rank = 0"), &["lora.rank"]);
    let device = "train sft training.toml --base tiny.gguf --out runs/gpu --device cuda";
    assert!(failed(stage.run(device, &[])).contains("--features cuda"));
}
