//! A person's opinion, without knowing whose reply is whose: shuffled pairs in one file, the voices in another.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use elenchus_dialogue::Turn;
use elenchus_lm::write_whole;
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use elenchus_train::{
    BrokenLine, Error, Result, bootstrap::Wins, config_file::read_text, eval::compare::Comparison, numeric::mixed,
};

/// What a person reads.
pub const PAIRS: &str = "blind.jsonl";
/// What a person must not read.
pub const KEY: &str = "key.json";
/// What a person writes.
pub const ANSWERS: &str = "answers.jsonl";

/// One line of [`PAIRS`]: which reply is better?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlindPair {
    /// Names it in [`ANSWERS`].
    pub id: String,
    /// What was said before.
    pub context: Vec<Turn>,
    /// One reply.
    pub one: String,
    /// Another.
    pub two: String,
}

/// Who said what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// What pairs were drawn by.
    pub seed: u64,
    /// The voices of each pair, by its id.
    pub pairs: BTreeMap<String, KeyPair>,
}

/// Who said the replies of one pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPair {
    /// Place of the prompt in the comparison, from 0.
    pub prompt: usize,
    /// The voice of `one`.
    pub one: String,
    /// The voice of `two`.
    pub two: String,
}

/// One line of [`ANSWERS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Of the pair.
    pub id: String,
    /// Which reply is better.
    pub better: Better,
}

/// A person's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// The first.
    One,
    /// The second.
    Two,
    /// Neither.
    Same,
}

/// What answers say of two voices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlindScore {
    /// Won: this voice was better.
    pub voice: String,
    /// Lost: this one was.
    pub against: String,
    /// How often.
    pub wins: Wins,
}

/// Pairs of replies of each two of `voices` (of all, if there are none), to at most `most` prompts for each two, drawn by
/// seed. Replies that are the same word for word are left out, and counted.
///
/// # Errors
/// A voice that is not in the comparison, fewer than two of them, or nothing to tell apart.
pub fn draw(
    comparison: &Comparison,
    voices: &[String],
    most: usize,
    seed: u64,
) -> Result<(Vec<BlindPair>, Key, usize)> {
    let known: Vec<&str> = comparison.voices.iter().map(|voice| voice.name.as_str()).collect();
    let fail = |reason: String| Err(Error::Comparison { what: "blind pairs".to_owned(), reason });
    if let Some(voice) = voices.iter().find(|voice| !known.contains(&voice.as_str())) {
        return fail(format!("the comparison has no voice `{voice}` (hint: there are {})", known.join(", ")));
    }
    if let Some(voice) = comparison.voices.iter().find(|voice| voice.replies.len() != comparison.prompts.len()) {
        let (name, replies, prompts) = (&voice.name, voice.replies.len(), comparison.prompts.len());
        return fail(format!(
            "`{name}` has {replies} replies to {prompts} prompts (hint: was the file changed by hand?)"
        ));
    }
    let chosen: Vec<usize> =
        (0..known.len()).filter(|&at| voices.is_empty() || voices.iter().any(|voice| voice == known[at])).collect();
    if chosen.len() < 2 {
        return fail(format!("it takes two voices (hint: there are {})", known.join(", ")));
    }
    let (mut drawn, mut same) = (Vec::new(), 0);
    for (at, &first) in chosen.iter().enumerate() {
        for &second in &chosen[at + 1..] {
            let reply = |voice: usize, prompt: usize| comparison.voices[voice].replies[prompt].text.as_str();
            let (differ, alike): (Vec<usize>, Vec<usize>) = (0..comparison.prompts.len())
                .partition(|&prompt| reply(first, prompt).trim() != reply(second, prompt).trim());
            same += alike.len();
            let mut differ = differ;
            let pair_seed = mixed(mixed(seed, first as u64), second as u64);
            differ.shuffle(&mut Pcg64Mcg::seed_from_u64(pair_seed));
            drawn.extend(differ.into_iter().take(most).map(|prompt| (prompt, first, second)));
        }
    }
    if drawn.is_empty() {
        return fail(format!("all {same} pairs of replies are the same word for word (hint: compare other voices)"));
    }
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    drawn.shuffle(&mut rng);
    let mut key = Key { seed, pairs: BTreeMap::new() };
    let mut pairs = Vec::new();
    for (number, (prompt, first, second)) in drawn.into_iter().enumerate() {
        let (one, two) = if rng.random() { (first, second) } else { (second, first) };
        let id = format!("{:04}", number + 1);
        let text = |voice: usize| comparison.voices[voice].replies[prompt].text.clone();
        pairs.push(BlindPair {
            id: id.clone(),
            context: comparison.prompts[prompt].clone(),
            one: text(one),
            two: text(two),
        });
        let name = |voice: usize| known[voice].to_owned();
        key.pairs.insert(id, KeyPair { prompt, one: name(one), two: name(two) });
    }
    Ok((pairs, key, same))
}

/// Writes pairs and key into a folder.
///
/// # Errors
/// The folder cannot be written, or somebody's answers are there, which other pairs would make worthless.
pub fn write(folder: &Path, pairs: &[BlindPair], key: &Key) -> Result<()> {
    let answers = folder.join(ANSWERS);
    if answers.exists() {
        let reason = "there are answers to earlier pairs here (hint: another --out, or move them away)".to_owned();
        return Err(Error::Comparison { what: answers.display().to_string(), reason });
    }
    let at = |file: &Path| {
        let file = file.to_owned();
        move |cause| Error::File { file, cause, hint: "" }
    };
    fs::create_dir_all(folder).map_err(at(folder))?;
    let lines: String = pairs.iter().map(|pair| serde_json::json!(pair).to_string() + "\n").collect();
    for (name, text) in [(PAIRS, lines), (KEY, format!("{:#}\n", serde_json::json!(key)))] {
        let file = folder.join(name);
        write_whole(&file, text.as_bytes()).map_err(at(&file))?;
    }
    Ok(())
}

/// Reads a key and a person's answers from a folder, and counts them: one row for each two voices.
///
/// # Errors
/// A file that is missing or broken, an answer to no pair, two to one, or pairs without an answer.
pub fn score(folder: &Path) -> Result<Vec<BlindScore>> {
    let key_file = folder.join(KEY);
    let key: Key = parse(&read_text(&key_file)?).map_err(|reason| broken(&key_file, 1, reason))?;
    let file = folder.join(ANSWERS);
    if !file.exists() {
        let reason = format!("is not there (hint: for each line of {PAIRS}, a line {{\"id\", \"better\": \"one\"}})");
        return Err(Error::Comparison { what: file.display().to_string(), reason });
    }
    let mut seen = BTreeSet::new();
    let mut scores = BTreeMap::<(String, String), Wins>::new();
    for (index, line) in read_text(&file)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let fail = |reason: String| broken(&file, index + 1, reason);
        let hint = "hint: {\"id\": \"0001\", \"better\": \"one\", \"two\" or \"same\"}";
        let answer: Answer = parse(line).map_err(|reason| fail(format!("{reason} ({hint})")))?;
        let Some(KeyPair { one, two, .. }) = key.pairs.get(&answer.id) else {
            let reason = format!("`id` is {:?}, which no pair of {KEY} has (hint: ids stand in {PAIRS})", answer.id);
            return Err(fail(reason));
        };
        if !seen.insert(answer.id.clone()) {
            return Err(fail(format!("`id` {:?} is answered twice (hint: keep one line)", answer.id)));
        }
        // Each two voices have one row, whichever came first.
        let (voices, first) = if one < two { ((one, two), Better::One) } else { ((two, one), Better::Two) };
        let wins = scores.entry((voices.0.clone(), voices.1.clone())).or_default();
        match answer.better {
            Better::Same => wins.tied += 1,
            better if better == first => wins.won += 1,
            _ => wins.lost += 1,
        }
    }
    let missing: Vec<&str> = key.pairs.keys().filter(|id| !seen.contains(*id)).map(String::as_str).collect();
    if !missing.is_empty() {
        let shown = missing.iter().take(5).copied().collect::<Vec<_>>().join(", ");
        let more = if missing.len() > 5 { ", .." } else { "" };
        let reason = format!(
            "{} of {} pairs have no answer: {shown}{more} (hint: \"same\" where neither is better)",
            missing.len(),
            key.pairs.len()
        );
        return Err(Error::Comparison { what: file.display().to_string(), reason });
    }
    Ok(scores.into_iter().map(|((voice, against), wins)| BlindScore { voice, against, wins }).collect())
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn broken(file: &Path, line: usize, reason: String) -> Error {
    Error::BrokenLine(BrokenLine { file: file.to_owned(), line, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use elenchus_train::eval::compare::{Lengths, Manner, Reply, VoiceReport};

    /// Voices that say their name and the prompt's number; `mute` says what `sft` says to every other prompt.
    fn comparison(prompts: usize) -> Comparison {
        let manner = Manner { replies: 0, words: Lengths::of([]), questions: 0.0, distinct: [1.0; 3] };
        let voice = |name: &str| VoiceReport {
            name: name.to_owned(),
            scores: BTreeMap::new(),
            manner: manner.clone(),
            length_distance: 0.0,
            length_distance_difference: None,
            kl: None,
            perplexity: None,
            seconds: 0.0,
            replies: (0..prompts)
                .map(|at| Reply {
                    text: format!("{} {at}", if name == "mute" && at % 2 == 0 { "sft" } else { name }),
                    is_ended: true,
                    words: 2,
                    seconds: 0.0,
                    scores: BTreeMap::new(),
                })
                .collect(),
        };
        Comparison {
            character: "Socrates".into(),
            seed: 1,
            prompts: (0..prompts)
                .map(|at| vec![Turn { speaker: "Stranger".into(), text: format!("Line {at}?") }])
                .collect(),
            baseline: "sft".into(),
            judges: Vec::new(),
            style: None,
            planted: Vec::new(),
            own: manner.clone(),
            voices: ["persona", "sft", "mute"].map(voice).into(),
        }
    }

    fn named(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn pairs_name_no_voice_and_the_key_names_both() {
        let comparison = comparison(40);
        let (pairs, key, same) = draw(&comparison, &[], 15, 3).unwrap();
        assert_eq!((pairs.len(), key.pairs.len(), same), (45, 45, 20));
        let mut first = 0;
        for pair in &pairs {
            let KeyPair { prompt, one, two } = &key.pairs[&pair.id];
            let said =
                |voice: &String| &comparison.voices.iter().find(|of| of.name == *voice).unwrap().replies[*prompt].text;
            assert_eq!((&pair.one, &pair.two, &pair.context), (said(one), said(two), &comparison.prompts[*prompt]));
            first += usize::from(one == "persona");
        }
        assert!((8..=22).contains(&first), "persona stands first in {first} of 30");
        assert_eq!(draw(&comparison, &[], 15, 3).unwrap().0, pairs);
        assert_ne!(draw(&comparison, &[], 15, 4).unwrap().0, pairs);
        let (two, key, _) = draw(&comparison, &named(&["persona", "sft"]), usize::MAX, 3).unwrap();
        assert_eq!(two.len(), 40);
        assert!(key.pairs.values().all(|pair| pair.one != "mute" && pair.two != "mute"));
    }

    #[test]
    fn what_cannot_be_drawn_is_said() {
        let check = |comparison: &Comparison, voices: &[&str], says: &str| {
            let error = draw(comparison, &named(voices), 9, 1).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        let whole = comparison(4);
        check(&whole, &["rl"], "no voice `rl` (hint: there are persona, sft, mute)");
        check(&whole, &["sft"], "takes two voices");
        check(&comparison(1), &["sft", "mute"], "the same word for word");
        let mut cut = whole;
        cut.voices[1].replies.pop();
        check(&cut, &[], "`sft` has 3 replies to 4 prompts");
    }

    #[test]
    fn answers_are_counted_and_broken_ones_named() {
        let folder = tempfile::tempdir().unwrap();
        let (pairs, key, _) = draw(&comparison(6), &named(&["persona", "sft"]), 9, 1).unwrap();
        write(folder.path(), &pairs, &key).unwrap();
        let answer = |answers: &[(&str, &str)]| {
            let lines = answers.iter().map(|(id, better)| format!("{{\"id\": \"{id}\", \"better\": \"{better}\"}}\n"));
            fs::write(folder.path().join(ANSWERS), lines.collect::<String>()).unwrap();
            score(folder.path())
        };
        // Somebody who likes persona four times, sft once, and cannot tell once.
        let likes = |at: usize, voice: &str| {
            let pair = &key.pairs[&pairs[at].id];
            if pair.one == voice { "one" } else { "two" }
        };
        let mut answers: Vec<(&str, &str)> = (0..4).map(|at| (pairs[at].id.as_str(), likes(at, "persona"))).collect();
        answers.extend([(pairs[4].id.as_str(), likes(4, "sft")), (pairs[5].id.as_str(), "same")]);
        let expected =
            BlindScore { voice: "persona".into(), against: "sft".into(), wins: Wins { won: 4, tied: 1, lost: 1 } };
        assert_eq!(answer(&answers).unwrap(), [expected]);

        let check = |answers: &[(&str, &str)], says: &[&str]| {
            let error = answer(answers).unwrap_err().to_string();
            for part in says {
                assert!(error.contains(part), "`{part}` is not in {error}");
            }
        };
        check(&answers[..4], &["answers.jsonl", "2 of 6 pairs have no answer: 0005, 0006", "hint"]);
        check(&[answers[0], answers[0]], &["answers.jsonl:2", "\"0001\" is answered twice"]);
        check(&[("7", "one")], &["answers.jsonl:1", "no pair of key.json"]);
        check(&[("0001", "first")], &["answers.jsonl:1", "unknown variant `first`"]);
        let error = write(folder.path(), &pairs, &key).unwrap_err().to_string();
        assert!(error.contains("answers to earlier pairs"), "{error}");
        fs::remove_file(folder.path().join(ANSWERS)).unwrap();
        assert!(score(folder.path()).unwrap_err().to_string().contains("is not there"));
        fs::write(folder.path().join(KEY), "{").unwrap();
        assert!(score(folder.path()).unwrap_err().to_string().contains("key.json:1"));
    }
}
