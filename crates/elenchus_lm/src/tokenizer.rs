//! Text to token ids and back, by the data in the model file itself.
//!
//! A text is first cut at control tokens, and only the parts that may hold markup are searched for them; the rest
//! is read as one text, across the seams of its parts. So a prompt assembled from a template's markup and a
//! player's words has the ids of the whole, and yet the player cannot write markup.

use std::{borrow::Cow, collections::HashSet, path::Path};

use self::{
    alphabet::char_to_byte, byte_pairs::BytePairs, lines::Lines, sentencepiece::SentencePiece, wordpiece::WordPiece,
};
use crate::{Error, Result, gguf::Gguf};

mod alphabet;
mod byte_pairs;
mod folder;
mod from_gguf;
mod lines;
mod markup;
mod pre_tokenizers;
mod sentencepiece;
mod to_gguf;
mod wordpiece;

#[cfg(any(test, feature = "testing"))]
pub(crate) use alphabet::byte_to_char;
pub(crate) use to_gguf::keys as gguf_keys;

/// SentencePiece's letter for a space.
const SPACE: char = '▁';

/// How control markup such as `<|im_end|>` in a text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Markup {
    /// As plain letters: what a player types.
    AsText,
    /// As control tokens: what a chat template writes.
    AsControl,
}

/// A model's vocabulary and the rules that split text into it.
pub struct Tokenizer {
    splitter: Splitter,
    /// Longest first.
    specials: Vec<Special>,
    /// By id.
    bytes: Vec<Box<[u8]>>,
    /// Tokens that a template writes and no other text becomes.
    markup: HashSet<u32>,
    ends: HashSet<u32>,
    bos: Option<u32>,
}

/// Reads plain text.
enum Splitter {
    /// Hugging Face's pipeline; the second is for text after a control token, where that differs.
    Pipeline(Box<tokenizers::Tokenizer>, Option<Box<tokenizers::Tokenizer>>),
    SentencePiece(SentencePiece),
    Lines(Lines),
    WordPiece(WordPiece),
}

/// A token that is cut out of a text before anything else.
struct Special {
    text: String,
    id: u32,
    /// Control tokens are only found where markup is read as such; others, the words of some vocabularies, always.
    control: bool,
    /// White space before it is left out.
    lstrip: bool,
    /// White space after it is left out.
    rstrip: bool,
}

/// A part of a text after the cut.
#[derive(Clone)]
enum Fragment<'a> {
    Text(Cow<'a, str>),
    Token(&'a Special),
}

impl Tokenizer {
    /// From a GGUF file's metadata.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        from_gguf::read(gguf)
    }

    /// From a Hugging Face folder's `tokenizer.json`.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        folder::read(folder)
    }

    /// The ids of a text; no token is added before or after.
    pub fn encode(&self, text: &str, markup: Markup) -> Result<Vec<u32>> {
        self.encode_parts(&[(text, markup)])
    }

    /// The ids of a text assembled from parts, each with its own reading of markup.
    pub(crate) fn encode_parts(&self, parts: &[(&str, Markup)]) -> Result<Vec<u32>> {
        let mut fragments: Vec<Fragment> = Vec::new();
        for &(text, markup) in parts {
            for fragment in self.cut(text, markup) {
                match (fragments.last_mut(), fragment) {
                    (Some(Fragment::Text(before)), Fragment::Text(text)) => before.to_mut().push_str(&text),
                    (_, fragment) => fragments.push(fragment),
                }
            }
        }
        strip(&mut fragments);
        let mut ids = Vec::new();
        for (at, fragment) in fragments.iter().enumerate() {
            match fragment {
                Fragment::Token(special) => ids.push(special.id),
                Fragment::Text(text) => self.splitter.encode(text, at == 0, &mut ids)?,
            }
        }
        Ok(ids)
    }

    /// The bytes a token stands for: possibly half a character, and nothing for a control token.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], |bytes| bytes)
    }

    /// The text of some ids; control tokens are left out, broken UTF-8 is replaced. A SentencePiece vocabulary puts a
    /// space before the first word, which stays.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.token_bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether this token is markup: a template writes it, and no text that a player types becomes it. Control tokens are,
    /// and other tokens of the chat template, such as `<think>`, whose bytes are its text.
    pub fn is_markup(&self, id: u32) -> bool {
        self.markup.contains(&id)
    }

    /// The token of this markup, such as `<think>`: its bytes are none if the file calls it a control token.
    pub fn markup_id(&self, text: &str) -> Option<u32> {
        self.specials.iter().find(|special| special.control && special.text == text).map(|special| special.id)
    }

    /// Whether this token ends a reply (end of turn or of text).
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// The token put in front of every prompt, where the model wants one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Ids are below this.
    pub fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    /// Assembles a loaded vocabulary: `ends` are those the file names; those of known names are added.
    fn new(splitter: Splitter, vocabulary: Vocabulary, ends: Vec<u32>, bos: Option<u32>) -> Self {
        let Vocabulary { mut specials, bytes } = vocabulary;
        // An empty control token would match everywhere.
        specials.retain(|special| !special.text.is_empty());
        specials.sort_by_key(|special| std::cmp::Reverse(special.text.len()));
        let controls = || specials.iter().filter(|special| special.control);
        let known = markup::ends(|name| controls().any(|special| special.text == name));
        let named = controls().filter(|special| known.contains(&special.text.as_str()));
        let ends = ends.into_iter().chain(named.map(|special| special.id)).collect();
        let markup = controls().map(|special| special.id).collect();
        Self { splitter, specials, bytes, markup, ends, bos }
    }

    /// Cuts control tokens out, the longest first, as llama.cpp's `tokenizer_st_partition` does. No fragment is empty.
    fn cut<'a>(&'a self, text: &'a str, markup: Markup) -> Vec<Fragment<'a>> {
        let mut fragments = vec![Fragment::Text(text.into())];
        let pairs = BytePairs::of(text);
        for special in self.specials.iter().filter(|special| markup == Markup::AsControl || !special.control) {
            if pairs.may_hold(&special.text) && text.contains(&special.text) {
                fragments = fragments.into_iter().flat_map(|fragment| special.cut_out_of(fragment)).collect();
            }
        }
        fragments.retain(|fragment| !fragment.is_empty_text());
        fragments
    }
}

/// Leaves out white space beside tokens that say so.
fn strip(fragments: &mut Vec<Fragment<'_>>) {
    let beside = |at: Option<usize>, fragments: &[Fragment<'_>], strips: fn(&Special) -> bool| matches!(at.and_then(|at| fragments.get(at)), Some(Fragment::Token(special)) if strips(special));
    for at in 0..fragments.len() {
        let after = beside(at.checked_sub(1), fragments, |special| special.rstrip);
        let before = beside(Some(at + 1), fragments, |special| special.lstrip);
        if let Fragment::Text(text) = &mut fragments[at] {
            // As C's `isspace` does.
            let is_space = |letter: char| matches!(letter, ' ' | '\t'..='\r');
            if after && text.starts_with(is_space) {
                *text = text.trim_start_matches(is_space).to_owned().into();
            }
            if before && text.ends_with(is_space) {
                *text = text.trim_end_matches(is_space).to_owned().into();
            }
        }
    }
    fragments.retain(|fragment| !fragment.is_empty_text());
}

impl Fragment<'_> {
    fn is_empty_text(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }
}

impl Special {
    fn cut_out_of<'a>(&'a self, fragment: Fragment<'a>) -> Vec<Fragment<'a>> {
        let Fragment::Text(Cow::Borrowed(text)) = fragment else { return vec![fragment] };
        let mut cut = Vec::new();
        for (number, between) in text.split(&self.text).enumerate() {
            if number > 0 {
                cut.push(Fragment::Token(self));
            }
            cut.push(Fragment::Text(between.into()));
        }
        cut
    }
}

impl Splitter {
    /// Appends the ids of plain text; `first` is false after a control token.
    fn encode(&self, text: &str, first: bool, ids: &mut Vec<u32>) -> Result<()> {
        match self {
            Self::SentencePiece(pieces) => pieces.encode(text, ids),
            Self::Lines(lines) => lines.encode(text, ids)?,
            Self::WordPiece(words) => words.encode(text, ids),
            Self::Pipeline(at_start, elsewhere) => {
                let pipeline = if first { at_start } else { elsewhere.as_ref().unwrap_or(at_start) };
                let encoding =
                    pipeline.encode_fast(text, false).map_err(|error| Error::Tokenizer(error.to_string()))?;
                ids.extend_from_slice(encoding.get_ids());
            }
        }
        Ok(())
    }
}

/// The kind of each token, found by a loader.
#[derive(Default)]
struct Vocabulary {
    specials: Vec<Special>,
    bytes: Vec<Box<[u8]>>,
}

/// How a vocabulary spells its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// A letter per byte, GPT-2's way.
    ByteLevel,
    /// As written, `▁` for a space, and `<0x0A>` for single bytes.
    SentencePiece,
}

impl Spelling {
    /// The bytes of a token that is neither control nor added.
    fn bytes(self, token: &str) -> Box<[u8]> {
        match self {
            Self::ByteLevel => {
                let mut bytes = Vec::with_capacity(token.len());
                for letter in token.chars() {
                    match char_to_byte(letter) {
                        Some(byte) => bytes.push(byte),
                        // Not in the alphabet: such a token was added to the vocabulary as it is.
                        None => bytes.extend(letter.encode_utf8(&mut [0; 4]).as_bytes()),
                    }
                }
                bytes.into()
            }
            Self::SentencePiece => match byte_token(token) {
                Some(byte) => [byte].into(),
                None => token.replace(SPACE, " ").into_bytes().into(),
            },
        }
    }
}

/// The byte that `<0x0A>` stands for.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests;
