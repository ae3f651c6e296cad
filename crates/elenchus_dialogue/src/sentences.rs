//! Finds sentences while a reply streams, one character at a time, so that they never depend on how the text was split
//! into tokens.

/// Words that end in a point within a sentence, without that point, in lower case.
const ABBREVIATIONS: [&str; 16] =
    ["mr", "mrs", "ms", "dr", "st", "prof", "rev", "gen", "e.g", "i.e", "cf", "vs", "viz", "approx", "fig", "ca"];

/// Finds the ends of sentences.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sentences {
    /// Sentences that have ended.
    count: usize,
    /// Whether the sentence holds a letter or digit yet: "..." alone is none.
    words: bool,
    state: State,
}

/// Where the newest character stands. `end` is the byte after the sentence.
#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Within,
    /// After a closing mark and any quotes. `unsure` after an ellipsis or a quote: the sentence may continue after them.
    Closed { end: usize, unsure: bool },
    /// Behind the white space after an unsure end; the next letter's case decides.
    Unsure { end: usize },
}

impl Sentences {
    /// Takes `c`, now the last character of `text`; returns the end of a sentence once it is certain.
    pub fn push(&mut self, text: &str, c: char) -> Option<usize> {
        let before = &text[..text.len() - c.len_utf8()];
        match self.state {
            State::Closed { unsure, .. } if closes(before, c) => {
                self.state = State::Closed { end: text.len(), unsure: unsure || is_ellipsis(text) };
            }
            State::Closed { .. } if is_closing_quote(c) => {
                self.state = State::Closed { end: text.len(), unsure: true };
            }
            State::Closed { end, unsure } if c.is_whitespace() => {
                if is_abbreviation(&text[..end]) || !self.words {
                    self.state = State::Within;
                } else if unsure {
                    self.state = State::Unsure { end };
                } else {
                    return Some(self.ended(end));
                }
            }
            State::Unsure { .. } if c.is_whitespace() => {}
            State::Unsure { end } if !c.is_lowercase() => {
                let end = self.ended(end);
                self.enter(text, before, c);
                return Some(end);
            }
            _ => self.enter(text, before, c),
        }
        None
    }

    /// How many sentences have certainly ended.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The end of the newest sentence, if `text` were to end here.
    pub fn end_here(&self, text: &str) -> Option<usize> {
        match self.state {
            State::Closed { end, .. } | State::Unsure { end } if self.words && !is_abbreviation(&text[..end]) => {
                Some(end)
            }
            _ => None,
        }
    }

    fn enter(&mut self, text: &str, before: &str, c: char) {
        self.words |= c.is_alphanumeric();
        self.state = if closes(before, c) {
            State::Closed { end: text.len(), unsure: is_ellipsis(text) }
        } else {
            State::Within
        };
    }

    fn ended(&mut self, end: usize) -> usize {
        self.state = State::Within;
        self.words = false;
        self.count += 1;
        end
    }
}

/// The sentences of a text, as replies are released: each with the white space before it, so that joined they are the text.
///
/// ```
/// # use elenchus_dialogue::sentences;
/// assert_eq!(sentences("Mr. Plato is out. Why?").collect::<Vec<_>>(), ["Mr. Plato is out.", " Why?"]);
/// ```
pub fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut found = Sentences::default();
    let ends = text.char_indices().filter_map(move |(at, c)| found.push(&text[..at + c.len_utf8()], c));
    let mut from = 0;
    ends.chain([text.len()]).filter_map(move |end| {
        let sentence = &text[from..end];
        from = end;
        (!sentence.is_empty()).then_some(sentence)
    })
}

/// Whether `c` closes a sentence. The Greek question mark is usually typed as a semicolon; after a Greek letter it is one.
fn closes(before: &str, c: char) -> bool {
    let greek = |letter: char| matches!(letter, '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}');
    match c {
        '.' | '!' | '?' | '…' | '\u{37e}' => true,
        ';' => before.chars().next_back().is_some_and(greek),
        _ => false,
    }
}

fn is_closing_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '”' | '’' | '»' | ')' | ']' | '*' | '_')
}

fn is_ellipsis(text: &str) -> bool {
    text.ends_with('…') || text.ends_with("..")
}

/// Whether a text that ends in a point ends in an abbreviation, an initial ("J. Doe") or the number of a list's item.
fn is_abbreviation(text: &str) -> bool {
    let Some(text) = text.strip_suffix('.') else { return false };
    let word = text.rsplit(|c: char| c.is_whitespace() || matches!(c, '(' | '"' | '“' | '*')).next().unwrap_or(text);
    let starts_line = || matches!(text[..text.len() - word.len()].chars().next_back(), None | Some('\n'));
    let mut letters = word.chars();
    match (letters.next(), letters.next()) {
        (Some(initial), None) if initial.is_uppercase() && initial != 'I' => true,
        _ if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()) => starts_line(),
        _ => ABBREVIATIONS.contains(&word.to_lowercase().as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sentence_ends_where_a_reader_would_end_it() {
        /// `text` cut after its first sentence must be `expected`; the two are equal where it never surely ends.
        fn check(text: &str, expected: &str) {
            let mut sentences = Sentences::default();
            let end = text.char_indices().find_map(|(at, c)| sentences.push(&text[..at + c.len_utf8()], c));
            assert_eq!(&text[..end.unwrap_or(text.len())], expected);
        }
        check("Know thyself. Then", "Know thyself.");
        check("Why? Because", "Why?");
        check("Stop! now", "Stop!");
        check("Really?! Yes", "Really?!");
        check("One line.\nTwo", "One line.");
        check("No end yet.", "No end yet.");
        check("I paid 3.5 drachmas. You", "I paid 3.5 drachmas.");
        check("It was in 399. Then", "It was in 399.");
        check("1. Know. 2. Do", "1. Know.");
        check("Fruit, e.g. olives. Yes", "Fruit, e.g. olives.");
        check("Mr. Plato is out. Yes", "Mr. Plato is out.");
        check("(cf. Homer) sings. Yes", "(cf. Homer) sings.");
        check("J. Doe left. Yes", "J. Doe left.");
        check("It is I. Yes", "It is I.");
        check("Well... perhaps not. Yes", "Well... perhaps not.");
        check("Well… perhaps not. Yes", "Well… perhaps not.");
        check("Well... Perhaps", "Well...");
        check("... so it goes. Yes", "... so it goes.");
        check("... So it goes. Yes", "... So it goes.");
        check("\"Why?\" he asked. Yes", "\"Why?\" he asked.");
        check("\"Why?\" He left", "\"Why?\"");
        check("He said “no.” Then", "He said “no.”");
        check("(He left.) Then", "(He left.)");
        check("See example.com or me. Yes", "See example.com or me.");
        check("Τί ἐστιν ἀρετή; Οὐκ", "Τί ἐστιν ἀρετή;");
        check("Τί ἐστιν ἀρετή\u{37e} Οὐκ", "Τί ἐστιν ἀρετή\u{37e}");
        check("one; two. Three", "one; two.");
    }

    #[test]
    fn every_end_is_found_and_counted() {
        let (text, mut sentences) = ("A b. C d! E f? G h. I j", Sentences::default());
        let ends: Vec<_> =
            text.char_indices().filter_map(|(at, c)| sentences.push(&text[..at + c.len_utf8()], c)).collect();
        assert_eq!((ends.as_slice(), sentences.count()), ([4, 9, 14, 19].as_slice(), 4));
    }

    #[test]
    fn a_text_may_end_where_a_sentence_does() {
        fn check(text: &str, expected: Option<usize>) {
            let mut sentences = Sentences::default();
            text.char_indices().for_each(|(at, c)| _ = sentences.push(&text[..at + c.len_utf8()], c));
            assert_eq!(sentences.end_here(text), expected, "{text:?}");
        }
        check("", None);
        check("Know", None);
        check("Know thyself.", Some(13));
        check("Know thyself. ", None);
        check("Know thyself. Th", None);
        check("He said \"no.\"", Some(13));
        check("He is Mr.", None);
        check("...", None);
        check("1.", None);
    }
}
