//! Words and what ends sentences, as texts are counted and filtered by.

/// Words as a writer counts them.
pub fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// What may stand after a sentence's last mark.
pub(super) fn is_closing_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '”' | '’' | '»' | ')' | ']' | '*' | '_')
}
