//! Merges adapters into one, exactly: the sum of two updates of ranks r and s is an update of rank r + s.
//!
//! A matrices are stacked; B matrices, times weight and scaling, stand side by side. What PEFT calls `cat` in
//! `add_weighted_adapter` does the same with the factor on A.

use std::collections::BTreeSet;

use super::{LoraAdapter, LoraPair, Pairs, matrix::module_name};
use crate::{Error, Linear, Result};

/// The PEFT parser.
const MAX_RANK: usize = 4096;

/// The weighted sums, by layer and linear. The merged pairs' scaling is 1.
pub fn merge(name: &str, parts: &[(&LoraAdapter, f32)]) -> Result<Pairs> {
    if parts.is_empty() {
        return Err(Error::adapter(name, "there is nothing to merge"));
    }
    if let Some((part, weight)) = parts.iter().find(|(_, weight)| !weight.is_finite() || *weight == 0.0) {
        let hint = "(hint: leave it out, or give a number such as 0.5 or -1)";
        return Err(Error::adapter(&part.name, format!("its weight is {weight} {hint}")));
    }
    let keys: BTreeSet<(usize, Linear)> = parts.iter().flat_map(|(part, _)| part.places().keys().copied()).collect();
    keys.into_iter().map(|key| Ok((key, sum(name, key, parts)?))).collect()
}

fn sum(name: &str, key: (usize, Linear), parts: &[(&LoraAdapter, f32)]) -> Result<LoraPair> {
    let module = module_name(key.0, key.1);
    let mut pairs: Vec<(&LoraAdapter, LoraPair)> = Vec::new();
    for &(part, weight) in parts {
        let Some(LoraPair { a, b, rank, scaling }) = part.pair(key) else { continue };
        // One rounding: the factor is exact in f64.
        let factor = f64::from(weight) * f64::from(scaling);
        let b = b.into_iter().map(|b| (f64::from(b) * factor) as f32).collect();
        pairs.push((part, LoraPair { a, b, rank, scaling: 1.0 }));
    }
    let rank: usize = pairs.iter().map(|(_, pair)| pair.rank).sum();
    if rank > MAX_RANK {
        return Err(Error::adapter(
            name,
            format!("`{module}`: the ranks add up to {rank}; at most {MAX_RANK} are read"),
        ));
    }
    for (part, pair) in &pairs {
        let ((first, expected), found) = ((pairs[0].0, pairs[0].1.shape()), pair.shape());
        if found != expected {
            let reason = format!("`{module}` is {found:?} there, but {expected:?} in {}", first.name);
            return Err(Error::adapter(&part.name, format!("{reason} (hint: trained on another base model?)")));
        }
        if pair.b.iter().any(|b| !b.is_finite()) {
            let reason = format!("`{module}`: lora_B times weight and scaling is beyond f32 (hint: a smaller weight)");
            return Err(Error::adapter(&part.name, reason));
        }
    }
    let a = pairs.iter().flat_map(|(_, pair)| pair.a.iter().copied()).collect();
    let (rows, _) = pairs[0].1.shape();
    let row = |row: usize, pair: &LoraPair| pair.b[row * pair.rank..(row + 1) * pair.rank].to_vec();
    let b = (0..rows).flat_map(|at| pairs.iter().flat_map(move |(_, pair)| row(at, pair))).collect();
    Ok(LoraPair { a, b, rank, scaling: 1.0 })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Precision;

    /// Small whole numbers: every product and sum is exact in f32.
    fn pair(seed: usize, rank: usize, scaling: f32) -> LoraPair {
        let values = |count: usize, step: usize| (0..count).map(|at| ((at * step + seed) % 7) as f32 - 3.0).collect();
        LoraPair { a: values(rank * 5, 3), b: values(4 * rank, 5), rank, scaling }
    }

    /// `scaling * B A`, (4, 5).
    fn dense(pair: Option<&LoraPair>, weight: f32) -> Vec<f32> {
        let Some(LoraPair { a, b, rank, scaling }) = pair else { return vec![0.0; 20] };
        let entry = |row: usize, column: usize| (0..*rank).map(|r| b[row * rank + r] * a[r * 5 + column]).sum::<f32>();
        (0..20).map(|at| weight * scaling * entry(at / 5, at % 5)).collect()
    }

    fn three() -> [LoraAdapter; 3] {
        let adapter = |name: &str, pairs: &[((usize, Linear), LoraPair)]| {
            LoraAdapter::from_pairs(name, pairs.iter().cloned().collect())
        };
        [
            adapter("one", &[((0, Linear::Q), pair(1, 2, 2.0)), ((1, Linear::Q), pair(2, 2, 2.0))]),
            adapter("two", &[((0, Linear::Q), pair(3, 3, 0.5)), ((0, Linear::V), pair(4, 3, 4.0))]),
            adapter("three", &[((1, Linear::Q), pair(5, 1, 1.0)), ((0, Linear::Q), pair(6, 1, 1.0))]),
        ]
    }

    #[test]
    fn the_update_is_the_weighted_sum_of_the_updates() {
        let adapters = three();
        let weights = [1.0, -0.5, 3.0];
        let parts: Vec<(&LoraAdapter, f32)> = adapters.iter().zip(weights).collect();
        let merged = LoraAdapter::merge("all", &parts).unwrap();
        assert_eq!(merged.pairs().len(), 3);
        for (key, rank) in [((0, Linear::Q), 6), ((1, Linear::Q), 3), ((0, Linear::V), 3)] {
            let mut expected = vec![0.0; 20];
            for (adapter, weight) in &parts {
                let update = dense(adapter.pairs().get(&key), *weight);
                expected.iter_mut().zip(update).for_each(|(sum, update)| *sum += update);
            }
            assert!(expected.iter().any(|entry| *entry != 0.0));
            assert_eq!(merged.pairs()[&key].rank, rank, "{key:?}");
            assert_eq!(dense(merged.pairs().get(&key), 1.0), expected, "{key:?}");
        }
        // Ranks differ, and v is adapted in one layer of two: the folder records both.
        let folder = tempfile::tempdir().unwrap();
        merged.save(folder.path(), "base", Precision::F32).unwrap();
        assert_eq!(LoraAdapter::open(folder.path()).unwrap().pairs(), merged.pairs());
        let config = std::fs::read(folder.path().join("adapter_config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        assert_eq!((&config["r"], &config["lora_alpha"]), (&3.into(), &3.0.into()));
        assert_eq!(config["rank_pattern"], serde_json::json!({"layers.0.self_attn.q_proj": 6}));
        assert_eq!(config["alpha_pattern"], serde_json::json!({"layers.0.self_attn.q_proj": 6.0}));
        let targets = ["layers.0.self_attn.q_proj", "layers.0.self_attn.v_proj", "layers.1.self_attn.q_proj"];
        assert_eq!(config["target_modules"], serde_json::json!(targets));
    }

    #[test]
    fn what_cannot_be_summed_is_refused() {
        let [one, two, _] = three();
        let check = |parts: &[(&LoraAdapter, f32)], says: &[&str]| {
            let error = LoraAdapter::merge("all", parts).unwrap_err().to_string();
            for part in says {
                assert!(error.contains(part), "`{error}` does not say `{part}`");
            }
        };
        check(&[], &["nothing to merge"]);
        check(&[(&one, 1.0), (&two, 0.0)], &["two", "weight is 0"]);
        check(&[(&one, f32::NAN)], &["one", "NaN"]);
        check(&[(&one, f32::MAX)], &["one", "beyond f32"]);
        let wide = LoraPair { a: vec![1.0; 6], b: vec![1.0; 4], rank: 1, scaling: 1.0 };
        let wide = LoraAdapter::from_pairs("wide", BTreeMap::from([((0, Linear::Q), wide)]));
        check(&[(&one, 1.0), (&wide, 1.0)], &["wide", "(4, 6)", "(4, 5) in one", "another base"]);
        let high = LoraPair { a: vec![1.0; 5 * 4095], b: vec![1.0; 4 * 4095], rank: 4095, scaling: 1.0 };
        let high = LoraAdapter::from_pairs("high", BTreeMap::from([((0, Linear::Q), high)]));
        check(&[(&one, 1.0), (&high, 1.0)], &["4097", "4096"]);
    }
}
