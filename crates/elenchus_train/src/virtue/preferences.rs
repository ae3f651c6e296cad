//! Preferences as a chat model judges them: the character answers each prompt twice, says of each answer what an aspect asks,
//! and a judge sees both in both orders.
//!
//! Only a verdict that stays the same when the two change places is a preference. Anything else is a tie and dropped; what
//! cannot be read is counted and never guessed, and where too much cannot be read nothing is written, for then the judge has
//! not understood the question.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicBool, Ordering},
};

use elenchus_dialogue::{PromptMemory, Turn};
use elenchus_lm::Message;
use serde::{Deserialize, Serialize};

use super::{
    Aspect, Better, PreferencesLesson,
    better::{Shown, question},
    read_better,
    revise_config::other_prompts,
};
use crate::{
    Draw, Error, Query, Result, RunFolder, Speaker,
    chat::{ChatClient, Said},
    data::STRANGER,
};

/// What the character said to each prompt.
const CANDIDATES: &str = "candidates.jsonl";
/// Every verdict, in words.
const JUDGEMENTS: &str = "judgements.jsonl";
/// What `train reward` reads.
const PREFERENCES: &str = "preferences.jsonl";
/// Prompts that are judged together.
const TOGETHER: usize = 16;
/// Of verdicts in words, how many must be readable.
const LEAST_PARSE_RATE: f64 = 0.95;
/// Verdicts before a rate says anything.
const RATED: u64 = 40;
/// Letters of an unreadable verdict that an error shows.
const EXCERPT: usize = 80;

/// One line of `candidates.jsonl`: two answers to one prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Candidates {
    prompt: usize,
    context: Vec<Turn>,
    /// None where the character had no words.
    sides: [Option<Side>; 2],
}

/// An answer, and what the character said about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// The answer.
    pub reply: String,
    /// What it said, by aspect; an aspect that asks nothing, or was answered with nothing, is missing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub about: BTreeMap<String, String>,
}

/// One line of `judgements.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Which prompt, from 0.
    pub prompt: usize,
    /// In what.
    pub aspect: String,
    /// The result.
    pub outcome: Outcome,
    /// What the judge said of the first answer as A, and of the second as A; empty where nothing was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<String>,
}

/// The result of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The first answer is better, in both orders.
    One,
    /// The second is.
    Other,
    /// Neither was called better, or both answers are the same.
    Tie,
    /// The verdict changed with the order, which is no preference.
    OrderDecided,
    /// A verdict that could not be read.
    Unread,
    /// A verdict that could not be had.
    Unanswered,
    /// The character had no words for one of the sides.
    Wordless,
}

/// The result of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct JudgedReport {
    /// How often each outcome came of each aspect.
    pub outcomes: BTreeMap<String, BTreeMap<Outcome, usize>>,
    /// Preferences written.
    pub preferences: usize,
    /// Of verdicts in words, the share that could be read; none without any.
    pub parse_rate: Option<f64>,
}

/// What `train reward` reads of a preference, and what a reader wants to know besides.
#[derive(Serialize)]
struct Preference<'a> {
    context: &'a [Turn],
    chosen: &'a str,
    rejected: &'a str,
    aspect: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    chosen_about: Option<&'a String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected_about: Option<&'a String>,
}

/// Judges two answers to every prompt in every aspect, or resumes where a killed run was. `None` if it was stopped between
/// some prompts and the next. `on_progress` hears how many prompts are done.
///
/// # Errors
/// What ends a chat client's run, files that cannot be written, and a judge of whose verdicts fewer than 95% can be read; what
/// was answered until then is kept.
pub fn judge_preferences(
    lesson: &PreferencesLesson,
    speaker: Speaker<'_>,
    client: &ChatClient,
    run: &RunFolder,
    should_stop: &AtomicBool,
    mut on_progress: impl FnMut(usize, usize),
) -> Result<Option<JudgedReport>> {
    let _alone = run.lock()?;
    let PreferencesLesson { config, prompts, .. } = lesson;
    run.keep_lines(CANDIDATES, |_: &Candidates| true)?;
    let mut known: HashMap<usize, Candidates> = HashMap::new();
    for line in run.lines::<Candidates>(CANDIDATES)? {
        if prompts.get(line.prompt) != Some(&line.context) {
            return Err(other_prompts(run, CANDIDATES));
        }
        known.insert(line.prompt, line);
    }

    let (mut all, mut judged, mut read) = (Vec::new(), Vec::new(), Read::default());
    let mut memory = PromptMemory::default();
    let numbers: Vec<usize> = (0..prompts.len()).collect();
    for some in numbers.chunks(TOGETHER) {
        let mut asked: Vec<(Judged, Vec<[Message; 2]>)> = Vec::new();
        let unknown: Vec<usize> = some.iter().copied().filter(|prompt| !known.contains_key(prompt)).collect();
        for candidates in candidates(lesson, speaker, &unknown, &mut memory)? {
            run.append(CANDIDATES, &candidates)?;
            known.insert(candidates.prompt, candidates);
        }
        for candidates in some.iter().filter_map(|prompt| known.remove(prompt)) {
            let prompt = candidates.prompt;
            for aspect in &config.aspects {
                let (outcome, questions) = questions(lesson, &candidates, aspect);
                asked.push((Judged { prompt, aspect: aspect.name.clone(), outcome, verdicts: Vec::new() }, questions));
            }
            all.push(candidates);
        }
        let questions: Vec<&[Message; 2]> = asked.iter().flat_map(|(_, questions)| questions).collect();
        let mut said = client.ask(&questions)?.into_iter();
        for (mut one, questions) in asked {
            if !questions.is_empty() {
                let verdicts: Vec<Said> = said.by_ref().take(questions.len()).collect();
                one.outcome = read.outcome(&verdicts, client);
                one.verdicts = verdicts.into_iter().map(|said| said.words.unwrap_or_else(|reason| reason)).collect();
            }
            judged.push(one);
        }
        run.write_lines(JUDGEMENTS, &judged)?;
        read.check(client.name(), RATED)?;
        let done = some[some.len() - 1] + 1;
        on_progress(done, prompts.len());
        if should_stop.load(Ordering::Relaxed) && done < prompts.len() {
            return Ok(None);
        }
    }
    read.check(client.name(), 1)?;

    let mut report = JudgedReport { parse_rate: read.rate(), ..JudgedReport::default() };
    let mut preferences = Vec::new();
    for Judged { prompt, aspect, outcome, .. } in &judged {
        *report.outcomes.entry(aspect.clone()).or_default().entry(*outcome).or_default() += 1;
        let Candidates { context, sides, .. } = &all[*prompt];
        let (chosen, rejected) = match (outcome, sides) {
            (Outcome::One, [Some(one), Some(other)]) => (one, other),
            (Outcome::Other, [Some(one), Some(other)]) => (other, one),
            _ => continue,
        };
        preferences.push(Preference {
            context,
            chosen: &chosen.reply,
            rejected: &rejected.reply,
            aspect,
            chosen_about: chosen.about.get(aspect),
            rejected_about: rejected.about.get(aspect),
        });
    }
    report.preferences = preferences.len();
    run.write_lines(PREFERENCES, &preferences)?;
    Ok(Some(report))
}

/// Two answers to each of these prompts, and what the character says of each.
fn candidates(
    lesson: &PreferencesLesson,
    speaker: Speaker<'_>,
    numbers: &[usize],
    memory: &mut PromptMemory,
) -> Result<Vec<Candidates>> {
    let PreferencesLesson { config, prompts, .. } = lesson;
    let draw = |number, draw| Draw { seed: config.seed, number, draw };
    let query = |(number, side): (usize, u64)| Query { facts: &[], turns: &prompts[number], draw: draw(number, side) };
    let both: Vec<(usize, u64)> = numbers.iter().flat_map(|&number| [(number, 0), (number, 1)]).collect();
    let replies = speaker.texts(&both.iter().copied().map(query).collect::<Vec<_>>(), memory)?;
    let mut sides: Vec<Option<Side>> =
        replies.into_iter().map(|reply| Some(Side { reply: reply?, about: BTreeMap::new() })).collect();

    let mut asked: Vec<(usize, &Aspect, Vec<Turn>, Draw)> = Vec::new();
    for (place, (&(number, side), of)) in both.iter().zip(&sides).enumerate() {
        let Some(of) = of else { continue };
        for (at, aspect) in config.aspects.iter().enumerate() {
            let Some(asks) = &aspect.asks else { continue };
            let turns = about(&prompts[number], &speaker.character.name, &of.reply, asks);
            // After the draws of both sides.
            asked.push((place, aspect, turns, draw(number, 2 + 2 * at as u64 + side)));
        }
    }
    let queries: Vec<Query<'_>> =
        asked.iter().map(|(_, _, turns, draw)| Query { facts: &[], turns, draw: *draw }).collect();
    for ((place, aspect, ..), said) in asked.iter().zip(speaker.texts(&queries, memory)?) {
        if let (Some(side), Some(said)) = (&mut sides[*place], said) {
            side.about.insert(aspect.name.clone(), said);
        }
    }
    let mut sides = sides.into_iter();
    let mut two = || [sides.next().flatten(), sides.next().flatten()];
    Ok(numbers.iter().map(|&prompt| Candidates { prompt, context: prompts[prompt].clone(), sides: two() }).collect())
}

/// The conversation in which a character is asked about a reply of its own.
fn about(turns: &[Turn], name: &str, reply: &str, asks: &str) -> Vec<Turn> {
    let asker = turns.last().map_or(STRANGER, |turn| turn.speaker.as_str());
    let turn = |speaker: &str, text: &str| Turn { speaker: speaker.to_owned(), text: text.to_owned() };
    [turns, &[turn(name, reply), turn(asker, asks)]].concat()
}

/// What is asked of a judge, in both orders; where nothing need be asked, the outcome.
fn questions(lesson: &PreferencesLesson, of: &Candidates, aspect: &Aspect) -> (Outcome, Vec<[Message; 2]>) {
    let shown = |side: &'_ Option<Side>| {
        let side = side.as_ref()?;
        let about = side.about.get(&aspect.name);
        (aspect.asks.is_none() || about.is_some()).then(|| (side.reply.clone(), about.cloned()))
    };
    let (Some(one), Some(other)) = (shown(&of.sides[0]), shown(&of.sides[1])) else {
        return (Outcome::Wordless, Vec::new());
    };
    // Of two replies that are the same nothing can be learned, whatever was said about them.
    if one.0 == other.0 {
        return (Outcome::Tie, Vec::new());
    }
    let [one, other] = [&one, &other].map(|(reply, about)| Shown { reply, about: about.as_deref() });
    let ask = |pair| question(&of.context, pair, aspect, lesson.principles.as_ref());
    (Outcome::Unanswered, vec![ask([one, other]), ask([other, one])])
}

/// Verdicts in words, and those of them that could be read.
#[derive(Default)]
struct Read {
    worded: u64,
    readable: u64,
    /// The last that could not be.
    unread: String,
}

impl Read {
    fn outcome(&mut self, verdicts: &[Said], client: &ChatClient) -> Outcome {
        let mut read = |said: &Said| {
            let words = said.words.as_ref().ok()?;
            let better = read_better(words);
            self.worded += 1;
            self.readable += u64::from(better.is_some());
            client.count_read(better.is_some());
            if better.is_none() {
                self.unread = words.chars().take(EXCERPT).collect();
            }
            Some(better)
        };
        let read: Vec<Option<Option<Better>>> = verdicts.iter().map(&mut read).collect();
        match read[..] {
            [Some(Some(Better::First)), Some(Some(Better::Second))] => Outcome::One,
            [Some(Some(Better::Second)), Some(Some(Better::First))] => Outcome::Other,
            [Some(Some(one)), Some(Some(other))] if one == other && one != Better::Neither => Outcome::OrderDecided,
            [Some(Some(_)), Some(Some(_))] => Outcome::Tie,
            [None, _] | [_, None] => Outcome::Unanswered,
            _ => Outcome::Unread,
        }
    }

    fn rate(&self) -> Option<f64> {
        (self.worded > 0).then(|| self.readable as f64 / self.worded as f64)
    }

    /// Ends a run whose judge cannot be read, once there are enough verdicts to tell.
    fn check(&self, name: &str, least: u64) -> Result<()> {
        match self.rate() {
            Some(rate) if self.worded >= least && rate < LEAST_PARSE_RATE => {
                let reason = format!(
                    "{} of {} verdicts cannot be read, more than 5%, so none of them is used; one says `{}` (hint: a larger model, or a lower `temperature`)",
                    self.worded - self.readable,
                    self.worded,
                    self.unread.trim()
                );
                Err(Error::Judge { judge: name.to_owned(), reason })
            }
            _ => Ok(()),
        }
    }
}
