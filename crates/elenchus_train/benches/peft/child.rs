//! Each side runs in a process of its own and answers one line of JSON for each line it is told: so steps of the two can
//! alternate, and each one's memory is its own.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::Value;

use crate::Result;

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
