//! Sentences as rules read them: folded words, and where a phrase begins. What a sentence denies or asks back is not said.

use unicode_segmentation::UnicodeSegmentation;

const DENIALS: [&str; 9] = ["not", "no", "never", "neither", "nor", "cannot", "nothing", "without", "hardly"];

/// A sentence as rules read it.
pub struct Sentence {
    /// Its words, folded.
    pub words: Vec<String>,
    /// Whether it asks.
    pub is_question: bool,
}

/// The sentences of a text.
pub fn sentences(text: &str) -> impl Iterator<Item = Sentence> {
    text.split_inclusive(['.', '!', '?', '\n', ';'])
        .map(|text| Sentence { words: folded(text), is_question: text.trim_end().ends_with('?') })
}

/// Lower case, with the short forms that matter written out.
pub fn folded(text: &str) -> Vec<String> {
    let text = text.replace('’', "'").to_lowercase();
    let text = text.replace("i'm", "i am").replace("it's", "it is").replace("you're", "you are");
    let text = text.replace("can't", "cannot").replace("won't", "will not").replace("n't", " not");
    text.unicode_words().map(str::to_owned).collect()
}

/// Where a phrase begins among words.
pub fn places(words: &[String], phrase: &str) -> impl Iterator<Item = usize> {
    let phrase: Vec<String> = phrase.split(' ').map(str::to_owned).collect();
    let found: Vec<usize> = words
        .windows(phrase.len().max(1))
        .enumerate()
        .filter(|(_, window)| **window == *phrase)
        .map(|(at, _)| at)
        .collect();
    found.into_iter()
}

/// Whether one of these words denies the sentence.
pub fn is_denied(words: &[String]) -> bool {
    words.iter().any(|word| DENIALS.contains(&word.as_str()))
}
