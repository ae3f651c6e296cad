//! Everything the program prints. `println!` panics when standard output is closed, as in `elenchus adapter inspect DIR
//! | head -1`, so nothing else here prints. Requested output ends the program quietly there; progress messages are
//! dropped and the work continues.

use std::{
    fmt,
    io::{self, ErrorKind, Write},
};

use anyhow::{Context, Result};

/// The reader of standard output has left, which is not a failure: there is nothing more to do.
#[derive(Debug)]
pub struct OutputClosed;

impl fmt::Display for OutputClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output is closed")
    }
}

impl std::error::Error for OutputClosed {}

/// Prints requested output.
///
/// # Errors
/// [`OutputClosed`], which ends the program with success; or what cannot be written, for example to a full disk.
pub fn print(text: &str) -> Result<()> {
    match write(&mut io::stdout().lock(), text) {
        Err(cause) if cause.kind() == ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        result => result.context("standard output"),
    }
}

/// Prints a message of running work; the reader may have left.
pub fn say(text: &str) {
    let _ = write(&mut io::stdout().lock(), text);
}

/// Prints a line on standard error; the reader may have left.
pub fn note(line: &str) {
    let _ = write(&mut io::stderr().lock(), &format!("{line}\n"));
}

fn write(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.flush()
}
