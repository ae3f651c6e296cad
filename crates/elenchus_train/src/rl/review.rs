//! What a person should look at first: replies that the members of an ensemble cannot agree on.

use super::judged_rollouts::{JudgedRollout, ROLLOUTS};
use crate::{Preference, Result, RunFolder, judge::DISAGREEMENT};

/// Replies with the widest disagreement, the widest first.
const REVIEW: &str = "review.jsonl";

/// How many are kept: a morning's work.
const MOST: usize = 100;

/// Rewrites `review.jsonl` from the run's rollouts; no file where no ensemble judged.
pub(crate) fn write_review(run: &RunFolder) -> Result<()> {
    let mut lines: Vec<(f32, JudgedRollout)> = run
        .lines::<JudgedRollout>(ROLLOUTS)?
        .into_iter()
        .filter_map(|line| Some((disagreement(&line)?, line)))
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    lines.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    lines.truncate(MOST);
    run.write(REVIEW, &[])?;
    lines.iter().try_for_each(|(_, line)| run.append(REVIEW, line))
}

/// The widest of any ensemble among the judges.
fn disagreement(line: &JudgedRollout) -> Option<f32> {
    let is_disagreement = |name: &str| name.rsplit_once('/').is_some_and(|(_, part)| part == DISAGREEMENT);
    let of = line.scores.iter().filter(|(name, _)| is_disagreement(name)).filter_map(|(_, score)| *score);
    of.reduce(f32::max)
}

/// Preferences between replies to one prompt in one iteration: the best against the worst, where their scores differ.
pub fn preferred(rollouts: &[JudgedRollout]) -> Vec<Preference> {
    let is_group = |a: &JudgedRollout, b: &JudgedRollout| a.step == b.step && a.exchange.context == b.exchange.context;
    let of = |group: &[JudgedRollout]| {
        let scored = || group.iter().filter_map(|rollout| Some((rollout.score?, rollout)));
        let (best, chosen) = scored().max_by(|(a, _), (b, _)| a.total_cmp(b))?;
        let (worst, rejected) = scored().min_by(|(a, _), (b, _)| a.total_cmp(b))?;
        let reply = |of: &JudgedRollout| of.exchange.reply.clone();
        let is_one =
            best <= worst || reply(chosen) == reply(rejected) || reply(chosen).is_empty() || reply(rejected).is_empty();
        (!is_one).then(|| Preference {
            context: chosen.exchange.context.clone(),
            chosen: reply(chosen),
            rejected: reply(rejected),
        })
    };
    rollouts.chunk_by(is_group).filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::judge::Exchange;

    #[test]
    fn what_is_disagreed_on_most_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::open(folder.path(), "").unwrap();
        write_review(&run).unwrap();
        assert!(!run.file(REVIEW).exists());
        let line = |at: u32, disagreement: Option<f32>| JudgedRollout {
            step: 1,
            exchange: Exchange { context: Vec::new(), reply: format!("reply {at}"), is_ended: true },
            score: Some(0.0),
            scores: BTreeMap::from([
                ("virtue".to_owned(), Some(9.0)),
                ("virtue/disagreement".to_owned(), disagreement),
                ("virtue/action".to_owned(), Some(8.0)),
            ]),
            kl: None,
            words: BTreeMap::new(),
        };
        for at in 0..150 {
            run.append(ROLLOUTS, &line(at, Some((at * 37 % 150) as f32))).unwrap();
        }
        run.append(ROLLOUTS, &line(150, None)).unwrap();
        write_review(&run).unwrap();
        let lines: Vec<JudgedRollout> = run.lines(REVIEW).unwrap();
        let found: Vec<f32> = lines.iter().filter_map(disagreement).collect();
        let expected: Vec<f32> = (50..150).rev().map(|at| at as f32).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_best_reply_to_a_prompt_is_preferred_to_the_worst() {
        let line = |step: u64, asked: &str, reply: &str, score: Option<f32>| JudgedRollout {
            step,
            exchange: Exchange {
                context: vec![elenchus_dialogue::Turn { speaker: "Stranger".into(), text: asked.into() }],
                reply: reply.into(),
                is_ended: true,
            },
            score,
            scores: BTreeMap::new(),
            kl: None,
            words: BTreeMap::new(),
        };
        let lines = [
            line(1, "a", "middle", Some(0.5)),
            line(1, "a", "worst", Some(-1.0)),
            line(1, "a", "best", Some(1.0)),
            line(1, "a", "nobody knows", None),
            line(1, "b", "tied", Some(1.0)),
            line(1, "b", "as well", Some(1.0)),
            line(2, "a", "later", Some(0.0)),
        ];
        let preferences = preferred(&lines);
        let said: Vec<(&str, &str)> = preferences.iter().map(|of| (of.chosen.as_str(), of.rejected.as_str())).collect();
        assert_eq!(said, [("best", "worst")]);
    }
}
