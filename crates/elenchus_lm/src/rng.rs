//! The generator whose numbers choose the words.

use std::{fmt, str::FromStr};

use rand::{RngCore, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

/// A seeded generator that a save game can hold: PCG-64 at a place in its sequence, written as `"seed:numbers drawn"`.
///
/// Text, because TOML and many JSON readers have no integer wide enough for the state itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Rng {
    seed: u64,
    drawn: u64,
}

impl Rng {
    /// A generator that always gives the same numbers for the same seed; neighbouring seeds share nothing.
    pub fn from_seed(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    /// The next number, even over `0.0..1.0`.
    pub(crate) fn next_unit(&mut self) -> f64 {
        let mut pcg = Pcg64Mcg::seed_from_u64(self.seed);
        pcg.advance(self.drawn.into());
        self.drawn = self.drawn.wrapping_add(1);
        (pcg.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl fmt::Display for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seed, self.drawn)
    }
}

impl FromStr for Rng {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once(':')
            .and_then(|(seed, drawn)| Some(Self { seed: seed.parse().ok()?, drawn: drawn.parse().ok()? }))
            .ok_or_else(|| {
                format!("rng state `{text}` is not of the form `seed:drawn`, two whole numbers such as `42:0`")
            })
    }
}

impl From<Rng> for String {
    fn from(rng: Rng) -> Self {
        rng.to_string()
    }
}

impl TryFrom<String> for Rng {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_seeds_share_nothing() {
        let firsts: Vec<f64> = (0..1000).map(|seed| Rng::from_seed(seed).next_unit()).collect();
        let mean = firsts.iter().sum::<f64>() / 1000.0;
        let correlation: f64 =
            firsts.windows(2).map(|pair| (pair[0] - 0.5) * (pair[1] - 0.5)).sum::<f64>() / 999.0 * 12.0;
        assert!((mean - 0.5).abs() < 0.04, "mean {mean}");
        assert!(correlation.abs() < 0.13, "correlation {correlation}");
    }

    #[test]
    fn an_rng_is_written_as_short_text_and_resumes_where_it_was() {
        let mut rng = Rng::from_seed(u64::MAX);
        // Fixed numbers: a saved game must sample the same words with every later build.
        assert_eq!(Rng::from_seed(42).next_unit(), 0.573_591_580_908_174_1);
        for _ in 0..3 {
            rng.next_unit();
        }
        let json = serde_json::to_value(&rng).unwrap();
        assert_eq!(json, serde_json::json!("18446744073709551615:3"));
        let mut read: Rng = serde_json::from_value(json).unwrap();
        assert_eq!((read.next_unit(), &read), (rng.next_unit(), &rng));
        for broken in ["", "1", "1:", ":1", "1:2:3", "-1:0", "1:18446744073709551616"] {
            let error = broken.parse::<Rng>().unwrap_err();
            assert!(error.contains("seed:drawn"), "{error}");
        }
    }
}
