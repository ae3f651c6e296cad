//! From logits to the next token.
//!
//! Every filter keeps the front of one order, likeliest first and the lower id first among equals, and the final choice
//! walks the kept tokens by id. So a filter that removes nothing changes nothing, and a seed means the same words on
//! every machine.

use std::{cmp::Ordering, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use crate::{Error, Result, Rng};

/// How the next token is sampled, with llama.cpp's samplers in llama.cpp's order: penalties, DRY, top-k, top-p, min-p,
/// temperature.
///
/// Penalties and DRY see the tokens that [`Sampler::sample`] gets as `said`: what the speaker said itself, never the
/// prompt, whose words a right answer repeats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplerSettings {
    /// 0 takes the likeliest token.
    pub temperature: f32,
    /// Keeps the k likeliest; 0 keeps all.
    pub top_k: usize,
    /// Keeps the likeliest tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides positive logits and multiplies negative ones of tokens said recently; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit for each time it was said recently; 0 changes nothing.
    pub frequency_penalty: f32,
    /// Subtracted from the logit of every token said recently; 0 changes nothing.
    pub presence_penalty: f32,
    /// How many of the speaker's last tokens the three penalties and DRY see.
    pub repetition_window: usize,
    /// DRY ("don't repeat yourself"): a token that would extend a repeated sequence of `dry_allowed_length + n` tokens
    /// loses `dry_multiplier * dry_base^n`; 0 turns it off.
    pub dry_multiplier: f32,
    /// See [`Self::dry_multiplier`].
    pub dry_base: f32,
    /// The longest repetition that costs nothing, in tokens.
    pub dry_allowed_length: usize,
}

/// Separates two replies in a [`Sampler`]'s `said`: no repetition reaches across it. No vocabulary has
/// this token.
pub const REPLY_BREAK: u32 = u32::MAX;

impl Default for SamplerSettings {
    /// Chosen by the battery of `elenchus eval character`; the plugin guide has the table.
    fn default() -> Self {
        Self {
            temperature: 0.4,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repetition_penalty: 1.1,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repetition_window: 64,
            dry_multiplier: 0.8,
            dry_base: 1.75,
            dry_allowed_length: 3,
        }
    }
}

impl SamplerSettings {
    /// Samples from the softmax itself: no filter, no penalty.
    pub const SOFTMAX: Self = Self {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        repetition_window: 64,
        dry_multiplier: 0.0,
        dry_base: 1.75,
        dry_allowed_length: 2,
    };

    /// Refuses numbers that define no distribution, naming the field and its allowed values.
    fn check(&self) -> Result<()> {
        let share = |value: f32| (0.0..=1.0).contains(&value);
        let fields = [
            ("temperature", self.temperature, self.temperature.is_finite() && self.temperature >= 0.0, "0 or more"),
            ("top_p", self.top_p, share(self.top_p), "0 to 1, where 1 keeps all"),
            ("min_p", self.min_p, share(self.min_p), "0 to 1, where 0 keeps all"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0,
                "a number above 0, where 1 changes nothing",
            ),
            (
                "frequency_penalty",
                self.frequency_penalty,
                self.frequency_penalty.is_finite(),
                "0, which changes nothing",
            ),
            ("presence_penalty", self.presence_penalty, self.presence_penalty.is_finite(), "0, which changes nothing"),
            (
                "dry_multiplier",
                self.dry_multiplier,
                self.dry_multiplier.is_finite() && self.dry_multiplier >= 0.0,
                "0, which turns it off, or more",
            ),
            ("dry_base", self.dry_base, self.dry_base.is_finite() && self.dry_base >= 1.0, "1 or more; 1.75 is usual"),
        ];
        match fields.into_iter().find(|(_, _, fits, _)| !fits) {
            None => Ok(()),
            Some((name, value, _, hint)) => Err(Error::Unsupported {
                what: format!("sampler setting {name} = {value}"),
                hint: format!("use {hint}"),
            }),
        }
    }
}

/// Samples one sequence's tokens.
#[derive(Debug, Clone)]
pub struct Sampler {
    /// The settings.
    pub settings: SamplerSettings,
    /// The state that a save game stores.
    pub rng: Rng,
}

impl Sampler {
    /// Samples the next token. `logits` are changed in place; `said` is what the speaker has said so far, newest last,
    /// earlier replies before a [`REPLY_BREAK`] included where they should count as repetition, the prompt never.
    /// NaN logits are never sampled; if none is finite, it is an error.
    ///
    /// Every call takes one number from the generator, at temperature 0 too.
    pub fn sample(&mut self, logits: &mut [f32], said: &[u32]) -> Result<u32> {
        self.settings.check()?;
        let settings = &self.settings;
        let said = &said[said.len().saturating_sub(settings.repetition_window)..];
        penalise(logits, said, settings);
        penalise_repeated_sequences(logits, said, settings);
        let unit = self.rng.next_unit();
        let top_k = if settings.temperature == 0.0 { 1 } else { settings.top_k };
        let mut kept = likeliest(logits, top_k);
        if kept.is_empty() {
            return Err(none_is_finite(logits.len()));
        }
        if settings.top_p < 1.0 {
            keep_top_p(&mut kept, settings.top_p);
        }
        let max = kept.iter().map(|candidate| candidate.logit).fold(f32::NEG_INFINITY, f32::max);
        if settings.min_p > 0.0 {
            let least = max + libm::logf(settings.min_p);
            kept.retain(|candidate| candidate.logit >= least);
        }
        kept.sort_unstable_by_key(|candidate| candidate.id);
        Ok(draw(&kept, max, settings.temperature, unit))
    }
}

/// Samples from the softmax itself and returns the sample's log-probability, for reinforcement learning. The sample is
/// the one of a [`Sampler`] whose settings change nothing. Logits that are not finite are never sampled; if none is
/// finite, it is an error.
pub fn sample_softmax(logits: &[f32], rng: &mut Rng) -> Result<(u32, f32)> {
    let unit = rng.next_unit();
    let max = logits.iter().copied().filter(|logit| logit.is_finite()).fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        return Err(none_is_finite(logits.len()));
    }
    let weights: Vec<f32> =
        logits.iter().map(|&logit| if logit.is_finite() { libm::expf(logit - max) } else { 0.0 }).collect();
    let sum: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    let (mut left, mut drawn) = (unit * sum, 0);
    for (id, &weight) in weights.iter().enumerate() {
        if weight > 0.0 {
            drawn = id; // rounding may leave a crumb at the end: then the last possible token is sampled
            left -= f64::from(weight);
            if left < 0.0 {
                break;
            }
        }
    }
    Ok((drawn as u32, (f64::from(logits[drawn] - max) - libm::log(sum)) as f32))
}

fn none_is_finite(count: usize) -> Error {
    Error::Batch(format!("none of {count} logits is finite (hint: the model file or an adapter holds broken weights)"))
}

/// A token that may still be sampled.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    logit: f32,
    id: u32,
}

/// Likeliest first, then the lower id. Logits are finite here.
fn likeliest_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

fn penalise(logits: &mut [f32], said: &[u32], settings: &SamplerSettings) {
    let SamplerSettings { repetition_penalty: penalty, frequency_penalty, presence_penalty, .. } = *settings;
    if penalty == 1.0 && frequency_penalty == 0.0 && presence_penalty == 0.0 {
        return;
    }
    let mut counts = BTreeMap::new();
    said.iter().for_each(|&id| *counts.entry(id).or_insert(0u32) += 1);
    for (id, count) in counts {
        if let Some(logit) = logits.get_mut(id as usize) {
            // A token that was said twice is divided once, as in llama.cpp.
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            *logit -= count as f32 * frequency_penalty + presence_penalty;
        }
    }
}

/// The longest repetition that is counted: its penalty is out of reach long before.
const LONGEST_REPETITION: usize = 40;

/// DRY: <https://github.com/oobabooga/text-generation-webui/pull/5677>, without sequence breakers but [`REPLY_BREAK`].
fn penalise_repeated_sequences(logits: &mut [f32], said: &[u32], settings: &SamplerSettings) {
    let SamplerSettings { dry_multiplier, dry_base, dry_allowed_length, .. } = *settings;
    if dry_multiplier == 0.0 {
        return;
    }
    // For each token that followed an earlier occurrence of the last tokens: the longest such repetition.
    let mut longest = BTreeMap::new();
    for (at, &next) in said.iter().enumerate().skip(1) {
        let before = said[..at].iter().rev();
        let same = before.zip(said.iter().rev()).take(LONGEST_REPETITION);
        let length = same.take_while(|(earlier, now)| earlier == now && **now != REPLY_BREAK).count();
        if length > 0 && length >= dry_allowed_length {
            let known = longest.entry(next).or_insert(0);
            *known = length.max(*known);
        }
    }
    for (id, length) in longest {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit -= dry_multiplier * libm::powf(dry_base, (length - dry_allowed_length) as f32);
        }
    }
}

/// The `k` likeliest finite logits (all for 0), in no order. One pass that examines only logits above the k-th so far.
fn likeliest(logits: &[f32], k: usize) -> Vec<Candidate> {
    let candidates = (0..).zip(logits).filter(|(_, logit)| logit.is_finite());
    let candidates = candidates.map(|(id, &logit)| Candidate { logit: logit + 0.0, id }); // no -0.0, which sorts below 0.0
    if k == 0 || k >= logits.len() {
        return candidates.collect();
    }
    let mut best = Vec::with_capacity(2 * k);
    let mut worst: Option<Candidate> = None;
    for candidate in candidates {
        if worst.is_some_and(|worst| candidate.logit <= worst.logit) {
            continue; // among equals the lower id came first
        }
        best.push(candidate);
        if best.len() == 2 * k {
            worst = Some(*best.select_nth_unstable_by(k - 1, likeliest_first).1);
            best.truncate(k);
        }
    }
    if best.len() > k {
        best.select_nth_unstable_by(k - 1, likeliest_first);
        best.truncate(k);
    }
    best
}

/// Keeps the likeliest that together reach probability `p`, at least one. Sorts no more than necessary: the front grows
/// until it holds enough.
fn keep_top_p(kept: &mut Vec<Candidate>, p: f32) {
    let max = kept.iter().map(|candidate| candidate.logit).fold(f32::NEG_INFINITY, f32::max);
    let weight = |candidate: &Candidate| libm::exp(f64::from(candidate.logit - max));
    let enough = f64::from(p) * kept.iter().map(weight).sum::<f64>();
    let (mut sorted, mut sum) = (0, 0.0);
    while sorted < kept.len() {
        let end = (4 * sorted.max(16)).min(kept.len());
        let rest = &mut kept[sorted..];
        if end - sorted < rest.len() {
            rest.select_nth_unstable_by(end - sorted, likeliest_first);
        }
        rest[..end - sorted].sort_unstable_by(likeliest_first);
        for index in sorted..end {
            sum += weight(&kept[index]);
            if sum >= enough {
                return kept.truncate(index + 1);
            }
        }
        sorted = end;
    }
}

/// The candidate at `unit` of the way through the distribution, walked by id.
fn draw(kept: &[Candidate], max: f32, temperature: f32, unit: f64) -> u32 {
    // At temperature 0 one candidate is left, and any divisor selects it.
    let temperature = if temperature == 0.0 { 1.0 } else { f64::from(temperature) };
    let weights = kept.iter().map(|candidate| libm::exp((f64::from(candidate.logit) - f64::from(max)) / temperature));
    let mut left = unit * weights.clone().sum::<f64>();
    let mut drawn = kept[0].id;
    for (candidate, weight) in kept.iter().zip(weights) {
        if weight > 0.0 {
            drawn = candidate.id; // rounding may leave a crumb at the end: then the last possible token is sampled
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Rng, *}; // proptest has an `Rng` too

    const PLAIN: SamplerSettings = SamplerSettings::SOFTMAX;

    fn draw_one(settings: &SamplerSettings, seed: u64, logits: &[f32], history: &[u32]) -> Result<u32> {
        let mut sampler = Sampler { settings: settings.clone(), rng: Rng::from_seed(seed) };
        sampler.sample(&mut logits.to_vec(), history)
    }

    /// How often each token is sampled from `logits`, as shares.
    fn shares(settings: &SamplerSettings, logits: &[f32], history: &[u32]) -> Vec<f64> {
        const DRAWS: usize = 20_000;
        let mut sampler = Sampler { settings: settings.clone(), rng: Rng::from_seed(7) };
        let mut counts = vec![0usize; logits.len()];
        for _ in 0..DRAWS {
            counts[sampler.sample(&mut logits.to_vec(), history).unwrap() as usize] += 1;
        }
        counts.into_iter().map(|count| count as f64 / DRAWS as f64).collect()
    }

    fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
        let weights: Vec<f64> = logits.iter().map(|&logit| (f64::from(logit) / temperature).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect()
    }

    /// Probabilities 0.5, 0.25, 0.125, 0.125, out of order.
    fn halves() -> [f32; 4] {
        [0.125f32.ln(), 0.5f32.ln(), 0.125f32.ln(), 0.25f32.ln()]
    }

    #[test]
    fn the_softmax_itself_is_drawn_as_a_sampler_without_filters_draws() {
        let logits: Vec<f32> = (0..300).map(|at| (at as f32 * 0.7).sin() * 3.0).chain([f32::NAN]).collect();
        let expected = softmax(&logits[..300], 1.0);
        for seed in 0..200 {
            let (drawn, logprob) = sample_softmax(&logits, &mut Rng::from_seed(seed)).unwrap();
            assert_eq!(draw_one(&PLAIN, seed, &logits, &[]).unwrap(), drawn);
            assert!((f64::from(logprob) - expected[drawn as usize].ln()).abs() < 1e-5);
        }
        assert!(sample_softmax(&[f32::NAN; 3], &mut Rng::from_seed(1)).is_err());
    }

    #[test]
    fn filters_keep_what_they_say() {
        let check = |settings: SamplerSettings, expected: [f64; 4]| {
            let shares = shares(&settings, &halves(), &[]);
            for (share, expected) in shares.iter().zip(expected) {
                assert!((share - expected).abs() < 0.015, "{settings:?} drew {shares:?}");
                assert!(*share == 0.0 || expected > 0.0, "{settings:?} drew what it removes: {shares:?}");
            }
        };
        check(PLAIN, [0.125, 0.5, 0.125, 0.25]);
        check(SamplerSettings { top_k: 1, ..PLAIN }, [0.0, 1.0, 0.0, 0.0]);
        check(SamplerSettings { top_k: 2, ..PLAIN }, [0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
        // Of two equals the lower id stays.
        check(SamplerSettings { top_k: 3, ..PLAIN }, [1.0 / 7.0, 4.0 / 7.0, 0.0, 2.0 / 7.0]);
        check(SamplerSettings { top_k: 9, ..PLAIN }, [0.125, 0.5, 0.125, 0.25]);
        // The token that crosses p is kept; at least one always is.
        check(SamplerSettings { top_p: 0.0, ..PLAIN }, [0.0, 1.0, 0.0, 0.0]);
        check(SamplerSettings { top_p: 0.49, ..PLAIN }, [0.0, 1.0, 0.0, 0.0]);
        check(SamplerSettings { top_p: 0.51, ..PLAIN }, [0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
        check(SamplerSettings { top_p: 0.8, ..PLAIN }, [1.0 / 7.0, 4.0 / 7.0, 0.0, 2.0 / 7.0]);
        // A fraction of the likeliest, not of one.
        check(SamplerSettings { min_p: 0.4, ..PLAIN }, [0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
        check(SamplerSettings { min_p: 0.2, ..PLAIN }, [0.125, 0.5, 0.125, 0.25]);
        check(SamplerSettings { min_p: 1.0, ..PLAIN }, [0.0, 1.0, 0.0, 0.0]);
        check(SamplerSettings { temperature: 0.0, ..PLAIN }, [0.0, 1.0, 0.0, 0.0]);
        // Squared and normalised: 4, 1, 1/4, 1/4 of 5.5.
        check(SamplerSettings { temperature: 0.5, ..PLAIN }, [0.25 / 5.5, 4.0 / 5.5, 0.25 / 5.5, 1.0 / 5.5]);
        // top-k first: of the two that are left, 2/3 is enough for top-p.
        check(SamplerSettings { top_k: 2, top_p: 0.6, ..PLAIN }, [0.0, 1.0, 0.0, 0.0]);
        // Temperature last: top-p sees the model's own distribution.
        check(SamplerSettings { temperature: 100.0, top_p: 0.51, ..PLAIN }, [0.0, 0.5, 0.0, 0.5]);
    }

    #[test]
    fn the_penalty_pushes_recent_tokens_down_once_whatever_their_sign() {
        let check = |window: usize, history: &[u32], expected: [f32; 4]| {
            let mut logits = [2.0, -2.0, 0.0, 3.0];
            let settings = SamplerSettings { repetition_penalty: 2.0, repetition_window: window, ..PLAIN };
            penalise(&mut logits, &history[history.len().saturating_sub(window)..], &settings);
            assert_eq!(logits, expected, "window {window}, history {history:?}");
        };
        check(64, &[], [2.0, -2.0, 0.0, 3.0]);
        check(64, &[0, 1, 2], [1.0, -4.0, 0.0, 3.0]);
        check(64, &[0, 0, 0], [1.0, -2.0, 0.0, 3.0]);
        check(1, &[0, 3], [2.0, -2.0, 0.0, 1.5]);
        check(0, &[0, 3], [2.0, -2.0, 0.0, 3.0]);
        check(64, &[4, u32::MAX], [2.0, -2.0, 0.0, 3.0]);
    }

    #[test]
    fn temperature_zero_takes_the_likeliest_and_the_lowest_id_among_equals() {
        let greedy = SamplerSettings { temperature: 0.0, ..PLAIN };
        let check = |logits: &[f32], expected| assert_eq!(draw_one(&greedy, 3, logits, &[]).unwrap(), expected);
        check(&[1.0, 3.0, 3.0, 2.0], 1);
        check(&[-0.0, 0.0], 0);
        check(&[f32::NAN, -5.0, f32::NEG_INFINITY], 1);
        check(&[f32::MIN, f32::MAX], 1);
    }

    #[test]
    fn broken_logits_are_never_drawn() {
        let odd = [f32::NAN, 0.0, f32::INFINITY, 0.0, f32::NEG_INFINITY];
        assert!((0..200).all(|seed| matches!(draw_one(&PLAIN, seed, &odd, &[]).unwrap(), 1 | 3)));
        for broken in [&[][..], &[f32::NAN; 3], &[f32::NEG_INFINITY, f32::INFINITY]] {
            let error = draw_one(&SamplerSettings::default(), 0, broken, &[]).unwrap_err().to_string();
            assert!(error.contains(&format!("none of {} logits is finite", broken.len())), "{error}");
        }
    }

    #[test]
    fn settings_without_a_distribution_are_refused_by_name() {
        let check = |settings: SamplerSettings, field: &str| {
            let error = draw_one(&settings, 0, &[0.0], &[]).unwrap_err().to_string();
            assert!(error.contains(field) && error.contains("use "), "{error}");
        };
        check(SamplerSettings { temperature: -1.0, ..PLAIN }, "temperature = -1");
        check(SamplerSettings { temperature: f32::NAN, ..PLAIN }, "temperature = NaN");
        check(SamplerSettings { top_p: 1.5, ..PLAIN }, "top_p = 1.5");
        check(SamplerSettings { min_p: -0.1, ..PLAIN }, "min_p = -0.1");
        check(SamplerSettings { repetition_penalty: 0.0, ..PLAIN }, "repetition_penalty = 0");
    }

    #[test]
    fn frequency_and_presence_are_subtracted() {
        let mut logits = [1.0, 1.0, 1.0];
        penalise(&mut logits, &[0, 2, 0], &SamplerSettings { frequency_penalty: 0.25, presence_penalty: 0.5, ..PLAIN });
        assert_eq!(logits, [0.0, 1.0, 0.25]);
    }

    #[test]
    fn dry_charges_for_each_token_of_a_repetition_beyond_what_is_allowed() {
        let check = |said: &[u32], expected: [f32; 4]| {
            let mut logits = [0.0; 4];
            let settings = SamplerSettings { dry_multiplier: 1.0, dry_base: 2.0, dry_allowed_length: 2, ..PLAIN };
            penalise_repeated_sequences(&mut logits, said, &settings);
            assert_eq!(logits, expected, "{said:?}");
        };
        check(&[], [0.0; 4]);
        check(&[1], [0.0; 4]);
        check(&[1, 2, 3], [0.0; 4]);
        // Said "1 2 3" and now "1 2": a 3 would make it a repetition of three.
        check(&[1, 2, 3, 0, 1, 2], [0.0, 0.0, 0.0, -1.0]);
        check(&[0, 1, 2, 3, 0, 1, 2], [0.0, 0.0, 0.0, -2.0]);
        check(&[2, 3, 0, 2], [0.0; 4]);
        // The longest counts, and an overlapping repetition counts too.
        check(&[1, 1, 1, 1], [0.0, -2.0, 0.0, 0.0]);
        // Two replies that begin alike do not continue each other's ends.
        check(&[1, 2, 3, REPLY_BREAK, 1, 2], [0.0, 0.0, 0.0, -1.0]);
        check(&[1, REPLY_BREAK, 2, 3, 1, REPLY_BREAK, 2], [0.0; 4]);
    }

    #[test]
    fn frequencies_follow_the_distribution() {
        // Pearson's chi-squared over 99 degrees of freedom: a random value exceeds 148 once in a thousand times.
        let logits: Vec<f32> = (0..100u32).map(|id| (id.wrapping_mul(2_654_435_761) % 97) as f32 / 30.0).collect();
        for (settings, temperature) in [(PLAIN, 1.0), (SamplerSettings { temperature: 2.0, ..PLAIN }, 2.0)] {
            let expected = softmax(&logits, temperature);
            let chi_squared: f64 = shares(&settings, &logits, &[])
                .iter()
                .zip(&expected)
                .map(|(share, expected)| 20_000.0 * (share - expected).powi(2) / expected)
                .sum();
            assert!(chi_squared < 148.0, "chi-squared {chi_squared} at temperature {temperature}");
        }
    }

    /// The filters in their simplest form: sort everything, then cut.
    fn plain_filters(logits: &[f32], settings: &SamplerSettings) -> Vec<u32> {
        let mut all: Vec<Candidate> = (0..).zip(logits).map(|(id, &logit)| Candidate { logit, id }).collect();
        all.sort_by(likeliest_first);
        if settings.top_k > 0 {
            all.truncate(settings.top_k);
        }
        if settings.top_p < 1.0 {
            let weights: Vec<f64> = all.iter().map(|c| f64::from(c.logit - all[0].logit).exp()).collect();
            let enough = f64::from(settings.top_p) * weights.iter().sum::<f64>();
            let mut sum = 0.0;
            let needed = weights.iter().position(|weight| {
                sum += weight;
                sum >= enough
            });
            all.truncate(needed.map_or(all.len(), |at| at + 1));
        }
        if settings.min_p > 0.0 {
            let least = all[0].logit + settings.min_p.ln();
            all.retain(|candidate| candidate.logit >= least);
        }
        let mut ids: Vec<u32> = all.iter().map(|candidate| candidate.id).collect();
        ids.sort_unstable();
        ids
    }

    fn logits() -> impl Strategy<Value = Vec<f32>> {
        // Quarters, so that ties are common.
        prop::collection::vec((-40i32..40).prop_map(|quarter| quarter as f32 / 4.0), 1..600)
    }

    proptest! {
        #[test]
        fn fast_filters_equal_the_plain_ones(
            logits in logits(), top_k in 0usize..700, top_p in 0f32..1.2, min_p in 0f32..0.5, seed: u64,
        ) {
            let settings = SamplerSettings { top_k, top_p: top_p.min(1.0), min_p, ..PLAIN };
            let kept = plain_filters(&logits, &settings);
            // The same walk over what the plain filters keep.
            let kept: Vec<Candidate> = kept.into_iter().map(|id| Candidate { logit: logits[id as usize], id }).collect();
            let max = kept.iter().map(|candidate| candidate.logit).fold(f32::NEG_INFINITY, f32::max);
            let expected = draw(&kept, max, 1.0, Rng::from_seed(seed).next_unit());
            prop_assert_eq!(draw_one(&settings, seed, &logits, &[]).unwrap(), expected);
        }

        #[test]
        fn filters_that_remove_nothing_change_nothing(logits in logits(), seed: u64) {
            let all = SamplerSettings { top_k: logits.len(), top_p: 1.0, min_p: 0.0, ..PLAIN };
            prop_assert_eq!(draw_one(&all, seed, &logits, &[]).unwrap(), draw_one(&PLAIN, seed, &logits, &[]).unwrap());
        }

        #[test]
        fn each_sample_takes_one_number(logits in logits(), temperature in prop::sample::select(vec![0.0, 0.5, 1.0])) {
            let mut sampler =
                Sampler { settings: SamplerSettings { temperature, ..SamplerSettings::default() }, rng: Rng::from_seed(1) };
            for drawn in 1..4 {
                sampler.sample(&mut logits.clone(), &[]).unwrap();
                prop_assert_eq!(sampler.rng.to_string(), format!("1:{drawn}"));
            }
        }
    }
}
