//! What a character learns from is a pair: what was said to it, and what it replied. A pair ends where the game's prompt
//! ends, with somebody else's words, so that [`elenchus_dialogue::messages`] makes of it what it makes of a conversation.

use std::{collections::BTreeMap, num::NonZeroUsize};

use elenchus_dialogue::Turn;
use serde::Serialize;

use super::{Spoken, Texts, speakers::is_nobody};
use crate::{Error, Result};

/// What was said to a character, and what it replied.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// The work it is from; works are the unit of splitting.
    pub work: String,
    /// What was said before, oldest first: begins and ends with somebody else's turn, no two neighbours by one speaker.
    pub context: Vec<Turn>,
    /// What a game had told it then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<String>,
    /// What a game told it for this reply alone, beside the newest line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The character's words.
    pub reply: String,
    /// How sure it is that everybody said what the pair says: the least of its turns, reply included, from 0 to 1.
    pub confidence: f64,
}

impl Pair {
    /// A pair of a work that a game told nothing, sure of its speakers.
    pub fn new(work: impl Into<String>, context: Vec<Turn>, reply: impl Into<String>) -> Self {
        let (facts, notes) = (Vec::new(), Vec::new());
        Self { work: work.into(), context, facts, notes, reply: reply.into(), confidence: 1.0 }
    }
}

/// A character's pairs in the order of the texts, each with up to `context` turns before the reply. `character` is a
/// normalised name.
///
/// Neighbouring turns of one speaker become one. The character's own turns at the beginning of a context are dropped. No context reaches across a narrator's or an unlabelled turn. A written pair that does not say
/// who replies is the character's.
///
/// # Errors
/// The character replies nowhere, or a pair that does not say who replies cannot be the character's.
pub fn pairs(texts: &Texts, character: &str, context: NonZeroUsize) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for dialogue in &texts.dialogues {
        for scene in dialogue.turns.split(|spoken| is_nobody(&spoken.turn.speaker)) {
            let turns = merged(scene);
            let replies = (0..turns.len()).filter(|&at| turns[at].turn.speaker == character);
            pairs.extend(replies.filter_map(|at| pair(&dialogue.work, &turns[..=at], context)));
        }
    }
    for written in &texts.pairs {
        let last = written.context.last().map(|spoken| &spoken.turn.speaker);
        match &written.character {
            Some(name) if name != character => continue,
            None if last.is_some_and(|last| last == character) => {
                return Err(Error::NotTheirs { work: written.work.clone(), character: character.to_owned() });
            }
            _ => {}
        }
        let turn = Turn { speaker: character.to_owned(), text: written.reply.clone() };
        let mut turns = written.context.clone();
        turns.push(Spoken { turn, confidence: 1.0 });
        let scene = turns.rsplit(|spoken| is_nobody(&spoken.turn.speaker)).next().unwrap_or_default();
        pairs.extend(pair(&written.work, &merged(scene), context));
    }
    if pairs.is_empty() {
        return Err(Error::NoReplies { character: character.to_owned(), hint: who_speaks(texts) });
    }
    Ok(pairs)
}

/// The pair whose reply is the last turn; none if nobody else spoke before it.
fn pair(work: &str, turns: &[Spoken], context: NonZeroUsize) -> Option<Pair> {
    let (reply, before) = turns.split_last()?;
    let before = &before[before.len().saturating_sub(context.get())..];
    let heard = &before[before.iter().position(|spoken| spoken.turn.speaker != reply.turn.speaker)?..];
    Some(Pair {
        work: work.to_owned(),
        context: heard.iter().map(|spoken| spoken.turn.clone()).collect(),
        reply: reply.turn.text.clone(),
        facts: Vec::new(),
        notes: Vec::new(),
        confidence: heard.iter().map(|spoken| spoken.confidence).fold(reply.confidence, f64::min),
    })
}

/// Makes one turn of neighbours by one speaker, as sure as the less sure of them.
fn merged(turns: &[Spoken]) -> Vec<Spoken> {
    let mut merged: Vec<Spoken> = Vec::with_capacity(turns.len());
    for next in turns {
        match merged.last_mut().filter(|last| last.turn.speaker == next.turn.speaker) {
            Some(last) => {
                last.turn.text.push(' ');
                last.turn.text.push_str(&next.turn.text);
                last.confidence = last.confidence.min(next.confidence);
            }
            None => merged.push(next.clone()),
        }
    }
    merged
}

/// Everybody who is known to speak, and how often.
pub(crate) fn speakers_of(texts: &Texts) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::<&str, usize>::new();
    let spoken = texts.dialogues.iter().flat_map(|dialogue| &dialogue.turns).map(|spoken| &spoken.turn.speaker);
    for name in spoken.chain(texts.pairs.iter().filter_map(|pair| pair.character.as_ref())) {
        *counts.entry(name).or_default() += 1;
    }
    counts.retain(|name, _| !is_nobody(name));
    counts
}

/// Who speaks most, to choose from.
fn who_speaks(texts: &Texts) -> String {
    let mut counts: Vec<_> = speakers_of(texts).into_iter().collect();
    counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let shown: Vec<_> = counts.iter().take(10).map(|(name, count)| format!("{name} ({count})")).collect();
    match counts.len() {
        0 => "they name no speakers".to_owned(),
        total if total > shown.len() => format!("of {total} speakers, these speak most: {}", shown.join(", ")),
        _ => format!("there are {}", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use elenchus_dialogue::{Character, messages};
    use elenchus_lm::Role;

    use super::{super::WrittenPair, *};
    use crate::data::Dialogue;

    /// Turns as `A:text B:text`; one of confidence 0.5 is written `A?text`.
    fn turns(line: &str) -> Vec<Spoken> {
        let turn = |word: &str| {
            let (speaker, text) = word.split_once([':', '?']).unwrap();
            let confidence = if word.contains('?') { 0.5 } else { 1.0 };
            Spoken { turn: Turn { speaker: speaker.into(), text: text.into() }, confidence }
        };
        line.split_whitespace().map(turn).collect()
    }

    fn shown(pairs: &[Pair]) -> Vec<String> {
        let shown = pairs.iter().map(|pair| {
            let context: Vec<_> = pair.context.iter().map(|turn| format!("{}:{}", turn.speaker, turn.text)).collect();
            let sure = if pair.confidence < 1.0 { "?" } else { "" };
            format!("{} -> {}{sure}", context.join(" "), pair.reply)
        });
        shown.collect()
    }

    fn dialogue(line: &str) -> Texts {
        Texts { dialogues: vec![Dialogue { work: "w".into(), turns: turns(line) }], ..Texts::default() }
    }

    fn written(character: Option<&str>, context: &str, reply: &str) -> Texts {
        let (work, character) = ("w".into(), character.map(Into::into));
        let pair = WrittenPair { work, character, context: turns(context), reply: reply.into() };
        Texts { pairs: vec![pair], ..Texts::default() }
    }

    const THREE: NonZeroUsize = NonZeroUsize::new(3).unwrap();

    #[test]
    fn a_dialogue_becomes_a_characters_pairs() {
        fn check(line: &str, expected: &[&str]) {
            assert_eq!(shown(&pairs(&dialogue(line), "S", THREE).unwrap()), expected);
        }
        check("A:1 S:2", &["A:1 -> 2"]);
        check("A:1 S:2 A:3", &["A:1 -> 2"]);
        check("S:0 A:1 S:2", &["A:1 -> 2"]);
        check("A:1 S:2 A:3 S:4", &["A:1 -> 2", "A:1 S:2 A:3 -> 4"]);
        check("A:1 S:2 A:3 S:4 A:5 S:6", &["A:1 -> 2", "A:1 S:2 A:3 -> 4", "A:3 S:4 A:5 -> 6"]);
        check("A:1 A:2 S:3 S:4", &["A:1 2 -> 3 4"]);
        check("S:1 A:2 B:3 S:4", &["A:2 B:3 -> 4"]);
        check("S:0 A:1 B:2 S:3 B:4 S:5", &["A:1 B:2 -> 3", "B:2 S:3 B:4 -> 5"]);
        check("A:1 Narration:2 S:3 A:4 S:5", &["A:4 -> 5"]);
        check(
            "A:1 S?2 A:3 S:4 A:5 S:6 A:7 S:8",
            &["A:1 -> 2?", "A:1 S:2 A:3 -> 4?", "A:3 S:4 A:5 -> 6", "A:5 S:6 A:7 -> 8"],
        );
    }

    #[test]
    fn a_context_as_wide_as_asked_is_cut_before_own_turns_are_dropped() {
        let two = NonZeroUsize::new(2).unwrap();
        let pairs = pairs(&dialogue("A:1 S:2 A:3 S:4"), "S", two).unwrap();
        assert_eq!(shown(&pairs), ["A:1 -> 2", "A:3 -> 4"]);
    }

    #[test]
    fn written_pairs_become_the_same() {
        fn check(texts: &Texts, expected: &str) {
            assert_eq!(shown(&pairs(texts, "S", THREE).unwrap()), [expected]);
        }
        check(&written(None, "A:1", "2"), "A:1 -> 2");
        check(&written(Some("S"), "S:0 A:1", "2"), "A:1 -> 2");
        check(&written(Some("S"), "A:1 S:2", "3"), "A:1 -> 2 3");
        check(&written(None, "A:1 A:2 S:3 A?4", "5"), "A:1 2 S:3 A:4 -> 5?");
        check(&written(None, "A:1 S:2 A:3 S:4 A:5", "6"), "A:3 S:4 A:5 -> 6");
        check(&written(None, "A:1 Unlabelled:2 A:3", "4"), "A:3 -> 4");
    }

    #[test]
    fn nobody_elses_words_are_taken() {
        let check = |texts: &Texts, expected: &str| {
            let error = pairs(texts, "S", THREE).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&written(None, "A:1 S:2", "3"), "does not say who replies");
        check(&written(Some("B"), "A:1", "2"), "there are B (1)");
        check(&dialogue("A:1 B:2 A:3 Narration:4"), "there are A (2), B (1)");
        check(&dialogue("S:1"), "S replies nowhere");
        check(&Texts::default(), "they name no speakers");
    }

    #[test]
    fn the_games_prompt_of_a_pair_alternates_and_ends_with_the_other() {
        let toml = "version = 1\nname = \"S\"\npersona = \"You are S.\"\nfallbacks = [\"Hm.\"]";
        let character = Character::parse(toml, "s").unwrap();
        for pair in
            pairs(&dialogue("S:0 A:1 S:2 A:3 B:4 S:5 B:6 A:7 A:8 S:9"), "S", NonZeroUsize::new(6).unwrap()).unwrap()
        {
            let roles: Vec<_> =
                messages(&character, &[], &[], &pair.context).iter().map(|message| message.role).collect();
            assert_eq!((roles[0], roles[1], *roles.last().unwrap()), (Role::System, Role::User, Role::User));
            assert!(roles.windows(2).all(|pair| pair[0] != pair[1]), "{roles:?}");
        }
    }
}
