//! Not every pair teaches: after "Certainly." any reply fits, and a reply of 6,000 words is a book. Each filter says how
//! many pairs it dropped, so that nothing goes missing unseen.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

use super::{
    Pair,
    words::{is_closing_quote, words},
};

/// Which pairs are fit to learn from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filters {
    /// Words of a reply at least.
    pub min_reply_words: usize,
    /// Words of a reply at most.
    pub max_reply_words: usize,
    /// What is done with longer replies.
    pub long_replies: LongReplies,
    /// Words of the turn that is replied to, at least.
    pub min_last_turn_words: usize,
    /// Words of the turn that is replied to, at most: a player's line is short, and so is a training context.
    pub max_last_turn_words: usize,
    /// How sure all turns of a pair must be.
    pub min_confidence: f64,
    /// Words that neither a reply nor what it replies to may hold, whatever their case: comedy is bawdier than a game.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub without_words: Vec<String>,
    /// Keep one of several pairs with the same last turn and reply, whatever their case and punctuation.
    pub deduplicate: bool,
}

/// What is done with a reply of too many words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LongReplies {
    /// Cut after the last sentence that fits; dropped if its first sentence does not.
    Cut,
    /// Dropped.
    Drop,
}

impl Default for Filters {
    fn default() -> Self {
        Self {
            min_reply_words: 5,
            max_reply_words: 80,
            long_replies: LongReplies::Cut,
            min_last_turn_words: 5,
            max_last_turn_words: 200,
            min_confidence: 0.97,
            without_words: Vec::new(),
            deduplicate: true,
        }
    }
}

impl Filters {
    /// The same where only replies matter: a player line stands in for whatever was said before.
    pub(crate) fn of_replies(&self) -> Self {
        Self { min_last_turn_words: 0, max_last_turn_words: usize::MAX, deduplicate: false, ..self.clone() }
    }
}

/// What the filters did. A pair counts for the first filter that drops it, in the order of the fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FilterReport {
    /// Pairs that are left.
    pub kept: usize,
    /// Pairs among them whose reply was cut at a sentence's end.
    pub cut: usize,
    /// Dropped: some turn is not sure enough.
    pub unsure: usize,
    /// Dropped: the last turn has too few words.
    pub short_last_turn: usize,
    /// Dropped: the last turn has too many words.
    pub long_last_turn: usize,
    /// Dropped: the reply has too many words, and could not or was not to be cut.
    pub long_reply: usize,
    /// Dropped: the reply has too few words, also once cut.
    pub short_reply: usize,
    /// Dropped: the reply, once cut, or the last turn holds a word it may not.
    pub unwanted_word: usize,
    /// Dropped: the same as an earlier pair.
    pub duplicate: usize,
}

impl FilterReport {
    /// Pairs dropped by any filter.
    pub fn dropped(&self) -> usize {
        self.by_cause().iter().map(|(_, count)| count).sum()
    }

    /// Pairs dropped by each filter, with the filter's name.
    pub fn by_cause(&self) -> [(&'static str, usize); 7] {
        [
            ("unsure", self.unsure),
            ("short last turn", self.short_last_turn),
            ("long last turn", self.long_last_turn),
            ("long reply", self.long_reply),
            ("short reply", self.short_reply),
            ("unwanted word", self.unwanted_word),
            ("duplicate", self.duplicate),
        ]
    }
}

/// The pairs that are fit to learn from, in their order, and what became of the others.
pub fn filter(pairs: Vec<Pair>, filters: &Filters) -> (Vec<Pair>, FilterReport) {
    let mut report = FilterReport::default();
    let mut seen = HashSet::new();
    let unwanted: Vec<String> = filters.without_words.iter().map(|word| letters(word)).collect();
    let mut kept = Vec::with_capacity(pairs.len());
    for mut pair in pairs {
        if pair.confidence < filters.min_confidence {
            report.unsure += 1;
            continue;
        }
        let last_turn = pair.context.last().map_or("", |turn| &turn.text);
        if words(last_turn) < filters.min_last_turn_words {
            report.short_last_turn += 1;
            continue;
        }
        if words(last_turn) > filters.max_last_turn_words {
            report.long_last_turn += 1;
            continue;
        }
        let is_long = words(&pair.reply) > filters.max_reply_words;
        if is_long {
            match cut(&pair.reply, filters.max_reply_words).filter(|_| filters.long_replies == LongReplies::Cut) {
                Some(end) => pair.reply.truncate(end),
                None => {
                    report.long_reply += 1;
                    continue;
                }
            }
        }
        if words(&pair.reply) < filters.min_reply_words {
            report.short_reply += 1;
            continue;
        }
        let holds = |text: &str| letters(text).split(' ').any(|word| unwanted.iter().any(|unwanted| unwanted == word));
        if !unwanted.is_empty() && (holds(last_turn) || holds(&pair.reply)) {
            report.unwanted_word += 1;
            continue;
        }
        if filters.deduplicate && !seen.insert((letters(last_turn), letters(&pair.reply))) {
            report.duplicate += 1;
            continue;
        }
        report.cut += usize::from(is_long);
        kept.push(pair);
    }
    report.kept = kept.len();
    (kept, report)
}

/// The byte after the last sentence that ends within so many words.
fn cut(text: &str, max_words: usize) -> Option<usize> {
    let (mut count, mut end) = (0, None);
    for (start, sentence) in text.split_sentence_bound_indices() {
        count += words(sentence);
        if count > max_words {
            break;
        }
        let sentence = sentence.trim_end();
        if sentence.trim_end_matches(is_closing_quote).ends_with(['.', '!', '?', '…', '\u{37e}']) {
            end = Some(start + sentence.len());
        }
    }
    end
}

/// What two texts are compared by: letters and digits in small, a space between words.
fn letters(text: &str) -> String {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use elenchus_dialogue::Turn;

    use super::*;

    fn pair(last_turn: &str, reply: &str, confidence: f64) -> Pair {
        let turn = Turn { speaker: "A".into(), text: last_turn.into() };
        Pair {
            work: "w".into(),
            context: vec![turn],
            reply: reply.into(),
            facts: Vec::new(),
            notes: Vec::new(),
            confidence,
        }
    }

    const FILTERS: Filters = Filters {
        min_reply_words: 2,
        max_reply_words: 4,
        long_replies: LongReplies::Cut,
        min_last_turn_words: 2,
        max_last_turn_words: 3,
        min_confidence: 0.9,
        without_words: Vec::new(),
        deduplicate: true,
    };

    #[test]
    fn each_filter_drops_and_says_so() {
        fn check(last_turn: &str, reply: &str, confidence: f64, expected: Result<&str, &str>) {
            let (kept, report) = filter(vec![pair(last_turn, reply, confidence)], &FILTERS);
            let dropped = report.by_cause().iter().find(|(_, count)| *count > 0).map(|(cause, _)| *cause);
            let found = kept.first().map(|pair| pair.reply.as_str()).ok_or(dropped.unwrap_or("nothing"));
            assert_eq!(found, expected);
            assert_eq!(report.kept + report.dropped(), 1);
        }
        check("Is it?", "It is.", 0.9, Ok("It is."));
        check("Is it?", "It is.", 0.89, Err("unsure"));
        check("Yes.", "It is.", 1.0, Err("short last turn"));
        check("But is it so?", "It is.", 1.0, Err("long last turn"));
        check("Is it?", "Yes.", 1.0, Err("short reply"));
        check("Is it?", "It is so, yes.", 1.0, Ok("It is so, yes."));
        check("Is it?", "It is so. But why?", 1.0, Ok("It is so."));
        check("Is it?", "One two three four five.", 1.0, Err("long reply"));
        check("Is it?", "Yes. One two three four five.", 1.0, Err("short reply"));
    }

    #[test]
    fn long_replies_are_dropped_if_told() {
        let filters = Filters { long_replies: LongReplies::Drop, ..FILTERS };
        let (_, report) = filter(vec![pair("Is it?", "It is so. But why?", 1.0)], &filters);
        assert_eq!(report, FilterReport { long_reply: 1, ..FilterReport::default() });
    }

    #[test]
    fn unwanted_words_are_found_as_words() {
        let filters = Filters { without_words: vec!["ASS".into(), "'sdeath".into()], ..FILTERS };
        let check = |last_turn: &str, reply: &str, expected: usize| {
            let (kept, report) = filter(vec![pair(last_turn, reply, 1.0)], &filters);
            assert_eq!((report.unwanted_word, kept.len()), (expected, 1 - expected), "{last_turn} {reply}");
        };
        check("Is it?", "An ass, perhaps.", 1);
        check("Is it Ass?", "It is.", 1);
        check("Is it?", "'Sdeath, it is!", 1);
        check("Is it?", "A class, an assembly.", 0);
        check("Is it?", "It is so. An ass!", 0);
    }

    #[test]
    fn where_only_replies_matter_they_are_filtered_and_cut_the_same() {
        let pairs = || vec![pair("Yes.", "It is so. But why?", 1.0), pair("But is it so?", "Yes.", 1.0)];
        assert_eq!(filter(pairs(), &FILTERS).0, []);
        let (kept, report) = filter(pairs(), &FILTERS.of_replies());
        assert_eq!((kept[0].reply.as_str(), report.kept, report.short_reply), ("It is so.", 1, 1));
    }

    #[test]
    fn the_first_of_equal_pairs_stays() {
        let pairs = vec![
            pair("Is it?", "It is.", 1.0),
            pair("Is it so?", "It is.", 1.0),
            pair("IS IT", "It is!", 1.0),
            pair("Is it?", "It was.", 1.0),
        ];
        let (kept, report) = filter(pairs.clone(), &FILTERS);
        assert_eq!((kept.len(), report.duplicate, kept[0].reply.as_str()), (3, 1, "It is."));
        assert_eq!(filter(pairs, &Filters { deduplicate: false, ..FILTERS }).0.len(), 4);
    }

    #[test]
    fn a_cut_ends_with_a_sentence() {
        fn check(text: &str, max_words: usize, expected: Option<&str>) {
            assert_eq!(cut(text, max_words).map(|end| &text[..end]), expected, "{text}");
        }
        check("One two. Three four.", 2, Some("One two."));
        check("One two. Three four.", 3, Some("One two."));
        check("One two. Three four.", 1, None);
        check("“One two?” Three four five.", 3, Some("“One two?”"));
        check("One two! Three, four", 4, Some("One two!"));
        check("It cost 3.5 drachmas. Why?", 4, Some("It cost 3.5 drachmas."));
        check("Τί ἐστιν; Οὐκ οἶδα. Ναί", 4, Some("Τί ἐστιν; Οὐκ οἶδα."));
    }
}
