//! Preferences out of texts that people wrote: the character's own words are preferred, and nothing but what is to be
//! learned tells them from the others.
//!
//! Both replies of a preference have as nearly the same number of words as the texts allow, so that length says nothing.
//! Style is told apart under a context that neither replies to, so that fitting it says nothing either; between two
//! questions or two replies that are none, so that a question mark does not; and from replies without the character's
//! name, which others say and the character never does. Relevance is told apart between words of one speaker.

use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use elenchus_dialogue::Character;
use rand::{SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;

use super::{
    Accuracy, RewardConfig, RewardKind,
    preference::{Preference, Preferences},
    written::{Folds, written},
};
use crate::{
    BrokenLine, Error, Result,
    config_file::read_text,
    data::{self, OnBroken, Pair, Speakers, Split, words},
    read_character, read_pairs, spread,
    text_stats::is_question,
};

/// A `reward.toml` with all that it names, read, split and matched.
#[derive(Debug)]
pub struct RewardLesson {
    /// The configuration.
    pub config: RewardConfig,
    /// The same as it is written.
    pub text: String,
    /// Under whose prompt replies are read.
    pub character: Character,
    /// Lines of the texts that were left out; none unless `skip_broken` is set.
    pub broken: Vec<BrokenLine>,
    /// The works whose replies are trained on, chosen or rejected.
    pub works: BTreeSet<String>,
    /// What is learned and measured.
    pub preferences: Preferences,
}

impl RewardLesson {
    /// Reads a `reward.toml` and what it names; its paths are relative to its folder.
    ///
    /// # Errors
    /// A file that cannot be read or does not hold what it should, a held-out work that is not there, no preferences left.
    pub fn open(file: &Path) -> Result<Self> {
        Self::open_fold(file, None)
    }

    /// The same with another fold of preferences measured on than the file says.
    pub fn open_fold(file: &Path, fold: Option<usize>) -> Result<Self> {
        let text = read_text(file)?;
        let mut config = RewardConfig::parse(&text, &file.display().to_string())?;
        config.fold = fold.unwrap_or(config.fold);
        let beside = |path: &PathBuf| file.parent().unwrap_or(Path::new(".")).join(path);
        let character = read_character(&beside(&config.character))?;
        let on_broken = if config.skip_broken { OnBroken::Skip } else { OnBroken::Stop };
        if config.kind == RewardKind::Preferences {
            let files: Vec<PathBuf> = config.data.iter().map(beside).collect();
            let of = Folds {
                folds: config.folds,
                fold: config.fold,
                aspect: config.aspect.as_deref(),
                most: config.max_pairs.unwrap_or(usize::MAX),
                bootstrap: config.bootstrap.then_some(config.training.seed),
            };
            let (preferences, broken) = written(&files, &character, config.context, on_broken, of)?;
            return Ok(Self { config, text, character, broken, works: BTreeSet::new(), preferences });
        }
        let files: Vec<PathBuf> = config.data.iter().map(beside).collect();
        let (own, mut broken) = read_pairs(&files, &character, &config.speakers, config.context, on_broken)?;
        let files: Vec<PathBuf> = config.others.iter().map(beside).collect();
        let (others, others_broken) = others(&files, &character, &config, on_broken)?;
        broken.extend(others_broken);
        let (own, _) = data::filter(excluding(own, &config), &config.filters);
        let (others, _) = data::filter(excluding(others, &config), &config.filters.of_replies());

        let known: BTreeSet<&str> = own.iter().chain(&others).map(|pair| pair.work.as_str()).collect();
        if let Some(work) = config.held_out_works.iter().find(|work| !known.contains(work.as_str())) {
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Error::Split(format!(
                "there are no fit replies of the work `{work}` (hint: there are {known})"
            )));
        }
        let own = hold_out(own, &config.held_out_works, &character.name)?;
        let others = match config.kind {
            RewardKind::Style => hold_out(others, &config.held_out_works, "anybody else")?,
            _ => Split { train: Vec::new(), held_out: Vec::new() },
        };
        let (context, seed) = (config.context.get(), config.training.seed);
        let of = |own: &[Pair], others: &[Pair], most: usize| match config.kind {
            RewardKind::Style => style(own, others, &character.name, most, seed),
            _ => relevance(own, context, most, seed),
        };
        let (train, unmatched) = of(&own.train, &others.train, config.max_pairs.unwrap_or(usize::MAX));
        let (held_out, more_unmatched) = of(&own.held_out, &others.held_out, usize::MAX);
        if train.is_empty() || held_out.is_empty() {
            let (train, held_out) = (train.len(), held_out.len());
            let reason = format!(
                "{train} preferences to train on and {held_out} to measure on: no replies of like length (hint: more texts, or looser `filters`)"
            );
            return Err(Error::Split(reason));
        }
        let works = own.train.iter().chain(&others.train).map(|pair| pair.work.clone()).collect();
        let preferences = Preferences { train, held_out, unmatched: unmatched + more_unmatched };
        Ok(Self { config, text, character, broken, works, preferences })
    }
}

impl Preferences {
    /// How often the number of words alone predicts the preferred reply of those held out: near 0.5 where nothing but
    /// what is to be learned tells replies apart.
    pub fn length_only_accuracy(&self) -> f64 {
        let lengths =
            |of: &[Preference]| of.iter().map(|of| (words(&of.chosen), words(&of.rejected))).collect::<Vec<_>>();
        length_only(&lengths(&self.train), &lengths(&self.held_out))
    }
}

/// How often the longer of two replies is the preferred one, or the shorter one if that was so in training.
pub(super) fn length_only(train: &[(usize, usize)], held_out: &[(usize, usize)]) -> f64 {
    let longer = |of: &[(usize, usize)]| Accuracy::of(of.iter().copied()).accuracy;
    if longer(train) >= 0.5 { longer(held_out) } else { 1.0 - longer(held_out) }
}

/// Everybody else's replies in some texts, each once.
fn others(
    files: &[PathBuf],
    character: &Character,
    config: &RewardConfig,
    on_broken: OnBroken,
) -> Result<(Vec<Pair>, Vec<BrokenLine>)> {
    let speakers = Speakers::new(config.speakers.iter().map(|name| (name, &character.name)))?;
    let mut texts = data::read(files, &speakers, on_broken)?;
    // Whose it is cannot be told, so it may be the character's.
    texts.pairs.retain(|pair| pair.character.is_some());
    let (mut pairs, mut seen) = (Vec::new(), BTreeSet::new());
    let own_name = speakers.normalise(&character.name);
    for (name, _) in data::speakers_of(&texts).into_iter().filter(|(name, _)| *name != own_name) {
        let theirs = data::pairs(&texts, name, NonZeroUsize::MIN)?;
        pairs.extend(theirs.into_iter().filter(|pair| seen.insert(pair.reply.to_lowercase())));
    }
    Ok((pairs, std::mem::take(&mut texts.broken)))
}

fn excluding(mut pairs: Vec<Pair>, config: &RewardConfig) -> Vec<Pair> {
    pairs.retain(|pair| !config.excluded_works.contains(&pair.work));
    pairs
}

/// Splits by those of the works that have pairs here: the others' may be other works than the character's. `whose` they are
/// is for the error.
fn hold_out(pairs: Vec<Pair>, works: &[String], whose: &str) -> Result<Split> {
    let here: Vec<&String> = works.iter().filter(|work| pairs.iter().any(|pair| pair.work == **work)).collect();
    if here.is_empty() {
        let works = works.join(", ");
        return Err(Error::Split(format!(
            "no fit reply of {whose} is in {works} to measure on (hint: hold out another work as well, or loosen `filters`)"
        )));
    }
    data::by_work(pairs, &here)
}

/// The character's replies and others' of like length, questions beside questions, both under a context from elsewhere;
/// and how many had no match.
fn style(own: &[Pair], others: &[Pair], name: &str, most: usize, seed: u64) -> (Vec<Preference>, usize) {
    let own = spread(own, most);
    let name = name.to_lowercase();
    let nameless: Vec<&Pair> = others.iter().filter(|pair| !pair.reply.to_lowercase().contains(&name)).collect();
    let asks: Vec<bool> = nameless.iter().map(|pair| is_question(&pair.reply)).collect();
    let own_asks: Vec<bool> = own.iter().map(|pair| is_question(&pair.reply)).collect();
    let theirs: Vec<usize> = nameless.iter().map(|pair| words(&pair.reply)).collect();
    let matches = match_lengths(&lengths(&own), &theirs, seed, |number, other| own_asks[number] == asks[other]);
    let matched: Vec<(&Pair, &Pair)> =
        own.iter().zip(&matches).filter_map(|(own, at)| Some((own, nameless[(*at)?]))).collect();
    let preference = |(at, (own, other)): (usize, &(&Pair, &Pair))| {
        let (elsewhere, _) = matched[(at + matched.len() / 2) % matched.len()];
        Preference { context: elsewhere.context.clone(), chosen: own.reply.clone(), rejected: other.reply.clone() }
    };
    (matched.iter().enumerate().map(preference).collect(), own.len() - matched.len())
}

/// Replies under their own contexts and replies of like length from further away than a context reaches; and how many had
/// no match.
fn relevance(own: &[Pair], context: usize, most: usize, seed: u64) -> (Vec<Preference>, usize) {
    let asked = spread(&(0..own.len()).collect::<Vec<_>>(), most);
    let all = lengths(own);
    let wanted: Vec<usize> = asked.iter().map(|&at| all[at]).collect();
    let matches = match_lengths(&wanted, &all, seed, |number, other| {
        let at = asked[number];
        let is_far = own[at].work != own[other].work || at.abs_diff(other) > context;
        is_far && own[at].reply.to_lowercase() != own[other].reply.to_lowercase()
    });
    let preference = |(&at, other): (&usize, &Option<usize>)| {
        let (context, chosen) = (own[at].context.clone(), own[at].reply.clone());
        Some(Preference { context, chosen, rejected: own[(*other)?].reply.clone() })
    };
    let matched: Vec<Preference> = asked.iter().zip(&matches).filter_map(preference).collect();
    let unmatched = asked.len() - matched.len();
    (matched, unmatched)
}

fn lengths(pairs: &[Pair]) -> Vec<usize> {
    pairs.iter().map(|pair| words(&pair.reply)).collect()
}

/// For each wanted length the candidate with the nearest one that nobody took before: within 15% or two words, if it
/// `fits`. Of two equally near, that which brings the sum of all distances nearer to nothing.
fn match_lengths(
    wanted: &[usize],
    candidates: &[usize],
    seed: u64,
    fits: impl Fn(usize, usize) -> bool,
) -> Vec<Option<usize>> {
    // In no order of works, so that those named first are not taken first.
    let mut free: Vec<usize> = (0..candidates.len()).collect();
    free.shuffle(&mut Pcg64Mcg::seed_from_u64(seed));
    let mut sum = 0;
    let matches = wanted.iter().enumerate().map(|(number, &length)| {
        let longer_by = |candidate: usize| candidates[candidate] as i64 - length as i64;
        let tolerance = (length * 15 / 100).max(2) as u64;
        let nearest = (0..free.len())
            .filter(|&place| longer_by(free[place]).unsigned_abs() <= tolerance && fits(number, free[place]))
            .min_by_key(|&place| {
                let longer_by = longer_by(free[place]);
                (longer_by.unsigned_abs(), (sum + longer_by).unsigned_abs())
            })?;
        let candidate = free.swap_remove(nearest);
        sum += longer_by(candidate);
        Some(candidate)
    });
    matches.collect()
}

#[cfg(test)]
mod tests {
    use elenchus_dialogue::Turn;

    use super::*;

    fn pair(work: &str, context: &str, reply: &str) -> Pair {
        let context = vec![Turn { speaker: "A".into(), text: context.into() }];
        Pair { work: work.into(), context, reply: reply.into(), facts: Vec::new(), notes: Vec::new(), confidence: 1.0 }
    }

    #[test]
    fn lengths_are_matched_within_their_tolerance() {
        let check = |wanted: &[usize], candidates: &[usize], expected: &[Option<usize>]| {
            let matches = match_lengths(wanted, candidates, 3, |_, _| true);
            let found: Vec<_> = matches.into_iter().map(|at| at.map(|at| candidates[at])).collect();
            assert_eq!(found, expected, "{wanted:?} among {candidates:?}");
        };
        check(&[5], &[4, 6, 5], &[Some(5)]);
        check(&[5], &[8, 2], &[None]);
        check(&[5], &[7], &[Some(7)]);
        check(&[100], &[116, 86, 120], &[Some(86)]);
        check(&[5, 5], &[5], &[Some(5), None]);
        check(&[], &[1], &[]);
    }

    /// Where nothing is as long, longer and shorter ones take turns.
    #[test]
    fn distances_add_up_to_nothing() {
        let candidates = [11, 9, 11, 9, 11, 11];
        let matches = match_lengths(&[10; 4], &candidates, 3, |_, _| true);
        assert_eq!(matches.into_iter().flatten().map(|at| candidates[at]).sum::<usize>(), 40);
    }

    #[test]
    fn only_what_fits_is_matched() {
        assert_eq!(match_lengths(&[5, 5], &[5, 5], 1, |wanted, candidate| wanted != candidate), [Some(1), Some(0)]);
    }

    #[test]
    fn both_replies_of_a_style_stand_under_a_context_of_neither() {
        let own = ["a", "b", "c", "d"].map(|name| pair("w", name, &format!("{name} own words")));
        let others = ["e", "f", "g", "h", "i"].map(|name| pair("v", name, &format!("{name} other words")));
        let (preferences, unmatched) = style(&own, &others, "Meno", 4, 1);
        assert_eq!((preferences.len(), unmatched), (4, 0));
        for preference in &preferences {
            let context = &preference.context[0].text;
            assert!(!preference.chosen.starts_with(context.as_str()), "{preference:?}");
            assert!(preference.chosen.ends_with("own words") && preference.rejected.ends_with("other words"));
        }
        let rejected: BTreeSet<_> = preferences.iter().map(|preference| &preference.rejected).collect();
        assert_eq!(rejected.len(), 4);
        let (fewer, unmatched) = style(&own, &others[..3], "Meno", 4, 1);
        assert_eq!((fewer.len(), unmatched), (3, 1));
    }

    #[test]
    fn neither_a_question_mark_nor_a_name_tells_styles_apart() {
        let own = ["Is it so?", "It is so.", "Why is it?"].map(|reply| pair("w", "c", reply));
        let others = ["It was so.", "Was it, Meno?", "Was it so?", "It was, Meno."].map(|reply| pair("v", "c", reply));
        let (preferences, unmatched) = style(&own, &others, "Meno", 9, 1);
        assert_eq!(unmatched, 1);
        for Preference { chosen, rejected, .. } in preferences {
            assert_eq!(is_question(&chosen), is_question(&rejected));
            assert!(!rejected.contains("Meno"));
        }
    }

    #[test]
    fn an_irrelevant_reply_is_from_further_away_than_a_context_reaches() {
        let own: Vec<Pair> = (0..40).map(|at| pair("w", &format!("c{at}"), &format!("r{at} of three"))).collect();
        let (preferences, unmatched) = relevance(&own, 4, 30, 1);
        assert_eq!(preferences.len() + unmatched, 30);
        assert!(preferences.len() > 25);
        for preference in &preferences {
            let number = |text: &str| text[1..].split(' ').next().unwrap().parse::<i32>().unwrap();
            let context = number(&preference.context[0].text);
            assert_eq!(number(&preference.chosen), context);
            assert!((number(&preference.rejected) - context).abs() > 4, "{preference:?}");
        }
        let same = vec![pair("w", "a", "Yes."), pair("v", "b", "yes.")];
        assert_eq!(relevance(&same, 1, 9, 1), (Vec::new(), 2));
    }

    #[test]
    fn length_alone_foretells_what_it_can() {
        let check = |train: &[(usize, usize)], held_out: &[(usize, usize)], expected: f64| {
            assert_eq!(length_only(train, held_out), expected);
        };
        check(&[(3, 1)], &[(2, 1), (5, 4), (1, 1), (1, 2)], 0.625);
        check(&[(1, 3)], &[(2, 1), (5, 4), (1, 1), (1, 2)], 0.375);
        check(&[(1, 3)], &[(1, 2)], 1.0);
        check(&[(1, 1)], &[(1, 1)], 0.5);
    }
}
