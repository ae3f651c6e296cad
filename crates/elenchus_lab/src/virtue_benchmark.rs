//! Is a character better than before, by judges it was or was not trained to please? Both voices answer prompts that nothing
//! was trained on, from the same seeds, and reward models score every reply.
//!
//! A higher score is worth what it cost: lengths, the divergence of the new voice from the old one, and the difference with
//! length taken out stand beside it, and all replies can be read.

mod length;
mod table;

use std::collections::BTreeMap;

use elenchus_candle::CandleExecutor;
use elenchus_dialogue::{PromptMemory, Turn};
use serde::Serialize;

use elenchus_train::{
    Draw, Error, Query, Result, Speaker,
    bootstrap::{Interval, Wins, mean, mean_difference},
    data::words,
    eval::compare::Lengths,
    is_ended,
    judge::{Combination, Exchange, Judge},
    model::logit_kl::{Reader, kl_per_token},
};
use length::Paired;

pub use length::LengthControlled;
pub use table::{page, table};

/// A reward model of a benchmark.
#[derive(Clone, Copy)]
pub struct Scorer<'a> {
    /// What tables call it.
    pub name: &'a str,
    /// The model.
    pub judge: &'a dyn Judge,
    /// Whether the voice was trained to please it: its score then says how well that went, and no more.
    pub optimised: bool,
}

/// Who is compared.
#[derive(Clone, Copy)]
pub struct Voices<'a> {
    /// The old voice's name, and it.
    pub before: (&'a str, Speaker<'a>),
    /// The new one's.
    pub after: (&'a str, Speaker<'a>),
}

/// All that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Benchmark {
    /// Who answered.
    pub character: String,
    /// The old voice.
    pub before: String,
    /// The new one.
    pub after: String,
    /// Prompts answered.
    pub prompts: usize,
    /// Prompts that were trained on, and left out.
    pub trained_on: usize,
    /// Determines replies and resamples.
    pub seed: u64,
    /// Words of the old voice's replies, and of the new one's.
    pub words: [Lengths; 2],
    /// Nats a token between the new voice and the old one along the new one's replies. None of a reply without a token.
    pub kl: Option<Interval>,
    /// Each reward model, and after them their combinations.
    pub scores: Vec<Scored>,
    /// What was said.
    pub replies: Vec<SideBySide>,
}

/// One reward model, or several combined, on both voices.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scored {
    /// The model, or the combination.
    pub name: String,
    /// Whether the voice was trained to please it, or any of those combined.
    pub optimised: bool,
    /// Prompts where both replies could be scored.
    pub scored: usize,
    /// The old voice's mean.
    pub before: Interval,
    /// The new one's.
    pub after: Interval,
    /// The new one's less the old one's, prompt by prompt.
    pub difference: Interval,
    /// How often the new one was better.
    pub wins: Wins,
    /// The difference without what length adds.
    pub length: LengthControlled,
}

/// Both replies to a prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SideBySide {
    /// What was said.
    pub context: Vec<Turn>,
    /// The old voice's reply.
    pub before: String,
    /// The new one's.
    pub after: String,
    /// What each model, and each combination, gave both.
    pub scores: BTreeMap<String, [Option<f32>; 2]>,
}

/// Lets both voices answer all prompts, and scores them. `executor` measures how far they are apart. `on_progress` hears what is
/// done and how far it is.
///
/// # Errors
/// No prompts, no reward models, two of one name, and replies of which none can be scored.
pub fn benchmark(
    voices: Voices<'_>,
    executor: &CandleExecutor,
    scorers: &[Scorer<'_>],
    prompts: &[Vec<Turn>],
    seed: u64,
    mut on_progress: impl FnMut(&str, usize, usize),
) -> Result<Benchmark> {
    let fail = |what: &str, reason: &str| Err(Error::Comparison { what: what.to_owned(), reason: reason.to_owned() });
    if prompts.is_empty() {
        return fail("the benchmark", "there are no prompts that were not trained on (hint: another file of prompts)");
    }
    if scorers.is_empty() {
        return fail("the benchmark", "there is no reward model (hint: train one with `elenchus train reward`)");
    }
    if let Some(twice) = (1..scorers.len()).find(|&at| scorers[..at].iter().any(|other| other.name == scorers[at].name))
    {
        return fail(&format!("the reward model `{}`", scorers[twice].name), "is named twice (hint: NAME=DIR)");
    }
    let mut answers = Vec::new();
    for (name, speaker) in [voices.before, voices.after] {
        let query = |(number, turns)| Query { facts: &[], turns, draw: Draw { seed, number, draw: 0 } };
        let queries: Vec<Query<'_>> = prompts.iter().map(Vec::as_slice).enumerate().map(query).collect();
        let what = format!("{name}: speaks");
        let progress = |done| on_progress(&what, done, prompts.len());
        answers.push(speaker.say_many(&queries, &mut PromptMemory::default(), progress)?);
    }
    let exchanges: Vec<Exchange> = answers
        .iter()
        .flat_map(|of| prompts.iter().zip(of))
        .map(|(prompt, spoken)| Exchange {
            context: prompt.clone(),
            reply: spoken.text.clone(),
            is_ended: is_ended(spoken.stop),
        })
        .collect();
    let mut columns: Vec<(String, bool, Vec<Option<f32>>)> = Vec::new();
    for Scorer { name, judge, optimised } in scorers {
        on_progress(&format!("judged by {name}"), 0, exchanges.len());
        let finite = |score: Option<f32>| score.filter(|score| score.is_finite());
        let scores = judge.judge(&exchanges)?.into_iter().map(|verdict| finite(verdict.score)).collect();
        columns.push(((*name).to_owned(), *optimised, scores));
    }
    let combined: Vec<_> = [false, true].into_iter().flat_map(|optimised| combined(&columns, optimised)).collect();
    columns.extend(combined);

    let count = |of: &[elenchus_dialogue::Spoken]| of.iter().map(|spoken| words(&spoken.text)).collect::<Vec<_>>();
    let lengths = [count(&answers[0]), count(&answers[1])];
    let mut scores = Vec::new();
    for (name, optimised, column) in &columns {
        let (before, after) = column.split_at(prompts.len());
        let Some(of) = scored(before, after, &lengths, seed) else {
            return fail(
                &format!("the reward model `{name}`"),
                "could score no pair of replies (hint: are prompts longer than its `max_tokens`?)",
            );
        };
        scores.push(Scored { name: name.clone(), optimised: *optimised, ..of });
    }
    on_progress("how far they are apart", 0, prompts.len());
    let kl = kl_along(voices, executor, &answers[1], seed)?;
    let side_by_side = |at: usize| SideBySide {
        context: prompts[at].clone(),
        before: answers[0][at].text.clone(),
        after: answers[1][at].text.clone(),
        scores: columns
            .iter()
            .map(|(name, _, column)| (name.clone(), [column[at], column[prompts.len() + at]]))
            .collect(),
    };
    Ok(Benchmark {
        character: voices.after.1.character.name.clone(),
        before: voices.before.0.to_owned(),
        after: voices.after.0.to_owned(),
        prompts: prompts.len(),
        trained_on: 0,
        seed,
        words: lengths.map(Lengths::of),
        kl,
        scores,
        replies: (0..prompts.len()).map(side_by_side).collect(),
    })
}

/// Mean and UWO of the models that the voice was, or was not, trained to please; of fewer than two nothing.
fn combined(columns: &[(String, bool, Vec<Option<f32>>)], optimised: bool) -> Vec<(String, bool, Vec<Option<f32>>)> {
    let members: Vec<&Vec<Option<f32>>> =
        columns.iter().filter(|(_, of, _)| *of == optimised).map(|(_, _, scores)| scores).collect();
    if members.len() < 2 {
        return Vec::new();
    }
    let of = |name: &str, combination: Combination| {
        let score = |at: usize| {
            let scores: Option<Vec<f32>> = members.iter().map(|scores| scores[at]).collect();
            Some(combination.of(&scores?)?.score)
        };
        let name = if optimised { format!("{name} of optimised") } else { name.to_owned() };
        (name, optimised, (0..members[0].len()).map(score).collect())
    };
    vec![of("mean", Combination::Mean), of("uwo", Combination::default())]
}

/// Over the prompts where both replies have a score; names are left to the caller.
fn scored(before: &[Option<f32>], after: &[Option<f32>], lengths: &[Vec<usize>; 2], seed: u64) -> Option<Scored> {
    let both = before.iter().zip(after).enumerate();
    let both = both.filter_map(|(at, (before, after))| Some((at, f64::from((*before)?), f64::from((*after)?))));
    let (mut pairs, mut paired) = (Vec::new(), Vec::new());
    for (at, before, after) in both {
        pairs.push((after, before));
        paired.push(Paired { difference: after - before, words: (lengths[0][at], lengths[1][at]) });
    }
    let side = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).collect::<Vec<_>>();
    Some(Scored {
        name: String::new(),
        optimised: false,
        scored: pairs.len(),
        before: mean(&side(|pair| pair.1), seed)?,
        after: mean(&side(|pair| pair.0), seed)?,
        difference: mean_difference(&pairs, seed)?,
        wins: Wins::of(pairs.iter().copied()),
        length: LengthControlled::of(&paired, seed),
    })
}

/// Mean over the new voice's replies of nats a token, so that a long reply counts as one.
fn kl_along(
    voices: Voices<'_>,
    executor: &CandleExecutor,
    said: &[elenchus_dialogue::Spoken],
    seed: u64,
) -> Result<Option<Interval>> {
    let said: Vec<_> = said.iter().filter(|spoken| !spoken.tokens.is_empty()).collect();
    let reader = |speaker: Speaker<'_>| {
        Reader::new(executor, speaker.adapter.cloned(), said.iter().map(|spoken| spoken.prompt.as_slice()))
    };
    let (before, after) = (reader(voices.before.1)?, reader(voices.after.1)?);
    let mut numbers = Vec::new();
    for spoken in &said {
        let logits = |reader: &Reader<'_>| reader.logits(&spoken.prompt, &spoken.tokens);
        numbers.push(kl_per_token(&logits(&after)?, &logits(&before)?, after.vocab_size()));
    }
    Ok(mean(&numbers, seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_and_optimised_models_are_combined_apart() {
        let column = |name: &str, optimised, scores: [f32; 2]| (name.to_owned(), optimised, scores.map(Some).to_vec());
        let columns = [
            column("action", false, [1.0, 0.0]),
            column("motivation", false, [3.0, 0.0]),
            column("pleased", true, [100.0, 100.0]),
        ];
        let of = combined(&columns, false);
        let names: Vec<&str> = of.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["mean", "uwo"]);
        // The mean is 2, the variance 1, and half of it is taken away.
        assert_eq!((of[0].2[0], of[1].2[0]), (Some(2.0), Some(1.5)));
        assert!(combined(&columns, true).is_empty(), "one model has nobody to disagree with");
    }

    #[test]
    fn only_pairs_that_are_whole_count() {
        let lengths = [vec![5; 4], vec![6; 4]];
        let of =
            scored(&[Some(1.0), None, Some(2.0), Some(0.0)], &[Some(2.0), Some(9.0), Some(2.5), None], &lengths, 1)
                .unwrap();
        assert_eq!((of.scored, of.before.value, of.after.value, of.difference.value), (2, 1.5, 2.25, 0.75));
        assert_eq!(of.wins, Wins { won: 2, tied: 0, lost: 0 });
        assert!(scored(&[None], &[Some(1.0)], &lengths, 1).is_none());
    }
}
