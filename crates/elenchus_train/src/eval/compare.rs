//! Which voice is better, and how sure is that? Voices answer the same prompts by the same decoding from the same seeds, and
//! judges that nothing was optimised against score every reply by itself.
//!
//! A number without its interval says nothing here, and neither does a judge that cannot tell what is plainly bad: each is
//! first asked to prefer real replies to planted bad ones ([`Planted`]; `elenchus_lab` plants them, and makes blind pairs for a
//! person).

mod comparison;
mod html;
mod measures;
mod planted;
mod reserved;
mod setup;
mod speak;
pub mod table;

use std::collections::BTreeMap;

use elenchus_candle::{CandleExecutor, TrainableLora};
use elenchus_dialogue::Turn;

pub use comparison::{Comparison, JudgeAbout, JudgeReport, Manner, VoiceReport};
pub use html::page;
pub use measures::Lengths;
pub use planted::{Bad, Planted};
pub use reserved::reserved_pairs;
pub use setup::{EvalJudge, EvalSetup};
pub use speak::{Candidate, Reply};
pub use table::table;

use self::{
    measures::{Histogram, distincts},
    speak::{Answers, answers, exchange},
};
use crate::{
    Error, Example, Result,
    bootstrap::{Interval, Wins, bootstrap, mean, mean_difference},
    data::{Pair, words},
    example,
    judge::Exchange,
    model::logit_kl::{Reader, kl_per_token},
    perplexity, spread,
    text_stats::is_question,
};

/// Lets all candidates answer all prompts, and measures them. `on_progress` hears what is done and how far it is.
///
/// # Errors
/// No prompts, no candidate with an adapter, two of one name, one of several replies without a judge to choose.
pub fn compare(
    setup: &EvalSetup<'_>,
    candidates: &[Candidate],
    prompts: &[Vec<Turn>],
    seed: u64,
    mut on_progress: impl FnMut(&str, usize, usize),
) -> Result<Comparison> {
    let baseline = check(setup, candidates, prompts)?;
    let judges: Vec<JudgeAbout> = setup
        .judges
        .iter()
        .map(|of| JudgeAbout { name: of.judge.name().to_owned(), optimised: of.optimised })
        .collect();
    let mut voices = Vec::new();
    for candidate in candidates {
        let what = format!("{}: speaks", candidate.name);
        voices.push(answers(setup, candidate, prompts, seed, |done| on_progress(&what, done, prompts.len()))?);
    }
    for (voice, candidate) in voices.iter_mut().zip(candidates) {
        let exchanges: Vec<Exchange> =
            prompts.iter().zip(&voice.replies).map(|(prompt, reply)| exchange(prompt, reply)).collect();
        for of in setup.judges {
            on_progress(&format!("{}: judged by {}", candidate.name, of.judge.name()), 0, exchanges.len());
            let verdicts = of.judge.judge(&exchanges)?;
            for (reply, verdict) in voice.replies.iter_mut().zip(verdicts) {
                let score = verdict.score.filter(|score| score.is_finite());
                reply.scores.insert(of.judge.name().to_owned(), score);
            }
        }
    }
    let own: Vec<&str> = setup.own.iter().map(|pair| pair.reply.as_str()).collect();
    let own_words = Histogram::of(own.iter().map(|reply| words(reply)));
    // As many as there are prompts: of more text, less is distinct.
    let some = spread(&own, prompts.len());
    let own = Manner { distinct: distincts(&some), ..manner(&own) };

    let mut reports = Vec::new();
    for (voice, candidate) in voices.iter().zip(candidates) {
        let is_baseline = candidate.name == candidates[baseline].name;
        on_progress(&format!("{}: measured", candidate.name), 0, prompts.len());
        let texts: Vec<&str> = voice.replies.iter().map(|reply| reply.text.as_str()).collect();
        let counts = |voice: &Answers| voice.replies.iter().map(|reply| reply.words).collect::<Vec<_>>();
        let (ours, theirs) = (counts(voice), counts(&voices[baseline]));
        let distance = |counts: &[usize], places: &[usize]| {
            Histogram::of(places.iter().map(|&at| counts[at])).distance(&own_words)
        };
        let kl = match candidate.best_of {
            1 if !is_baseline => {
                kl_along(setup.executor, (candidate, voice), (&candidates[baseline], &voices[baseline]), seed)?
            }
            _ => None,
        };
        reports.push(VoiceReport {
            name: candidate.name.clone(),
            scores: scores(&judges, voice, (!is_baseline).then_some(&voices[baseline]), seed),
            manner: manner(&texts),
            length_distance: Histogram::of(ours.iter().copied()).distance(&own_words),
            length_distance_difference: if is_baseline {
                None
            } else {
                bootstrap(prompts.len(), seed, |places| distance(&ours, places) - distance(&theirs, places))
            },
            kl,
            perplexity: if candidate.best_of == 1 { held_out_perplexity(setup, candidate)? } else { None },
            seconds: voice.replies[0].seconds,
            replies: voice.replies.clone(),
        });
    }
    Ok(Comparison {
        character: setup.character.name.clone(),
        seed,
        prompts: prompts.to_vec(),
        baseline: candidates[baseline].name.clone(),
        judges,
        style: None,
        planted: Vec::new(),
        own,
        voices: reports,
    })
}

/// Where the baseline stands.
fn check(setup: &EvalSetup<'_>, candidates: &[Candidate], prompts: &[Vec<Turn>]) -> Result<usize> {
    let fail = |what: &str, reason: &str| Err(Error::Comparison { what: what.to_owned(), reason: reason.to_owned() });
    if prompts.is_empty() {
        return fail("the comparison", "there are no prompts (hint: --prompts FILE)");
    }
    for (at, candidate) in candidates.iter().enumerate() {
        let what = format!("the voice `{}`", candidate.name);
        if candidates[..at].iter().any(|other| other.name == candidate.name) {
            return fail(&what, "is compared twice (hint: another folder, or another name for it)");
        }
        if candidate.best_of == 0 || (candidate.best_of > 1 && setup.choice.is_none()) {
            return fail(&what, "chooses among several replies and has no judge to choose by");
        }
    }
    match candidates.iter().position(|candidate| candidate.lora.is_some()) {
        Some(baseline) => Ok(baseline),
        None => fail("the comparison", "no voice has an adapter (hint: name one)"),
    }
}

fn manner(replies: &[&str]) -> Manner {
    let questions = replies.iter().filter(|reply| is_question(reply)).count();
    Manner {
        replies: replies.len(),
        words: Lengths::of(replies.iter().map(|reply| words(reply))),
        questions: questions as f64 / replies.len().max(1) as f64,
        distinct: distincts(replies),
    }
}

fn scores(
    judges: &[JudgeAbout],
    voice: &Answers,
    baseline: Option<&Answers>,
    seed: u64,
) -> BTreeMap<String, JudgeReport> {
    let mut reports = BTreeMap::new();
    for JudgeAbout { name, .. } in judges {
        let score = |reply: &Reply| reply.scores.get(name).copied().flatten().map(f64::from);
        let scored: Vec<f64> = voice.replies.iter().filter_map(score).collect();
        let Some(mean) = mean(&scored, seed) else { continue };
        let pairs = baseline.map(|baseline| {
            let both = voice.replies.iter().zip(&baseline.replies);
            both.filter_map(|(ours, theirs)| score(ours).zip(score(theirs))).collect::<Vec<_>>()
        });
        let report = JudgeReport {
            scored: scored.len(),
            mean,
            difference: pairs.as_ref().and_then(|pairs| mean_difference(pairs, seed)),
            wins: pairs.map(Wins::of),
        };
        reports.insert(name.clone(), report);
    }
    reports
}

/// Mean over the replies of nats a token, so that a long reply counts as one.
fn kl_along(
    executor: &CandleExecutor,
    (candidate, voice): (&Candidate, &Answers),
    (baseline, theirs): (&Candidate, &Answers),
    seed: u64,
) -> Result<Option<Interval>> {
    // Each reads the prompt as it is prompted: a voice with example turns has a longer one.
    let ours = Reader::new(executor, candidate.adapter(), voice.prompts())?;
    let reference = Reader::new(executor, baseline.adapter(), theirs.prompts())?;
    let mut numbers = Vec::new();
    for ((prompt, tokens), other) in voice.tokens.iter().zip(theirs.prompts()) {
        numbers.push(kl_per_token(&ours.logits(prompt, tokens)?, &reference.logits(other, tokens)?, ours.vocab_size()));
    }
    Ok(mean(&numbers, seed))
}

/// Over the held-out replies as the game would prompt for them, after the candidate's example turns if it has any; exactly
/// the tokens are measured that are measured without.
fn held_out_perplexity(setup: &EvalSetup<'_>, candidate: &Candidate) -> Result<Option<f64>> {
    let EvalSetup { model, executor, character, held_out, max_tokens, .. } = *setup;
    let lora = candidate.lora.as_ref().map(|lora| TrainableLora::new(lora, executor)).transpose()?;
    let mut read = Vec::new();
    for pair in held_out {
        let Some(bare) = example(pair, character, model, max_tokens)? else { continue };
        let shown = Pair { context: candidate.after_shown(&pair.context), ..pair.clone() };
        let Some(mut of) = example(&shown, character, model, usize::MAX)? else { continue };
        of.tokens.truncate(of.reply_start + bare.tokens.len() - bare.reply_start);
        read.push(Example { is_ended: bare.is_ended, ..of });
    }
    let perplexity = perplexity(executor, lora.as_ref(), &read, |_| ())?.of_tokens();
    Ok(perplexity.is_finite().then_some(perplexity))
}
