//! Answers that were paid for are kept, so that a run that was killed does not pay twice.
//!
//! What is kept is what the model said and what it took, not the number that was made of it: another reader needs no new
//! calls. A file of JSON Lines only grows; each line is one locked write at its end, which a kill of the process survives
//! (a loss of power may take the newest lines) and which other processes may do as well.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::cost::Cost;
use crate::{Error, Result};

/// What a model said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub words: String,
    /// Why it ended, in the server's word: `length` where it was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// What it took, failed requests included.
    pub cost: Cost,
}

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    #[serde(flatten)]
    answer: Answer,
}

/// Answers by the hash of what was asked.
pub(super) struct Answers {
    by_key: HashMap<String, Answer>,
    file: Option<(PathBuf, File)>,
    /// What the answers that were there already took.
    pub spent_before: Cost,
    /// Lines that hold no answer and were passed over.
    pub broken_lines: u64,
}

impl Answer {
    pub(crate) fn is_truncated(&self) -> bool {
        self.finish_reason.as_deref() == Some("length")
    }
}

impl Answers {
    /// Reads a chat model's answers, cutting off a last line that was not written to its end.
    pub(super) fn open(folder: Option<&Path>, name: &str) -> Result<Self> {
        let mut answers = Self { by_key: HashMap::new(), file: None, spent_before: Cost::default(), broken_lines: 0 };
        let Some(folder) = folder else { return Ok(answers) };
        let path = folder.join(file_name(name));
        let fail = |cause| Error::File { file: path.clone(), cause, hint: "" };
        fs::create_dir_all(folder).map_err(|cause| Error::File { file: folder.to_owned(), cause, hint: "" })?;
        // Not opened to append: Windows cuts no file that is. A writer holds the lock and seeks to the end first.
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(false).read(true).write(true).open(&path).map_err(fail)?;
        let bytes = locked(&mut file, whole_lines).map_err(fail)?;
        for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice::<Line>(line) {
                Ok(Line { key, answer }) => {
                    answers.spent_before += answer.cost;
                    answers.by_key.insert(key, answer);
                }
                Err(_) => answers.broken_lines += 1,
            }
        }
        answers.file = Some((path, file));
        Ok(answers)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Answer> {
        self.by_key.get(key)
    }

    pub(super) fn keep(&mut self, key: &str, answer: Answer) -> Result<()> {
        let line = Line { key: key.to_owned(), answer };
        if let Some((path, file)) = &mut self.file {
            let append = |cause| Error::File { file: path.clone(), cause, hint: " (hint: is the disk full?)" };
            let text = serde_json::to_string(&line).map_err(|error| append(error.into()))?;
            locked(file, |file| append_line(file, &text)).map_err(append)?;
        }
        self.by_key.insert(line.key, line.answer);
        Ok(())
    }
}

/// A name that every file system takes.
fn file_name(chat: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    format!("{}.jsonl", chat.trim().chars().map(plain).collect::<String>())
}

fn locked<T>(file: &mut File, work: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
    file.lock()?;
    let done = work(file);
    file.unlock()?;
    done
}

/// Everything up to the last line's end; what stands after it is cut off. No other process writes meanwhile.
fn whole_lines(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    if end < bytes.len() {
        file.set_len(end as u64)?;
        bytes.truncate(end);
    }
    Ok(bytes)
}

/// Another process may have been killed in mid-line since this one opened the file.
fn append_line(file: &mut File, line: &str) -> io::Result<()> {
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    let start = if last == [b'\n'] { "" } else { "\n" };
    file.write_all(format!("{start}{line}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(words: &str) -> Answer {
        let cost = Cost { calls: 2, prompt_tokens: 30, completion_tokens: 4 };
        Answer { words: words.to_owned(), finish_reason: Some("stop".into()), cost }
    }

    #[test]
    fn a_torn_line_is_cut_off_and_a_broken_one_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in-role-.jsonl");
        let open = || Answers::open(Some(folder.path()), "In Role?").unwrap();
        let mut answers = open();
        answers.keep("one", answer("Good.\nYes. \u{2028} ἀρετή")).unwrap();
        answers.keep("two", answer("Bad.")).unwrap();
        let whole = fs::read(&path).unwrap();
        for torn in [&b"{\"key\":\"three\",\"wor"[..], b"{", b"\xff\xfe"] {
            fs::write(&path, [&whole[..], torn].concat()).unwrap();
            let answers = open();
            assert_eq!(fs::read(&path).unwrap(), whole, "{torn:?}");
            assert_eq!(answers.get("one"), Some(&answer("Good.\nYes. \u{2028} ἀρετή")));
            assert_eq!((answers.get("three"), answers.broken_lines), (None, 0));
            assert_eq!(answers.spent_before, Cost { calls: 4, prompt_tokens: 60, completion_tokens: 8 });
        }
        fs::write(&path, [b"\xff{}\n", &whole[..]].concat()).unwrap();
        let answers = open();
        assert_eq!((answers.broken_lines, answers.get("two")), (1, Some(&answer("Bad."))));
    }

    #[test]
    fn a_line_torn_by_another_process_harms_no_line_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut ours = Answers::open(Some(folder.path()), "chat").unwrap();
        let path = folder.path().join("chat.jsonl");
        fs::write(&path, "{\"key\":\"torn").unwrap();
        ours.keep("one", answer("Good.")).unwrap();
        let answers = Answers::open(Some(folder.path()), "chat").unwrap();
        assert_eq!((answers.get("one"), answers.broken_lines), (Some(&answer("Good.")), 1));
    }

    #[test]
    fn many_writers_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                scope.spawn(move || {
                    // Each opens the file for itself, as another process would.
                    let mut answers = Answers::open(Some(folder), "chat").unwrap();
                    for line in 0..50 {
                        answers.keep(&format!("{writer} {line}"), answer(&"words ".repeat(2000))).unwrap();
                    }
                });
            }
        });
        let answers = Answers::open(Some(folder), "chat").unwrap();
        assert_eq!((answers.by_key.len(), answers.broken_lines), (200, 0));
    }
}
