//! What benches beside a Python peer share. Each side runs in a process of its own and answers one line of JSON for each line it is told: so steps of the two can
//! alternate, and each one's memory is its own.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::Value;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The repository; cargo starts a bench in its crate's folder.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A side of the comparison.
pub struct Side {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Side {
    /// Starts it and waits for its first line.
    pub fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let stdin = child.stdin.take();
        let mut side = Self { name, child, stdin, stdout };
        side.answer()?;
        Ok(side)
    }

    /// Tells it a line, and hears its answer.
    pub fn ask(&mut self, order: &Value) -> Result<Value> {
        let stdin = self.stdin.as_mut().ok_or("no stdin")?;
        writeln!(stdin, "{order}")?;
        stdin.flush()?;
        self.answer()
    }

    /// Its highest resident memory so far, in GB.
    pub fn peak_gb(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        let kib: f64 = kib.ok_or("the system does not say a process's peak memory (hint: Linux does)")?;
        Ok(kib * 1024.0 / 1e9)
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Err(format!("{} ended early: {}", self.name, self.child.wait()?).into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Side {
    /// End of input ends it.
    fn drop(&mut self) {
        drop(self.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("{}: {error}", self.name);
        }
    }
}

/// The output of a command that must succeed; what it says on stderr is shown.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        let program = command.get_program().to_string_lossy().into_owned();
        let arguments: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        return Err(format!("{program} {} failed: {}", arguments.join(" "), output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// An allocator that keeps its memory, for a peer that otherwise faults it in again and again: its name, and the variables
/// that choose it.
pub fn allocator(python: &str) -> (String, Vec<(&'static str, String)>) {
    let fetched = Path::new(python).with_file_name("../tcmalloc/usr/lib");
    let system = ["/usr/lib", "/usr/lib64"].map(PathBuf::from);
    let names = ["libtcmalloc_minimal.so.4", "libtcmalloc.so.4", "libjemalloc.so.2"];
    let found = [fetched].into_iter().chain(system).find_map(|folder| {
        let multiarch = folder.join(format!("{}-linux-gnu", env::consts::ARCH));
        [multiarch, folder]
            .iter()
            .find_map(|folder| names.iter().map(|name| folder.join(name)).find_map(|file| fs::canonicalize(file).ok()))
    });
    match found {
        Some(file) => (file.display().to_string(), vec![("LD_PRELOAD", file.display().to_string())]),
        None => {
            // Memory is kept rather than handed back and faulted in again.
            let kept = 1u64 << 36;
            let settings = vec![
                ("MALLOC_ARENA_MAX", "1".to_owned()),
                ("MALLOC_TRIM_THRESHOLD_", kept.to_string()),
                ("MALLOC_MMAP_THRESHOLD_", kept.to_string()),
            ];
            ("the C library's, told to keep what it has (neither tcmalloc nor jemalloc is there)".to_owned(), settings)
        }
    }
}

/// Answers with a line.
pub fn say(answer: &Value) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{answer}")?;
    Ok(stdout.flush()?)
}

pub fn gate(what: &str, is_met: bool) {
    println!("  gate {}: {what}", if is_met { "met" } else { "NOT met" });
}

pub fn seconds(answer: &Value) -> Result<f64> {
    answer["seconds"].as_f64().ok_or_else(|| format!("no seconds in {answer}").into())
}

/// The middle one; the mean of the middle two where there is none.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[half],
        _ => (values[half - 1] + values[half]) / 2.0,
    }
}
