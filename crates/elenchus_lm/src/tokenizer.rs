//! Text to token ids and back, from what the model file itself holds.
//!
//! A text is first cut at control tokens, and only the parts that may hold markup are searched for them; what lies
//! between is read as one text, across the seams of its parts. So a prompt put together from a template's markup and a
//! player's words has the ids of the whole, and yet the player cannot write markup.

use std::{borrow::Cow, collections::HashSet, path::Path};

use self::{alphabet::char_to_byte, sentencepiece::SentencePiece};
use crate::{Error, Result, gguf::Gguf};

mod alphabet;
mod folder;
mod from_gguf;
mod sentencepiece;

#[cfg(any(test, feature = "testing"))]
pub(crate) use alphabet::byte_to_char;

/// SentencePiece's letter for a space.
const SPACE: char = '▁';

/// Control tokens that end a turn or a text, whatever the file names as its end. Source: `special_eog_ids` in
/// llama.cpp's `llama-vocab.cpp`.
const END_NAMES: [&str; 9] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<EOT>",
];

/// How control markup such as `<|im_end|>` in a text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Markup {
    /// As the letters it is written in: what a player types.
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
    ends: HashSet<u32>,
    bos: Option<u32>,
}

/// Reads plain text.
enum Splitter {
    /// Hugging Face's pipeline; the second is for text behind a control token, where that differs.
    Pipeline(Box<tokenizers::Tokenizer>, Option<Box<tokenizers::Tokenizer>>),
    SentencePiece(SentencePiece),
}

/// A token that is cut out of a text before anything else.
struct Special {
    text: String,
    id: u32,
    /// Control tokens are only found where markup is read as such; others, the words of some vocabularies, always.
    control: bool,
}

/// A part of a text after the cut.
#[derive(Debug, Clone, PartialEq)]
enum Fragment<'a> {
    Text(Cow<'a, str>),
    Token(u32),
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

    /// The ids of a text; none is added in front or behind.
    pub fn encode(&self, text: &str, markup: Markup) -> Result<Vec<u32>> {
        self.encode_parts(&[(text, markup)])
    }

    /// The ids of a text that is put together from parts, each with its own reading of markup.
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
        let mut ids = Vec::new();
        for (at, fragment) in fragments.iter().enumerate() {
            match fragment {
                Fragment::Token(id) => ids.push(*id),
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

    /// Puts a loaded vocabulary together: `ends` are those the file names; known names are added.
    fn new(splitter: Splitter, vocabulary: Vocabulary, ends: Vec<u32>, bos: Option<u32>) -> Self {
        let Vocabulary { mut specials, bytes } = vocabulary;
        // An empty control token would be found everywhere.
        specials.retain(|special| !special.text.is_empty());
        specials.sort_by_key(|special| std::cmp::Reverse(special.text.len()));
        let named = specials.iter().filter(|special| special.control && END_NAMES.contains(&special.text.as_str()));
        let ends = ends.into_iter().chain(named.map(|special| special.id)).collect();
        Self { splitter, specials, bytes, ends, bos }
    }

    /// Cuts control tokens out, the longest first, as llama.cpp's `tokenizer_st_partition` does. No fragment is empty.
    fn cut<'a>(&self, text: &'a str, markup: Markup) -> Vec<Fragment<'a>> {
        let mut fragments = vec![Fragment::Text(text.into())];
        for special in self.specials.iter().filter(|special| markup == Markup::AsControl || !special.control) {
            if text.contains(&special.text) {
                fragments = fragments.into_iter().flat_map(|fragment| special.cut_out_of(fragment)).collect();
            }
        }
        fragments.retain(|fragment| *fragment != Fragment::Text("".into()));
        fragments
    }
}

impl Special {
    fn cut_out_of<'a>(&self, fragment: Fragment<'a>) -> Vec<Fragment<'a>> {
        let Fragment::Text(Cow::Borrowed(text)) = fragment else { return vec![fragment] };
        let mut cut = Vec::new();
        for (number, between) in text.split(&self.text).enumerate() {
            if number > 0 {
                cut.push(Fragment::Token(self.id));
            }
            cut.push(Fragment::Text(between.into()));
        }
        cut
    }
}

impl Splitter {
    /// Appends the ids of plain text; `first` is false behind a control token.
    fn encode(&self, text: &str, first: bool, ids: &mut Vec<u32>) -> Result<()> {
        match self {
            Self::SentencePiece(pieces) => pieces.encode(text, ids),
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

/// What a loader finds out about each token.
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
                        // Not one of the alphabet: such a token was added to the vocabulary as it is.
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
