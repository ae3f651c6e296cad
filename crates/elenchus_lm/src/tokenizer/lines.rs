//! Gemma 4's BPE: over the letters of a whole line, with `▁` for a space and the tokens of single bytes for what is not in
//! the vocabulary.
//!
//! Runs of line breaks are tokens of their own, which no merge makes. Source: `LLAMA_VOCAB_PRE_TYPE_GEMMA4` in
//! llama.cpp's `llama-vocab.cpp`.

use std::collections::HashMap;

use tokenizers::models::bpe::BPE;

use super::SPACE;
use crate::{Error, Result};

/// A vocabulary that merges whole lines.
pub struct Lines {
    /// Without pre-tokenizer: what it is given is one word.
    pub merger: Box<tokenizers::Tokenizer>,
    /// Tokens of line breaks alone, by their number.
    pub breaks: HashMap<usize, u32>,
}

impl Lines {
    pub fn new(model: BPE, breaks: HashMap<usize, u32>) -> Self {
        Self { merger: Box::new(tokenizers::Tokenizer::new(model)), breaks }
    }

    /// Appends the ids of a text.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let text = text.replace(' ', SPACE.encode_utf8(&mut [0; 4]));
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            let is_break = first == '\n';
            let end = rest.find(|letter| (letter == '\n') != is_break).unwrap_or(rest.len());
            match self.breaks.get(&end).filter(|_| is_break) {
                Some(&id) => ids.push(id),
                None => {
                    let encoding = self.merger.encode_fast(&rest[..end], false);
                    ids.extend_from_slice(encoding.map_err(|error| Error::Tokenizer(error.to_string()))?.get_ids());
                }
            }
            rest = &rest[end..];
        }
        Ok(())
    }
}
