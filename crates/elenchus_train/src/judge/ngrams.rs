//! Is it said as the character says it? A judge of style that no learned reward resembles: logistic regression on the words,
//! pairs of words and pieces of words of a reply.
//!
//! It learns from works that are reserved for it, the character's lines against everybody else's there, as many of each
//! length, so that length says nothing. Names are left out: who is spoken to says who speaks.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

use super::{
    Exchange, Judge, Verdict,
    logistic::{Logistic, LogisticSettings},
};
use crate::{
    Error, Result,
    bootstrap::{Interval, wilson},
    data::{Pair, words},
};

/// Shorter lines ("Certainly.") are anybody's.
const LEAST_WORDS: usize = 5;
/// Lines of both kinds that it takes at least.
const LEAST_PAIRS: usize = 20;
/// Parts that are kept back in turns.
const FOLDS: usize = 5;
/// Stands for a name.
const NAME: &str = "\u{1}";

/// Log-odds that the character said a reply rather than somebody else.
#[derive(Debug, Clone)]
pub struct NgramStyle {
    logistic: Logistic<2>,
    names: BTreeSet<String>,
}

/// How well it tells lines apart that it did not learn from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StyleTest {
    /// The works it learned from.
    pub works: Vec<String>,
    /// The character's lines, each with somebody else's of like length.
    pub pairs: usize,
    /// Share of lines told right when the part of the works they stand in was kept back.
    pub accuracy: Interval,
}

impl NgramStyle {
    /// How it learns.
    pub const SETTINGS: LogisticSettings = LogisticSettings { min_texts: 3, l2: 1e-3, steps: 150, learning_rate: 0.05 };

    /// Learns from all pairs of some works: the character's replies, and what others say in their contexts.
    ///
    /// # Errors
    /// Too few lines of like length.
    pub fn train(pairs: &[Pair], character: &str, settings: LogisticSettings) -> Result<(Self, StyleTest)> {
        let mut works: Vec<String> = pairs.iter().map(|pair| pair.work.clone()).collect();
        works.dedup();
        let own: Vec<&str> = distinct(pairs.iter().map(|pair| pair.reply.as_str()));
        let is_other = |name: &str| !name.eq_ignore_ascii_case(character);
        let turns = || pairs.iter().flat_map(|pair| &pair.context);
        let others = turns().filter(|turn| is_other(&turn.speaker)).map(|turn| turn.text.as_str());
        let others = distinct(others);
        let names = turns().map(|turn| turn.speaker.as_str()).chain([character]).flat_map(folded_words).collect();

        let matched = of_like_length(&own, &others);
        if matched.len() < LEAST_PAIRS {
            let reason = format!(
                "{} of {} lines of {character}'s and {} of others' are of like length, and it takes {LEAST_PAIRS} (hint: more works)",
                matched.len(),
                own.len(),
                others.len()
            );
            return Err(Error::Comparison { what: format!("the judge of style, {}", works.join(", ")), reason });
        }
        let texts: Vec<[BTreeSet<String>; 2]> =
            matched.iter().map(|&(own, other)| [other, own].map(|text| features(text, &names))).collect();
        let train = |kept_back: &std::ops::Range<usize>| {
            let learned = texts.iter().enumerate().filter(|(at, _)| !kept_back.contains(at)).flat_map(|(_, of)| of);
            let learned: Vec<BTreeSet<String>> = learned.cloned().collect();
            let classes: Vec<usize> = (0..learned.len()).map(|at| at % 2).collect();
            Logistic::train(&learned, &classes, settings)
        };
        // Neighbours in a work answer one another, so a part is a stretch of it.
        let mut right = 0.0;
        for fold in 0..FOLDS {
            let part = texts.len() * fold / FOLDS..texts.len() * (fold + 1) / FOLDS;
            let Some(logistic) = train(&part) else { continue };
            for (class, text) in texts[part].iter().flat_map(|of| of.iter().enumerate()) {
                let [other, own] = logistic.logits(text).unwrap_or_default();
                right += match class {
                    _ if own == other => 0.5,
                    0 => f64::from(u8::from(other > own)),
                    _ => f64::from(u8::from(own > other)),
                };
            }
        }
        let untold = || Error::Comparison { what: "the judge of style".to_owned(), reason: "has no lines".to_owned() };
        let accuracy = wilson(right, 2 * texts.len()).ok_or_else(untold)?;
        let logistic = train(&(0..0)).ok_or_else(untold)?;
        Ok((Self { logistic, names }, StyleTest { works, pairs: matched.len(), accuracy }))
    }
}

impl Judge for NgramStyle {
    fn name(&self) -> &str {
        "ngrams"
    }

    /// A reply of which it knows nothing has no score.
    fn judge(&self, exchanges: &[Exchange]) -> Result<Vec<Verdict>> {
        let score = |exchange: &Exchange| {
            let mut names = self.names.clone();
            names.extend(exchange.context.iter().flat_map(|turn| folded_words(&turn.speaker)));
            let logits = self.logistic.logits(&features(&exchange.reply, &names));
            Verdict { score: logits.map(|[other, own]| (own - other) as f32), ..Verdict::default() }
        };
        Ok(exchanges.iter().map(score).collect())
    }
}

/// Each line once, in order, without the shortest.
fn distinct<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    lines.filter(|line| words(line) >= LEAST_WORDS && seen.insert(*line)).collect()
}

/// One line of each kind with as many words, but for a tenth, each used once; in the order of the first kind.
pub(crate) fn of_like_length<'a>(own: &[&'a str], others: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    let sorted = |lines: &[&'a str]| {
        let mut lines: Vec<(usize, usize, &'a str)> =
            lines.iter().enumerate().map(|(at, line)| (words(line), at, *line)).collect();
        lines.sort();
        lines
    };
    let (own, others) = (sorted(own), sorted(others));
    let (mut one, mut other, mut matched) = (0, 0, Vec::new());
    while let (Some(&(own_words, at, own)), Some(&(other_words, _, line))) = (own.get(one), others.get(other)) {
        if own_words.abs_diff(other_words) * 10 <= own_words.max(other_words) {
            matched.push((at, own, line));
            (one, other) = (one + 1, other + 1);
        } else if own_words < other_words {
            one += 1;
        } else {
            other += 1;
        }
    }
    matched.sort_by_key(|(at, ..)| *at);
    matched.into_iter().map(|(_, own, line)| (own, line)).collect()
}

fn folded_words(text: &str) -> impl Iterator<Item = String> {
    text.unicode_words().map(str::to_lowercase)
}

/// Words, pairs of words, and pieces of three to five letters, in lower case and without names.
fn features(text: &str, names: &BTreeSet<String>) -> BTreeSet<String> {
    let text = text.to_lowercase();
    let pieces = text.split_word_bounds().map(|word| if names.contains(word) { NAME } else { word });
    let text: String = pieces.collect();
    let mut features = BTreeSet::new();
    let words: Vec<&str> = text.unicode_words().collect();
    features.extend(words.iter().map(|word| format!("w {word}")));
    features.extend(words.windows(2).map(|pair| format!("w {} {}", pair[0], pair[1])));
    let letters: Vec<char> = [' '].into_iter().chain(text.chars()).chain([' ']).collect();
    for length in 3..=5 {
        let pieces = letters.windows(length).filter(|piece| !piece.contains(&'\u{1}'));
        features.extend(pieces.map(|piece| format!("c {}", piece.iter().collect::<String>())));
    }
    features
}

#[cfg(test)]
mod tests {
    use elenchus_dialogue::Turn;

    use super::*;

    /// The character asks "do you not think", the others answer "by Zeus"; both speak of the same things in the same
    /// number of words, and name each other.
    fn works() -> Vec<Pair> {
        let things = ["ships", "horses", "cobblers", "justice", "courage", "virtue", "music", "sleep"];
        (0..64)
            .map(|at| {
                let (one, two) = (things[at % 8], things[(at / 8 + at) % 8]);
                let said = format!("By Zeus, Socrates, I say that {one} and {two} are one number {at}.");
                Pair::new(
                    if at < 32 { "Meno" } else { "Gorgias" },
                    vec![Turn { speaker: "Meno".into(), text: said }],
                    format!("Do you not think, Meno, that {two} and {one} are one number {at}?"),
                )
            })
            .collect()
    }

    fn exchange(reply: &str) -> Exchange {
        let context = vec![Turn { speaker: "Stranger".into(), text: "Well?".into() }];
        Exchange { context, reply: reply.into(), is_ended: true }
    }

    #[test]
    fn it_learns_a_manner_and_says_how_well() {
        let (style, test) = NgramStyle::train(&works(), "Socrates", NgramStyle::SETTINGS).unwrap();
        assert_eq!((test.works, test.pairs), (vec!["Meno".to_owned(), "Gorgias".to_owned()], 64));
        assert!(test.accuracy.value == 1.0 && test.accuracy.low > 0.95, "{:?}", test.accuracy);
        let replies = ["Do you not think that a poet lies?", "By Zeus, I say that a poet lies.", "όχι"].map(exchange);
        let scores: Vec<Option<f32>> =
            style.judge(&replies).unwrap().into_iter().map(|verdict| verdict.score).collect();
        assert!(scores[0].unwrap() > 0.5 && scores[1].unwrap() < -0.5 && scores[2].is_none(), "{scores:?}");
    }

    #[test]
    fn names_and_lengths_say_nothing() {
        let (style, _) = NgramStyle::train(&works(), "Socrates", NgramStyle::SETTINGS).unwrap();
        let score = |reply: &str| style.judge(&[exchange(reply)]).unwrap()[0].score;
        let said = |name: &str| score(&format!("Courage and sleep, {name}, are one."));
        assert_eq!(said("Socrates"), said("Meno"));
        assert_eq!(said("Socrates"), said("Stranger"), "whoever is spoken to");
        // Alike but for names: nothing is left to learn.
        let alike: Vec<Pair> = works()
            .into_iter()
            .map(|mut pair| {
                pair.reply = pair.context[0].text.replace("Socrates", "Meno");
                pair
            })
            .collect();
        let (_, test) = NgramStyle::train(&alike, "Socrates", NgramStyle::SETTINGS).unwrap();
        assert!(!test.accuracy.is_clear_of(0.5), "{:?}", test.accuracy);
    }

    #[test]
    fn lines_are_matched_by_their_words() {
        let line = |words: usize| vec!["a"; words].join(" ");
        let lines = |words: &[usize]| words.iter().map(|&words| line(words)).collect::<Vec<_>>();
        let check = |own: &[usize], others: &[usize], expected: &[(usize, usize)]| {
            let (own, others) = (lines(own), lines(others));
            let own: Vec<&str> = own.iter().map(String::as_str).collect();
            let others: Vec<&str> = others.iter().map(String::as_str).collect();
            let matched = of_like_length(&own, &others);
            let counts: Vec<(usize, usize)> = matched.iter().map(|(own, other)| (words(own), words(other))).collect();
            assert_eq!(counts, expected);
        };
        check(&[30, 5, 20], &[19, 5, 33], &[(30, 33), (5, 5), (20, 19)]);
        check(&[5, 6], &[7, 8], &[]);
        check(&[10, 10], &[10], &[(10, 10)]);
        check(&[], &[10], &[]);
        let error = NgramStyle::train(&works()[..4], "Socrates", NgramStyle::SETTINGS).unwrap_err().to_string();
        assert!(error.contains("Meno") && error.contains("4 of 4") && error.contains("hint"), "{error}");
    }
}
