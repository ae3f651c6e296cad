//! Several reward models as one judge: where they disagree none of them knows, and what they then like is not to be
//! learned.
//!
//! The formulas are those of Coste et al. 2024, "Reward Model Ensembles Help Mitigate Overoptimization". A penalty is only as
//! large as the scores are wide apart, so members are standardised first: between probabilities, which the penalty was also
//! published for, it hardly ever weighs anything.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;

use super::{Exchange, Judge, LearnedJudge, Verdict};
use crate::Result;

/// How the scores of an ensemble become one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Combination {
    /// Their mean; any one of them can be pleased at the cost of the others.
    Mean,
    /// Uncertainty-weighted optimisation: their mean less `lambda` times their spread.
    Uwo(Uwo),
    /// Worst-case optimisation: the lowest.
    Wco,
}

/// What disagreement costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Uwo {
    /// How much a unit of spread costs.
    pub lambda: f32,
    /// What spread is.
    pub spread: Spread,
    /// Taken from the number of scores where squares are averaged: 0 for the scores themselves, 1 for an estimate of what
    /// they are a sample of.
    pub ddof: usize,
}

/// How far scores are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spread {
    /// The variance.
    Var,
    /// Its root.
    Std,
}

impl Default for Combination {
    fn default() -> Self {
        Self::Uwo(Uwo::default())
    }
}

impl Default for Uwo {
    fn default() -> Self {
        Self { lambda: 0.5, spread: Spread::Var, ddof: 0 }
    }
}

/// What an ensemble thinks of one reply.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Combined {
    /// What is learned from.
    pub score: f32,
    /// What the members think on average.
    pub mean: f32,
    /// Their standard deviation: how little they agree.
    pub disagreement: f32,
}

impl Combined {
    /// What was taken from the mean.
    pub(crate) fn penalty(&self) -> f32 {
        self.mean - self.score
    }

    /// The penalty's part of mean and penalty together, signs aside: 0 where it weighs nothing, 1 where nothing else does.
    pub(crate) fn penalty_share(&self) -> f32 {
        let both = self.mean.abs() + self.penalty().abs();
        if both > 0.0 { self.penalty().abs() / both } else { 0.0 }
    }
}

impl Combination {
    /// One score of several; `None` without any.
    pub fn of(self, scores: &[f32]) -> Option<Combined> {
        let lowest = scores.iter().copied().reduce(f32::min)?;
        let count = scores.len() as f32;
        let mean = scores.iter().sum::<f32>() / count;
        let squares = scores.iter().map(|score| (score - mean).powi(2)).sum::<f32>();
        let score = match self {
            Self::Mean => mean,
            Self::Uwo(Uwo { lambda, spread, ddof }) => {
                // A single score has no spread to speak of.
                let variance = squares / scores.len().saturating_sub(ddof).max(1) as f32;
                mean - lambda * if spread == Spread::Var { variance } else { variance.sqrt() }
            }
            Self::Wco => lowest,
        };
        Some(Combined { score, mean, disagreement: (squares / count).sqrt() })
    }

    /// What cannot be meant.
    fn check(self) -> Result<Self, String> {
        match self {
            Self::Uwo(Uwo { lambda, .. }) if !(lambda.is_finite() && lambda >= 0.0) => {
                Err(format!("`lambda` is {lambda}, expected 0 or more"))
            }
            Self::Uwo(Uwo { ddof, .. }) if ddof > 1 => Err(format!("`ddof` is {ddof}, expected 0 or 1")),
            _ => Ok(self),
        }
    }
}

impl<'de> Deserialize<'de> for Combination {
    /// A name, or a table with the `name` and what belongs to it. By hand, because serde's tagged enums do not say which of
    /// a variant's keys is unknown.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = match Value::deserialize(deserializer)? {
            name @ Value::String(_) => serde_json::Map::from_iter([("name".to_owned(), name)]),
            Value::Object(table) => table,
            other => return Err(D::Error::custom(format!("expected a name or a table, not {other}"))),
        };
        let name = table.remove("name").and_then(|name| name.as_str().map(str::to_owned));
        let more = table.keys().next().cloned();
        let of = match (name.as_deref(), more) {
            (Some("mean"), None) => Self::Mean,
            (Some("wco"), None) => Self::Wco,
            (Some("uwo"), _) => Self::Uwo(serde_json::from_value(Value::Object(table)).map_err(D::Error::custom)?),
            (Some(name @ ("mean" | "wco")), Some(key)) => {
                return Err(D::Error::custom(format!("`{name}` has no `{key}` (hint: remove it)")));
            }
            (name, _) => {
                let name = name.unwrap_or("nothing");
                return Err(D::Error::custom(format!("`name` is `{name}`, expected `mean`, `uwo` or `wco`")));
            }
        };
        of.check().map_err(D::Error::custom)
    }
}

/// Reward models on one base, heard together.
pub(crate) struct EnsembleJudge {
    name: String,
    members: Vec<LearnedJudge>,
    /// What logs call the members.
    names: Vec<String>,
    combination: Combination,
}

impl EnsembleJudge {
    /// A judge of these members; those of one name are numbered.
    pub(crate) fn new(name: impl Into<String>, members: Vec<LearnedJudge>, combination: Combination) -> Self {
        let same = |name: &str| members.iter().filter(|member| member.name() == name).count();
        let names = members.iter().enumerate().map(|(at, member)| match same(member.name()) {
            1 => member.name().to_owned(),
            _ => format!("{}-{}", member.name(), at + 1),
        });
        Self { name: name.into(), names: names.collect(), members, combination }
    }
}

impl Judge for EnsembleJudge {
    fn name(&self) -> &str {
        &self.name
    }

    /// A reply that any member cannot score has no score. The parts of a verdict are each member's score, how far they are
    /// apart, and the penalty's share.
    fn judge(&self, exchanges: &[Exchange]) -> Result<Vec<Verdict>> {
        let members: Vec<Vec<Verdict>> =
            self.members.iter().map(|member| member.judge(exchanges)).collect::<Result<_>>()?;
        let verdict = |at: usize| {
            let finite = |verdicts: &Vec<Verdict>| verdicts[at].score.filter(|score| score.is_finite());
            let scores: Option<Vec<f32>> = members.iter().map(finite).collect();
            let combined = scores.as_deref().and_then(|scores| self.combination.of(scores));
            let (Some(scores), Some(combined)) = (scores, combined) else { return Verdict::default() };
            let parts = self.names.iter().cloned().zip(scores).chain([
                (DISAGREEMENT.to_owned(), combined.disagreement),
                (PENALTY_SHARE.to_owned(), combined.penalty_share()),
            ]);
            Verdict { parts: parts.collect(), ..Verdict::of(combined.score) }
        };
        Ok((0..exchanges.len()).map(verdict).collect())
    }
}

/// What a verdict calls how far members are apart.
pub(crate) const DISAGREEMENT: &str = "disagreement";
const PENALTY_SHARE: &str = "penalty_share";

#[cfg(test)]
mod tests {
    use super::*;

    fn uwo(lambda: f32, spread: Spread, ddof: usize) -> Combination {
        Combination::Uwo(Uwo { lambda, spread, ddof })
    }

    // s = np.array([.9, .85, .93])
    // s.mean() - .5 * s.var(), - .5 * s.std(ddof=1), - .5 * s.std(), - .5 * s.var(ddof=1); s.min()
    #[test]
    fn the_four_readings_of_the_penalty() {
        let scores = [0.9, 0.85, 0.93];
        let check = |combination: Combination, expected: f32| {
            let ours = combination.of(&scores).unwrap().score;
            assert!((ours - expected).abs() < 1e-5, "{combination:?}: {ours} instead of {expected}");
        };
        check(uwo(0.5, Spread::Var, 0), 0.892_789);
        check(uwo(0.5, Spread::Std, 1), 0.873_126);
        check(uwo(0.5, Spread::Std, 0), 0.876_834);
        check(uwo(0.5, Spread::Var, 1), 0.892_517);
        check(Combination::Mean, 0.893_333);
        check(Combination::Wco, 0.85);
        check(Combination::default(), 0.892_789);
    }

    #[test]
    fn agreement_costs_nothing_and_a_single_score_has_nobody_to_disagree_with() {
        for combination in [Combination::Mean, uwo(0.5, Spread::Std, 1), Combination::Wco] {
            for scores in [&[0.3; 4][..], &[0.3]] {
                let combined = combination.of(scores).unwrap();
                assert!((combined.score - 0.3).abs() < 1e-6 && combined.disagreement < 1e-6, "{combined:?}");
                assert!(combined.penalty_share() < 1e-5);
            }
            assert_eq!(combination.of(&[]), None);
        }
        let combined = Combination::Wco.of(&[2.0, 0.0]).unwrap();
        assert_eq!((combined.mean, combined.disagreement, combined.penalty()), (1.0, 1.0, 1.0));
        assert_eq!(combined.penalty_share(), 0.5);
    }

    #[test]
    fn a_name_or_a_table() {
        #[derive(Debug, Deserialize)]
        struct Of {
            combination: Combination,
        }
        let read = |text: &str| toml::from_str::<Of>(&format!("combination = {text}")).map(|of| of.combination);
        assert_eq!(read("\"mean\"").unwrap(), Combination::Mean);
        assert_eq!(read("\"wco\"").unwrap(), Combination::Wco);
        assert_eq!(read("\"uwo\"").unwrap(), Combination::default());
        let table = "{ name = \"uwo\", lambda = 0.1, spread = \"std\", ddof = 1 }";
        assert_eq!(read(table).unwrap(), uwo(0.1, Spread::Std, 1));
        let written = toml::to_string(&uwo(0.1, Spread::Std, 1)).unwrap();
        assert_eq!(toml::from_str::<Combination>(&written).unwrap(), uwo(0.1, Spread::Std, 1));
        for (text, says) in [
            ("\"median\"", "expected `mean`, `uwo` or `wco`"),
            ("{ lambda = 1.0 }", "`name` is `nothing`"),
            ("{ name = \"wco\", lambda = 1.0 }", "`wco` has no `lambda`"),
            ("{ name = \"uwo\", lamda = 1.0 }", "lamda"),
            ("{ name = \"uwo\", lambda = -1.0 }", "`lambda` is -1"),
            ("{ name = \"uwo\", ddof = 2 }", "`ddof` is 2"),
            ("3", "expected a name or a table"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
