//! Characters are folders with a `character.toml` in `adapters/`, found where a developer or a shipped program has
//! them.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, anyhow, bail};

/// The characters of one `adapters/` folder.
#[derive(Debug, Clone)]
pub struct Characters {
    /// The folder.
    pub folder: PathBuf,
    /// The names of its character folders, sorted.
    pub ids: Vec<String>,
}

impl Characters {
    /// Looks in the working directory, in the workspace that `cargo run` was started from, and beside the executable.
    pub fn find() -> Result<Self> {
        let working = env::current_dir().ok();
        let workspace = env::var_os("BEVY_ASSET_ROOT").map(PathBuf::from);
        let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
        let folders: Vec<PathBuf> =
            [working, workspace, beside].into_iter().flatten().map(|folder| folder.join("adapters")).collect();
        folders.iter().map(|folder| Self::of(folder)).find(|found| !found.ids.is_empty()).ok_or_else(|| {
            let places: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
            anyhow!("no characters found: none of {} holds a folder with a character.toml", places.join(", "))
        })
    }

    /// The characters of a folder that was named.
    #[cfg(feature = "train")]
    pub fn open(folder: &Path) -> Result<Self> {
        let found = Self::of(folder);
        anyhow::ensure!(
            !found.ids.is_empty(),
            "{} holds no folder with a character.toml (hint: name the folder of all characters, not one of them)",
            folder.display()
        );
        Ok(found)
    }

    fn of(folder: &Path) -> Self {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut ids: Vec<String> = entries
            .filter(|entry| entry.path().join("character.toml").is_file())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        ids.sort();
        Self { folder: folder.to_owned(), ids }
    }

    /// The character a person means by `Olive seller`, `olive-seller` or `olive_seller`.
    pub fn id(&self, name: &str) -> Result<&str> {
        let fold =
            |text: &str| text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
        match self.ids.iter().find(|id| fold(id) == fold(name)) {
            Some(id) => Ok(id),
            None => bail!("there is no character `{name}` in {}: {}", self.folder.display(), self.ids.join(", ")),
        }
    }
}

/// The `character.toml` that a person means: the file itself, or a folder of `adapters/` by any spelling.
#[cfg(feature = "train")]
pub fn character_file(name: &str) -> Result<PathBuf> {
    if Path::new(name).extension().is_some_and(|extension| extension == "toml") {
        return Ok(PathBuf::from(name));
    }
    let characters = Characters::find()?;
    Ok(characters.folder.join(characters.id(name)?).join("character.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_found_by_any_spelling_of_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        for id in ["socrates", "olive_seller"] {
            fs::create_dir(folder.path().join(id)).unwrap();
            fs::write(folder.path().join(id).join("character.toml"), "").unwrap();
        }
        fs::create_dir(folder.path().join("no_character")).unwrap();
        let characters = Characters::of(folder.path());
        assert_eq!(characters.ids, ["olive_seller", "socrates"]);
        for name in ["olive_seller", "Olive seller", "olive-seller", "OLIVE SELLER "] {
            assert_eq!(characters.id(name).unwrap(), "olive_seller");
        }
        let error = characters.id("Gorgias").unwrap_err().to_string();
        assert!(error.contains("`Gorgias`") && error.contains("olive_seller, socrates"), "{error}");
    }
}
