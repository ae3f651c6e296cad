//! What the characters of this repository say on the default model.

use std::{path::Path, process::Command};

use serde_json::Value;

/// A character, and how many replies of a check must be right; each is one to three below what was measured, because a change of the
/// prompt or of the sampler draws other replies.
const HELD_TO: &[(&str, &[(&str, u64)])] = &[(
    "socrates",
    &[
        ("own name", 5),
        ("game facts", 26),
        ("game facts, of three", 25),
        ("player's name", 7),
        ("last line", 5),
        ("role", 12),
    ],
)];

#[test]
fn real_model_shipped_characters_hold_to_the_battery() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (character, checks) in HELD_TO {
        let mut command = Command::new(env!("CARGO_BIN_EXE_elenchus"));
        command.args(["eval", "character", "--json", "--character"]).arg(character);
        let output = command.args(["--only", "own-name,game-facts,game-facts-of-three,player-name,last-line,role"]);
        let output = output.current_dir(&root).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        for (check, least) in *checks {
            let row = report["rows"].as_array().unwrap().iter().find(|row| row["check"] == *check).unwrap();
            println!("{character}, {check}: {} of {}", row["right"], row["of"]);
            assert!(row["right"].as_u64().unwrap() >= *least, "{character}: {row:#}");
        }
    }
}
