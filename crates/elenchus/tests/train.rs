//! From a text file to a character that speaks otherwise: `train sft`, `eval perplexity`, `talk`.

#[expect(dead_code, reason = "each test binary uses its part")]
mod common;

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use common::{Stage, failed, succeeded};
use serde_json::Value;

const TRAINING: &str = r#"
character = "adapters/socrates/character.toml"
data = ["texts.jsonl"]
held_out_works = ["second"]
battery = false
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
    assert!(told.contains("best was step ") && told.contains("held-out perplexity "), "{told}");
    let inspected = succeeded(stage.run("adapter inspect runs/one/adapter --base tiny.gguf", &[]));
    assert!(inspected.contains("fits"), "{inspected}");
    // The folder can be shipped as it is.
    for file in ["character.toml", "training.toml", "REPORT.md"] {
        assert!(stage.path("runs/one/adapter").join(file).is_file(), "{file}");
    }

    let eval = "eval perplexity --pairs texts.jsonl --work second --base tiny.gguf --adapter runs/one/adapter --json";
    let measured: Value = serde_json::from_str(&succeeded(stage.run(eval, &[]))).unwrap();
    let (adapted, base) = (measured["perplexity"].as_f64().unwrap(), measured["base_perplexity"].as_f64().unwrap());
    assert_eq!(measured["pairs"], 3);
    assert!(adapted < 0.7 * base, "{measured}");

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
fn a_report_ends_with_the_battery_before_and_after() {
    let stage = stage();
    fs::write(
        stage.path("training.toml"),
        TRAINING.replace("battery = false\n", "").replace("epochs = 8", "epochs = 1"),
    )
    .unwrap();
    let train = "train sft training.toml --base tiny.gguf --out runs/one";
    succeeded(stage.run(train, &[]));
    let read = |file: &str| fs::read_to_string(stage.path("runs/one").join(file)).unwrap();
    for file in ["REPORT.md", "REPORT.html", "adapter/REPORT.md"] {
        assert!(read(file).contains("The battery") && read(file).contains("own name"), "{file}: {}", read(file));
    }
    let battery: Value = serde_json::from_str(&read("battery.json")).unwrap();
    assert_ne!(battery["before"], battery["after"]);
    // What was measured is not measured again.
    fs::write(stage.path("runs/one/battery.json"), battery.to_string()).unwrap();
    succeeded(stage.run(train, &[]));
    assert_eq!(read("battery.json"), battery.to_string());
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
    check("character = 1", &["bad.toml:1: `character`: "]);
    check(&TRAINING.replace("epochs", "epoch"), &["bad.toml:11: ", "unknown field `epoch`", "did you mean `epochs`?"]);
    check(&(TRAINING.to_owned() + "patience = 0"), &["bad.toml:15: ", "`training.patience` is 0"]);
    let lines = TRAINING.replace("held_out_works", "player_lines = \"nobody.jsonl\"\nheld_out_works");
    check(&lines, &["nobody.jsonl"]);
    check(&TRAINING.replace("texts.jsonl", "far.jsonl"), &["far.jsonl"]);
    check(&TRAINING.replace("second", "third"), &["third"]);
    check(&TRAINING.replace("rank = 4", "rank = 0"), &["lora.rank"]);
    let device = "train sft training.toml --base tiny.gguf --out runs/gpu --device cuda";
    assert!(failed(stage.run(device, &[])).contains("--features cuda"));
}

#[test]
fn a_voice_of_one_work_is_measured_on_its_last_part_and_hears_player_lines() {
    let stage = stage();
    let one =
        TRAINING.replace("held_out_works = [\"second\"]", "held_out_fraction = 0.25\nplayer_lines = \"lines.jsonl\"");
    let one = one.replace("data = ", "excluded_works = [\"second\"]\ndata = ");
    fs::write(stage.path("lines.jsonl"), "{\"line\": \"Good day!\", \"reply\": \"Know thyself.\"}\n").unwrap();
    fs::write(stage.path("one.toml"), one + "[filters]\ndeduplicate = false\n").unwrap();
    let told = succeeded(stage.run("train sft one.toml --base tiny.gguf --out runs/one", &[]));
    // Of twelve pairs three are held out, and four before them keep their context apart.
    assert!(told.contains("5 are trained on, 3 of the last 25% measured on"), "{told}");
    assert!(told.contains("1 lines as a player says them"), "{told}");
}

/// Enough steps, and long enough ones, to be interrupted in the midst of one.
/// Nobody but the character is learned from.
const NO_OTHERS: &str = "[persona]\ninvented = 0.0\nown = 0.0\nbase = 0.0\nfacts = 0.0\n";
const LONG: &str = "[training]\nepochs = 20\nbatch = 4\nlearning_rate = 0.001\neval_steps = 30\ncheckpoint_steps = 7\n";

/// The lines of `metrics.jsonl` without what a machine's mood decides.
fn metrics(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    let line = |line: &str| {
        // A line may be read while it is written.
        let mut line: Value = serde_json::from_str(line).ok()?;
        for key in ["seconds", "resident_bytes"] {
            line.as_object_mut().unwrap().remove(key);
        }
        Some(line)
    };
    text.lines().filter_map(line).collect()
}

/// Starts a run and waits until it has taken so many steps.
fn started(stage: &Stage, arguments: &str, run: &Path, steps: usize) -> Child {
    let mut command = stage.command(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(300);
    while metrics(run).len() < steps {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        assert!(Instant::now() < deadline, "{steps} steps take too long");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

#[test]
fn a_process_that_is_killed_or_interrupted_goes_on_bit_for_bit() {
    let stage = stage();
    let training = &TRAINING[..TRAINING.find("[training]").unwrap()];
    let training =
        training.replace("dropout = 0.0", "dropout = 0.1") + LONG + NO_OTHERS + "[filters]\ndeduplicate = false\n";
    fs::write(stage.path("long.toml"), training).unwrap();
    let arguments = |run: &str| format!("train sft long.toml --base tiny.gguf --out runs/{run}");
    succeeded(stage.run(&arguments("whole"), &[]));
    let whole = metrics(&stage.path("runs/whole"));
    assert_eq!(whole.len(), 60);

    let killed = stage.path("runs/killed");
    let mut child = started(&stage, &arguments("killed"), &killed, 17);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "it was a signal that ended it");
    let before = metrics(&killed).len();
    assert!((17..53).contains(&before), "it was killed after step {before}");
    let output = stage.run(&arguments("killed"), &[]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains(&format!("resumes after step {} of 60", before / 7 * 7)), "after step {before}: {told}");
    succeeded(output);
    assert_eq!(metrics(&killed), whole);
    let adapter = |run: &str| fs::read(stage.path(run).join("adapter/adapter_model.safetensors")).unwrap();
    assert_eq!(adapter("runs/killed"), adapter("runs/whole"));

    // Ctrl-C loses nothing at all.
    #[cfg(unix)]
    {
        let stopped = stage.path("runs/stopped");
        let child = started(&stage, &arguments("stopped"), &stopped, 17);
        let interrupt = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(interrupt.unwrap().success());
        let told = succeeded(child.wait_with_output().unwrap());
        let before = metrics(&stopped).len();
        assert!(told.contains(&format!("Stopped after step {before}. Run the same command to resume.")), "{told}");
        let output = stage.run(&arguments("stopped"), &[]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(&format!("resumes after step {before} of 60")), "{told}");
        assert_eq!(metrics(&stopped), whole);
        assert_eq!(adapter("runs/stopped"), adapter("runs/whole"));
    }
}
