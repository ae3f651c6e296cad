//! Text to token ids and back, from what the model file itself holds.

use std::path::Path;

use crate::{Result, gguf::Gguf};

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
    // Filled by the loader.
    _private: (),
}

impl Tokenizer {
    /// From a GGUF file's metadata.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let _ = gguf;
        todo!()
    }

    /// From a Hugging Face folder's `tokenizer.json`.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let _ = folder;
        todo!()
    }

    /// The ids of a text; none is added in front or behind.
    pub fn encode(&self, text: &str, markup: Markup) -> Result<Vec<u32>> {
        let _ = (text, markup);
        todo!()
    }

    /// The bytes a token stands for: possibly half a character, and nothing for a control token.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        let _ = id;
        todo!()
    }

    /// The text of some ids; control tokens are left out, broken UTF-8 is replaced.
    pub fn decode(&self, ids: &[u32]) -> String {
        let _ = ids;
        todo!()
    }

    /// Whether this token ends a reply (end of turn or of text).
    pub fn is_end(&self, id: u32) -> bool {
        let _ = id;
        todo!()
    }

    /// The token put in front of every prompt, where the model wants one.
    pub fn bos(&self) -> Option<u32> {
        todo!()
    }

    /// Ids are below this.
    pub fn vocab_size(&self) -> usize {
        todo!()
    }
}

/// GPT-2's letter for a byte: printable Latin-1 stands for itself, the rest moves up to U+0100.
/// Source: `bytes_to_unicode` in OpenAI's `encoder.py`.
pub(crate) fn byte_to_char(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&other| !printable(other)).count() as u32;
    char::from_u32(0x100 + before).expect("0x100 to 0x143 are letters")
}
