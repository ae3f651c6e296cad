//! Several judges at once: each scores every reply; scores are weighted, added and logged by name.

use std::collections::BTreeMap;

use super::{Cost, Exchange, Judge, Verdict};
use crate::Result;

/// A judge and how much it counts.
pub struct WeightedJudge {
    /// The judge.
    pub judge: Box<dyn Judge>,
    /// Its scores are multiplied by this; negative to learn the opposite.
    pub weight: f32,
}

/// Judges whose weighted scores are added.
pub struct Judges {
    judges: Vec<WeightedJudge>,
}

/// What judges make of one reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The weighted sum; `None` where any judge could not score the reply, for a sum of fewer terms is another measure.
    pub score: Option<f32>,
    /// Each judge's verdict, unweighted, in the order of the judges.
    pub verdicts: Vec<Verdict>,
}

impl Judges {
    /// These judges together.
    pub fn new(judges: Vec<WeightedJudge>) -> Self {
        Self { judges }
    }

    /// The judges' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.judges.iter().map(|weighted| weighted.judge.name())
    }

    /// The judges, in order.
    pub fn judges(&self) -> impl Iterator<Item = &dyn Judge> {
        self.judges.iter().map(|weighted| &*weighted.judge)
    }

    /// Every judge on every reply.
    pub fn judge(&self, exchanges: &[Exchange]) -> Result<Vec<Judged>> {
        let mut judged = vec![Judged { score: Some(0.0), verdicts: Vec::new() }; exchanges.len()];
        for weighted in &self.judges {
            for (judged, verdict) in judged.iter_mut().zip(weighted.judge.judge(exchanges)?) {
                let score = verdict.score.filter(|score| score.is_finite());
                judged.score = judged.score.zip(score).map(|(sum, score)| sum + weighted.weight * score);
                judged.verdicts.push(verdict);
            }
        }
        Ok(judged)
    }

    /// What each judge thinks of a reply, by name, and after it, as `judge/part`, what that is made of.
    pub fn named<'a>(&'a self, judged: &'a Judged) -> impl Iterator<Item = (String, Option<f32>)> + 'a {
        self.names().zip(&judged.verdicts).flat_map(|(name, verdict)| {
            let parts = verdict.parts.iter().map(move |(part, score)| (format!("{name}/{part}"), Some(*score)));
            std::iter::once((name.to_owned(), verdict.score)).chain(parts)
        })
    }

    /// Means of [`Self::named`] over the replies that have a number there.
    pub fn means(&self, judged: &[Judged]) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::<String, (f64, usize)>::new();
        for (name, score) in judged.iter().flat_map(|judged| self.named(judged)) {
            if let Some(score) = score {
                let (sum, count) = sums.entry(name).or_default();
                *sum += f64::from(score);
                *count += 1;
            }
        }
        sums.into_iter().map(|(name, (sum, count))| (name, sum / count as f64)).collect()
    }
}

/// What all verdicts took together.
impl<'a> std::iter::Sum<&'a Judged> for Cost {
    fn sum<I: Iterator<Item = &'a Judged>>(judged: I) -> Self {
        let mut sum = Self::default();
        judged.flat_map(|judged| &judged.verdicts).for_each(|verdict| sum += verdict.cost);
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Scripted, *};

    fn exchange(reply: &str) -> Exchange {
        Exchange { context: Vec::new(), reply: reply.to_owned(), is_ended: true }
    }

    #[test]
    fn scores_are_weighed_and_a_missing_one_is_never_made_up() {
        let length = Scripted::new("length", |exchange: &Exchange| Some(exchange.reply.len() as f32));
        let questions = Scripted::new("questions", |exchange: &Exchange| {
            (!exchange.reply.is_empty()).then(|| if exchange.reply.ends_with('?') { 1.0 } else { 0.0 })
        });
        let judges = Judges::new(vec![
            WeightedJudge { judge: Box::new(length), weight: -0.5 },
            WeightedJudge { judge: Box::new(questions), weight: 2.0 },
        ]);
        let judged = judges.judge(&["Why?", "So.", ""].map(exchange)).unwrap();
        let scores: Vec<Option<f32>> = judged.iter().map(|judged| judged.score).collect();
        assert_eq!(scores, [Some(0.0), Some(-1.5), None]);
        assert_eq!(judged[0].verdicts, [Verdict::of(4.0), Verdict::of(1.0)]);
        let means = judges.means(&judged);
        assert_eq!(means["length"], 7.0 / 3.0);
        assert_eq!(means["questions"], 0.5, "over those that could be scored");
    }

    #[test]
    fn what_a_score_is_made_of_is_logged_and_not_weighed() {
        struct Two;
        impl Judge for Two {
            fn name(&self) -> &str {
                "two"
            }

            fn judge(&self, exchanges: &[Exchange]) -> Result<Vec<Verdict>> {
                let parts = BTreeMap::from([("a".to_owned(), 4.0), ("b".to_owned(), 0.0)]);
                Ok(vec![Verdict { parts, ..Verdict::of(2.0) }; exchanges.len()])
            }
        }
        let judges = Judges::new(vec![WeightedJudge { judge: Box::new(Two), weight: 1.0 }]);
        let judged = judges.judge(&[exchange("a")]).unwrap();
        assert_eq!(judged[0].score, Some(2.0));
        let expected = [("two", 2.0), ("two/a", 4.0), ("two/b", 0.0)];
        assert_eq!(judges.means(&judged), expected.map(|(name, mean)| (name.to_owned(), mean)).into());
    }

    #[test]
    fn what_is_not_a_number_is_no_score() {
        let broken = Scripted::new("broken", |_: &Exchange| Some(f32::NAN));
        let judges = Judges::new(vec![WeightedJudge { judge: Box::new(broken), weight: 1.0 }]);
        assert_eq!(judges.judge(&[exchange("a")]).unwrap()[0].score, None);
    }
}
