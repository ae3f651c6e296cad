//! A few numbers tell whether texts can teach a voice: how many replies, how long, and how often they ask.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Pair,
    words::{is_closing_quote, words},
};

/// What pairs look like from afar.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stats {
    /// How many there are.
    pub pairs: usize,
    /// Words of the replies; none without pairs.
    pub reply_words: Option<Quantiles>,
    /// Words of the turns that are replied to; none without pairs.
    pub last_turn_words: Option<Quantiles>,
    /// Share of replies that end in a question, from 0 to 1.
    pub questions: f64,
    /// The same in short for each work.
    pub works: BTreeMap<String, WorkStats>,
}

/// What one work's pairs look like.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WorkStats {
    /// How many there are.
    pub pairs: usize,
    /// Words of the middle reply.
    pub median_reply_words: usize,
    /// Share of replies that end in a question, from 0 to 1.
    pub questions: f64,
}

/// Where lengths lie; each is the length of some text (nearest rank).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// The least.
    pub min: usize,
    /// A tenth is no longer.
    pub p10: usize,
    /// Half is no longer.
    pub median: usize,
    /// Nine tenths are no longer.
    pub p90: usize,
    /// The most.
    pub max: usize,
}

impl Stats {
    /// Counts pairs.
    pub fn of(pairs: &[Pair]) -> Self {
        let mut works = BTreeMap::<&str, Vec<&Pair>>::new();
        for pair in pairs {
            works.entry(&pair.work).or_default().push(pair);
        }
        let works = works.into_iter().filter_map(|(work, pairs)| {
            let median_reply_words = Quantiles::of(pairs.iter().map(|pair| words(&pair.reply)))?.median;
            let questions = questions(pairs.iter().copied());
            Some((work.to_owned(), WorkStats { pairs: pairs.len(), median_reply_words, questions }))
        });
        Self {
            pairs: pairs.len(),
            reply_words: Quantiles::of(pairs.iter().map(|pair| words(&pair.reply))),
            last_turn_words: Quantiles::of(pairs.iter().filter_map(|pair| Some(words(&pair.context.last()?.text)))),
            questions: questions(pairs.iter()),
            works: works.collect(),
        }
    }
}

impl Quantiles {
    /// None of nothing.
    fn of(lengths: impl Iterator<Item = usize>) -> Option<Self> {
        let mut lengths: Vec<_> = lengths.collect();
        lengths.sort_unstable();
        let at = |percent: usize| lengths.get((lengths.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some(Self { min: at(0)?, p10: at(10)?, median: at(50)?, p90: at(90)?, max: at(100)? })
    }
}

fn questions<'a>(pairs: impl ExactSizeIterator<Item = &'a Pair>) -> f64 {
    let total = pairs.len().max(1);
    let ends = |pair: &&Pair| pair.reply.trim_end().trim_end_matches(is_closing_quote).ends_with(['?', '\u{37e}']);
    pairs.filter(ends).count() as f64 / total as f64
}

#[cfg(test)]
mod tests {
    use elenchus_dialogue::Turn;

    use super::*;

    #[test]
    fn lengths_have_quantiles() {
        fn check(lengths: impl Iterator<Item = usize>, expected: Option<[usize; 5]>) {
            let found = Quantiles::of(lengths);
            assert_eq!(found.map(|q| [q.min, q.p10, q.median, q.p90, q.max]), expected);
        }
        check([].into_iter(), None);
        check([7].into_iter(), Some([7; 5]));
        check([3, 1, 2].into_iter(), Some([1, 1, 2, 3, 3]));
        // statistics by nearest rank of 1..=100 and 1..=10
        check((1..=100).rev(), Some([1, 10, 50, 90, 100]));
        check(1..=10, Some([1, 1, 5, 9, 10]));
    }

    #[test]
    fn pairs_are_counted_by_work() {
        let pair = |work: &str, reply: &str| {
            Pair::new(work, vec![Turn { speaker: "A".into(), text: "Is it so?".into() }], reply)
        };
        let stats =
            Stats::of(&[pair("a", "Is it?"), pair("b", "“Why?”"), pair("a", "It is, I think."), pair("a", "No.")]);
        assert_eq!((stats.pairs, stats.questions), (4, 0.5));
        assert_eq!(stats.last_turn_words.map(|q| (q.min, q.max)), Some((3, 3)));
        assert_eq!(stats.works["a"], WorkStats { pairs: 3, median_reply_words: 2, questions: 1.0 / 3.0 });
        assert_eq!(stats.works["b"], WorkStats { pairs: 1, median_reply_words: 1, questions: 1.0 });
        let none = Stats::of(&[]);
        assert_eq!((none.pairs, none.reply_words, none.questions), (0, None, 0.0));
    }
}
