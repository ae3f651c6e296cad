//! A player asks what nobody asks in the texts: good day, what do you sell, who are you. Such lines are written by hand
//! and answered by real replies of the character, so that a player's question is not foreign to it.
//!
//! A reply is named by its hash where it is somebody else's text: a file of player lines then holds nothing but its
//! writer's words, and a text that changed is noticed.

use std::{collections::BTreeMap, path::Path};

use elenchus_dialogue::Turn;
use elenchus_lm::hex;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Pair, STRANGER, turns::unpacked};
use crate::{BrokenLine, Error, Result};

/// The work of pairs whose replies are written in a file of player lines.
pub(crate) const PLAYER_LINES: &str = "player lines";

/// Digits that name a reply, at least: 48 bits tell apart more replies than anybody has spoken.
const MIN_DIGITS: usize = 12;

/// One line of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlayerLine {
    /// Turns before the line, oldest first.
    #[serde(default)]
    context: Vec<Turn>,
    #[serde(default)]
    facts: Vec<String>,
    #[serde(default)]
    notes: Vec<String>,
    line: String,
    speaker: Option<String>,
    work: Option<String>,
    reply_sha256: Option<String>,
    reply: Option<String>,
}

/// Reads a file of player lines and answers each from `pairs`, or by the file's own words.
///
/// The file is JSON Lines of two forms: `{"line", "work", "reply_sha256"}` is answered by the reply of that work whose
/// [`reply_sha256`] begins with these digits, at least 12, and `{"line", "reply"}` by what it says; the latter's work is
/// `PLAYER_LINES`. A field `speaker` says who speaks the line, `Stranger` if left out; `facts` is what the game has told
/// the character, a list of sentences, `notes` what it was told for this reply alone, and `context` what was said before, a
/// list of `{"speaker", "text"}`. Gzip is read too.
///
/// # Errors
/// The file cannot be read or is empty, a line that is none of the two forms, or one whose reply is not among `pairs`.
pub fn player_lines(file: &Path, pairs: &[Pair]) -> Result<Vec<Pair>> {
    let bytes = unpacked(file)?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut replies = Replies::new();
    for pair in pairs {
        replies.entry(&pair.work).or_default().insert(reply_sha256(&pair.reply), &pair.reply);
    }
    let broken = |line, reason| Error::BrokenLine(BrokenLine { file: file.to_owned(), line, reason });
    let mut answered = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if !line.trim_ascii().is_empty() {
            answered.push(answer(line, &replies).map_err(|reason| broken(index + 1, reason))?);
        }
    }
    if answered.is_empty() {
        return Err(broken(1, "there is nothing here (hint: was it saved or fetched whole?)".to_owned()));
    }
    Ok(answered)
}

/// The lines of such a file whose replies are written in it.
///
/// # Errors
/// As [`player_lines`].
pub(crate) fn written_player_lines(file: &Path) -> Result<Vec<Pair>> {
    let bytes = unpacked(file)?;
    let mut pairs = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let broken = |reason| Error::BrokenLine(BrokenLine { file: file.to_owned(), line: index + 1, reason });
        let line = line.trim_ascii();
        let is_written = serde_json::from_slice::<PlayerLine>(line).is_ok_and(|line| line.reply.is_some());
        if is_written {
            pairs.push(answer(line, &Replies::new()).map_err(broken)?);
        }
    }
    Ok(pairs)
}

/// The SHA-256 of a reply's words joined by single spaces, in hexadecimal: how a text's lines are broken changes nothing.
pub fn reply_sha256(reply: &str) -> String {
    hex(&Sha256::digest(reply.split_whitespace().collect::<Vec<_>>().join(" ")))
}

/// Replies by work and hash.
type Replies<'a> = BTreeMap<&'a str, BTreeMap<String, &'a str>>;

fn answer(line: &[u8], replies: &Replies) -> Result<Pair, String> {
    const FORMS: &str = "hint: {\"line\", \"work\", \"reply_sha256\"} or {\"line\", \"reply\"}";
    let PlayerLine { mut context, facts, notes, line, speaker, work, reply_sha256, reply } =
        serde_json::from_slice(line).map_err(|error| format!("{error} ({FORMS})"))?;
    let filled = |field: &str, text: String| match text.trim() {
        "" => Err(format!("field `{field}` is empty")),
        text => Ok(text.to_owned()),
    };
    let (work, reply) = match (reply_sha256, reply, work) {
        (Some(digits), None, Some(work)) => (work.clone(), find(replies, &work, &digits)?.to_owned()),
        (Some(_), None, None) => return Err("`reply_sha256` needs the `work` that the reply is from".to_owned()),
        (None, Some(reply), None) => (PLAYER_LINES.to_owned(), filled("reply", reply)?),
        (None, Some(_), Some(_)) => {
            return Err("has `work` and `reply`, but own words are of no work (hint: leave `work` out)".to_owned());
        }
        (Some(_), Some(_), _) => return Err(format!("has both `reply` and `reply_sha256` ({FORMS})")),
        (None, None, _) => return Err(format!("has neither `reply` nor `reply_sha256` ({FORMS})")),
    };
    let speaker = speaker.map_or(Ok(STRANGER.to_owned()), |speaker| filled("speaker", speaker))?;
    for (at, turn) in context.iter().enumerate() {
        filled(&format!("context[{at}].speaker"), turn.speaker.clone())?;
        filled(&format!("context[{at}].text"), turn.text.clone())?;
    }
    for (field, told) in [("facts", &facts), ("notes", &notes)] {
        for (at, text) in told.iter().enumerate() {
            filled(&format!("{field}[{at}]"), text.clone())?;
        }
    }
    context.push(Turn { speaker, text: filled("line", line)? });
    Ok(Pair { work, context, facts, notes, reply, confidence: 1.0 })
}

/// The one reply of a work whose hash begins with these digits.
fn find<'a>(replies: &Replies<'a>, work: &str, digits: &str) -> Result<&'a str, String> {
    let digits = digits.trim().to_lowercase();
    if digits.len() < MIN_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!(
            "`reply_sha256` is `{digits}`, expected at least {MIN_DIGITS} hexadecimal digits (hint: `elenchus data inspect --json` prints them)"
        ));
    }
    let Some(of_work) = replies.get(work) else {
        let known = replies.keys().copied().collect::<Vec<_>>().join(", ");
        return Err(format!(
            "no pairs to train on are of the work `{work}`; there are {known} (hint: is it held out or left out?)"
        ));
    };
    let mut found = of_work.range(digits.clone()..).take_while(|(hash, _)| hash.starts_with(&digits));
    match (found.next(), found.next()) {
        (Some((_, reply)), None) => Ok(reply),
        (Some((first, _)), Some((second, _))) => {
            Err(format!("two replies of {work} begin with {digits}: {first} and {second} (hint: give more digits)"))
        }
        (None, _) => Err(format!(
            "no reply of {work} has the hash {digits} (hint: the texts or the filters changed; `elenchus data inspect --json` prints the hashes as they are)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(text: &str, pairs: &[Pair]) -> Result<Vec<Pair>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("player.jsonl");
        fs::write(&file, text).unwrap();
        player_lines(&file, pairs)
    }

    fn pair(work: &str, reply: &str) -> Pair {
        let context = vec![Turn { speaker: "Anna".into(), text: "Is it deep?".into() }];
        Pair { work: work.into(), context, reply: reply.into(), facts: Vec::new(), notes: Vec::new(), confidence: 0.9 }
    }

    // python3 -c 'import hashlib; print(hashlib.sha256("It is deep, they say.".encode()).hexdigest())'
    const HASH: &str = "d8c1c6daa05ef7f0618f1fa0faa130c8b680d306883a2e0a780350aa40f969cb";

    fn pairs() -> [Pair; 3] {
        // The same words twice are one reply.
        [pair("Well", "It is deep,\n they say."), pair("Well", "It is deep, they say."), pair("Sea", "Who knows?")]
    }

    #[test]
    fn a_reply_is_named_by_its_words() {
        assert_eq!(reply_sha256("It is deep, they say."), HASH);
        assert_eq!(reply_sha256("  It is\r\ndeep,  they say.\n"), HASH);
        assert_ne!(reply_sha256("It is deep they say."), HASH);
    }

    #[test]
    fn lines_are_answered_in_order() {
        let text = format!(
            "{{\"line\": \" Good day. \", \"work\": \"Well\", \"reply_sha256\": \"{}\"}}\n\n{{\"line\": \"Who?\", \"speaker\": \"Eva\", \"reply\": \"Ben.\"}}\r\n",
            &HASH[..12]
        );
        let found = read(&text, &pairs()).unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|pair| (&*pair.work, &*pair.context[0].speaker, &*pair.context[0].text, &*pair.reply))
            .collect();
        let well = ("Well", "Stranger", "Good day.", "It is deep, they say.");
        assert_eq!(shown, [well, (PLAYER_LINES, "Eva", "Who?", "Ben.")]);
        assert!(found.iter().all(|pair| pair.context.len() == 1 && pair.confidence == 1.0));
    }

    #[test]
    fn what_cannot_be_answered_is_named() {
        fn check(line: &str, expected: &str) {
            let text = format!("{{\"line\": \"a\", \"reply\": \"b\"}}\n{line}\n");
            let error = read(&text, &pairs()).unwrap_err().to_string();
            assert!(error.contains("player.jsonl:2: ") && error.contains(expected), "{line}: {error}");
        }
        let by_hash = |work: &str, digits: &str| {
            format!("{{\"line\": \"a\", \"work\": \"{work}\", \"reply_sha256\": \"{digits}\"}}")
        };
        check(&by_hash("Well", "000000000000"), "the texts or the filters changed");
        check(&by_hash("Sea", &HASH[..12]), "no reply of Sea has the hash");
        check(&by_hash("Lake", &HASH[..12]), "there are Sea, Well (hint: is it held out");
        check(&by_hash("Well", &HASH[..11]), "at least 12 hexadecimal digits");
        check(&by_hash("Well", "not a hash at all"), "at least 12 hexadecimal digits");
        check("{\"line\": \"a\", \"reply_sha256\": \"000000000000\"}", "needs the `work`");
        check("{\"line\": \"a\"}", "neither `reply` nor `reply_sha256`");
        check("{\"line\": \"a\", \"reply\": \"b\", \"work\": \"Well\"}", "leave `work` out");
        check("{\"line\": \"a\", \"reply\": \"b\", \"reply_sha256\": \"0\"}", "both `reply` and `reply_sha256`");
        check("{\"line\": \" \", \"reply\": \"b\"}", "field `line` is empty");
        check("{\"line\": \"a\", \"reply\": \"\"}", "field `reply` is empty");
        check("{\"line\": \"a\", \"reply\": \"b\", \"speaker\": \"\"}", "field `speaker` is empty");
        check("{\"line\": \"a\", \"reply\": \"b\", \"answer\": \"c\"}", "unknown field `answer`");
        check("{\"reply\": \"b\"}", "missing field `line`");
        check("{\"line\":", "EOF");
    }

    #[test]
    fn an_empty_file_is_no_file_of_player_lines() {
        let error = read("\n", &pairs()).unwrap_err().to_string();
        assert!(error.contains("player.jsonl:1: there is nothing here"), "{error}");
    }

    #[test]
    fn digits_that_begin_two_replies_name_neither() {
        let digits = "0123456789ab";
        let of_work = [("0", "a"), ("1", "b")].map(|(last, reply)| (format!("{digits}{last}"), reply));
        let replies = Replies::from([("Well", BTreeMap::from(of_work))]);
        let error = find(&replies, "Well", digits).unwrap_err();
        assert!(error.contains("0123456789ab0 and 0123456789ab1") && error.contains("more digits"), "{error}");
        assert_eq!(find(&replies, "Well", "0123456789AB1"), Ok("b"));
    }
}
