//! One HTTP request, by the `curl` that every desktop system has: no HTTP client and no cryptography of our own.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use crate::{KillOnDrop, POLL};

/// Seconds without a byte after which a transfer counts as cut.
const STALL_SECONDS: &str = "60";
const CONNECT_SECONDS: &str = "30";

/// curl's exit codes. Source: <https://curl.se/libcurl/c/libcurl-errors.html>.
mod exit {
    pub const HTTP_ERROR: i32 = 22;
    pub const NO_RANGES: i32 = 33;
    /// No name, no connection, no TLS: there is no network, or no server at the address.
    pub const UNREACHABLE: [i32; 4] = [5, 6, 7, 35];
    /// Cut, stalled, or a broken stream.
    pub const INTERRUPTED: [i32; 7] = [16, 18, 28, 52, 55, 56, 92];
}

/// How a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// curl could not be started.
    NoCurl(io::Error),
    /// No answer, in curl's words.
    Unreachable(String),
    /// The connection was cut after some bytes, in curl's words.
    Interrupted(String),
    /// The server does not send the rest of a file.
    NoRanges,
    /// The server refused, with its status and its reason where it names one.
    Status(u16, Option<String>),
    /// Anything else, in curl's words.
    Other(String),
    /// A file of this machine.
    File(elenchus_lm::Error),
}

/// The answer to a request for headers.
#[derive(Debug)]
pub(super) struct Head {
    pub status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    /// A header's value, by its name in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    fn parse(text: &str) -> Self {
        let headers = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        });
        let status = text.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, headers: headers.collect() }
    }
}

/// The headers of one address, redirections not followed.
pub(super) fn head(url: &str, token: Option<&str>) -> Result<Head, Failure> {
    let headers = tempfile::NamedTempFile::new().map_err(|source| file_error(Path::new("a temporary file"), source))?;
    let mut command = curl();
    command.arg("--head").arg("--output").arg(headers.path()).arg("--url").arg(url);
    let output = run(command, token, &mut || ())?;
    if output.code != 0 {
        return Err(output.failure(None));
    }
    let text = fs::read(headers.path()).map_err(|source| file_error(headers.path(), source))?;
    Ok(Head::parse(&String::from_utf8_lossy(&text)))
}

/// Writes the body of an address, of at most so many bytes, to a file, redirections followed; a file that is there is
/// continued. `running` is called now and then.
pub(super) fn get(
    url: &str,
    token: Option<&str>,
    to: &Path,
    most: u64,
    running: &mut dyn FnMut(),
) -> Result<(), Failure> {
    let headers = tempfile::NamedTempFile::new().map_err(|source| file_error(Path::new("a temporary file"), source))?;
    let mut command = curl();
    command.args(["--location", "--fail", "--continue-at", "-", "--max-filesize"]).arg(most.to_string());
    command.arg("--dump-header").arg(headers.path());
    command.arg("--output").arg(to).arg("--url").arg(url);
    let output = run(command, token, running)?;
    match output.code {
        0 => Ok(()),
        _ => {
            let text = fs::read(headers.path()).unwrap_or_default();
            Err(output.failure(Some(&String::from_utf8_lossy(&text))))
        }
    }
}

fn curl() -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--globoff", "--proto", "-all,http,https"]);
    command.args(["--connect-timeout", CONNECT_SECONDS, "--speed-limit", "1", "--speed-time", STALL_SECONDS]);
    command
}

struct Output {
    code: i32,
    words: String,
}

impl Output {
    fn failure(self, headers: Option<&str>) -> Failure {
        let words = if self.words.is_empty() { format!("curl: exit code {}", self.code) } else { self.words };
        match self.code {
            exit::HTTP_ERROR => {
                // Those of the last answer; redirections have theirs before.
                let last = headers.unwrap_or_default().trim_end().rsplit("\r\n\r\n").next().unwrap_or_default();
                let head = Head::parse(last);
                Failure::Status(head.status, head.get("x-error-message").map(ToOwned::to_owned))
            }
            exit::NO_RANGES => Failure::NoRanges,
            code if exit::UNREACHABLE.contains(&code) => Failure::Unreachable(words),
            code if exit::INTERRUPTED.contains(&code) => Failure::Interrupted(words),
            _ => Failure::Other(words),
        }
    }
}

/// Runs curl to its end. The token goes through its standard input: arguments can be read by everybody on the machine.
fn run(mut command: Command, token: Option<&str>, running: &mut dyn FnMut()) -> Result<Output, Failure> {
    let words_file =
        tempfile::NamedTempFile::new().map_err(|source| file_error(Path::new("a temporary file"), source))?;
    let stderr = File::create(words_file.path()).map_err(|source| file_error(words_file.path(), source))?;
    command.stdout(Stdio::null()).stderr(stderr);
    command.stdin(if token.is_some() { Stdio::piped() } else { Stdio::null() });
    if token.is_some() {
        command.args(["--config", "-"]);
    }
    let mut child = KillOnDrop(command.spawn().map_err(Failure::NoCurl)?);
    if let Some(token) = token {
        send_token(&mut child.0, token).map_err(|source| file_error(Path::new("curl's standard input"), source))?;
    }
    let status = loop {
        match child.0.try_wait().map_err(|source| file_error(Path::new("curl"), source))? {
            Some(status) => break status,
            None => {
                running();
                thread::sleep(POLL);
            }
        }
    };
    let words = fs::read(words_file.path()).unwrap_or_default();
    let words = String::from_utf8_lossy(&words).trim().to_owned();
    // No code: killed by a signal.
    Ok(Output { code: status.code().unwrap_or(-1), words })
}

fn send_token(child: &mut Child, token: &str) -> io::Result<()> {
    let mut stdin = child.stdin.take().expect("it is piped");
    writeln!(stdin, "header = \"Authorization: Bearer {token}\"")
}

fn file_error(path: &Path, source: io::Error) -> Failure {
    Failure::File(elenchus_lm::Error::io(path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_from_the_last_answer() {
        let headers = "HTTP/1.1 302 Found\r\nlocation: /x\r\n\r\nHTTP/2 403\r\nX-Error-Message: ask the owner\r\n\r\n";
        let output = Output { code: exit::HTTP_ERROR, words: String::new() };
        let Failure::Status(status, reason) = output.failure(Some(headers)) else { panic!("not a status") };
        assert_eq!((status, reason.as_deref()), (403, Some("ask the owner")));
        let head = Head::parse("HTTP/1.1 200 OK\r\nETag: \"a\"\r\nX-Linked-Size: 7\r\n");
        assert_eq!((head.status, head.get("etag"), head.get("x-linked-size")), (200, Some("\"a\""), Some("7")));
    }
}
