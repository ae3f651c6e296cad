//! `eval voices`: two voices with adapters, one without, as a table and as JSON; `eval verdicts`: readers beside each other.

#[expect(dead_code, reason = "each test binary uses its part")]
mod common;

use std::fs;

use common::{Stage, failed, succeeded};
use elenchus_lm::testing::TinyModel;
use serde_json::{Value, json};

/// Socrates and Hippias with a random adapter each, learning from one text; an olive seller with a persona alone.
fn stage() -> Stage {
    let stage = Stage::new();
    let line = |speaker: &str, text: String| json!({"speaker": speaker, "text": text});
    let turns: Vec<Value> = (0..20)
        .flat_map(|at| {
            let question = format!("Do you know the answer number {at}, Socrates?");
            let answer = format!("I know that I do not, and I say so {at} times.");
            [line("HIPPIAS", question), line("SOCRATES", answer)]
        })
        .collect();
    fs::write(stage.path("texts.jsonl"), json!({"work": "Well", "turns": turns}).to_string() + "\n").unwrap();
    for (seed, id) in [(1, "socrates"), (2, "hippias")] {
        TinyModel::default().write_adapter(&stage.path("adapters").join(id), seed);
        let training = "character = \"character.toml\"\ndata = [\"../../texts.jsonl\"]\nheld_out_fraction = 0.2\n";
        fs::write(stage.path("adapters").join(id).join("training.toml"), training).unwrap();
    }
    let seller = stage.path("adapters/olive_seller");
    fs::create_dir(&seller).unwrap();
    fs::write(seller.join("character.toml"), "version = 1").unwrap();
    stage
}

fn measured(stage: &Stage, more: &str) -> Value {
    let eval = format!("eval voices --base tiny.gguf --json {more}");
    serde_json::from_str(&succeeded(stage.run(&eval, &[]))).unwrap()
}

#[test]
fn every_voice_is_read_under_every_adapter() {
    let stage = stage();
    let table = measured(&stage, "");
    assert_eq!(table["columns"], json!(["hippias", "socrates", "persona", "examples"]));
    assert_eq!(table["left_out"], json!([{"voice": "olive_seller", "reason": "has no training.toml"}]));
    let rows = table["voices"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    let mut own = 0;
    for (row, (id, pairs)) in rows.iter().zip([("hippias", 3), ("socrates", 4)]) {
        assert_eq!((&row["voice"], &row["pairs"]), (&json!(id), &json!(pairs)));
        let perplexity: Vec<f64> = row["perplexity"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
        assert_eq!(perplexity.len(), 4);
        // Every column is another way to read.
        for (at, one) in perplexity.iter().enumerate() {
            assert!(one.is_finite() && !perplexity[..at].contains(one), "{row}");
        }
        let lowest = (0..4).min_by(|&a, &b| perplexity[a].total_cmp(&perplexity[b])).unwrap();
        assert_eq!(row["best"], table["columns"][lowest]);
        assert_eq!(row["own_is_best"], json!(row["best"] == row["voice"]));
        own += u64::from(row["best"] == row["voice"]);
    }
    assert_eq!(table["own_is_best"], json!(own));

    // The result of `eval perplexity` over the same pairs; of four turns before a reply, the first is Socrates' own.
    let text: Value = serde_json::from_str(&fs::read_to_string(stage.path("texts.jsonl")).unwrap()).unwrap();
    let turns = text["turns"].as_array().unwrap();
    let pair =
        |at: usize| json!({"work": "Well", "context": turns[at - 3..at], "reply": turns[at]["text"]}).to_string();
    fs::write(stage.path("last.jsonl"), [33, 35, 37, 39].map(pair).join("\n")).unwrap();
    let eval = "eval perplexity --pairs last.jsonl --base tiny.gguf --adapter adapters/socrates --json";
    let alone: Value = serde_json::from_str(&succeeded(stage.run(eval, &[]))).unwrap();
    for (column, perplexity) in [(1, &alone["perplexity"]), (2, &alone["base_perplexity"])] {
        assert_eq!(&rows[1]["perplexity"][column], perplexity);
    }
    assert_eq!(rows[1]["tokens"], alone["tokens"]);

    // The character's own adapter by default.
    let measured = |more: &str| -> Value {
        let eval = format!("eval perplexity --pairs last.jsonl --base tiny.gguf --json {more}");
        serde_json::from_str(&succeeded(stage.run(&eval, &[]))).unwrap()
    };
    let (own, none) = (measured(""), measured("--adapter none"));
    assert_eq!((&own["adapter"], &own["perplexity"]), (&json!("adapters/socrates"), &alone["perplexity"]));
    assert_eq!((&none["adapter"], &none["perplexity"]), (&Value::Null, &alone["base_perplexity"]));
    fs::remove_file(stage.path("adapters/socrates/adapter_config.json")).unwrap();
    let error = failed(stage.run("eval perplexity --pairs last.jsonl --base tiny.gguf", &[]));
    assert!(error.contains("adapters/socrates") && error.contains("adapter_config.json is missing (hint:"), "{error}");
}

#[test]
fn a_character_goes_through_its_battery() {
    let stage = stage();
    fs::remove_dir_all(stage.path("adapters/olive_seller")).unwrap();
    let battery = "[[persona_fact]]\nline = \"Where are we?\"\nany = [\"Athens\"]\n";
    fs::write(stage.path("adapters/socrates/battery.toml"), battery).unwrap();
    let eval = "eval character --character socrates --base tiny.gguf --replies replies.md";
    let text = succeeded(stage.run(eval, &[]));
    let lines = ["adapter: adapters/socrates", "own name", "persona facts", "  price", "role", "NPC to NPC: no echo"];
    for line in lines {
        assert!(text.lines().any(|of| of.starts_with(line)), "{line:?} is not in {text}");
    }
    let replies = fs::read_to_string(stage.path("replies.md")).unwrap();
    assert!(replies.contains("## own name") && replies.contains("- Where are we? > "), "{replies}");

    let report = |more: &str| -> Value {
        let eval = format!("eval character --character socrates --base tiny.gguf --json {more}");
        serde_json::from_str(&succeeded(stage.run(&eval, &[]))).unwrap()
    };
    let (own, none) = (report(""), report("--adapter none --no-filter"));
    assert_eq!((&own["adapter"], &own["partner"]), (&json!("adapters/socrates"), &json!("Hippias")));
    assert_eq!((&none["adapter"], &none["is_filtered"]), (&Value::Null, &json!(false)));
    assert_ne!(own["conversations"], none["conversations"]);
    let facts = own["rows"].as_array().unwrap().iter().find(|row| row["check"] == "game facts").unwrap().clone();
    assert_eq!(facts["of"], json!(40), "{facts}");

    fs::write(stage.path("adapters/socrates/battery.toml"), "[[persona_fact]]\nline = \"Where?\"\n").unwrap();
    let error = failed(stage.run("eval character --character socrates --base tiny.gguf", &[]));
    assert!(error.contains("battery.toml") && error.contains("any"), "{error}");
}

#[test]
fn a_limit_and_a_folder_can_be_named_and_the_table_is_readable() {
    let stage = stage();
    fs::rename(stage.path("adapters"), stage.path("people")).unwrap();
    let table = measured(&stage, "--adapters people --limit 2");
    assert!(table["voices"].as_array().unwrap().iter().all(|row| row["pairs"] == 2), "{table}");
    let text = succeeded(stage.run("eval voices --base tiny.gguf --adapters people --limit 1", &[]));
    assert!(
        text.lines().next().unwrap().split_whitespace().eq(["replies", "hippias", "socrates", "persona", "examples"])
    );
    assert!(text.lines().any(|line| line.starts_with("socrates ") && line.split_whitespace().count() == 6), "{text}");
    assert!(text.contains("of 2 voices") && text.contains("left out: olive_seller has no training.toml"), "{text}");
}

#[test]
fn what_cannot_be_measured_ends_with_code_1_and_says_why() {
    let stage = stage();
    let check = |arguments: &str, says: &[&str]| {
        let error = failed(stage.run(&format!("eval voices --base tiny.gguf {arguments}"), &[]));
        for part in says {
            assert!(error.contains(part), "`{error}` does not say `{part}`");
        }
    };
    check("--adapters nowhere", &["nowhere", "character.toml", "hint"]);
    fs::write(stage.path("adapters/hippias/training.toml"), "character = 1").unwrap();
    check("", &["hippias", "training.toml"]);
    for id in ["hippias", "socrates"] {
        fs::remove_file(stage.path("adapters").join(id).join("adapter_config.json")).unwrap();
    }
    check("", &["adapters", "training.toml and an adapter", "train sft"]);
}

#[test]
fn readers_of_verdicts_stand_side_by_side() {
    let stage = Stage::new();
    let line = |at: usize| {
        let (verdict, label) = match at % 4 {
            0 => ("No. The reply is wrong and hostile.", -1),
            _ => ("Yes. The reply is kind and excellent.", 1),
        };
        json!({"verdict": verdict, "label": label, "idx": at / 4}).to_string() + "\n"
    };
    fs::write(stage.path("verdicts.jsonl"), (0..40).map(line).collect::<String>()).unwrap();
    let rows: Value =
        serde_json::from_str(&succeeded(stage.run("eval verdicts --labelled verdicts.jsonl --json", &[]))).unwrap();
    let row = |name: &str| rows.as_array().unwrap().iter().find(|row| row["reader"] == name).unwrap().clone();
    assert_eq!((&row("always +1")["accuracy"], &row("always +1")["blame_as_praise"]), (&json!(0.75), &json!(1.0)));
    for name in ["leading word", "lexicon", "words, 5 folds"] {
        assert_eq!(row(name)["macro_f1"], 1.0, "{name}");
    }
    assert_eq!(row("structured")["unread"], 1.0);

    let table = succeeded(stage.run("eval verdicts --labelled verdicts.jsonl", &[]));
    assert!(table.contains("macro-F1") && table.ends_with("40 verdicts\n"), "{table}");
    fs::write(stage.path("verdicts.jsonl"), "{}\n").unwrap();
    let error = failed(stage.run("eval verdicts --labelled verdicts.jsonl", &[]));
    assert!(error.contains("verdicts.jsonl:1:") && error.contains("`verdict`"), "{error}");
}

/// Socrates with a lesson, two adapters and prompts.
fn compared() -> Stage {
    let stage = Stage::new();
    let line = |speaker: &str, text: String| json!({"speaker": speaker, "text": text});
    let work = |name: &str, first: usize| {
        let turns: Vec<Value> = (first..first + 24)
            .flat_map(|at| {
                let question = format!("By Zeus, I never thought of number {at} in such a way.");
                let answer = format!("And do you think, my friend, that number {at} is good?");
                [line("HIPPIAS", question), line("SOCRATES", answer)]
            })
            .collect();
        json!({"work": name, "turns": turns}).to_string() + "\n"
    };
    let texts = ["Well", "Spring", "Harbour"].iter().enumerate().map(|(at, name)| work(name, at * 24));
    fs::write(stage.path("texts.jsonl"), texts.collect::<String>()).unwrap();
    let socrates = stage.path("adapters/socrates");
    let training = "character = \"character.toml\"\ndata = [\"../../texts.jsonl\"]\nheld_out_works = [\"Harbour\"]\n";
    fs::write(socrates.join("training.toml"), training).unwrap();
    for (seed, name) in [(1, "sft"), (2, "rl")] {
        TinyModel::default().write_adapter(&stage.path(name).join("adapter"), seed);
    }
    let prompts: String = (0..5).map(|at| json!({"line": format!("Line {at}?")}).to_string() + "\n").collect();
    fs::write(stage.path("prompts.jsonl"), prompts).unwrap();
    let rl = "character = \"character.toml\"\nstart = \".\"\nprompts = [\"p\"]\n[[judges]]\nkind = \"length\"\nwords = 5\n\
              weight = 2.0\n[[judges]]\nkind = \"random\"\n";
    fs::write(stage.path("rl.toml"), rl).unwrap();
    stage
}

const COMPARE: &str = "eval compare --base tiny.gguf --prompts prompts.jsonl --adapters sft=sft/adapter,rl=rl/adapter";

#[test]
fn voices_are_compared_and_their_replies_told_apart_blindly() {
    let stage = compared();
    let more =
        "--style-works Well,Spring --planted 6 --limit 4 --optimised rl.toml --best-of 2 --html page.html --json";
    let json = succeeded(stage.run(&format!("{COMPARE} {more}"), &[]));
    let comparison: Value = serde_json::from_str(&json).unwrap();
    let names = |of: &Value| of.as_array().unwrap().iter().map(|of| of["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&comparison["voices"]), ["persona", "examples", "sft", "rl", "sft, best of 2"]);
    assert_eq!(names(&comparison["judges"]), ["ngrams", "information", "rules", "length", "random"]);
    assert_eq!(comparison["baseline"], "sft");
    assert_eq!(comparison["style"]["works"], json!(["Well", "Spring"]));
    let planted = comparison["planted"].as_array().unwrap();
    assert_eq!(planted.len(), 3 * 5, "optimised judges are not tried");
    let loops = planted.iter().find(|row| row["judge"] == "rules" && row["bad"] == "loop").unwrap();
    assert_eq!(loops["wins"], json!({"won": 6, "tied": 0, "lost": 0}));
    let page = fs::read_to_string(stage.path("page.html")).unwrap();
    assert!(page.contains("Socrates: voices compared") && page.contains("sft, best of 2"));
    let text = succeeded(stage.run(&format!("{COMPARE} --limit 2 --planted 0"), &[]));
    assert!(text.contains("2 prompts, seed 1") && !text.contains("ngrams"), "{text}");

    fs::write(stage.path("compare.json"), &json).unwrap();
    let said = succeeded(stage.run("eval blind --compare-json compare.json --out pairs --voices sft,rl,persona", &[]));
    assert!(said.contains("12 pairs in pairs/blind.jsonl"), "{said}");
    let pairs = fs::read_to_string(stage.path("pairs/blind.jsonl")).unwrap();
    assert!(["sft", "rl", "persona"].iter().all(|voice| !pairs.contains(&format!("\"{voice}\""))));
    let key: Value = serde_json::from_str(&fs::read_to_string(stage.path("pairs/key.json")).unwrap()).unwrap();
    // Somebody who likes `rl` and cannot tell the others apart.
    let answers = key["pairs"].as_object().unwrap().iter().map(|(id, pair)| {
        let better = if pair["one"] == "rl" {
            "one"
        } else if pair["two"] == "rl" {
            "two"
        } else {
            "same"
        };
        json!({"id": id, "better": better}).to_string() + "\n"
    });
    let answers: Vec<String> = answers.collect();
    fs::write(stage.path("pairs/answers.jsonl"), answers.concat()).unwrap();
    let scores: Value = serde_json::from_str(&succeeded(stage.run("eval blind --score pairs --json", &[]))).unwrap();
    let of = |voice: &str, against: &str| {
        let rows = scores.as_array().unwrap();
        rows.iter().find(|row| row["voice"] == voice && row["against"] == against).unwrap()["wins"].clone()
    };
    assert_eq!(of("persona", "rl"), json!({"won": 0, "tied": 0, "lost": 4}));
    assert_eq!(of("persona", "sft"), json!({"won": 0, "tied": 4, "lost": 0}));
    assert_eq!(of("rl", "sft"), json!({"won": 4, "tied": 0, "lost": 0}));
    let table = succeeded(stage.run("eval blind --score pairs", &[]));
    assert!(table.contains("rl against sft") && table.contains("100% [51, 100]"), "{table}");

    fs::write(stage.path("pairs/answers.jsonl"), answers[1..].concat()).unwrap();
    let error = failed(stage.run("eval blind --score pairs", &[]));
    assert!(error.contains("1 of 12 pairs have no answer: 0001"), "{error}");
    fs::write(stage.path("pairs/answers.jsonl"), answers[0].repeat(2)).unwrap();
    let error = failed(stage.run("eval blind --score pairs", &[]));
    assert!(error.contains("answers.jsonl:2") && error.contains("answered twice"), "{error}");
}

#[test]
fn what_cannot_be_compared_ends_with_code_1_and_says_why() {
    let stage = compared();
    let check = |arguments: &str, says: &[&str]| {
        let error = failed(stage.run(arguments, &[]));
        for part in says {
            assert!(error.contains(part), "`{error}` does not say `{part}`");
        }
    };
    let of = |adapters: &str| format!("eval compare --base tiny.gguf --prompts prompts.jsonl --adapters {adapters}");
    check(&of("sft/adapter,rl/adapter"), &["`adapter`", "compared twice", "hint"]);
    check(&of("nowhere"), &["nowhere"]);
    check(&of("=sft/adapter"), &["no name", "NAME=DIR"]);
    check(&format!("{COMPARE} --style-works Meno"), &["`Meno`", "hint: there are Harbour, Spring, Well"]);
    check(&format!("{COMPARE} --style-works Harbour"), &["`Harbour`", "not held out"]);
    check(&format!("{COMPARE} --optimised nowhere.toml"), &["nowhere.toml"]);
    check(&format!("{COMPARE} --character hippias"), &["hippias", "training.toml"]);
    fs::write(stage.path("bad.json"), "{}").unwrap();
    check("eval blind --compare-json bad.json --out pairs", &["bad.json is no comparison", "eval compare"]);
    check("eval blind --score pairs", &["pairs", "key.json"]);
}
