//! What is measured must not have been trained on. Works are held out whole, because one work's pages answer one another;
//! only a voice that lives in a single work is split within it, with a gap as wide as a context.

use std::{collections::BTreeSet, num::NonZeroUsize};

use super::Pair;
use crate::{Error, Result};

/// Pairs to train on and pairs to measure on.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// What is trained on.
    pub train: Vec<Pair>,
    /// What is measured on; shares no turn with `train`.
    pub held_out: Vec<Pair>,
}

/// Holds out the named works whole.
///
/// # Errors
/// A work without pairs, or nothing left to train on.
pub(crate) fn by_work(pairs: Vec<Pair>, works: &[impl AsRef<str>]) -> Result<Split> {
    let known: BTreeSet<_> = pairs.iter().map(|pair| pair.work.as_str()).collect();
    let names = || known.iter().copied().collect::<Vec<_>>().join(", ");
    if works.is_empty() {
        return Err(Error::Split(format!("no work is held out (hint: name one of {})", names())));
    }
    if let Some(work) = works.iter().map(AsRef::as_ref).find(|work| !known.contains(work)) {
        return Err(Error::Split(format!("there are no pairs of the work `{work}` (hint: there are {})", names())));
    }
    let (held_out, train): (Vec<_>, Vec<_>) =
        pairs.into_iter().partition(|pair| works.iter().any(|work| work.as_ref() == pair.work));
    if train.is_empty() {
        let reason = "every work is held out, so there is nothing to train on (hint: hold out fewer works, or the last part of one)";
        return Err(Error::Split(reason.to_owned()));
    }
    Ok(Split { train, held_out })
}

/// Holds out the last `fraction` of a single work's pairs, which must be in the work's order. As many pairs as a context
/// has turns are dropped before it: each pair is at least a turn further on, so no held-out context reaches back to a
/// trained reply.
///
/// # Errors
/// Several works, or too few pairs for both sides and the gap.
pub(crate) fn last_part(mut pairs: Vec<Pair>, fraction: f64, context: NonZeroUsize) -> Result<Split> {
    let works: BTreeSet<_> = pairs.iter().map(|pair| pair.work.as_str()).collect();
    if works.len() > 1 {
        let (count, names) = (works.len(), works.into_iter().collect::<Vec<_>>().join(", "));
        let reason = format!("the pairs are from {count} works (hint: hold out whole works, of {names})");
        return Err(Error::Split(reason));
    }
    let held_out = (pairs.len() as f64 * fraction) as usize;
    let begin = pairs.len() - held_out;
    let train = begin.saturating_sub(context.get());
    if held_out == 0 || train == 0 {
        let reason = format!(
            "{} pairs are too few to hold out the last {:.0}% and leave a gap of {context} before it (hint: more text, looser filters or a narrower context)",
            pairs.len(),
            fraction * 100.0
        );
        return Err(Error::Split(reason));
    }
    let held_out = pairs.split_off(begin);
    pairs.truncate(train);
    Ok(Split { train: pairs, held_out })
}

#[cfg(test)]
mod tests {
    use elenchus_dialogue::Turn;

    use super::*;
    use crate::data::{Dialogue, Spoken, Texts, pairs};

    /// A pair for each letter, of the work with that name.
    fn of_works(works: &str) -> Vec<Pair> {
        let pair = |work: char| Pair::new(work, Vec::new(), String::new());
        works.chars().map(pair).collect()
    }

    fn shown(pairs: &[Pair]) -> String {
        pairs.iter().map(|pair| pair.work.as_str()).collect()
    }

    #[test]
    fn works_are_held_out_whole() {
        fn check(works: &str, held_out: &[&str], expected: Result<(&str, &str), &str>) {
            match (by_work(of_works(works), held_out), expected) {
                (Ok(split), Ok(expected)) => assert_eq!((&*shown(&split.train), &*shown(&split.held_out)), expected),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (found, _) => panic!("{found:?} is not {expected:?}"),
            }
        }
        check("aabbac", &["b"], Ok(("aaac", "bb")));
        check("aabbac", &["c", "a"], Ok(("bb", "aaac")));
        check("aab", &["d"], Err("no pairs of the work `d` (hint: there are a, b)"));
        check("aab", &["a", "b"], Err("nothing to train on"));
        check("aab", &[], Err("name one of a, b"));
    }

    #[test]
    fn the_last_part_stands_behind_a_gap() {
        fn check(works: &str, fraction: f64, context: usize, expected: Result<(usize, usize), &str>) {
            match (last_part(of_works(works), fraction, NonZeroUsize::new(context).unwrap()), expected) {
                (Ok(split), Ok(expected)) => assert_eq!((split.train.len(), split.held_out.len()), expected),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (found, _) => panic!("{found:?} is not {expected:?}"),
            }
        }
        check("aaaaaaaaaa", 0.2, 4, Ok((4, 2)));
        check("aaaaaaaaaa", 0.2, 7, Ok((1, 2)));
        check("aaaaaaaaaa", 0.2, 8, Err("10 pairs are too few"));
        check("aaaaaaaaaa", 0.5, 4, Ok((1, 5)));
        check("aaaa", 0.2, 1, Err("4 pairs are too few"));
        check("", 0.2, 1, Err("0 pairs are too few"));
        check("aaaaab", 0.2, 1, Err("from 2 works"));
    }

    #[test]
    fn the_sides_of_a_split_work_share_no_turn() {
        let turn = |at: usize| Turn { speaker: ["A", "S", "B"][at % 3].into(), text: at.to_string() };
        let turns = (0..150).map(|at| Spoken { turn: turn(at), confidence: 1.0 }).collect();
        let texts = Texts { dialogues: vec![Dialogue { work: "w".into(), turns }], ..Texts::default() };
        for context in (1..9).filter_map(NonZeroUsize::new) {
            let split = last_part(pairs(&texts, "S", context).unwrap(), 0.2, context).unwrap();
            let texts = |pairs: &[Pair]| -> BTreeSet<String> {
                let turns = |pair: &Pair| pair.context.iter().map(|turn| turn.text.clone()).collect::<Vec<_>>();
                pairs.iter().flat_map(|pair| turns(pair).into_iter().chain([pair.reply.clone()])).collect()
            };
            assert!(texts(&split.train).is_disjoint(&texts(&split.held_out)), "{context}");
        }
    }
}
