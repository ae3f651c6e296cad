//! How a conversation is displayed: names in bold, words as they arrive, wrapped between words.

use anyhow::Result;
use console::{Style, Term};
use serde::Serialize;

use crate::output::{print, say};

/// A finished reply for a program that reads it.
#[derive(Debug, Serialize)]
pub struct JsonReply {
    pub character: String,
    pub adapter: Option<String>,
    pub text: String,
    pub stop: bevy_elenchus::StopReason,
    /// The rules that refused attempts at this reply.
    pub refused: Vec<String>,
    pub prompt_tokens: usize,
    pub reply_tokens: usize,
    pub cached_tokens: usize,
    pub first_token_ms: f64,
    pub tokens_per_s: f32,
}

impl JsonReply {
    /// A fallback line, because the filter refused every attempt.
    pub fn refused(character: String, text: String, rule: String) -> Self {
        Self {
            character,
            adapter: None,
            text,
            stop: bevy_elenchus::StopReason::Refused,
            refused: vec![rule],
            prompt_tokens: 0,
            reply_tokens: 0,
            cached_tokens: 0,
            first_token_ms: 0.0,
            tokens_per_s: 0.0,
        }
    }
}

/// Where the output goes.
#[derive(Debug)]
pub enum Screen {
    /// One JSON object a reply and nothing else.
    Json,
    /// For people.
    Text(Page),
}

/// Text for people, wrapped at the terminal's width.
#[derive(Debug)]
pub struct Page {
    /// Show a prompt and notes: a person types.
    typed: bool,
    wrap: Wrap,
}

impl Screen {
    pub fn json() -> Self {
        Self::Json
    }

    /// A person types, at a terminal or through a pipe.
    pub fn typed(at_terminal: bool) -> Self {
        Self::Text(Page { typed: at_terminal, wrap: Wrap::new(terminal_width()) })
    }

    /// The lines come from the command line; they are shown too.
    pub fn transcript() -> Self {
        Self::Text(Page { typed: false, wrap: Wrap::new(terminal_width()) })
    }

    /// Shows the prompt for a line.
    pub fn prompt(&self) {
        if let Self::Text(Page { typed: true, .. }) = self {
            say(&format!("{} ", name("You >")));
        }
    }

    /// The person's line, where no terminal has shown it already.
    pub fn said(&mut self, text: &str) {
        if let Self::Text(Page { typed: false, .. }) = self {
            self.line("You", text);
        }
    }

    /// A whole line of a speaker.
    pub fn line(&mut self, speaker: &str, text: &str) {
        self.begin(speaker);
        self.words(text);
        self.end("");
    }

    /// A speaker's reply begins.
    pub fn begin(&mut self, speaker: &str) {
        if let Self::Text(page) = self {
            let label = format!("{speaker} > ");
            say(&format!("{} ", name(label.trim_end())));
            page.wrap.begin(label.chars().count());
        }
    }

    /// More of its text.
    pub fn words(&mut self, text: &str) {
        if let Self::Text(page) = self {
            say(&page.wrap.push(text));
        }
    }

    /// The reply ends; `remark` says why, where that is not plain.
    pub fn end(&mut self, remark: &str) {
        if let Self::Text(page) = self {
            let rest = page.wrap.finish();
            let remark = if remark.is_empty() { String::new() } else { format!(" {}", dim(remark)) };
            say(&format!("{rest}{remark}\n"));
        }
    }

    /// A note from the program itself.
    pub fn note(&self, text: &str) {
        if let Self::Text(page) = self {
            let mut wrap = Wrap::new(page.wrap.width);
            say(&format!("{}\n", dim(&format!("{}{}", wrap.push(text), wrap.finish()))));
        }
    }

    /// An empty line, so that the shell's prompt stands alone after the terminal's `^C` or `^D`.
    pub fn leave(&self) {
        if let Self::Text(Page { typed: true, .. }) = self {
            say("\n");
        }
    }
}

/// Prints one reply as JSON.
pub fn show_json(reply: &JsonReply) -> Result<()> {
    print(&format!("{}\n", serde_json::to_string(reply)?))
}

fn name(text: &str) -> String {
    Style::new().bold().apply_to(text).to_string()
}

fn dim(text: &str) -> String {
    Style::new().dim().apply_to(text).to_string()
}

fn terminal_width() -> Option<usize> {
    let term = Term::stdout();
    term.is_term().then(|| term.size().1.into()).filter(|width| *width >= 20)
}

/// Breaks streamed text between words: the word that is still growing is held back until it ends.
#[derive(Debug)]
struct Wrap {
    /// `None` breaks nothing: the output is a file or a pipe.
    width: Option<usize>,
    column: usize,
    word: String,
}

impl Wrap {
    fn new(width: Option<usize>) -> Self {
        Self { width, column: 0, word: String::new() }
    }

    fn begin(&mut self, column: usize) {
        (self.column, self.word) = (column, String::new());
    }

    /// What can be shown now.
    fn push(&mut self, text: &str) -> String {
        let Some(width) = self.width else { return text.to_owned() };
        let mut out = String::new();
        for character in text.chars() {
            match character {
                '\n' => {
                    self.end_word(width, &mut out);
                    out.push('\n');
                    self.column = 0;
                }
                ' ' => {
                    self.end_word(width, &mut out);
                    self.word.push(' ');
                }
                _ => self.word.push(character),
            }
        }
        out
    }

    /// What is left.
    fn finish(&mut self) -> String {
        let mut out = String::new();
        self.end_word(self.width.unwrap_or(usize::MAX), &mut out);
        out
    }

    /// The word with the spaces before it, which a line break replaces.
    fn end_word(&mut self, width: usize, out: &mut String) {
        let length = self.word.chars().count();
        if self.column + length > width && self.column > 0 && !self.word.trim().is_empty() {
            out.push('\n');
            out.push_str(self.word.trim_start());
            self.column = self.word.trim_start().chars().count();
        } else {
            out.push_str(&self.word);
            self.column += length;
        }
        self.word.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_breaks_between_words_however_it_is_cut() {
        let check = |width: Option<usize>, text: &str, expected: &str| {
            for piece in 1..=text.chars().count() {
                let mut wrap = Wrap::new(width);
                wrap.begin(4);
                let characters: Vec<char> = text.chars().collect();
                let mut shown: String =
                    characters.chunks(piece).map(|piece| wrap.push(&piece.iter().collect::<String>())).collect();
                shown.push_str(&wrap.finish());
                assert_eq!(shown, expected, "in pieces of {piece}");
            }
        };
        check(Some(12), "one two three", "one two\nthree");
        check(Some(12), "one tworrrrrr", "one\ntworrrrrr");
        check(Some(12), "seven\none two three", "seven\none two\nthree");
        check(Some(12), "αβγ δεζ ηθι", "αβγ δεζ\nηθι");
        check(Some(12), "averyverylongword so", "\naveryverylongword\nso");
        check(None, "one two three four", "one two three four");
    }
}
