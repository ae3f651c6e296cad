//! SentencePiece's BPE: of all neighbours that form a token together, the pair with the highest score is joined first.
//!
//! Implemented here because the `tokenizers` crate has ranks of pairs, not scores of tokens; where several pairs make
//! the same token the two differ. Source: `llm_tokenizer_spm` in llama.cpp's `llama-vocab.cpp`.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashMap},
};

use super::SPACE;

/// A vocabulary with scores.
pub struct SentencePiece {
    /// Tokens that text can become; control tokens are not among them.
    pub ids: HashMap<String, u32>,
    /// By id.
    pub scores: Vec<f32>,
    /// The tokens of single bytes, for what is not in the vocabulary.
    pub bytes: Box<[u32; 256]>,
    /// Whether a space goes before a text.
    pub add_space_prefix: bool,
}

/// A part of the text, linked to its neighbours.
#[derive(Clone, Copy)]
struct Symbol {
    start: usize,
    /// 0 once it is joined to its left neighbour.
    length: usize,
    left: Option<usize>,
    right: Option<usize>,
}

/// Two neighbours that form a token together.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of both when the pair was found; if the length has changed since, it is out of date.
    length: usize,
}

impl SentencePiece {
    /// Appends the ids of a text.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let mut escaped = String::with_capacity(text.len() + text.len() / 2 + SPACE.len_utf8());
        if self.add_space_prefix {
            escaped.push(SPACE);
        }
        escaped.extend(text.chars().map(|letter| if letter == ' ' { SPACE } else { letter }));

        let mut symbols: Vec<Symbol> = escaped
            .char_indices()
            .enumerate()
            .map(|(at, (start, letter))| {
                let length = letter.len_utf8();
                let last = start + length == escaped.len();
                Symbol { start, length, left: at.checked_sub(1), right: (!last).then_some(at + 1) }
            })
            .collect();
        let mut pairs = BinaryHeap::new();
        for left in 0..symbols.len() {
            pairs.extend(self.pair(&escaped, &symbols, Some(left), symbols[left].right));
        }
        while let Some(Pair { left, right, length, .. }) = pairs.pop() {
            let (first, second) = (symbols[left], symbols[right]);
            if first.length == 0 || second.length == 0 || first.length + second.length != length {
                continue;
            }
            symbols[left].length = length;
            symbols[left].right = second.right;
            symbols[right].length = 0;
            if let Some(next) = second.right {
                symbols[next].left = Some(left);
            }
            pairs.extend(self.pair(&escaped, &symbols, first.left, Some(left)));
            pairs.extend(self.pair(&escaped, &symbols, Some(left), second.right));
        }
        for symbol in symbols.iter().filter(|symbol| symbol.length > 0) {
            let piece = &escaped[symbol.start..symbol.start + symbol.length];
            match self.ids.get(piece) {
                Some(&id) => ids.push(id),
                None => ids.extend(piece.bytes().map(|byte| self.bytes[usize::from(byte)])),
            }
        }
    }

    fn pair(&self, text: &str, symbols: &[Symbol], left: Option<usize>, right: Option<usize>) -> Option<Pair> {
        let (left, right) = (left?, right?);
        let length = symbols[left].length + symbols[right].length;
        let start = symbols[left].start;
        let id = *self.ids.get(&text[start..start + length])?;
        Some(Pair { score: self.scores[id as usize], left, right, length })
    }
}

/// The highest score is the greatest; of equal ones, the leftmost.
impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes are tokens 0 to 255; the given pieces follow with these scores.
    fn tokens(pieces: &[(&str, f32)], text: &str) -> Vec<String> {
        let ids = pieces.iter().zip(256..).map(|((piece, _), id)| (piece.to_string(), id)).collect();
        let scores = [0.0; 256].into_iter().chain(pieces.iter().map(|(_, score)| *score)).collect();
        let model =
            SentencePiece { ids, scores, bytes: Box::new(std::array::from_fn(|id| id as u32)), add_space_prefix: true };
        let mut ids = Vec::new();
        model.encode(text, &mut ids);
        ids.iter()
            .map(|&id| match id {
                0..256 => format!("{id:02x}"),
                id => pieces[id as usize - 256].0.to_owned(),
            })
            .collect()
    }

    #[test]
    fn the_highest_score_is_joined_first() {
        let pieces = [("▁", -9.0), ("a", -9.0), ("b", -9.0), ("c", -9.0), ("ab", -2.0), ("bc", -1.0), ("▁a", -3.0)];
        let check = |text: &str, expected: &[&str]| assert_eq!(tokens(&pieces, text), expected, "{text:?}");
        check("", &["▁"]);
        check("abc", &["▁a", "bc"]);
        check("ab", &["▁", "ab"]);
        check("bab", &["▁", "b", "ab"]);
        check("a a", &["▁a", "▁a"]);
        check("aé\n", &["▁a", "c3", "a9", "0a"]);
    }

    #[test]
    fn of_equal_scores_the_leftmost_is_joined_and_pairs_out_of_date_are_not() {
        let pieces = [("▁", -9.0), ("a", -9.0), ("aa", -1.0), ("aaa", -2.0), ("aaaa", -3.0)];
        let check = |text: &str, expected: &[&str]| assert_eq!(tokens(&pieces, text), expected, "{text:?}");
        check("aaa", &["▁", "aaa"]);
        check("aaaa", &["▁", "aaaa"]);
        check("aaaaa", &["▁", "aa", "aaa"]);
        check("aaaaaaa", &["▁", "aaaa", "aaa"]);
        assert_eq!(tokens(&pieces[..3], "aaa"), ["▁", "aa", "a"]);
    }
}
