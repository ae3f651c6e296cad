//! Project Gutenberg's site is made for people, so works are asked for one after the other with a pause between them, and
//! only once: what is on disk is not asked for again, and what is no whole work never gets there.

use std::{
    error::Error as _,
    fs,
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, Read},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use elenchus_lm::write_whole;
use reqwest::{
    StatusCode, Url,
    blocking::{Client, Response},
    header::{ACCEPT_ENCODING, RETRY_AFTER},
};

use super::{plain_text::is_whole_gutenberg, turns::unzipped};
use crate::{Error, Result};

/// No work has more bytes than this.
const MAX_BYTES: u64 = 64 << 20;

const USER_AGENT: &str = concat!("elenchus/", env!("CARGO_PKG_VERSION"), " (single works by number, with pauses)");

/// Where works are downloaded from, and how patiently.
#[derive(Debug, Clone, PartialEq)]
pub struct Gutenberg {
    /// The site, or a mirror laid out like it, over http or https.
    pub mirror: String,
    /// How often a work is asked for before giving up.
    pub attempts: u32,
    /// How long the server may keep silent.
    pub timeout: Duration,
    /// The wait before the second attempt; it doubles with each further one, and a random part of up to half is taken off.
    pub backoff: Duration,
    /// No wait is longer. A server that asks for a longer one is not asked again.
    pub longest_wait: Duration,
    /// The pause between two works.
    pub pause: Duration,
}

impl Default for Gutenberg {
    fn default() -> Self {
        Self {
            mirror: "https://www.gutenberg.org".to_owned(),
            attempts: 5,
            timeout: Duration::from_secs(30),
            backoff: Duration::from_secs(1),
            longest_wait: Duration::from_secs(60),
            // What Project Gutenberg's own words for robots ask of wget.
            pause: Duration::from_secs(2),
        }
    }
}

/// What a download is doing.
#[derive(Debug, Clone, PartialEq)]
pub enum GutenbergEvent {
    /// The work was on disk and not asked for.
    Cached(PathBuf),
    /// The work is on disk now; its size in bytes.
    Fetched(PathBuf, usize),
    /// An attempt failed, and there will be another after this time.
    Waiting(Duration, String),
}

impl Gutenberg {
    /// Downloads works by number as `pgID.txt` in `folder`, which is made if missing, and returns the files in order.
    /// `force` asks for works that are on disk as well. Time-outs, broken connections, 408, 429 and 5xx are tried again.
    ///
    /// # Errors
    /// A mirror that is no URL, a work that is not there (404), that is refused, or that failed in every attempt, an answer
    /// without Project Gutenberg's start and end lines, and a file that cannot be written. Works before it stay on disk.
    pub fn fetch(
        &self,
        ids: &[u32],
        folder: &Path,
        force: bool,
        mut tell: impl FnMut(GutenbergEvent),
    ) -> Result<Vec<PathBuf>> {
        let of_mirror = |reason: String| Error::Download { what: format!("mirror `{}`", self.mirror), reason };
        let mirror = Url::parse(&self.mirror).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        if mirror.is_none() {
            return Err(of_mirror("is no http or https URL (hint: https://www.gutenberg.org)".to_owned()));
        }
        let client = Client::builder().user_agent(USER_AGENT).timeout(self.timeout).connect_timeout(self.timeout);
        let client = client.build().map_err(|error| {
            of_mirror(format!("no connection can be made: {} (hint: are CA certificates installed?)", causes(error)))
        })?;
        fs::create_dir_all(folder).map_err(|cause| Error::File { file: folder.to_owned(), cause, hint: "" })?;
        let mut files = Vec::with_capacity(ids.len());
        let mut asked = false;
        for id in ids {
            let file = folder.join(format!("pg{id}.txt"));
            if file.is_file() && !force {
                tell(GutenbergEvent::Cached(file.clone()));
            } else {
                if asked {
                    thread::sleep(self.pause);
                }
                asked = true;
                let text = self.work(&client, *id, &mut tell)?;
                write_whole(&file, &text).map_err(|cause| Error::File { file: file.clone(), cause, hint: "" })?;
                tell(GutenbergEvent::Fetched(file.clone(), text.len()));
            }
            files.push(file);
        }
        Ok(files)
    }

    /// A whole work from the first place that has it.
    fn work(&self, client: &Client, id: u32, tell: &mut impl FnMut(GutenbergEvent)) -> Result<Vec<u8>> {
        let mirror = self.mirror.trim_end_matches('/');
        let urls = [format!("{mirror}/cache/epub/{id}/pg{id}.txt"), format!("{mirror}/files/{id}/{id}-0.txt")];
        let fail = |reason| Error::Download { what: format!("work {id} of Project Gutenberg"), reason };
        for url in &urls {
            if let Some(text) = self.get(client, url, tell).map_err(|reason| fail(format!("{url} {reason}")))? {
                is_whole_gutenberg(&String::from_utf8_lossy(&text)).map_err(|reason| {
                    fail(format!("{url} answers with something else: {reason}; nothing was saved (hint: look at it in a browser, or try another mirror)"))
                })?;
                return Ok(text);
            }
        }
        let urls = urls.join(" and ");
        Err(fail(format!("404, not found at {urls} (hint: is the number right, and does it have plain text?)")))
    }

    /// What is there, if anything is; asks again where that may help.
    fn get(
        &self,
        client: &Client,
        url: &str,
        tell: &mut impl FnMut(GutenbergEvent),
    ) -> std::result::Result<Option<Vec<u8>>, String> {
        let mut attempt = 1;
        loop {
            let (reason, asked_for) = match ask(client, url) {
                Answer::Text(text) => return Ok(Some(text)),
                Answer::NotFound => return Ok(None),
                Answer::Refused(reason) => return Err(reason),
                Answer::Again(reason, asked_for) => (reason, asked_for),
            };
            if attempt >= self.attempts {
                return Err(format!("{reason}, {attempt} times (hint: try again later, or another mirror)"));
            }
            if let Some(longer) = asked_for.filter(|wait| *wait > self.longest_wait) {
                let seconds = longer.as_secs();
                return Err(format!("{reason} and asks to wait {seconds} s (hint: do, or try another mirror)"));
            }
            let wait = asked_for.unwrap_or_else(|| self.wait_after(attempt));
            tell(GutenbergEvent::Waiting(wait, format!("{url} {reason}")));
            thread::sleep(wait);
            attempt += 1;
        }
    }

    /// Twice the time after every attempt, less a random part: many clients that failed together do not return together.
    fn wait_after(&self, attempt: u32) -> Duration {
        let longest = self.backoff.saturating_mul(2_u32.saturating_pow(attempt - 1)).min(self.longest_wait);
        // The standard library's random keys are all the chance this needs.
        let random = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
        longest.mul_f64(1.0 - random / 2.0)
    }
}

/// What a server said.
enum Answer {
    Text(Vec<u8>),
    NotFound,
    Refused(String),
    /// Why it failed this time, and how long the server wants not to be asked.
    Again(String, Option<Duration>),
}

fn ask(client: &Client, url: &str) -> Answer {
    let response = match client.get(url).header(ACCEPT_ENCODING, "gzip").send() {
        Ok(response) => response,
        Err(error) if error.is_builder() || error.is_redirect() => return Answer::Refused(causes(error)),
        Err(error) => return Answer::Again(format!("does not answer: {}", causes(error)), None),
    };
    match response.status() {
        status if status.is_success() => match body(response) {
            Ok(text) => Answer::Text(text),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Answer::Refused(error.to_string()),
            Err(error) => Answer::Again(format!("broke off: {error}"), None),
        },
        StatusCode::NOT_FOUND | StatusCode::GONE => Answer::NotFound,
        status
            if status.is_server_error()
                || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) =>
        {
            // The other form, a date, is as good as none: the wait is then our own.
            let seconds =
                response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
            Answer::Again(format!("answers {status}"), seconds.map(Duration::from_secs))
        }
        status => Answer::Refused(format!("answers {status} (hint: look at it in a browser, or try another mirror)")),
    }
}

/// The whole body, unpacked.
fn body(response: Response) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    response.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        let reason = format!("has more than {} MB, which is no work", MAX_BYTES >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    unzipped(bytes)
}

/// An error with its causes, without the URL, which is named already.
fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
