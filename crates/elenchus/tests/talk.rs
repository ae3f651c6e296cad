//! `elenchus talk` on a tiny model: scripted, typed, saved and resumed.

#[expect(dead_code, reason = "each test binary uses its part")]
mod common;

use std::{
    fs,
    io::Write,
    process::{Output, Stdio},
};

use common::{Stage, failed, succeeded};
use serde_json::Value;

/// The objects a `--json` run prints.
fn replies(output: Output) -> Vec<Value> {
    succeeded(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Everything except times.
fn without_times(mut reply: Value) -> Value {
    let object = reply.as_object_mut().unwrap();
    object.remove("first_token_ms").unwrap();
    object.remove("tokens_per_s").unwrap();
    reply
}

#[test]
fn json_replies_have_exactly_the_documented_fields() {
    let stage = Stage::new();
    let replies =
        replies(stage.run("talk --no-filter --base tiny.gguf --seed 1 --max-tokens 5 --json", &["Hello.", "And you?"]));
    assert_eq!(replies.len(), 2, "two lines are two turns");
    for reply in &replies {
        let mut fields: Vec<&str> = reply.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        let mut expected = [
            "character",
            "adapter",
            "text",
            "stop",
            "refused",
            "prompt_tokens",
            "reply_tokens",
            "cached_tokens",
            "first_token_ms",
            "tokens_per_s",
        ];
        expected.sort_unstable();
        assert_eq!(fields, expected);
        assert_eq!(reply["character"], "Socrates");
        assert_eq!(reply["adapter"], Value::Null);
        // A reply may take 24 tokens more to finish its sentence.
        assert!((1..=29).contains(&reply["reply_tokens"].as_u64().unwrap()), "{reply}");
        assert!(reply["first_token_ms"].as_f64().unwrap() > 0.0, "{reply}");
    }
    let number = |reply: &Value, field: &str| reply[field].as_u64().unwrap();
    assert!(
        number(&replies[1], "prompt_tokens") > number(&replies[0], "prompt_tokens"),
        "the turns of one conversation"
    );
    assert!(number(&replies[1], "cached_tokens") > 0, "what was read once is remembered: {}", replies[1]);
}

#[test]
fn a_seed_says_the_same_again_and_another_seed_something_else() {
    let stage = Stage::new();
    let run = |seed: u32| {
        let replies = replies(
            stage.run(&format!("talk --no-filter --base tiny.gguf --seed {seed} --json"), &["Hello.", "And you?"]),
        );
        replies.into_iter().map(without_times).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn facts_of_the_game_are_in_the_prompt() {
    let stage = Stage::new();
    let prompt_tokens = |facts: &[&str]| {
        let mut command = stage.command("talk --no-filter --base tiny.gguf --seed 1 --max-tokens 3 --json");
        command.args(facts.iter().flat_map(|fact| ["--fact", fact])).args(["--say", "How much is a room?"]);
        replies(command.output().unwrap())[0]["prompt_tokens"].as_u64().unwrap() as usize
    };
    let (room, cellar) = ("A room costs 3 silver a night.", "The cellar is locked.");
    let none = prompt_tokens(&[]);
    // A byte is a token. The fact that fits the line stands beside it once more.
    let both = none + "\nYou know:\n- \n- ".len() + 2 * room.len() + cellar.len() + "\n[You know: ]".len();
    assert_eq!(prompt_tokens(&[room, cellar]), both);
}

#[test]
fn an_adapter_changes_the_voice() {
    let stage = Stage::new();
    let run = |adapter: &str| {
        let arguments = format!("talk --no-filter --base tiny.gguf --seed 1 --json --adapter {adapter}");
        without_times(replies(stage.run(&arguments, &["Hello."])).remove(0))
    };
    let (none, voice) = (run("none"), run("voice"));
    assert_eq!(none["adapter"], Value::Null);
    assert_eq!(voice["adapter"].as_str().unwrap().len(), 64, "a hash in hex: {voice}");
    assert_ne!(none["text"], voice["text"]);
}

#[test]
fn a_scripted_conversation_reads_as_a_transcript() {
    let stage = Stage::new();
    let shown =
        succeeded(stage.run("talk --no-filter --base tiny.gguf --character HIPPIAS --seed 1", &["Hello.", "/who"]));
    assert!(shown.starts_with("You > Hello.\nHippias > "), "{shown}");
    assert!(shown.contains("\nYou > /who\nHippias > "), "a line that looks like a command is said: {shown}");
    assert!(!shown.contains('\u{1b}'), "no colours outside a terminal: {shown:?}");
}

#[test]
fn a_character_who_joins_has_heard_what_was_said() {
    let stage = Stage::new();
    let lines = ["What is courage?", "/who", "/as Hippias", "/who", "And what do you say?", "/save kept.json"];
    let shown = stage.type_lines("talk --no-filter --base tiny.gguf --seed 1", &lines);
    for expected in [
        "Socrates > Greetings from Socrates.\n",
        "socrates        talks with you\n",
        "hippias         can join; /as hippias\n",
        "Hippias is here and has heard what was said.\n",
        "hippias         talks with you\n",
        "socrates        is here; /as socrates\n",
        "Saved to kept.json.\n",
    ] {
        assert!(shown.contains(expected), "{expected:?} is not in {shown}");
    }
    let kept: Value = serde_json::from_str(&fs::read_to_string(stage.path("kept.json")).unwrap()).unwrap();
    let heard = kept["present"].as_array().unwrap().iter().find(|character| character["id"] == "hippias").unwrap();
    let speakers: Vec<&str> = heard["conversation"]["said"]["turns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|turn| turn["speaker"].as_str().unwrap())
        .collect();
    assert_eq!(speakers, ["Socrates", "Stranger", "Socrates", "Stranger", "Hippias"]);
}

#[test]
fn a_saved_conversation_resumes_as_if_nothing_had_happened() {
    let stage = Stage::new();
    let talk = "talk --no-filter --base tiny.gguf --seed 4";
    let twin = stage.type_lines(talk, &["What is courage?", "Are you sure?"]);
    let twins_answer = twin.lines().last().unwrap();
    stage.type_lines(talk, &["What is courage?", "/save kept.json"]);
    // Another seed: the next reply is sampled by the saved generator.
    let loaded = stage.type_lines("talk --no-filter --base tiny.gguf --seed 99", &["/load kept.json", "Are you sure?"]);
    assert_eq!(loaded.lines().last().unwrap(), twins_answer, "{loaded}");
    assert!(loaded.contains("Stranger > What is courage?\n"), "the last exchange is shown: {loaded}");

    let forgot = stage.type_lines(talk, &["What is courage?", "/reset", "What is courage?"]);
    let answers: Vec<&str> = forgot.lines().filter(|line| line.starts_with("Socrates > ")).collect();
    assert_eq!(answers.len(), 4, "{forgot}");
    assert_eq!(answers[..2], answers[2..], "after /reset greeting and seed are those of the beginning: {forgot}");
}

#[test]
fn slips_of_the_keyboard_get_a_hint_and_end_nothing() {
    let stage = Stage::new();
    // The model is known after the first reply.
    let lines = ["Hail.", "/dance", "/as Gorgias", "/load nothing.json", "", "/stats", "/help", "Hello."];
    let shown = stage.type_lines("talk --no-filter --base tiny.gguf --seed 1", &lines);
    for expected in [
        "There is no /dance; /help lists the commands.",
        "there is no character `Gorgias`",
        "nothing.json",
        "tiny.gguf, context",
        "/save FILE",
    ] {
        assert!(shown.contains(expected), "{expected:?} is not in {shown}");
    }
    assert!(shown.lines().last().unwrap().starts_with("Socrates > "), "{shown}");
}

#[test]
fn what_is_no_utf8_is_replaced_where_it_is_typed_and_refused_in_a_file() {
    let stage = Stage::new();
    let mut command = stage.command("talk --no-filter --base tiny.gguf --seed 1");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"Half a letter: \xce\nHello.\n").unwrap();
    let shown = succeeded(child.wait_with_output().unwrap());
    // The greeting and two answers.
    assert_eq!(shown.lines().filter(|line| line.starts_with("Socrates > ")).count(), 3, "{shown}");

    fs::write(stage.path("adapters/hippias/character.toml"), b"version = 1\nname = \"\xff\"\n").unwrap();
    let error = failed(stage.run("talk --no-filter --base tiny.gguf --character hippias", &["Hello."]));
    assert!(error.contains("hippias/character.toml is not UTF-8"), "{error}");
}

#[test]
fn what_cannot_work_ends_with_code_1_and_says_why() {
    let stage = Stage::new();
    let check = |arguments: &str, say: &[&str], expected: &[&str]| {
        let error = failed(stage.run(arguments, say));
        for words in expected {
            assert!(error.contains(words), "{arguments} gave: {error}");
        }
    };
    check("talk --character Gorgias", &["Hello."], &["`Gorgias`", "hippias, socrates"]);
    check("talk --base no.gguf", &["Hello."], &["no.gguf does not exist", "--base"]);
    check("talk --no-filter --base tiny.gguf --adapter nowhere", &["Hello."], &["nowhere"]);
    check("talk --no-filter --base tiny.gguf", &["  "], &["the line is empty"]);

    fs::write(stage.path("broken.gguf"), "GGUF, but not really").unwrap();
    check("talk --base broken.gguf", &["Hello."], &["broken.gguf"]);
    fs::write(stage.path("adapters/hippias/character.toml"), "version = 1\n").unwrap();
    check("talk --no-filter --base tiny.gguf --character hippias", &["Hello."], &["hippias", "missing field"]);
    fs::remove_dir_all(stage.path("adapters")).unwrap();
    check("talk --no-filter --base tiny.gguf", &["Hello."], &["no characters found", "character.toml"]);
}

#[test]
fn a_failed_reply_is_reported_and_the_conversation_continues() {
    let stage = Stage::new();
    let long = "What is courage, and what is it not? ".repeat(100);
    let shown = stage.type_lines("talk --no-filter --base tiny.gguf --seed 1", &[&long, "Hello."]);
    assert!(shown.contains("Socrates > Socrates is silent.\n(no reply: "), "{shown}");
    assert!(shown.lines().last().unwrap().starts_with("Socrates > "), "{shown}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_quits_when_no_reply_is_running() {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };

    let stage = Stage::new();
    let mut talk = stage.command("talk --no-filter --base tiny.gguf");
    let mut child = talk.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("Greetings from Socrates.")));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
}
