//! Every kind of file becomes dialogues and pairs here, at the edge, so that later steps know no formats. What a file is
//! follows from what it holds, not from its name: gzip by its magic bytes, JSON Lines by a leading brace, else plain text.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use elenchus_dialogue::Turn;
use flate2::read::MultiGzDecoder;
use serde_json::{Map, Value};

use super::{
    plain_text,
    speakers::Speakers,
    texts::{Dialogue, OnBroken, Spoken, Texts, WrittenPair},
};
use crate::{BrokenLine, Error, Result};

/// A file with more text than this is no file of dialogue.
const MAX_BYTES: u64 = 1 << 30;

/// Reads files of any kind in order.
///
/// - Plain text with labels: `SOCRATES: What is it?`. Labels stand at a line's beginning in capitals; in a text where none
///   does, they are up to three capitalised words. Project Gutenberg's header and licence are left out.
/// - JSON Lines of turns, `{work, turns: [{speaker, text, conf}]}`, or of pairs, `{character, work, context: [{speaker,
///   text}], reply}` (`prev` is read as `context`) and `{asker, question, reply}`. `conf`, `character` and `work` may be
///   missing: a turn is then sure, a pair the asked character's, and the work has the file's name. A pair may carry
///   players' opinion of it, `vote`: with `up` it is a pair like any other, with `down` it is counted and left out. Other
///   fields are left alone.
/// - Any of them in gzip.
///
/// # Errors
/// A file that cannot be read, and a broken line unless told to skip it. A plain text without labels is broken as a whole.
pub fn read(files: &[impl AsRef<Path>], speakers: &Speakers, on_broken: OnBroken) -> Result<Texts> {
    let mut texts = Texts::default();
    for file in files {
        let file = file.as_ref();
        let mut add = |line: usize, record: Result<Record, String>| {
            match record {
                Ok(Record::Dialogue(dialogue)) => texts.dialogues.push(dialogue),
                Ok(Record::Pair(pair)) => texts.pairs.push(pair),
                Ok(Record::Disliked) => texts.disliked += 1,
                Err(reason) => {
                    let broken = BrokenLine { file: file.to_owned(), line, reason };
                    if on_broken == OnBroken::Stop {
                        return Err(Error::BrokenLine(broken));
                    }
                    texts.broken.push(broken);
                }
            }
            Ok(())
        };
        let bytes = unpacked(file)?;
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let stem = stem(file);
        match bytes.trim_ascii_start().first() {
            None => add(1, Err("there is nothing here (hint: was it saved or fetched whole?)".to_owned()))?,
            Some(b'{') => {
                for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
                    if !line.trim_ascii().is_empty() {
                        add(index + 1, record(line, &stem, speakers))?;
                    }
                }
            }
            Some(_) => {
                let (line, dialogue) = match std::str::from_utf8(bytes) {
                    Ok(text) => plain_text::parse(text, &stem, speakers),
                    Err(error) => {
                        let line = bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
                        (line, Err(NOT_UTF8.to_owned()))
                    }
                };
                add(line, dialogue.map(Record::Dialogue))?;
            }
        }
    }
    Ok(texts)
}

enum Record {
    Dialogue(Dialogue),
    Pair(WrittenPair),
    /// A pair that is no example to follow.
    Disliked,
}

const NOT_UTF8: &str = "is not UTF-8 (hint: `iconv -f latin1 -t utf-8` converts most older texts)";

pub(super) fn unpacked(file: &Path) -> Result<Vec<u8>> {
    let fail = |hint| move |cause| Error::File { file: PathBuf::from(file), cause, hint };
    let mut bytes = Vec::new();
    File::open(file).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(fail(""))?;
    let bytes = unzipped(bytes).map_err(fail(" (hint: the gzip file is cut or damaged; fetch it again)"))?;
    if bytes.len() as u64 > MAX_BYTES {
        let cause = io::Error::new(io::ErrorKind::FileTooLarge, "holds more than 1 GiB of text");
        return Err(fail(" (hint: split it)")(cause));
    }
    Ok(bytes)
}

/// What gzip holds, a byte more than [`MAX_BYTES`] at most; other bytes as they are.
pub(super) fn unzipped(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let mut text = Vec::new();
    MultiGzDecoder::new(bytes.as_slice()).take(MAX_BYTES + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// The file's name without any extension: `meno.txt.gz` is the work `meno`.
fn stem(file: &Path) -> String {
    let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
    name.split('.').find(|part| !part.is_empty()).unwrap_or(&name).to_owned()
}

/// One line of JSON Lines.
fn record(line: &[u8], stem: &str, speakers: &Speakers) -> Result<Record, String> {
    let line = std::str::from_utf8(line).map_err(|_| NOT_UTF8.to_owned())?;
    let fields: Map<String, Value> = serde_json::from_str(line)
        .map_err(|error| format!("is not a JSON object: {error} (hint: JSON Lines hold one whole object a line)"))?;
    let work = if fields.contains_key("work") { text(&fields, "work", "")? } else { stem.to_owned() };
    let name = |fields: &Map<String, Value>, field: &str, at: &str| match speakers.normalise(&text(fields, field, at)?)
    {
        name if name.is_empty() => Err(format!("field `{at}{field}` names nobody (hint: it needs letters)")),
        name => Ok(name),
    };
    let turns = |field: &str| {
        let list = fields.get(field).and_then(Value::as_array).filter(|list| !list.is_empty());
        let list = list.ok_or_else(|| format!("field `{field}` should be a list of turns, at least one"))?;
        let turns = list.iter().enumerate().map(|(index, turn)| {
            let at = format!("{field}[{index}].");
            let turn =
                turn.as_object().ok_or_else(|| format!("field `{field}[{index}]` should be {{speaker, text}}"))?;
            let confidence = match turn.get("conf") {
                None => 1.0,
                Some(conf) => conf.as_f64().filter(|conf| (0.0..=1.0).contains(conf)).ok_or_else(|| {
                    format!("field `{at}conf` is {conf} (hint: a number from 0 to 1, or leave it out)")
                })?,
            };
            let turn = Turn { speaker: name(turn, "speaker", &at)?, text: text(turn, "text", &at)? };
            Ok(Spoken { turn, confidence })
        });
        turns.collect::<Result<Vec<_>, String>>()
    };
    if fields.contains_key("turns") {
        return Ok(Record::Dialogue(Dialogue { work, turns: turns("turns")? }));
    }
    if !fields.contains_key("reply") {
        let held = fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(format!("has neither `turns` nor `reply`, but {held} (hint: it is no line of dialogue)"));
    }
    let context = if fields.contains_key("context") {
        turns("context")?
    } else if fields.contains_key("prev") {
        turns("prev")?
    } else if fields.contains_key("question") {
        let turn = Turn { speaker: name(&fields, "asker", "")?, text: text(&fields, "question", "")? };
        vec![Spoken { turn, confidence: 1.0 }]
    } else {
        return Err("has a `reply` but nothing it replies to (hint: `context`, `prev` or `question`)".to_owned());
    };
    let character = fields.contains_key("character").then(|| name(&fields, "character", "")).transpose()?;
    let pair = WrittenPair { work, character, context, reply: text(&fields, "reply", "")? };
    match fields.get("vote").map(|vote| vote.as_str()) {
        None | Some(Some("up")) => Ok(Record::Pair(pair)),
        Some(Some("down")) => Ok(Record::Disliked),
        Some(_) => Err("field `vote` should be \"up\" or \"down\"".to_owned()),
    }
}

/// A field's text, trimmed; `at` is where the fields lie, for errors.
fn text(fields: &Map<String, Value>, field: &str, at: &str) -> Result<String, String> {
    match fields.get(field) {
        None => Err(format!("field `{at}{field}` is missing")),
        Some(Value::String(text)) if text.trim().is_empty() => Err(format!("field `{at}{field}` is empty")),
        Some(Value::String(text)) => Ok(text.trim().to_owned()),
        Some(_) => Err(format!("field `{at}{field}` should be text in quotes")),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn read_bytes(name: &str, bytes: &[u8], on_broken: OnBroken) -> Result<Texts> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        fs::write(&file, bytes).unwrap();
        read(&[file], &Speakers::default(), on_broken)
    }

    /// A short form of what was read, to compare with.
    fn shown(texts: &Texts) -> String {
        let turns = |turns: &[Spoken]| {
            let shown = turns.iter().map(|Spoken { turn, confidence }| match confidence {
                1.0 => format!("{}: {}", turn.speaker, turn.text),
                _ => format!("{} ({confidence}): {}", turn.speaker, turn.text),
            });
            shown.collect::<Vec<_>>().join(" / ")
        };
        let dialogues = texts.dialogues.iter().map(|dialogue| format!("{}| {}", dialogue.work, turns(&dialogue.turns)));
        let pairs = texts.pairs.iter().map(|pair| {
            let character = pair.character.as_deref().unwrap_or("?");
            format!("{}| {} -> {character}: {}", pair.work, turns(&pair.context), pair.reply)
        });
        dialogues.chain(pairs).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_kind_of_line_is_read() {
        fn check(name: &str, text: &str, expected: &str) {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(text.as_bytes()).unwrap();
            let mut with_mark = b"\xef\xbb\xbf".to_vec();
            with_mark.extend(text.bytes());
            for bytes in [text.as_bytes().to_vec(), gzip.finish().unwrap(), with_mark] {
                assert_eq!(shown(&read_bytes(name, &bytes, OnBroken::Stop).unwrap()), expected);
            }
        }
        check("well.txt", "ANNA: Is it deep?\n\nBEN: It is.", "well| Anna: Is it deep? / Ben: It is.");
        check(
            "a.jsonl",
            "{\"work\": \"Well\", \"form\": 1, \"turns\": [{\"speaker\": \"ANNA\", \"text\": \" Deep? \", \"conf\": 0.5}]}\n\n",
            "Well| Anna (0.5): Deep?",
        );
        check(
            "a.jsonl",
            "{\"work\": \"Well\", \"context\": [{\"speaker\": \"ANNA\", \"text\": \"Deep?\"}], \"reply\": \"Yes.\"}\r\n",
            "Well| Anna: Deep? -> ?: Yes.",
        );
        check(
            "a.jsonl",
            "{\"character\": \"BEN\", \"work\": \"Well\", \"prev\": [{\"speaker\": \"ANNA\", \"text\": \"Deep?\"}], \"reply\": \"Yes.\"}",
            "Well| Anna: Deep? -> Ben: Yes.",
        );
        check(
            "lines.v2.jsonl",
            "{\"asker\": \"ANNA\", \"question\": \"Deep?\", \"reply\": \"Yes.\"}",
            "lines| Anna: Deep? -> ?: Yes.",
        );
    }

    #[test]
    fn a_broken_line_is_named_and_the_run_goes_on_if_told() {
        fn check(line: &str, expected: &str) {
            let good = "{\"asker\": \"A\", \"question\": \"b\", \"reply\": \"c\"}";
            let text = format!("{good}\n{line}\n{good}");
            let error = read_bytes("a.jsonl", text.as_bytes(), OnBroken::Stop).unwrap_err().to_string();
            assert!(error.contains("a.jsonl:2: ") && error.contains(expected), "{error}");
            let texts = read_bytes("a.jsonl", text.as_bytes(), OnBroken::Skip).unwrap();
            assert_eq!((texts.pairs.len(), texts.broken.len(), texts.broken[0].line), (2, 1, 2));
        }
        check("{\"work\":", "not a JSON object");
        check("[]", "not a JSON object");
        check("{\"work\": 3, \"turns\": []}", "`work` should be text");
        check("{\"work\": \"a\", \"turns\": []}", "`turns` should be a list");
        check("{\"work\": \"a\", \"turns\": [3]}", "`turns[0]` should be {speaker, text}");
        check(
            "{\"turns\": [{\"speaker\": \"A\", \"text\": \"b\"}, {\"speaker\": \"A\"}]}",
            "`turns[1].text` is missing",
        );
        check("{\"turns\": [{\"speaker\": \"..\", \"text\": \"b\"}]}", "`turns[0].speaker` names nobody");
        check("{\"turns\": [{\"speaker\": \"A\", \"text\": \"b\", \"conf\": 2}]}", "`turns[0].conf` is 2");
        check("{\"context\": [{\"speaker\": \"A\", \"text\": \"b\"}], \"reply\": \" \"}", "`reply` is empty");
        check("{\"asker\": \"A\", \"reply\": \"b\"}", "nothing it replies to");
        check("{\"question\": \"A\", \"reply\": \"b\"}", "`asker` is missing");
        check(
            "{\"asker\": \"A\", \"question\": \"b\", \"reply\": \"c\", \"vote\": 1}",
            "`vote` should be \"up\" or \"down\"",
        );
        check("{\"work\": \"a\", \"para\": 1}", "neither `turns` nor `reply`, but para, work");
    }

    #[test]
    fn who_was_voted_down_is_no_example() {
        // A line as the agora writes it.
        let line = |vote| {
            format!(
                r#"{{"character":"Ben","context":[{{"speaker":"Stranger","text":"Deep?"}}],"reply":"Yes.","vote":"{vote}","base":null,"adapter":null}}"#
            )
        };
        let text = [line("up"), line("down"), line("up")].join("\n");
        let texts = read_bytes("votes.jsonl", text.as_bytes(), OnBroken::Stop).unwrap();
        assert_eq!(texts.disliked, 1);
        assert_eq!(shown(&texts), ["votes| Stranger: Deep? -> Ben: Yes."; 2].join("\n"));
    }

    #[test]
    fn a_broken_file_is_named() {
        fn check(bytes: &[u8], expected: &str) {
            let error = read_bytes("a.txt", bytes, OnBroken::Stop).unwrap_err().to_string();
            assert!(error.contains("a.txt") && error.contains(expected), "{error}");
        }
        check(b"", ":1: there is nothing here");
        check(b"ANNA: a\nBEN: caf\xe9", ":2: is not UTF-8");
        check(b"No label at all.", ":1: ");
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(b"ANNA: Is it deep?").unwrap();
        let gzip = gzip.finish().unwrap();
        check(&gzip[..gzip.len() - 9], "cut or damaged");
        let missing = read(&["no/such.txt"], &Speakers::default(), OnBroken::Skip).unwrap_err().to_string();
        assert!(missing.contains("no/such.txt"), "{missing}");
    }
}
