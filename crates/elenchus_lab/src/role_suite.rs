//! Does a character stay who it is while somebody tries to get it out of its role? Attempts of four lines each, every line
//! harder to refuse than the one before, written for the purpose and scored at each round.
//!
//! Rules score what can be told from words alone, and a judge, where one is given, the rest. The same lines are said whatever the
//! character answers: voices are compared, and a player who adapts would make another conversation of each.

mod breach;
mod rules;
mod suite;
mod table;

use std::collections::BTreeMap;

use elenchus_dialogue::{PromptMemory, Turn};
use serde::Serialize;

pub use breach::Breach;
pub use suite::{Attempt, Kind, ROUNDS, RoleSuite};
pub use table::{page, section, table};

use elenchus_train::{
    Draw, Query, Result, Speaker,
    bootstrap::{Interval, wilson},
    data::STRANGER,
    is_ended,
    judge::{Exchange, Judges},
};

/// An attempt as it went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Played {
    /// Which.
    pub attempt: String,
    /// What it was after.
    pub kind: Kind,
    /// How often it was tried before.
    pub draw: u64,
    /// Line by line.
    pub rounds: Vec<Round>,
}

/// A line and its answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Round {
    /// What was said.
    pub line: String,
    /// What was answered.
    pub reply: String,
    /// What rules found in it.
    pub breaches: Vec<Breach>,
    /// What judges, if any, gave it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub scores: BTreeMap<String, Option<f32>>,
}

/// How one voice held.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoleReport {
    /// Who.
    pub voice: String,
    /// By what attempts were after; the last row is any breach in all of them.
    pub rows: Vec<RoleRow>,
    /// By judge, mean scores of each round, over the replies it could score.
    pub judges: BTreeMap<String, [Option<f64>; ROUNDS]>,
    /// All that was said.
    pub played: Vec<Played>,
}

/// How often a voice fell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoleRow {
    /// To what.
    pub name: String,
    /// Attempts, each counted as often as it was tried.
    pub attempts: usize,
    /// Of those, how many replies of each round were a breach.
    pub fallen: [usize; ROUNDS],
    /// Share of attempts without a breach in any round, Wilson's interval.
    pub held: Option<Interval>,
}

/// An attempt under way.
struct Open<'a> {
    number: usize,
    attempt: &'a Attempt,
    draw: u64,
    turns: Vec<Turn>,
}

/// Plays every attempt `draws` times from a seed, round by round over all of them, so that replies are generated in batches;
/// `on_progress` is called with how many replies there are.
///
/// # Errors
/// What the engine, or a judge, cannot continue from.
pub fn play(
    voice: &str,
    speaker: Speaker<'_>,
    suite: &RoleSuite,
    (draws, seed): (u64, u64),
    judges: Option<&Judges>,
    mut on_progress: impl FnMut(usize, usize),
) -> Result<RoleReport> {
    let mut open: Vec<Open<'_>> = (suite.attempts.iter().enumerate())
        .flat_map(|(number, attempt)| (0..draws).map(move |draw| Open { number, attempt, draw, turns: Vec::new() }))
        .collect();
    let played = |of: &Open<'_>| {
        let Attempt { name, kind, .. } = of.attempt;
        Played { attempt: name.clone(), kind: *kind, draw: of.draw, rounds: Vec::new() }
    };
    let mut played: Vec<Played> = open.iter().map(played).collect();
    let mut exchanges: Vec<Vec<Exchange>> = vec![Vec::new(); open.len()];
    let mut memory = PromptMemory::default();
    for round in 0..ROUNDS {
        for of in &mut open {
            of.turns.push(Turn { speaker: STRANGER.to_owned(), text: of.attempt.lines[round].clone() });
        }
        let draw = |of: &Open<'_>| Draw { seed, number: of.number, draw: of.draw * ROUNDS as u64 + round as u64 };
        let queries: Vec<Query<'_>> =
            open.iter().map(|of| Query { facts: &of.attempt.facts, turns: &of.turns, draw: draw(of) }).collect();
        let progress = |done| on_progress(round * open.len() + done, ROUNDS * open.len());
        let spoken = speaker.say_many(&queries, &mut memory, progress)?;
        for (place, (of, spoken)) in open.iter_mut().zip(spoken).enumerate() {
            exchanges[place].push(Exchange {
                context: of.turns.clone(),
                reply: spoken.text.clone(),
                is_ended: is_ended(spoken.stop),
            });
            of.turns.push(Turn { speaker: speaker.character.name.clone(), text: spoken.text.clone() });
            played[place].rounds.push(Round {
                line: of.attempt.lines[round].clone(),
                breaches: of.attempt.breaches(&spoken.text),
                reply: spoken.text,
                scores: BTreeMap::new(),
            });
        }
    }
    if let Some(judges) = judges {
        let judged = judges.judge(&exchanges.concat())?;
        let rounds = played.iter_mut().flat_map(|played| &mut played.rounds);
        rounds.zip(&judged).for_each(|(round, judged)| round.scores = judges.named(judged).collect());
    }
    Ok(report(voice, played))
}

fn report(voice: &str, played: Vec<Played>) -> RoleReport {
    let row = |name: &str, of: &[&Played], is_breach: &dyn Fn(&Played, &Breach) -> bool| {
        let fell = |played: &Played, round: &Round| round.breaches.iter().any(|breach| is_breach(played, breach));
        let mut fallen = [0; ROUNDS];
        for played in of {
            for (count, round) in fallen.iter_mut().zip(&played.rounds) {
                *count += usize::from(fell(played, round));
            }
        }
        let held = of.iter().filter(|played| !played.rounds.iter().any(|round| fell(played, round))).count();
        RoleRow { name: name.to_owned(), attempts: of.len(), fallen, held: wilson(held as f64, of.len()) }
    };
    let mut rows = Vec::new();
    for kind in Kind::ALL {
        let of: Vec<&Played> = played.iter().filter(|played| played.kind == kind).collect();
        if !of.is_empty() {
            rows.push(row(kind.name(), &of, &|played, breach| *breach == played.kind.breach()));
        }
    }
    let all: Vec<&Played> = played.iter().collect();
    rows.push(row("any breach, all attempts", &all, &|_, _| true));

    let mut sums = BTreeMap::<String, [(f64, usize); ROUNDS]>::new();
    for (at, round) in played.iter().flat_map(|played| played.rounds.iter().enumerate()) {
        for (judge, score) in &round.scores {
            let of = sums.entry(judge.clone()).or_default();
            if let Some(score) = score.filter(|score| score.is_finite()) {
                of[at].0 += f64::from(score);
                of[at].1 += 1;
            }
        }
    }
    let mean = |(sum, count): (f64, usize)| (count > 0).then(|| sum / count as f64);
    let judges = sums.into_iter().map(|(judge, of)| (judge, of.map(mean))).collect();
    RoleReport { voice: voice.to_owned(), rows, judges, played }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_is_counted_and_an_attempt_holds_only_whole() {
        let round = |breaches: &[Breach], score: Option<f32>| Round {
            line: "l".into(),
            reply: "r".into(),
            breaches: breaches.to_vec(),
            scores: BTreeMap::from([("judge".to_owned(), score)]),
        };
        let played = |kind, rounds: Vec<Round>| Played { attempt: "a".into(), kind, draw: 0, rounds };
        use Breach::{Insult, Leak, OutOfRole};
        let of = report(
            "sft",
            vec![
                played(
                    Kind::LeakLore,
                    vec![
                        round(&[], Some(1.0)),
                        round(&[Insult], Some(0.0)),
                        round(&[], None),
                        round(&[Leak], Some(-1.0)),
                    ],
                ),
                played(Kind::LeakLore, (0..4).map(|_| round(&[], Some(1.0))).collect()),
                played(Kind::BreakRole, (0..4).map(|_| round(&[OutOfRole], None)).collect()),
            ],
        );
        let rows: Vec<(&str, usize, [usize; ROUNDS])> =
            of.rows.iter().map(|row| (row.name.as_str(), row.attempts, row.fallen)).collect();
        assert_eq!(
            rows,
            [("break role", 1, [1; 4]), ("leak lore", 2, [0, 0, 0, 1]), ("any breach, all attempts", 3, [1, 2, 1, 2]),]
        );
        assert_eq!(of.rows.iter().map(|row| row.held.unwrap().value).collect::<Vec<_>>(), [0.0, 0.5, 1.0 / 3.0]);
        assert_eq!(of.judges["judge"], [Some(1.0), Some(0.5), Some(1.0), Some(0.0)]);
    }
}
