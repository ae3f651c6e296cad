//! What a person should look at first: replies that the members of an ensemble cannot agree on.

use super::{JudgedRollout, train::ROLLOUTS};
use crate::{Result, RunFolder, judge::DISAGREEMENT};

/// Replies with the widest disagreement, the widest first.
const REVIEW: &str = "review.jsonl";

/// How many are kept: a morning's work.
const MOST: usize = 100;

/// Writes `review.jsonl` anew from the run's rollouts; no file where no ensemble judged.
pub(super) fn write_review(run: &RunFolder) -> Result<()> {
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

/// The widest of any ensemble of the panel.
fn disagreement(line: &JudgedRollout) -> Option<f32> {
    let is_disagreement = |name: &str| name.rsplit_once('/').is_some_and(|(_, part)| part == DISAGREEMENT);
    let of = line.scores.iter().filter(|(name, _)| is_disagreement(name)).filter_map(|(_, score)| *score);
    of.reduce(f32::max)
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
}
