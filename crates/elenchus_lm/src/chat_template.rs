//! Messages to token ids, by the template the model was trained with.
//!
//! A message's content is never read as markup: the template is rendered around placeholders, its own pieces are read
//! with control tokens and the contents as plain text. A player who types `<|im_end|>` says just that.

use std::path::Path;

use crate::{Result, Tokenizer, gguf::Gguf};

/// Who speaks a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions: the persona and the facts.
    System,
    /// The other side.
    User,
    /// The character.
    Assistant,
}

/// One message of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its speaker.
    pub role: Role,
    /// Its text, always read as text.
    pub content: String,
}

/// A compiled chat template.
pub struct ChatTemplate {
    // Filled by the loader.
    _private: (),
}

impl ChatTemplate {
    /// From a GGUF file's metadata.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let _ = gguf;
        todo!()
    }

    /// From a Hugging Face folder's `chat_template.jinja` or `tokenizer_config.json`.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let _ = folder;
        todo!()
    }

    /// The ids of a conversation, begin token included where the model wants one; with `reply` they end where the
    /// assistant's next words begin.
    pub fn encode(&self, tokenizer: &Tokenizer, messages: &[Message], reply: bool) -> Result<Vec<u32>> {
        let _ = (tokenizer, messages, reply);
        todo!()
    }
}
