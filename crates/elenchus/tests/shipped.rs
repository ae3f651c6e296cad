//! What the characters of this repository say on the default model.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

/// The characters that must pass the battery. Each floor is one to four replies below the measured result, because a
/// change of the prompt or of the sampler gives other replies.
const HELD_TO: &[(&str, Floors)] = &[
    ("socrates", Floors { own_name: 7, game_facts: 34, of_three: 30, players_name: 7, last_line: 8, role: 18 }),
    ("hermes", Floors { own_name: 8, game_facts: 36, of_three: 29, players_name: 7, last_line: 6, role: 15 }),
    ("cario", Floors { own_name: 8, game_facts: 30, of_three: 32, players_name: 6, last_line: 7, role: 16 }),
    ("hippias", Floors { own_name: 8, game_facts: 33, of_three: 32, players_name: 8, last_line: 6, role: 15 }),
    ("strepsiades", Floors { own_name: 8, game_facts: 35, of_three: 32, players_name: 6, last_line: 7, role: 16 }),
    ("ischomachus", Floors { own_name: 8, game_facts: 36, of_three: 33, players_name: 7, last_line: 8, role: 16 }),
    ("callicles", Floors { own_name: 8, game_facts: 32, of_three: 34, players_name: 7, last_line: 8, role: 15 }),
    ("olive_seller", Floors { own_name: 8, game_facts: 35, of_three: 34, players_name: 7, last_line: 7, role: 17 }),
    ("alcibiades", Floors { own_name: 7, game_facts: 31, of_three: 32, players_name: 6, last_line: 7, role: 14 }),
];

/// How many replies of a check must be right.
struct Floors {
    /// Of 10.
    own_name: u64,
    /// Of 40.
    game_facts: u64,
    /// Of 40.
    of_three: u64,
    /// Of 10.
    players_name: u64,
    /// Of 10.
    last_line: u64,
    /// Of 20.
    role: u64,
}

impl Floors {
    fn by_check(&self) -> [(&str, u64); 6] {
        [
            ("own name", self.own_name),
            ("game facts", self.game_facts),
            ("game facts, of three", self.of_three),
            ("player's name", self.players_name),
            ("last line", self.last_line),
            ("role", self.role),
        ]
    }
}

#[test]
fn real_model_shipped_characters_hold_to_the_battery() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (character, floors) in HELD_TO {
        let mut command = Command::new(env!("CARGO_BIN_EXE_elenchus"));
        command.args(["eval", "character", "--json", "--character"]).arg(character);
        let output = command.args(["--only", "own-name,game-facts,game-facts-of-three,player-name,last-line,role"]);
        let output = output.current_dir(&root).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        for (check, least) in floors.by_check() {
            let row = report["rows"].as_array().unwrap().iter().find(|row| row["check"] == check).unwrap();
            println!("{character}, {check}: {} of {}", row["right"], row["of"]);
            assert!(row["right"].as_u64().unwrap() >= least, "{character}: {row:#}");
        }
    }
}

/// The command and transcript that the README prints: the indented block after `$ cargo run --release --`.
#[test]
fn real_model_says_what_the_readme_prints() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let (_, shown) = readme.split_once("    $ cargo run --release -- ").unwrap();
    let shown = shown.replace("\\\n", " ");
    let mut lines = shown.lines();
    // Quoted parts are the odd ones.
    let parts = lines.next().unwrap().split('"').enumerate();
    let arguments = parts.flat_map(|(at, part)| match at % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    let transcript: Vec<&str> = lines.map_while(|line| line.strip_prefix("    ")).collect();
    assert!(transcript.len() >= 6, "{transcript:?}");
    let output = Command::new(env!("CARGO_BIN_EXE_elenchus")).args(arguments).current_dir(&root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>(), transcript);
}
