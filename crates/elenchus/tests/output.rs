//! Output may be closed early: `elenchus adapter inspect DIR | head -1` is no crash, and no work is lost by it.

#[expect(dead_code, reason = "each test binary uses its part")]
mod common;

use std::{
    fs::{self, File},
    io,
    process::Stdio,
};

use common::{Stage, failed};

/// Two works in which Socrates answers, and what it takes to learn from them.
fn stage() -> Stage {
    let stage = Stage::new();
    let turns = r#"{"speaker": "MENO", "text": "Tell me the truth of it, Socrates."}, {"speaker": "SOCRATES", "text": "Know thyself, my good Meno."}"#;
    let work = |name: &str| format!("{{\"work\": \"{name}\", \"turns\": [{turns}]}}\n");
    fs::write(stage.path("texts.jsonl"), work("first") + &work("second")).unwrap();
    let training = "character = \"character.toml\"\ndata = [\"../../texts.jsonl\"]\nheld_out_works = [\"second\"]\n\
                    [filters]\ndeduplicate = false\n[training]\nsamples = []\n";
    fs::write(stage.path("adapters/socrates/training.toml"), training).unwrap();
    stage
}

/// The writing end of a closed pipe.
fn unread() -> Stdio {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn closed_output_ends_quietly() {
    let stage = stage();
    let check = |arguments: &str| {
        let output = stage.command(arguments).stdout(unread()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments}: {said}");
        assert!(!said.contains("error") && !said.contains("panicked"), "{arguments}: {said}");
    };
    check("--help");
    check("model list");
    check("model inspect --base tiny.gguf");
    check("adapter inspect voice --base tiny.gguf");
    check("adapter export voice --gguf a.gguf --base tiny.gguf");
    check("adapter import a.gguf back --base tiny.gguf");
    check("adapter merge sum voice back");
    check("adapter diff voice back");
    check("adapter diff voice back --json");
    check("data inspect texts.jsonl --character Socrates");
    check("eval perplexity --pairs texts.jsonl --base tiny.gguf --adapter voice");
    check("talk --base tiny.gguf --say Hello");
    check("talk --base tiny.gguf --say Hello --json");
}

#[test]
fn training_goes_on_unheard() {
    let stage = stage();
    let mut command = stage.command("train sft adapters/socrates/training.toml --base tiny.gguf --out run");
    let status = command.stdout(unread()).stderr(unread()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(stage.path("run/adapter/REPORT.md").is_file());
}

#[test]
fn an_error_ends_with_code_1_though_nobody_reads_it() {
    let stage = Stage::new();
    let status = |arguments: &str| stage.command(arguments).stderr(unread()).status().unwrap();
    assert_eq!(status("adapter inspect nowhere").code(), Some(1));
    assert_eq!(status("adapter vanish").code(), Some(1));
}

/// If a file cannot take the output, that is an error.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error() {
    let stage = Stage::new();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for arguments in ["adapter inspect voice --base tiny.gguf", "talk --base tiny.gguf --say Hello --json"] {
        let error = failed(stage.command(arguments).stdout(full()).output().unwrap());
        assert!(error.contains("standard output"), "{arguments}: {error}");
    }
}
