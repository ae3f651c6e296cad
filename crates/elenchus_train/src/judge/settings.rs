//! A judge as a configuration names it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Exchange, Judge, Rule, Rules, Scripted, rules::words};
use crate::rl::is_question;

/// Which judge, and what it needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum JudgeSettings {
    /// The share of rules kept.
    Rules {
        /// Which; all if left out.
        #[serde(default)]
        rules: Vec<Rule>,
    },
    /// A control: 1 for a reply of so many words, less the further it is away, -1 at the least.
    Length {
        /// How many.
        words: usize,
    },
    /// A control: 1 for a reply that ends in a question, -1 for one that does not.
    Questions,
    /// A control: -1 to 1 by chance, the same for the same reply.
    Random {
        /// The chance.
        #[serde(default)]
        seed: u64,
    },
}

impl JudgeSettings {
    /// The judge.
    pub fn open(&self) -> Box<dyn Judge> {
        match self.clone() {
            Self::Rules { rules } => Box::new(Rules::new(rules)),
            Self::Length { words: wanted } => Box::new(Scripted::new("length", move |exchange: &Exchange| {
                let (count, wanted) = (words(&exchange.reply).len() as f32, wanted.max(1) as f32);
                Some((1.0 - (count - wanted).abs() / wanted).max(-1.0))
            })),
            Self::Questions => Box::new(Scripted::new("questions", |exchange: &Exchange| {
                Some(if is_question(&exchange.reply) { 1.0 } else { -1.0 })
            })),
            Self::Random { seed } => Box::new(Scripted::new("random", move |exchange: &Exchange| {
                let hash = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(&exchange.reply).finalize();
                Some(f32::from(u16::from_le_bytes([hash[0], hash[1]])) / f32::from(u16::MAX) * 2.0 - 1.0)
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_score_what_they_name() {
        let score = |settings: JudgeSettings, reply: &str| {
            let exchange = Exchange { context: Vec::new(), reply: reply.into(), is_ended: true };
            settings.open().judge(&[exchange]).unwrap()[0].score.unwrap()
        };
        let short = JudgeSettings::Length { words: 4 };
        assert_eq!(score(short.clone(), "one two three four"), 1.0);
        assert_eq!(score(short.clone(), "one two"), 0.5);
        assert_eq!(score(short, &"word ".repeat(50)), -1.0);
        assert_eq!(score(JudgeSettings::Questions, "Is it so?"), 1.0);
        assert_eq!(score(JudgeSettings::Questions, "So it is."), -1.0);
        let random = JudgeSettings::Random { seed: 1 };
        assert_eq!(score(random.clone(), "a"), score(random.clone(), "a"));
        let scores: Vec<f32> = (0..200).map(|at| score(random.clone(), &at.to_string())).collect();
        let mean = scores.iter().sum::<f32>() / 200.0;
        assert!(mean.abs() < 0.15 && scores.iter().all(|score| (-1.0..=1.0).contains(score)), "{mean}");
    }
}
