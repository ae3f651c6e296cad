//! Everything the program prints. `println!` panics where nobody reads on, as in `elenchus adapter inspect DIR | head -1`, so
//! nothing else here prints: what was asked for ends the program quietly there, and what is said beside a work goes
//! unheard while the work goes on.

use std::{
    fmt,
    io::{self, ErrorKind, Write},
};

use anyhow::{Context, Result};

/// Whoever read standard output has left, which is no failure: there is nothing more to do.
#[derive(Debug)]
pub struct NobodyReads;

impl fmt::Display for NobodyReads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads standard output any more")
    }
}

impl std::error::Error for NobodyReads {}

/// Prints what was asked for.
///
/// # Errors
/// [`NobodyReads`], which ends the program with success; or what cannot be written, to a full disk for one.
pub fn print(text: &str) -> Result<()> {
    match write(&mut io::stdout().lock(), text) {
        Err(cause) if cause.kind() == ErrorKind::BrokenPipe => Err(NobodyReads.into()),
        result => result.context("standard output"),
    }
}

/// Tells somebody who may have left of a work that goes on.
pub fn say(text: &str) {
    let _ = write(&mut io::stdout().lock(), text);
}

/// A line on standard error, which may have nobody who reads it.
pub fn note(line: &str) {
    let _ = write(&mut io::stderr().lock(), &format!("{line}\n"));
}

fn write(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.flush()
}
