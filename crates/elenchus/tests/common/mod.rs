//! Runs the program as a person or a script does.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use elenchus_lm::testing::TinyModel;
use tempfile::TempDir;

/// A folder with a tiny model, an adapter for it, and two characters in `adapters/`.
pub struct Stage {
    folder: TempDir,
}

impl Stage {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        TinyModel::default().write_gguf(&folder.path().join("tiny.gguf"));
        TinyModel::default().write_adapter(&folder.path().join("voice"), 1);
        for (id, name) in [("socrates", "Socrates"), ("hippias", "Hippias")] {
            let character = folder.path().join("adapters").join(id);
            fs::create_dir_all(&character).unwrap();
            let text = format!(
                "version = 1\nname = \"{name}\"\npersona = \"You are {name}.\"\ngreetings = [\"Greetings from {name}.\"]\n\
                 fallbacks = [\"{name} is silent.\"]\n[stop]\nmax_sentences = 0\nother_speaker = false\nmax_tokens = 12\n"
            );
            fs::write(character.join("character.toml"), text).unwrap();
        }
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program in this folder; its characters are those of the folder.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_elenchus"));
        command.args(arguments.split_whitespace()).current_dir(self.folder.path());
        command.env_remove("BEVY_ASSET_ROOT").env_remove("RUST_LOG");
        command
    }

    /// Runs it; says lines after the arguments.
    pub fn run(&self, arguments: &str, say: &[&str]) -> Output {
        self.command(arguments).args(say.iter().flat_map(|line| ["--say", line])).output().unwrap()
    }

    /// Types lines into `talk` through a pipe and returns what was printed.
    pub fn type_lines(&self, arguments: &str, lines: &[&str]) -> String {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        succeeded(output)
    }
}

/// The output of a successful run.
pub fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The error of a failed run, which must end with code 1 and an `error:`.
pub fn failed(output: Output) -> String {
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("error: "), "{error}");
    error
}

/// The workspace's root, with the shipped characters.
pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
