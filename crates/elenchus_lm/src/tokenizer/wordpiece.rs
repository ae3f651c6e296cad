//! BERT's words, in lower case and without accents: signs and Chinese characters are words of their own, and a word is put
//! together from the longest tokens, from the left.
//!
//! Source: `llm_tokenizer_wpm` in llama.cpp's `llama-vocab.cpp`, whose converter marks beginnings of words with `▁`.

use std::{collections::HashMap, sync::LazyLock};

use regex::Regex;
use tokenizers::NormalizedString;

use super::SPACE;

/// Longer tokens are never tried: the longest real ones have about 30 bytes.
const MAX_TOKEN_BYTES: usize = 256;

static CONTROL: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^[\p{Cc}\p{Cf}\p{Co}\u{fffd}]").expect("a pattern"));
static MARK: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\p{M}").expect("a pattern"));
static ALONE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?x)^[\p{P}$+<=>^`|~\u{4e00}-\u{9fff}\u{3400}-\u{4dbf}\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}
        \u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\u{f900}-\u{faff}\u{2f800}-\u{2fa1f}]",
    )
    .expect("a pattern")
});

/// A vocabulary of words and their parts.
pub struct WordPiece {
    /// Tokens that text can become, with `▁` before the first part of a word.
    ids: HashMap<String, u32>,
    /// Bytes of the longest token.
    longest: usize,
    /// The token for a word that cannot be put together.
    unknown: u32,
    lowercase: bool,
    strip_accents: bool,
}

impl WordPiece {
    pub fn new(ids: HashMap<String, u32>, unknown: u32, lowercase: bool, strip_accents: bool) -> Self {
        let longest = ids.keys().map(String::len).max().unwrap_or(0).min(MAX_TOKEN_BYTES);
        Self { ids, longest, unknown, lowercase, strip_accents }
    }

    /// Appends the ids of a text.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        for word in self.words(text) {
            self.encode_word(&word, ids);
        }
    }

    fn words(&self, text: &str) -> Vec<String> {
        let mut words = vec![String::from(SPACE)];
        let mut bytes = [0; 4];
        for letter in text.chars() {
            let letter = if self.strip_accents { base(letter) } else { letter };
            let shown: &str = letter.encode_utf8(&mut bytes);
            if letter.is_whitespace() {
                words.push(SPACE.into());
            } else if CONTROL.is_match(shown) || (self.strip_accents && MARK.is_match(shown)) {
                continue;
            } else if ALONE.is_match(shown) {
                words.extend([format!("{SPACE}{letter}"), SPACE.into()]);
            } else {
                let lower = if self.lowercase { letter.to_lowercase().next() } else { None };
                words.last_mut().expect("there is always a word").push(lower.unwrap_or(letter));
            }
        }
        words.retain(|word| word.len() > SPACE.len_utf8());
        words
    }

    fn encode_word(&self, word: &str, ids: &mut Vec<u32>) {
        let before = ids.len();
        let mut rest = word;
        while !rest.is_empty() {
            let mut parts = (1..=rest.len().min(self.longest)).rev().filter_map(|length| rest.get(..length));
            let Some((part, id)) = parts.find_map(|part| Some((part, *self.ids.get(part)?))) else {
                ids.truncate(before);
                ids.push(self.unknown);
                return;
            };
            ids.push(id);
            rest = &rest[part.len()..];
        }
    }
}

/// A letter without its accents: the first of its canonical decomposition.
fn base(letter: char) -> char {
    if letter.is_ascii() {
        return letter;
    }
    NormalizedString::from(String::from(letter)).nfd().get().chars().next().unwrap_or(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_and_put_together_from_the_longest_parts() {
        let pieces = ["▁a", "▁ab", "▁cafe", "b", "c", "▁,", "▁中", "▁$", "bc"];
        let ids = pieces.iter().zip(0..).map(|(piece, id)| (piece.to_string(), id)).collect();
        let model = WordPiece::new(ids, 99, true, true);
        let check = |text: &str, expected: &[u32]| {
            let mut ids = Vec::new();
            model.encode(text, &mut ids);
            assert_eq!(ids, expected, "{text:?}");
        };
        check("", &[]);
        check(" ab  a\n", &[1, 0]);
        check("abc", &[1, 4]);
        check("CAFÉ,a", &[2, 5, 0]);
        check("a中a$", &[0, 6, 0, 7]);
        check("abd a", &[99, 0]);
        check("a\u{200d}b\u{301}\0", &[1]);
    }
}
