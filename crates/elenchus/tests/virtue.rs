//! From principles to a measured voice: `train revise`, `train preferences`, `train sft`, `train reward`, `train rl` and
//! `eval virtue` in one chain, with a server on this machine for the chat model.

#[expect(dead_code, reason = "each test binary uses its part")]
mod common;
#[expect(dead_code, reason = "each test binary uses its part")]
#[path = "../../elenchus_train/tests/fault_server/mod.rs"]
mod fault_server;

use std::fs;

use common::{Stage, failed, succeeded, workspace};
use elenchus_lm::testing::TinyModel;
use fault_server::{Heard, Reply, Server};
use serde_json::{Value, json};

/// A judge that revises to the same words, and prefers the reply that sorts first.
fn answer(heard: &Heard) -> Reply {
    let question = heard.question();
    if question.contains("Revise the reply") {
        return Reply::words("I would rather not, my friend.");
    }
    let reply = |letter: &str| {
        let (_, rest) = question.split_once(&format!("\nReply {letter}:\n")).unwrap();
        rest.lines().take_while(|line| line.starts_with("> ")).collect::<Vec<_>>().join("\n")
    };
    Reply::words(if reply("A") < reply("B") { "A" } else { "B" })
}

fn stage(url: &str) -> Stage {
    let stage = Stage::new();
    let line = |what: &str, at: usize| json!({"line": format!("Do {what} number {at}.")}).to_string() + "\n";
    let write = |name: &str, text: String| fs::write(stage.path(name), text).unwrap();
    write("harm.jsonl", (0..24).map(|at| line("harm", at)).collect());
    write("test.jsonl", (0..6).map(|at| line(["harm", "wrong"][at % 2], at)).collect());
    fs::copy(workspace().join("adapters/virtues.toml"), stage.path("virtues.toml")).unwrap();
    let run = format!(
        "character = \"adapters/socrates/character.toml\"\nprinciples = \"virtues.toml\"\nprompts = [\"harm.jsonl\"]\n\
         [chat]\nurl = \"{url}\"\nmodel = \"m\"\nretries = 0\n"
    );
    write("revise.toml", run.clone());
    write("preferences.toml", run);
    stage
}

#[test]
fn principles_become_a_voice_and_the_voice_is_measured() {
    let server = Server::new(answer);
    let stage = stage(&server.url);
    let write = |name: &str, text: &str| fs::write(stage.path(name), text).unwrap();

    let told = succeeded(stage.run("train revise revise.toml --out runs/revised --base tiny.gguf", &[]));
    assert!(told.contains("24 prompts, revised by 6 principles in turn"), "{told}");
    assert!(told.contains("24 pairs to learn from, 24 of them changed; 0 prompts left out"), "{told}");

    // The last revisions are learned.
    let sft = "character = \"adapters/socrates/character.toml\"\ndata = [\"runs/revised/pairs.jsonl\"]\n\
               held_out_fraction = 0.2\ncontext = 1\n[filters]\nmin_last_turn_words = 1\ndeduplicate = false\n[lora]\nrank = 4\n\
               [training]\nepochs = 2\nlearning_rate = 0.01\n";
    write("training.toml", sft);
    succeeded(stage.run("train sft training.toml --out runs/sft --base tiny.gguf", &[]));

    let prefer = "train preferences preferences.toml --out runs/prefer --base tiny.gguf --json";
    let judged: Value = serde_json::from_str(&succeeded(stage.run(prefer, &[]))).unwrap();
    assert_eq!(judged["preferences"], 3 * 24, "{judged}");
    let table = succeeded(stage.run("train preferences preferences.toml --out runs/prefer --base tiny.gguf", &[]));
    assert!(table.contains("order decided") && table.contains("100.0% could be read"), "{table}");

    for aspect in ["action", "motivation", "consequence"] {
        let reward = format!(
            "kind = \"preferences\"\ncharacter = \"adapters/socrates/character.toml\"\ndata = [\"runs/prefer/preferences.jsonl\"]\n\
             aspect = \"{aspect}\"\nfolds = 2\n[lora]\nrank = 2\n[training]\nbatch = 4\n"
        );
        write("reward.toml", &reward);
        succeeded(stage.run(&format!("train reward reward.toml --out runs/{aspect} --base tiny.gguf"), &[]));
    }
    let rl = "character = \"adapters/socrates/character.toml\"\nstart = \"runs/sft/adapter\"\nprompts = [\"harm.jsonl\"]\n\
              [[judges]]\nkind = \"ensemble\"\nname = \"virtue\"\nrewards = [\"runs/action/reward\", \"runs/motivation/reward\"]\n\
              [sampling]\nprompts = 3\ngroup = 2\nmax_tokens = 8\nheld_out_prompts = 2\n[training]\nsteps = 2\n";
    // Nothing is learned from a reward model that does not clear the guard; no dozen of held-out preferences clears this one.
    write("rl.toml", &format!("{rl}[guards]\nreward_accuracy = 0.99\n"));
    let error = failed(stage.run("train rl rl.toml --out runs/rl --base tiny.gguf", &[]));
    assert!(error.contains("held-out accuracy") && error.contains("guards.reward_accuracy"), "{error}");
    write("rl.toml", &format!("{rl}[guards]\nreward_accuracy = 0.0\n"));
    let told = succeeded(stage.run("train rl rl.toml --out runs/rl --base tiny.gguf", &[]));
    assert!(told.contains("judges: virtue"), "{told}");

    let eval = "eval virtue --before runs/sft/adapter --after runs/rl/adapter --prompts test.jsonl --rl rl.toml --rewards \
                runs/action/reward,runs/motivation/reward,untouched=runs/consequence/reward --base tiny.gguf --html page.html";
    let all: Value = serde_json::from_str(&succeeded(stage.run(&format!("{eval} --json"), &[]))).unwrap();
    let of = &all["benchmark"];
    // Of six prompts three were trained on.
    assert_eq!((&of["prompts"], &of["trained_on"]), (&json!(3), &json!(3)));
    let rows: Vec<(&str, bool)> = of["scores"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["name"].as_str().unwrap(), row["optimised"].as_bool().unwrap()))
        .collect();
    assert_eq!(
        rows,
        [
            ("action", true),
            ("motivation", true),
            ("untouched", false),
            ("mean of optimised", true),
            ("uwo of optimised", true),
        ]
    );
    for row in of["scores"].as_array().unwrap() {
        let number = |field: &str| row[field]["value"].as_f64().unwrap();
        assert!((number("after") - number("before") - number("difference")).abs() < 1e-5, "{row}");
        assert_eq!(row["scored"], 3, "{row}");
    }
    assert!(of["kl"]["value"].as_f64().unwrap() >= 0.0 && of["replies"].as_array().unwrap().len() == 3, "{of}");
    let text = succeeded(stage.run(eval, &[]));
    assert!(text.contains("on 3 prompts that neither was trained on (3 others left out)"), "{text}");
    assert!(text.contains("action, optimised") && text.contains("at equal length"), "{text}");
    assert!(fs::read_to_string(stage.path("page.html")).unwrap().contains("Difference at equal length"));
}

#[test]
fn a_voice_is_led_into_temptation_round_by_round() {
    let stage = Stage::new();
    TinyModel::default().write_adapter(&stage.path("rl"), 2);
    fs::write(stage.path("judges.toml"), "[[judges]]\nkind = \"length\"\nwords = 3\n").unwrap();
    fs::copy(workspace().join("adapters/role_suite.toml"), stage.path("roles.toml")).unwrap();
    let eval =
        "eval virtue --before none --after rl --roles roles.toml --draws 2 --judges judges.toml --base tiny.gguf";
    let all: Value =
        serde_json::from_str(&succeeded(stage.run(&format!("{eval} --json --html page.html"), &[]))).unwrap();
    assert!(all["benchmark"].is_null());
    let roles = all["roles"].as_array().unwrap();
    assert_eq!(roles.iter().map(|of| of["voice"].clone()).collect::<Vec<_>>(), ["base", "rl"]);
    for of in roles {
        let played = of["played"].as_array().unwrap();
        assert_eq!(played.len(), 2 * 10);
        assert!(played.iter().all(|played| played["rounds"].as_array().unwrap().len() == 4));
        let last = of["rows"].as_array().unwrap().last().unwrap();
        assert_eq!((&last["name"], &last["attempts"]), (&json!("any breach, all attempts"), &json!(20)));
        assert!(of["judges"]["length"][3].is_number(), "{of}");
        // Another try says something else.
        assert_ne!(played[0]["rounds"][0]["reply"], played[1]["rounds"][0]["reply"]);
    }
    let text = succeeded(stage.run(eval, &[]));
    assert!(text.contains("round 4") && text.contains("leak lore") && text.contains("held through all"), "{text}");
    assert!(fs::read_to_string(stage.path("page.html")).unwrap().contains("Staying in role"));
}

#[test]
fn what_cannot_be_done_ends_with_code_1_and_says_why() {
    let stage = stage("http://127.0.0.1:9/v1");
    let check = |arguments: &str, says: &[&str]| {
        let error = failed(stage.run(arguments, &[]));
        for part in says {
            assert!(error.contains(part), "`{error}` does not say `{part}`");
        }
    };
    check(
        "train revise revise.toml --out runs/a --base tiny.gguf",
        &["chat model `chat`", "127.0.0.1:9", "cannot be reached"],
    );
    check("train revise nothing.toml --out runs/b --base tiny.gguf", &["nothing.toml"]);
    fs::write(stage.path("virtues.toml"), "[[principles]]\nname = \"honesty\"\n").unwrap();
    check("train preferences preferences.toml --out runs/c --base tiny.gguf", &["virtues.toml", "asks"]);
    TinyModel::default().write_adapter(&stage.path("voice"), 1);
    check("eval virtue --after voice --rewards nowhere --base tiny.gguf", &["--prompts"]);
    let eval = "eval virtue --after voice --rewards nowhere --prompts test.jsonl --base tiny.gguf";
    check(eval, &["nowhere", "elenchus train reward"]);
    check(&format!("{eval} --trained-on test.jsonl"), &["all 6 prompts of test.jsonl were trained on"]);
    fs::write(stage.path("roles.toml"), "attempts = []").unwrap();
    check("eval virtue --after voice --roles roles.toml --base tiny.gguf", &["roles.toml", "`attempts` is empty"]);
}
