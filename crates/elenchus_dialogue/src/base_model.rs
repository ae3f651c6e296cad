//! Where the default base model lies on a player's machine.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use elenchus_lm::{Error, Result, Weights};

/// The default model's file name.
pub const DEFAULT_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
/// The default model's SHA-256.
pub const DEFAULT_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
/// The default model's size.
pub const DEFAULT_BYTES: u64 = 98_362_432;

/// Where [`find_default`] looks, in this order: beside the executable, in `models/` there, in `models/` of the working
/// directory, in the user's cache.
pub fn folders() -> Vec<PathBuf> {
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    let models = beside.as_ref().map(|folder| folder.join("models"));
    let working = env::current_dir().ok().map(|folder| folder.join("models"));
    [beside, models, working, cache_folder()].into_iter().flatten().collect()
}

/// The default model where a game can have it: beside the executable (or in `models/` there), in `models/` of the
/// working directory, or in the user's cache. `None` if it is nowhere.
pub fn find_default() -> Option<PathBuf> {
    folders().into_iter().map(|folder| folder.join(DEFAULT_FILE)).find(|path| has_size(path, DEFAULT_BYTES))
}

/// Checks the hash of a file that lies there as the default model.
///
/// # Errors
/// It is another one.
pub fn check_sha256(path: &Path, sha256: &str) -> Result<()> {
    if sha256 == DEFAULT_SHA256 {
        return Ok(());
    }
    Err(Error::model_file(
        path,
        format!(
            "its SHA-256 is {sha256}, but {DEFAULT_FILE} has {DEFAULT_SHA256}: it is damaged or another file \
             (hint: delete it and run `elenchus model fetch`)"
        ),
    ))
}

/// Checks weights that were opened under the default model's name: what was fetched whole can still be damaged later.
/// Files of other names pass.
pub fn check_opened(weights: &Weights) -> Result<()> {
    let path = weights.path();
    if path.file_name().is_none_or(|name| name != DEFAULT_FILE) {
        return Ok(());
    }
    check_sha256(path, &weights.sha256())
}

/// The folder in the user's cache that holds what was fetched; `None` where the home directory is not known.
pub fn cache_folder() -> Option<PathBuf> {
    Some(user_cache(env::consts::OS, |name| env::var_os(name))?.join("elenchus"))
}

/// Each platform's own place for what can be fetched again.
fn user_cache(os: &str, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // The XDG specification has relative paths ignored; they are ignored on other systems too.
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.has_root());
    match os {
        "windows" => absolute("LOCALAPPDATA"),
        "macos" => Some(absolute("HOME")?.join("Library/Caches")),
        _ => absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache"))),
    }
}

/// Whether a whole file lies there. One of another size is passed over with a warning: it is a broken copy.
pub fn has_size(path: &Path, expected: u64) -> bool {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() == expected => true,
        Ok(metadata) => {
            tracing::warn!("{} is passed over: it has {} bytes, not {expected}", path.display(), metadata.len());
            false
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_platform_has_its_cache() {
        let check = |os: &str, variables: &[(&str, &str)], expected: Option<&str>| {
            let variable =
                |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| OsString::from(value));
            assert_eq!(user_cache(os, variable), expected.map(PathBuf::from), "{os} {variables:?}");
        };
        check("linux", &[("HOME", "/home/plato"), ("XDG_CACHE_HOME", "/cache")], Some("/cache"));
        check("linux", &[("HOME", "/home/plato"), ("XDG_CACHE_HOME", "")], Some("/home/plato/.cache"));
        check("linux", &[("HOME", "/home/plato"), ("XDG_CACHE_HOME", "here")], Some("/home/plato/.cache"));
        check("linux", &[], None);
        check("macos", &[("HOME", "/Users/plato")], Some("/Users/plato/Library/Caches"));
        check("windows", &[("LOCALAPPDATA", "/local")], Some("/local"));
        check("windows", &[("HOME", "/home/plato")], None);
    }

    #[test]
    fn another_model_under_the_default_name_is_refused_when_it_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let check = |name: &str| {
            let path = folder.path().join(name);
            elenchus_lm::testing::TinyModel::default().write_gguf(&path);
            check_opened(&Weights::open(&path, &mut |_| {}).unwrap())
        };
        assert!(check("tiny.gguf").is_ok());
        let error = check(DEFAULT_FILE).unwrap_err().to_string();
        assert!(error.contains(DEFAULT_SHA256) && error.contains("delete it"), "{error}");
    }
}
