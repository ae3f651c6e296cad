//! What is told of replies by counting their words.

use std::collections::BTreeSet;

use unicode_segmentation::UnicodeSegmentation;

/// Share of distinct pairs among all pairs of neighbouring words; 1 where there are none.
pub(crate) fn distinct_2<'a>(replies: impl IntoIterator<Item = &'a str>) -> f64 {
    distinct(2, replies)
}

/// The same of single words, pairs, or more of them in a row.
pub(crate) fn distinct<'a>(words_in_a_row: usize, replies: impl IntoIterator<Item = &'a str>) -> f64 {
    let (mut all, mut distinct) = (0usize, BTreeSet::new());
    for reply in replies {
        let words: Vec<String> = reply.unicode_words().map(str::to_lowercase).collect();
        all += (words.len() + 1).saturating_sub(words_in_a_row);
        distinct.extend(words.windows(words_in_a_row).map(<[String]>::to_vec));
    }
    if all == 0 { 1.0 } else { distinct.len() as f64 / all as f64 }
}

/// Whether a reply ends in a question, whatever closes after it.
pub(crate) fn is_question(reply: &str) -> bool {
    reply.trim_end_matches(|c: char| c.is_whitespace() || "\"'”’)*".contains(c)).ends_with('?')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_counted_over_all_replies() {
        assert_eq!(distinct_2(["a b c", "A b"]), 2.0 / 3.0);
        assert_eq!(distinct_2(["one"]), 1.0);
        assert_eq!(distinct(1, ["a b c", "A b"]), 3.0 / 5.0);
        assert_eq!(distinct(3, ["a b c", "A b", ""]), 1.0);
    }

    #[test]
    fn questions_end_in_their_mark() {
        for (reply, expected) in
            [("Why?", true), ("He said \"why?\"", true), ("Why? So.", false), ("", false), ("So;", false)]
        {
            assert_eq!(is_question(reply), expected, "{reply}");
        }
    }
}
