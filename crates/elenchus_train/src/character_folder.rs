//! A finished run's `adapter/` as a whole character: what `adapters/` holds, and what a game loads.

use std::path::Path;

use elenchus_dialogue::{Character, Model};

use crate::{Error, Result, RunFolder, config_file::read_text};

/// Puts the character's description and the run's configuration beside its adapter. `config` is the configuration's file name
/// there, and its text.
///
/// # Errors
/// A description that cannot be read, or files that cannot be written.
pub fn save_character(
    run: &RunFolder,
    character_file: &Path,
    character: &Character,
    model: &Model,
    config: (&str, &str),
) -> Result<()> {
    let described = with_base(&read_text(character_file)?, character, model);
    run.write("adapter/character.toml", described.as_bytes())?;
    run.write(&format!("adapter/{}", config.0), config.1.as_bytes())
}

/// Puts the run's report beside its adapter.
///
/// # Errors
/// A report that cannot be read or written.
pub fn copy_report(run: &RunFolder) -> Result<()> {
    let file = run.file("REPORT.md");
    let report = std::fs::read(&file).map_err(|cause| Error::File { file, cause, hint: "" })?;
    run.write("adapter/REPORT.md", &report)
}

/// A `character.toml` that says which base its adapter was trained on.
fn with_base(described: &str, character: &Character, model: &Model) -> String {
    if character.base.is_some() {
        return described.to_owned();
    }
    let Model { name, sha256, .. } = model;
    format!("{}\n\n[base]\nname = {name:?}\nsha256 = \"{sha256}\"\n", described.trim_end())
}
