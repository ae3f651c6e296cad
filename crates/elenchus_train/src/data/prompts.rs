//! What is said to a character, without what it replied: where a policy's responses begin. And the same with replies that
//! were written beforehand, for learning from both.

use std::{num::NonZeroUsize, path::Path};

use elenchus_dialogue::{Character, Turn};
use serde::{Deserialize, de::DeserializeOwned};

use super::{OnBroken, Pair, turns::unpacked};
use crate::{BrokenLine, Error, Result};

/// Who says a line that does not say it.
pub const STRANGER: &str = "Stranger";

/// One line of a file; other fields are somebody else's business, so that pairs and player lines are prompts as they are.
#[derive(Deserialize)]
struct PromptLine {
    context: Option<Vec<Turn>>,
    #[serde(alias = "prompt", alias = "question")]
    line: Option<String>,
    #[serde(alias = "asker")]
    speaker: Option<String>,
    reply: Option<String>,
}

const FORMS: &str = "hint: {\"context\": [{\"speaker\", \"text\"}]}, {\"line\"}, {\"prompt\"} or {\"question\"}";

/// Reads JSON Lines of prompts: `{"context": [{"speaker", "text"}, ..]}` with the newest turn last, or `{"line"}`,
/// `{"prompt"}` or `{"question"}` of one turn, said by `speaker` (or `asker`) or a stranger. At most `context` turns are
/// kept; the character's own before anybody else's are left out, as the game leaves them out. Gzip is read too.
///
/// # Errors
/// The file cannot be read or is empty, a line of another form, or one that ends with the character's own words.
pub fn read_prompts(file: &Path, character: &Character, context: NonZeroUsize) -> Result<Vec<Vec<Turn>>> {
    json_lines(file, FORMS, |line| turns(line, character, context))
}

/// Reads the same with a `reply` each. Its work is [`WRITTEN`].
pub(crate) fn read_written(file: &Path, character: &Character, context: NonZeroUsize) -> Result<Vec<Pair>> {
    json_lines(file, FORMS, |mut line: PromptLine| {
        let reply = line.reply.take().filter(|reply| !reply.trim().is_empty());
        let reply = reply.ok_or("has no `reply`")?.trim().to_owned();
        Ok(Pair::new(WRITTEN, turns(line, character, context)?, reply))
    })
}

/// The work of pairs that were written beforehand.
pub(crate) const WRITTEN: &str = "written beforehand";

/// Reads JSON Lines, plain or in gzip, line by line; `forms` is what a line may look like, for errors.
pub(crate) fn json_lines<L: DeserializeOwned, T>(
    file: &Path,
    forms: &str,
    of: impl Fn(L) -> Result<T, String>,
) -> Result<Vec<T>> {
    Ok(json_lines_or_broken(file, forms, OnBroken::Stop, of)?.0)
}

/// The same, with the lines that were left out where a run continues after them.
pub(crate) fn json_lines_or_broken<L: DeserializeOwned, T>(
    file: &Path,
    forms: &str,
    on_broken: OnBroken,
    of: impl Fn(L) -> Result<T, String>,
) -> Result<(Vec<T>, Vec<BrokenLine>)> {
    let bytes = unpacked(file)?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let broken = |line, reason| BrokenLine { file: file.to_owned(), line, reason };
    let (mut read, mut left_out) = (Vec::new(), Vec::new());
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if !line.trim_ascii().is_empty() {
            let line = serde_json::from_slice(line).map_err(|error| format!("{error} ({forms})"));
            match line.and_then(&of) {
                Ok(line) => read.push(line),
                Err(reason) if on_broken == OnBroken::Skip => left_out.push(broken(index + 1, reason)),
                Err(reason) => return Err(Error::BrokenLine(broken(index + 1, reason))),
            }
        }
    }
    if read.is_empty() {
        let reason = "there is nothing here (hint: was it saved or fetched whole?)".to_owned();
        return Err(Error::BrokenLine(left_out.into_iter().next().unwrap_or_else(|| broken(1, reason))));
    }
    Ok((read, left_out))
}

fn turns(line: PromptLine, character: &Character, most: NonZeroUsize) -> Result<Vec<Turn>, String> {
    let turns = match (line.context, line.line) {
        (Some(context), None) => context,
        (None, Some(text)) => {
            vec![Turn { speaker: line.speaker.unwrap_or_else(|| STRANGER.to_owned()), text }]
        }
        (Some(_), Some(_)) => return Err(format!("has both `context` and a line of its own ({FORMS})")),
        (None, None) => return Err(format!("has nothing that is said to the character ({FORMS})")),
    };
    newest_turns(&turns, character, most)
}

/// The newest turns of what was said to a character, as the game would show them to the model.
pub(crate) fn newest_turns(turns: &[Turn], character: &Character, most: NonZeroUsize) -> Result<Vec<Turn>, String> {
    let newest = turns.last().ok_or("`context` is empty")?;
    if newest.text.trim().is_empty() {
        return Err("says nothing".to_owned());
    }
    if character.is_named(&newest.speaker) {
        return Err(format!("ends with {}'s own words (hint: leave the reply out)", character.name));
    }
    let kept = &turns[turns.len().saturating_sub(most.get())..];
    Ok(kept.iter().skip_while(|turn| character.is_named(&turn.speaker)).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_others_are_named() {
        let text = "version = 1\nname = \"Meno\"\npersona = \"You are Meno.\"\nfallbacks = [\"Hm.\"]";
        let character = Character::parse(text, "test").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prompts.jsonl");
        let read = |text: &str, context: usize| {
            std::fs::write(&file, text).unwrap();
            let prompts = read_prompts(&file, &character, NonZeroUsize::new(context).unwrap());
            prompts.map(|prompts| {
                let shown = |turn: &Turn| format!("{}: {}", turn.speaker, turn.text);
                prompts.iter().map(|turns| turns.iter().map(shown).collect::<Vec<_>>().join(" | ")).collect::<Vec<_>>()
            })
        };
        let turns = r#"{"context": [{"speaker": "A", "text": "a"}, {"speaker": "Meno", "text": "m"}, {"speaker": "B", "text": "b"}], "reply": "r"}"#;
        let lines = format!(
            "{turns}\n\n{{\"line\": \"Hail.\", \"work\": \"x\"}}\n{{\"prompt\": \"Hi.\", \"speaker\": \"C\"}}\n"
        );
        assert_eq!(read(&lines, 4).unwrap(), ["A: a | Meno: m | B: b", "Stranger: Hail.", "C: Hi."]);
        assert_eq!(read(turns, 2).unwrap(), ["B: b"]);
        std::fs::write(&file, r#"{"asker": "A", "question": "Why?", "reply": " So. "}"#).unwrap();
        let written = read_written(&file, &character, NonZeroUsize::MIN).unwrap().remove(0);
        assert_eq!((written.context[0].speaker.as_str(), written.reply.as_str()), ("A", "So."));
        std::fs::write(&file, r#"{"question": "Why?"}"#).unwrap();
        let error = read_written(&file, &character, NonZeroUsize::MIN).unwrap_err().to_string();
        assert!(error.contains("has no `reply`"), "{error}");
        for (line, says) in [
            ("{}", "nothing that is said"),
            (r#"{"line": "a", "context": []}"#, "has both"),
            (r#"{"context": []}"#, "is empty"),
            (r#"{"line": " "}"#, "says nothing"),
            (r#"{"context": [{"speaker": "meno", "text": "m"}]}"#, "own words"),
            ("{", "hint"),
            ("", "nothing here"),
        ] {
            let error = read(line, 4).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("prompts.jsonl:1"), "{line}: {error}");
        }
    }
}
