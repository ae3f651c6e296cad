//! When a run must not continue: what learns from a judge learns to please it, and some of the ways are seen from outside.

use serde::{Deserialize, Serialize};

use super::report::RlReport;

/// Iterations that are looked at together: a single one is too noisy to end a run.
const WINDOW: usize = 5;

/// The limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardSettings {
    /// Nats a response that the policy may be away from its reference.
    pub max_kl: f64,
    /// The share of responses that every judge must be able to score.
    pub parse_rate: f64,
    /// How many times longer, or shorter, responses may become than they were at first.
    pub length_drift: f64,
    /// The share of distinct word pairs that responses must keep, of what they had at first.
    pub distinct_2: f64,
    /// What the interval of a reward model's held-out accuracy must lie above before anything is learned from it: a coin's
    /// 0.5. At 0 every model may judge.
    pub reward_accuracy: f64,
    /// Nats a token between the engine that samples and the trainer: beyond it a warning is given.
    pub engine_kl: f64,
}

impl Default for GuardSettings {
    fn default() -> Self {
        Self {
            max_kl: 15.0,
            parse_rate: 0.95,
            length_drift: 2.0,
            distinct_2: 0.5,
            reward_accuracy: 0.5,
            engine_kl: 0.02,
        }
    }
}

impl GuardSettings {
    /// Why a run must not continue after these iterations; `None` if it may.
    pub(crate) fn halt(&self, reports: &[RlReport]) -> Option<String> {
        let last = &reports[reports.len().saturating_sub(WINDOW)..];
        let responses: usize = last.iter().map(|report| report.responses).sum();
        let scored: usize = last.iter().map(|report| report.responses - report.unscored).sum();
        if (scored as f64) < self.parse_rate * responses as f64 {
            return Some(format!(
                "judges could score {scored} of {responses} replies, less than {:.0}% (hint: look at their words in rollouts.jsonl)",
                self.parse_rate * 100.0
            ));
        }
        if reports.len() < 2 * WINDOW {
            return None;
        }
        let mean = |of: &[RlReport], number: fn(&RlReport) -> f64| of.iter().map(number).sum::<f64>() / of.len() as f64;
        let first = &reports[..WINDOW];
        let kl = mean(last, |report| report.kl);
        if kl > self.max_kl {
            return Some(format!(
                "the policy is {kl:.1} nats a reply away from where it began, more than {} (hint: raise `kl_coef` or lower `learning_rate`)",
                self.max_kl
            ));
        }
        let (before, now) = (mean(first, |report| report.reply_tokens), mean(last, |report| report.reply_tokens));
        if now > before * self.length_drift || now * self.length_drift < before {
            return Some(format!(
                "replies have {now:.0} tokens where they had {before:.0}: what is judged may be length alone (hint: weigh another judge against it)"
            ));
        }
        let (before, now) = (mean(first, |report| report.distinct_2), mean(last, |report| report.distinct_2));
        (now < before * self.distinct_2).then(|| {
            format!(
                "{:.0}% of word pairs are distinct where {:.0}% were: the voice collapses (hint: lower `learning_rate`)",
                now * 100.0,
                before * 100.0
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reports(count: usize, change: impl Fn(usize, &mut RlReport)) -> Vec<RlReport> {
        let plain = RlReport { responses: 32, kl: 1.0, reply_tokens: 30.0, distinct_2: 0.8, ..RlReport::default() };
        (0..count)
            .map(|at| {
                let mut report = plain.clone();
                change(at, &mut report);
                report
            })
            .collect()
    }

    #[test]
    fn each_limit_halts_and_names_itself() {
        let guards = GuardSettings::default();
        let check = |count: usize, change: &dyn Fn(usize, &mut RlReport), says: Option<&str>| {
            let halt = guards.halt(&reports(count, change));
            match says {
                None => assert_eq!(halt, None),
                Some(says) => assert!(halt.as_ref().is_some_and(|halt| halt.contains(says)), "{halt:?}: {says}"),
            }
        };
        check(30, &|_, _| {}, None);
        check(1, &|_, report| report.unscored = 2, Some("30 of 32 replies"));
        check(1, &|_, report| report.unscored = 1, None);
        check(30, &|at, report| report.unscored = if at == 20 { 20 } else { 0 }, None);
        check(30, &|at, report| report.kl = at as f64, Some("27.0 nats"));
        check(9, &|_, report| report.kl = 99.0, None);
        check(30, &|at, report| report.reply_tokens = if at < 10 { 30.0 } else { 61.0 }, Some("61 tokens where"));
        check(30, &|at, report| report.reply_tokens = if at < 10 { 30.0 } else { 14.0 }, Some("14 tokens where"));
        check(30, &|at, report| report.reply_tokens = if at == 29 { 99.0 } else { 30.0 }, None);
        check(30, &|at, report| report.distinct_2 = if at < 10 { 0.8 } else { 0.3 }, Some("30% of word pairs"));
    }
}
