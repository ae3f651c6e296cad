//! Preferences as somebody wrote them down: a prompt, the better reply and the other.
//!
//! They are split by prompt, because two preferences under one prompt are no two measures of what was learned; and a tie
//! teaches nothing, so it is dropped and never given to a side.

use std::{num::NonZeroUsize, path::PathBuf};

use elenchus_dialogue::{Character, Turn};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::preference::{Preference, Preferences};
use crate::{
    BrokenLine, Error, Result,
    data::{OnBroken, STRANGER, json_lines_or_broken, newest_turns},
    numeric::mixed,
    spread,
};

const FORMS: &str = "hint: {\"context\": [{\"speaker\", \"text\"}], \"chosen\", \"rejected\"}, {\"prompt\", \"chosen\", \"rejected\"}, or both sides as whole transcripts of `Human:` and `Assistant:`";

/// How transcripts of Anthropic's hh-rlhf mark who speaks.
const HUMAN: &str = "\n\nHuman:";
const ASSISTANT: &str = "\n\nAssistant:";

/// Which of a seed's uses the draw of a bootstrap is.
const BOOTSTRAP_SEED: u64 = 0xb007;

/// One line of a file; other fields are somebody else's business.
#[derive(Deserialize)]
struct Line {
    context: Option<Vec<Turn>>,
    #[serde(alias = "question", alias = "line")]
    prompt: Option<String>,
    chosen: String,
    rejected: String,
    /// What one reply was thought to be better in.
    aspect: Option<String>,
}

/// Which preferences are trained on, and which are measured on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folds<'a> {
    /// Into how many parts prompts fall.
    pub folds: usize,
    /// The one that is measured on.
    pub fold: usize,
    /// Preferences of other aspects are left out.
    pub aspect: Option<&'a str>,
    /// Preferences trained on, at most.
    pub most: usize,
    /// Draws as many as there are with replacement, by this seed: members of an ensemble see different samples.
    pub bootstrap: Option<u64>,
}

/// Reads files of preferences, all of them but ties, and the lines that were left out where broken ones are.
///
/// # Errors
/// A line of another form, unless those are skipped.
pub fn read_preferences(
    files: &[PathBuf],
    character: &Character,
    context: NonZeroUsize,
    on_broken: OnBroken,
) -> Result<(Vec<Preference>, Vec<BrokenLine>)> {
    let (mut preferences, mut broken) = (Vec::new(), Vec::new());
    for file in files {
        let read = |line: Line| preference(line, character, context);
        let (lines, left_out) = json_lines_or_broken(file, FORMS, on_broken, read)?;
        preferences.extend(lines);
        broken.extend(left_out);
    }
    preferences.retain(|of| of.chosen.trim() != of.rejected.trim());
    Ok((preferences, broken))
}

/// Reads files of preferences, drops ties and splits the rest; what is dropped is counted as unmatched.
///
/// # Errors
/// A line of another form, unless those are skipped, or nothing left to train or to measure on.
pub(super) fn written(
    files: &[PathBuf],
    character: &Character,
    context: NonZeroUsize,
    on_broken: OnBroken,
    of: Folds<'_>,
) -> Result<(Preferences, Vec<BrokenLine>)> {
    let (mut read, mut broken) = (Vec::new(), Vec::new());
    for file in files {
        let (lines, left_out) = json_lines_or_broken(file, FORMS, on_broken, |line: Line| {
            let aspect = line.aspect.clone();
            Ok((aspect, preference(line, character, context)?))
        })?;
        read.extend(lines);
        broken.extend(left_out);
    }
    let all = read.len();
    read.retain(|(aspect, _)| of.aspect.is_none_or(|wanted| aspect.as_deref() == Some(wanted)));
    if let (Some(aspect), true) = (of.aspect, read.is_empty()) {
        let reason =
            format!("none of {all} preferences is of the aspect `{aspect}` (hint: look at `aspect` in the files)");
        return Err(Error::Split(reason));
    }
    let of_aspect = read.len();
    let preferences: Vec<Preference> =
        read.into_iter().map(|(_, of)| of).filter(|of| of.chosen.trim() != of.rejected.trim()).collect();
    let unmatched = of_aspect - preferences.len();
    let is_held_out = |preference: &Preference| fold(&preference.context, of.folds) == of.fold;
    let (held_out, train): (Vec<_>, Vec<_>) = preferences.into_iter().partition(is_held_out);
    if train.is_empty() || held_out.is_empty() {
        let (train, held_out, Folds { fold, folds, .. }) = (train.len(), held_out.len(), of);
        return Err(Error::Split(format!(
            "{train} preferences to train on and {held_out} to measure on in fold {fold} of {folds} (hint: more preferences, or fewer `folds`)"
        )));
    }
    let mut train = spread(&train, of.most);
    if let Some(seed) = of.bootstrap {
        let mut rng = Pcg64Mcg::seed_from_u64(mixed(seed, BOOTSTRAP_SEED));
        train = (0..train.len()).map(|_| train[rng.random_range(0..train.len())].clone()).collect();
    }
    Ok((Preferences { train, held_out, unmatched }, broken))
}

/// The part that a prompt falls into: a function of its words alone, whatever else is in the files.
fn fold(context: &[Turn], folds: usize) -> usize {
    let mut hash = Sha256::new();
    for turn in context {
        hash.update(turn.text.as_bytes());
        hash.update([0]);
    }
    let digest = hash.finalize();
    let number = digest.iter().take(8).fold(0u64, |number, &byte| number << 8 | u64::from(byte));
    (number % folds as u64) as usize
}

fn preference(line: Line, character: &Character, most: NonZeroUsize) -> Result<Preference, String> {
    let Line { context, prompt, chosen, rejected, .. } = line;
    let (context, chosen, rejected) = match (context, prompt) {
        _ if is_transcript(&chosen) && is_transcript(&rejected) => {
            let ((context, chosen), (other, rejected)) =
                (transcript(&chosen, &character.name)?, transcript(&rejected, &character.name)?);
            if context != other {
                return Err("has two transcripts that differ before their last reply (hint: leave it out, or set `skip_broken = true`)".to_owned());
            }
            (context, chosen, rejected)
        }
        (Some(context), None) => (context, chosen, rejected),
        (None, Some(text)) => (vec![Turn { speaker: STRANGER.to_owned(), text }], chosen, rejected),
        (Some(_), Some(_)) => return Err(format!("has both `context` and a prompt of its own ({FORMS})")),
        (None, None) => return Err(format!("has nothing that is said to the character ({FORMS})")),
    };
    let context = newest_turns(&context, character, most)?;
    if chosen.trim().is_empty() && rejected.trim().is_empty() {
        return Err("has no words on either side".to_owned());
    }
    Ok(Preference { context, chosen: chosen.trim().to_owned(), rejected: rejected.trim().to_owned() })
}

fn is_transcript(text: &str) -> bool {
    text.starts_with(HUMAN) || text.starts_with(HUMAN.trim_start())
}

/// What was said before the last reply, and that reply.
fn transcript(text: &str, name: &str) -> Result<(Vec<Turn>, String), String> {
    let text = format!("\n\n{}", text.trim());
    let mut turns: Vec<Turn> = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (speaker, mark) = if rest.starts_with(HUMAN) { (STRANGER, HUMAN) } else { (name, ASSISTANT) };
        let said = rest.strip_prefix(mark).ok_or("has a transcript that does not begin with `Human:`")?;
        let end = [HUMAN, ASSISTANT].iter().filter_map(|mark| said.find(mark)).min().unwrap_or(said.len());
        turns.push(Turn { speaker: speaker.to_owned(), text: said[..end].trim().to_owned() });
        rest = &said[end..];
    }
    match turns.pop() {
        Some(reply) if reply.speaker == name => Ok((turns, reply.text)),
        _ => Err("has a transcript that does not end with `Assistant:`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn character() -> Character {
        let text = "version = 1\nname = \"Meno\"\npersona = \"You are Meno.\"\nfallbacks = [\"Hm.\"]";
        Character::parse(text, "test").unwrap()
    }

    const FOLDS: Folds<'static> = Folds { folds: 5, fold: 0, aspect: None, most: usize::MAX, bootstrap: None };

    fn read(lines: &str, of: Folds<'_>) -> Result<Preferences> {
        let file = tempfile::NamedTempFile::with_suffix(".jsonl").unwrap();
        std::fs::write(file.path(), lines).unwrap();
        let context = NonZeroUsize::new(4).unwrap();
        Ok(written(&[file.path().to_owned()], &character(), context, OnBroken::Stop, of)?.0)
    }

    #[test]
    fn a_broken_line_ends_the_run_or_is_left_out_and_named() {
        let file = tempfile::NamedTempFile::with_suffix(".jsonl").unwrap();
        let two = r#"{"chosen": "Human: a\n\nAssistant: b", "rejected": "Human: c\n\nAssistant: b"}"#;
        std::fs::write(file.path(), format!("{two}\n{}", many(60))).unwrap();
        let read = |on_broken| {
            written(&[file.path().to_owned()], &character(), NonZeroUsize::new(4).unwrap(), on_broken, FOLDS)
        };
        let error = read(OnBroken::Stop).unwrap_err().to_string();
        assert!(error.contains("jsonl:1: has two transcripts") && error.contains("skip_broken"), "{error}");
        let (of, broken) = read(OnBroken::Skip).unwrap();
        assert_eq!((of.train.len() + of.held_out.len(), broken.len(), broken[0].line), (60, 1, 1));
    }

    fn many(count: usize) -> String {
        let line =
            |at: usize| format!("{{\"prompt\": \"p{}\", \"chosen\": \"c{at}\", \"rejected\": \"r{at}\"}}\n", at / 2);
        (0..count).map(line).collect()
    }

    #[test]
    fn each_form_is_read() {
        let of =
            |line: &str| preference(serde_json::from_str(line).unwrap(), &character(), NonZeroUsize::new(3).unwrap());
        let shown = |line: &str| {
            of(line).map(|of| {
                let context: Vec<String> =
                    of.context.iter().map(|turn| format!("{}: {}", turn.speaker, turn.text)).collect();
                (context.join(" | "), of.chosen, of.rejected)
            })
        };
        let expected = |context: &str| Ok((context.to_owned(), "yes".to_owned(), "no".to_owned()));
        assert_eq!(shown(r#"{"prompt": "a?", "chosen": " yes", "rejected": "no"}"#), expected("Stranger: a?"));
        let turns = r#"{"context": [{"speaker": "B", "text": "a?"}], "chosen": "yes", "rejected": "no"}"#;
        assert_eq!(shown(turns), expected("B: a?"));
        let before = "\\n\\nHuman: a?\\n\\nAssistant: b\\n\\nc\\n\\nHuman: d?\\n\\nAssistant:";
        let both = format!(r#"{{"prompt": "a?", "chosen": "{before} yes", "rejected": "{before} no"}}"#);
        assert_eq!(shown(&both), expected("Stranger: a? | Meno: b\n\nc | Stranger: d?"));
        for (line, says) in [
            (r#"{"chosen": "a", "rejected": "b"}"#, "nothing that is said"),
            (r#"{"prompt": "a", "context": [], "chosen": "a", "rejected": "b"}"#, "has both"),
            (r#"{"prompt": "a", "chosen": " ", "rejected": ""}"#, "no words on either side"),
            (r#"{"chosen": "Human: a\n\nAssistant: b", "rejected": "Human: c\n\nAssistant: b"}"#, "differ before"),
            (r#"{"chosen": "Human: a", "rejected": "Human: a"}"#, "does not end with"),
        ] {
            let error = shown(line).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
        let error = read("{\"prompt\": \"a\"}", FOLDS).unwrap_err().to_string();
        assert!(error.contains("jsonl:1") && error.contains("chosen"), "{error}");
    }

    #[test]
    fn folds_part_by_prompt_and_are_all_there_is() {
        let text = many(200);
        let parts: Vec<Preferences> = (0..5).map(|fold| read(&text, Folds { fold, ..FOLDS }).unwrap()).collect();
        let mut held_out: Vec<&str> = parts.iter().flat_map(|of| &of.held_out).map(|of| of.chosen.as_str()).collect();
        held_out.sort_unstable();
        held_out.dedup();
        assert_eq!(held_out.len(), 200);
        for of in &parts {
            assert_eq!(of.train.len() + of.held_out.len(), 200);
            assert!((20..=60).contains(&of.held_out.len()), "{}", of.held_out.len());
            let is_known = |held_out: &Preference| of.train.iter().any(|train| train.context == held_out.context);
            assert!(!of.held_out.iter().any(is_known));
        }
        let error = read(&many(2), Folds { fold: 1, ..FOLDS }).unwrap_err().to_string();
        assert!(error.contains("of 5") && error.contains("fewer `folds`"), "{error}");
    }

    #[test]
    fn ties_are_dropped_and_other_aspects_left_out() {
        let tie = "{\"prompt\": \"p\", \"chosen\": \"same\", \"rejected\": \"same \"}\n";
        let of = read(&(tie.to_owned() + &many(60)), FOLDS).unwrap();
        assert_eq!((of.unmatched, of.train.len() + of.held_out.len()), (1, 60));
        let kind = many(60).replace("\"chosen\"", "\"aspect\": \"kind\", \"chosen\"");
        let of = read(&(kind.clone() + &many(20)), Folds { aspect: Some("kind"), ..FOLDS }).unwrap();
        assert_eq!(of.train.len() + of.held_out.len(), 60);
        let error = read(&kind, Folds { aspect: Some("kid"), ..FOLDS }).unwrap_err().to_string();
        assert!(error.contains("none of 60") && error.contains("`kid`"), "{error}");
    }

    #[test]
    fn a_bootstrap_draws_with_replacement_what_is_trained_on_alone() {
        let text = many(200);
        let whole = read(&text, FOLDS).unwrap();
        let draw = |seed| read(&text, Folds { bootstrap: Some(seed), ..FOLDS }).unwrap();
        let (one, other) = (draw(1), draw(2));
        assert_eq!((one.train.len(), &one.held_out), (whole.train.len(), &whole.held_out));
        assert!(one.train != other.train && one.train == draw(1).train);
        let mut distinct: Vec<&str> = one.train.iter().map(|of| of.chosen.as_str()).collect();
        distinct.sort_unstable();
        distinct.dedup();
        let share = distinct.len() as f64 / whole.train.len() as f64;
        assert!((0.5..0.75).contains(&share), "about 1 - 1/e: {share}");
        assert_eq!(read(&text, Folds { most: 10, ..FOLDS }).unwrap().train.len(), 10);
    }
}
