//! Invisible characters are no words: they would let a line look like another one, hide text from a player, or turn
//! what is shown around.

use std::borrow::Cow;

/// A text without invisible characters: control characters other than white space, marks that turn the direction of writing,
/// characters of no width. Joiners stay within words of scripts that need them and within emoji.
///
/// ```
/// # use elenchus_dialogue::visible;
/// assert_eq!(visible("gold\u{202e}\0 and\u{200b} oil"), "gold and oil");
/// ```
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| is_invisible(c) || is_joiner(c)) {
        return Cow::Borrowed(text);
    }
    let joins = |c: Option<char>| c.is_some_and(|c| !c.is_ascii() && !c.is_whitespace() && !is_invisible(c));
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let keep =
            if is_joiner(c) { joins(kept.chars().next_back()) && joins(rest.clone().next()) } else { !is_invisible(c) };
        if keep {
            kept.push(c);
        }
    }
    Cow::Owned(kept)
}

/// Whether anything can be seen of a text.
pub fn has_words(text: &str) -> bool {
    text.chars().any(|c| !c.is_whitespace() && !is_invisible(c) && !is_joiner(c))
}

/// Joins or parts its neighbours, which makes a difference in Persian, in Indic scripts and in emoji.
pub(crate) fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

pub(crate) fn is_invisible(c: char) -> bool {
    (c.is_control() && !c.is_whitespace())
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
                | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}'
                | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_is_left_out() {
        let check = |text: &str, expected: &str| assert_eq!(visible(text), expected, "{text:?}");
        check("What is courage?\r\n\tSay!", "What is courage?\r\n\tSay!");
        check("a\0b\u{1b}c\u{7f}d\u{9b}e", "abcde");
        check("\u{202e}sdrawkcab\u{202c}", "sdrawkcab");
        check("\u{2066}\u{feff}x\u{200b}\u{2060}\u{ad}y", "xy");
        check("hidden\u{e0041}\u{e0042}", "hidden");
        check("👩\u{200d}👧 می\u{200c}خواهم", "👩\u{200d}👧 می\u{200c}خواهم");
        check("pay\u{200d}ment\u{200c} \u{200d}", "payment ");
        check("e\u{301} 🇬🇷", "e\u{301} 🇬🇷");
    }

    #[test]
    fn what_nobody_sees_is_no_word() {
        for text in ["", " \n\t", "\0", "\u{202e}", "\u{200b} \u{200d}", "\u{3164}\u{2800}", "\u{e0041}"] {
            assert!(!has_words(text), "{text:?}");
        }
        for text in ["a", "?", "\u{202e}.", "🏺"] {
            assert!(has_words(text), "{text:?}");
        }
    }
}
