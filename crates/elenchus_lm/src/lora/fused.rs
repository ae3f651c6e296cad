//! Some families have several linears in one matrix (`qkv_proj`, `gate_up_proj`, `c_attn`), which PEFT and llama.cpp adapt as
//! one module. Here an adapter has a pair for each linear: reading cuts the rows of B and copies A, writing puts them
//! together again.

use super::{LoraPair, Pairs};
use crate::{Linear, ModelConfig, architectures::TensorNames};

/// A module's update in an adapter's file.
#[derive(Debug)]
pub(super) struct Module {
    pub layer: usize,
    /// Its linears, in the order of their rows.
    pub parts: Vec<Linear>,
    pub pair: LoraPair,
}

impl Module {
    /// What it is called within its block.
    pub fn path(&self, names: &TensorNames) -> &'static str {
        names.linears[self.parts[0] as usize]
    }

    /// Its name without that of the model: `layers.0.self_attn.q_proj`.
    pub fn short_name(&self, names: &TensorNames) -> String {
        format!("{}{}.{}", names.short_block(), self.layer, self.path(names))
    }

    /// Its whole name: `model.layers.0.self_attn.q_proj`.
    pub fn name(&self, names: &TensorNames) -> String {
        format!("{}{}.{}", names.block, self.layer, self.path(names))
    }
}

/// A module's pair as those of its linears.
pub(super) fn split(
    parts: &[Linear],
    pair: LoraPair,
    config: Option<&ModelConfig>,
) -> Result<Vec<(Linear, LoraPair)>, String> {
    if let [linear] = parts {
        return Ok(vec![(*linear, pair)]);
    }
    let (rows, columns) = pair.shape();
    let heights: Vec<usize> = match (config, parts) {
        (Some(config), _) => parts.iter().map(|linear| linear.shape(config).0).collect(),
        // Queries are as wide as what they are computed from in every family that fuses them. `check_fits` finds out if not.
        (None, [Linear::Q, Linear::K, Linear::V]) => {
            let others = rows.saturating_sub(columns) / 2;
            vec![columns, others, others]
        }
        (None, _) => vec![rows / parts.len(); parts.len()],
    };
    if heights.iter().sum::<usize>() != rows {
        let names: Vec<String> = parts.iter().map(Linear::to_string).collect();
        let parts = names.join(", ");
        return Err(format!(
            "lora_B has {rows} rows, which are not those of {parts} (hint: trained on another base model?)"
        ));
    }
    let LoraPair { a, b, rank, scaling } = pair;
    let mut start = 0;
    let cut = parts.iter().zip(heights).map(|(&linear, height)| {
        let rows = start..start + height * rank;
        start = rows.end;
        (linear, LoraPair { a: a.clone(), b: b[rows].to_vec(), rank, scaling })
    });
    Ok(cut.collect())
}

/// An adapter's pairs as those of its base's modules.
pub(super) fn modules(pairs: &Pairs, names: &TensorNames) -> Result<Vec<Module>, String> {
    let mut modules: Vec<Module> = Vec::new();
    for (&(layer, linear), pair) in pairs {
        let parts = names.fused(linear);
        if names.linears[linear as usize].is_empty() {
            return Err(format!("layer {layer}: the base's family has no {linear} (hint: leave it out)"));
        }
        if modules.last().is_some_and(|last| last.layer == layer && last.parts == parts) {
            continue;
        }
        let pair = match parts.as_slice() {
            [_] => pair.clone(),
            _ => {
                joined(&parts, |part| pairs.get(&(layer, part))).map_err(|reason| format!("layer {layer}: {reason}"))?
            }
        };
        modules.push(Module { layer, parts, pair });
    }
    Ok(modules)
}

/// One pair for several linears, at least one of which is adapted: the A of all of them if they share it, as after reading;
/// otherwise one above the other, with B in blocks along the diagonal.
fn joined<'a>(parts: &[Linear], of: impl Fn(Linear) -> Option<&'a LoraPair>) -> Result<LoraPair, String> {
    let adapted: Vec<&LoraPair> = parts.iter().filter_map(|&part| of(part)).collect();
    let first = adapted[0];
    let columns = first.shape().1;
    if let Some(other) = adapted.iter().find(|pair| pair.shape().1 != columns) {
        return Err(format!("parts of one matrix read {columns} and {} numbers", other.shape().1));
    }
    let is_shared = adapted.iter().all(|pair| pair.a == first.a && pair.scaling == first.scaling);
    let rank = if is_shared { first.rank } else { adapted.iter().map(|pair| pair.rank).sum() };
    let scaling =
        adapted.iter().map(|pair| pair.scaling).fold(0.0, |most: f32, s| if s.abs() > most.abs() { s } else { most });
    let mut a = Vec::with_capacity(rank * columns);
    let (mut b, mut before) = (Vec::new(), 0);
    for &part in parts {
        let Some(pair) = of(part) else {
            b.resize(b.len() + rank * height(part, columns, &of)?, 0.0);
            continue;
        };
        // One rounding: the factor is exact in f64.
        let factor = if scaling == 0.0 { 1.0 } else { f64::from(pair.scaling) / f64::from(scaling) };
        for row in pair.b.chunks_exact(pair.rank) {
            let start = b.len() + before;
            b.resize(b.len() + rank, 0.0);
            b[start..start + pair.rank].iter_mut().zip(row).for_each(|(b, &x)| *b = (f64::from(x) * factor) as f32);
        }
        if !is_shared || a.is_empty() {
            a.extend_from_slice(&pair.a);
        }
        if !is_shared {
            before += pair.rank;
        }
    }
    Ok(LoraPair { a, b, rank, scaling })
}

/// Rows of a linear that is not adapted, beside others of its matrix that are.
fn height<'a>(part: Linear, columns: usize, of: impl Fn(Linear) -> Option<&'a LoraPair>) -> Result<usize, String> {
    let twin = match part {
        Linear::Q => return Ok(columns),
        Linear::K => Linear::V,
        Linear::V => Linear::K,
        Linear::Gate => Linear::Up,
        Linear::Up => Linear::Gate,
        other => other,
    };
    of(twin).map(|pair| pair.shape().0).ok_or_else(|| {
        format!("without {twin} and {part} the height of their matrix is not known (hint: adapt one of them too)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Architecture, LoraAdapter, Precision};

    const COLUMNS: usize = 6;

    fn phi3() -> &'static Architecture {
        Architecture::by_name("phi3").unwrap()
    }

    fn pair(seed: usize, rows: usize, rank: usize, scaling: f32) -> LoraPair {
        let values = |count: usize| (0..count).map(|at| ((at * 7 + seed * 5) % 16) as f32 / 8.0 - 1.0).collect();
        LoraPair { a: values(rank * COLUMNS), b: values(rows * rank), rank, scaling }
    }

    /// `scaling * B A`, row by row.
    fn update(pair: &LoraPair) -> Vec<f32> {
        let (rows, columns) = pair.shape();
        let at = |row: usize, column: usize| {
            (0..pair.rank).map(|r| pair.b[row * pair.rank + r] * pair.a[r * columns + column]).sum::<f32>()
                * pair.scaling
        };
        (0..rows).flat_map(|row| (0..columns).map(move |column| at(row, column))).collect()
    }

    fn saved(pairs: Pairs) -> LoraAdapter {
        let folder = tempfile::tempdir().unwrap();
        let adapter = LoraAdapter::from_pairs("it", pairs).for_family(phi3());
        adapter.save(folder.path(), "phi", Precision::F32).unwrap();
        let file = std::fs::read(folder.path().join("adapter_model.safetensors")).unwrap();
        let names: Vec<String> =
            safetensors::SafeTensors::deserialize(&file).unwrap().names().iter().map(ToString::to_string).collect();
        assert!(names.iter().all(|name| !name.contains("q_proj") && !name.contains(".up_proj")), "{names:?}");
        let config = std::fs::read_to_string(folder.path().join("adapter_config.json")).unwrap();
        assert!(config.contains("qkv_proj\""), "{config}");
        LoraAdapter::open(folder.path()).unwrap()
    }

    #[test]
    fn parts_that_share_a_are_saved_as_they_were_read() {
        let whole = pair(1, 10, 2, 2.0);
        let parts = split(&[Linear::Q, Linear::K, Linear::V], whole.clone(), None).unwrap();
        let heights: Vec<usize> = parts.iter().map(|(_, pair)| pair.shape().0).collect();
        assert_eq!(heights, [6, 2, 2]);
        let gate_up = split(&[Linear::Gate, Linear::Up], pair(2, 8, 3, 1.0), None).unwrap();
        let pairs: Pairs = parts.into_iter().chain(gate_up).map(|(linear, pair)| ((0, linear), pair)).collect();
        assert_eq!(modules(&pairs, phi3().hf_names).unwrap()[0].pair, whole);
        assert_eq!(saved(pairs.clone()).pairs(), pairs);
    }

    #[test]
    fn parts_of_their_own_keep_their_updates() {
        let pairs = Pairs::from([
            ((0, Linear::Q), pair(1, 6, 2, 2.0)),
            ((0, Linear::V), pair(2, 4, 3, 0.5)),
            ((0, Linear::Up), pair(3, 5, 1, 1.0)),
            ((1, Linear::K), pair(4, 4, 2, 1.0)),
        ]);
        let back = saved(pairs.clone()).pairs();
        for (key, pair) in &back {
            let expected = pairs.get(key).map_or(vec![0.0; pair.shape().0 * COLUMNS], update);
            assert_eq!(update(pair), expected, "{key:?}");
        }
        assert_eq!(back.len(), 3 + 2 + 3);
        assert_eq!(back[&(0, Linear::Q)].rank, 5);
    }

    #[test]
    fn what_has_no_place_in_a_family_is_refused() {
        let only_q = Pairs::from([((3, Linear::Q), pair(1, 6, 2, 2.0))]);
        let error = modules(&only_q, phi3().hf_names).unwrap_err();
        assert!(error.contains("layer 3") && error.contains("adapt one of them"), "{error}");
        let error = split(&[Linear::Q, Linear::K, Linear::V], pair(1, 9, 2, 2.0), None).unwrap_err();
        assert!(error.contains("9 rows"), "{error}");
    }
}
