//! Which of the facts an NPC knows fit a line: those that share words with it.
//!
//! A small model uses a fact that stands beside the question far more often than one in the middle of a long prompt. Words
//! in common are a crude measure, and enough for a handful of facts: all of them stay in the system message as well.

use std::collections::{HashMap, HashSet};

use crate::words::folded_words;

/// Facts beside a line, at most.
const MOST: usize = 2;

/// Words that say nothing about a line's subject.
const STOP_WORDS: &[&str] = &[
    "a", "about", "all", "am", "an", "and", "any", "anything", "are", "as", "at", "be", "been", "but", "by", "can",
    "could", "did", "do", "does", "for", "from", "get", "give", "go", "got", "had", "has", "have", "he", "hello",
    "her", "here", "him", "his", "how", "i", "if", "in", "is", "it", "its", "just", "know", "let", "like", "may", "me",
    "my", "no", "not", "now", "of", "on", "one", "or", "our", "out", "please", "say", "see", "she", "should", "so",
    "some", "tell", "that", "the", "their", "them", "then", "there", "they", "thing", "this", "to", "today", "up",
    "us", "was", "we", "were", "what", "when", "where", "which", "who", "whom", "whose", "why", "will", "with",
    "would", "you", "your", "yours",
];

/// Words by which players ask for a price, and those by which facts tell it.
const PRICE: &[&str] = &[
    "cost",
    "price",
    "pay",
    "charge",
    "worth",
    "expensive",
    "cheap",
    "sell",
    "buy",
    "much",
    "coin",
    "obol",
    "drachma",
    "silver",
    "gold",
    "copper",
];

/// The facts that fit `line` best, in the order of `facts`; none where none fits.
pub fn fitting_facts<'a>(facts: &'a [String], line: &str) -> Vec<&'a str> {
    let asked = stems(line);
    let of_facts: Vec<HashSet<String>> = facts.iter().map(|fact| stems(fact)).collect();
    // A word that few facts have says more.
    let mut counts: HashMap<&str, usize> = HashMap::new();
    of_facts.iter().flatten().for_each(|word| *counts.entry(word).or_default() += 1);
    let score = |fact: &HashSet<String>| {
        let common = fact.intersection(&asked).map(|word| 1.0 / counts[word.as_str()] as f64);
        common.sum::<f64>()
    };
    let scores: Vec<f64> = of_facts.iter().map(score).collect();
    let best = scores.iter().copied().fold(0.0, f64::max);
    let mut fitting: Vec<usize> = (0..facts.len()).filter(|&at| scores[at] > 0.0 && scores[at] >= 0.6 * best).collect();
    fitting.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    fitting.truncate(MOST);
    fitting.sort_unstable();
    fitting.into_iter().map(|at| facts[at].trim()).collect()
}

/// The words of a text that say what it is about, without their endings.
fn stems(text: &str) -> HashSet<String> {
    let words = folded_words(text).into_iter().filter(|word| !STOP_WORDS.contains(&word.as_str()) || word == "much");
    let mut stems: HashSet<String> = words.map(|word| stem(&word)).filter(|word| !word.is_empty()).collect();
    if PRICE.iter().any(|word| stems.contains(&stem(word))) {
        stems.insert(stem("price"));
    }
    stems.remove("much");
    stems
}

/// A word without the endings of plurals and tenses, crudely: both sides are cut alike.
fn stem(word: &str) -> String {
    let word = word.trim_end_matches("'s").trim_end_matches("’s").trim_matches(['\'', '’']);
    for ending in ["ing", "ied", "ies", "ed", "es", "er", "s", "e", "y"] {
        if let Some(stem) = word.strip_suffix(ending)
            && stem.chars().count() >= 3
            && !(ending == "s" && stem.ends_with('s'))
        {
            return stem.to_owned();
        }
    }
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_that_share_words_fit() {
        let facts = [
            "A room costs 3 silver a night.",
            "The cellar is locked.",
            "The thief Rook stole the cellar key.",
            "The stew costs 1 silver.",
            "It rains.",
        ]
        .map(str::to_owned);
        let check = |line: &str, expected: &[usize]| {
            let expected: Vec<&str> = expected.iter().map(|&at| facts[at].as_str()).collect();
            assert_eq!(fitting_facts(&facts, line), expected, "{line}");
        };
        check("How much is a room?", &[0]);
        check("what do the rooms cost", &[0]);
        check("Is the cellar open?", &[1, 2]);
        check("Who took the key?", &[2]);
        check("Is it raining?", &[4]);
        check("How expensive is that?", &[0, 3]);
        check("Who are you?", &[]);
        check("", &[]);
        assert!(fitting_facts(&[], "How much?").is_empty());
    }
}
