//! Adapters as llama.cpp loads them with `--lora`: a GGUF file of type `adapter` whose tensors stand for the base's.
//!
//! llama.cpp multiplies every update by `alpha / rank`, with one alpha for the whole file. Pairs of the commonest alpha
//! keep A and B as they are; in the others B is multiplied by the ratio of the scalings, in f64 and rounded once. Rows
//! of B for q and k are in the order of the base's GGUF file. Source: `convert_lora_to_gguf.py` and
//! `llama-adapter.cpp`.

use std::{path::Path, sync::LazyLock};

use regex::Regex;
use safetensors::Dtype;

use super::{
    LoraPair, Pairs, Precision,
    fused::modules,
    matrix::{Half, Halves, Matrix, TensorKey, commonest, module_name},
};
use crate::{
    BlockType, Error, Linear, ModelConfig, Result,
    gguf::{Gguf, GgufWriter, Value},
};

const ALPHA: &str = "adapter.lora.alpha";

/// The file to write; the pairs fit the configuration.
pub fn to_writer(name: &str, pairs: &Pairs, config: &ModelConfig, precision: Precision) -> Result<GgufWriter> {
    let modules = modules(pairs, config.architecture.gguf_names).map_err(|reason| Error::adapter(name, reason))?;
    // For llama.cpp, zero means that there is no alpha, and that A and B are not scaled at all.
    let alphas = modules.iter().map(|module| module.pair.alpha()).filter(|&alpha| alpha as f32 != 0.0);
    let alpha = commonest(alphas.map(f64::to_bits)).map_or(1.0, f64::from_bits);
    let mut writer = GgufWriter::new();
    writer
        .set("general.type", "adapter")
        .set("general.architecture", config.architecture.name)
        .set("general.name", name)
        .set("adapter.type", "lora")
        .set(ALPHA, alpha as f32);
    let dtype = match precision {
        Precision::F32 => BlockType::F32,
        Precision::F16 => BlockType::F16,
    };
    for module in &modules {
        let pair = &module.pair;
        let LoraPair { a, b, rank, scaling } = pair;
        let (rows, columns) = pair.shape();
        let more = if pair.alpha() == alpha { 1.0 } else { f64::from(*scaling) * *rank as f64 / alpha };
        let scaled = |row: usize| b[row * rank..(row + 1) * rank].iter().map(move |&b| (f64::from(b) * more) as f32);
        let b: Vec<f32> = match row_order(&module.parts, config) {
            Some(order) => order.into_iter().flat_map(scaled).collect(),
            None => (0..rows).flat_map(scaled).collect(),
        };
        for (half, values, shape) in [(Half::A, a, [*rank, columns]), (Half::B, &b, [rows, *rank])] {
            let half = if matches!(half, Half::A) { 'a' } else { 'b' };
            let tensor = format!("{}.weight.lora_{half}", module.name(config.architecture.gguf_names));
            let bytes = precision
                .encode(values)
                .map_err(|reason| Error::adapter(name, format!("tensor `{tensor}`: {reason}")))?;
            writer.tensor(tensor, &shape, dtype, bytes);
        }
    }
    Ok(writer)
}

/// The updates in a file, rows in Hugging Face's order.
pub fn read(path: &Path, config: &ModelConfig) -> Result<Pairs> {
    let file = Gguf::open(path)?;
    let name = path.display().to_string();
    let fail = |reason: String| Error::adapter(&name, reason);
    for (key, expected) in
        [("general.type", "adapter"), ("adapter.type", "lora"), ("general.architecture", config.architecture.name)]
    {
        match file.get(key) {
            Some(Value::String(value)) if value == expected => {}
            Some(other) => return Err(fail(format!("`{key}` is {other:?}, expected `{expected}`"))),
            None => return Err(fail(format!("`{key}` is missing (hint: is this a model, not an adapter?)"))),
        }
    }
    let alpha = match file.get(ALPHA) {
        Some(_) => file.f32(ALPHA)?,
        None => 0.0,
    };
    if !alpha.is_finite() {
        return Err(fail(format!("`{ALPHA}` is {alpha}, expected a number")));
    }
    if let Some((key, _)) = file.metadata().iter().find(|(key, _)| key.starts_with("adapter.alora.")) {
        return Err(fail(format!("`{key}`: activated LoRA is not supported (hint: train plain LoRA)")));
    }
    let mut halves = Halves::default();
    for (tensor, info) in file.tensors() {
        let key = parse_tensor_name(tensor, config).map_err(fail)?;
        let dtype = match info.dtype {
            BlockType::F32 => Dtype::F32,
            BlockType::F16 => Dtype::F16,
            BlockType::BF16 => Dtype::BF16,
            other => return Err(fail(format!("tensor `{tensor}` is {other:?}, expected F32, F16 or BF16"))),
        };
        let (_, bytes) = file.tensor(tensor).ok_or_else(|| fail(format!("tensor `{tensor}` is missing")))?;
        Matrix::read(tensor, dtype, &info.shape, bytes)
            .and_then(|matrix| in_peft_order(matrix, &key, config))
            .and_then(|matrix| halves.insert(tensor, &key, matrix))
            .map_err(fail)?;
    }
    if halves.is_empty() {
        return Err(fail("it holds no tensors (hint: was it trained?)".into()));
    }
    halves.into_pairs(&name, Some(config), |_, rank| Ok(if alpha == 0.0 { 1.0 } else { alpha / rank as f32 }))
}

/// For each row of the base's GGUF file, the row of PEFT's order that it holds. A base opened from a Hugging Face
/// folder has rows in that order; its GGUF file does not.
fn row_order(parts: &[Linear], config: &ModelConfig) -> Option<Vec<usize>> {
    let heads = match parts {
        [Linear::Q] => config.num_heads,
        [Linear::K] => config.num_kv_heads,
        // No family whose rows are in another order has them in one matrix with others.
        _ => return None,
    };
    ModelConfig { rope_layout: config.architecture.gguf_rope_layout, ..config.clone() }.rope_row_order(heads)
}

fn in_peft_order(matrix: Matrix, key: &TensorKey, config: &ModelConfig) -> Result<Matrix, String> {
    let (Half::B, Some(order)) = (key.half, row_order(&key.parts, config)) else { return Ok(matrix) };
    let Matrix { rows, columns, data } = matrix;
    if rows != order.len() {
        let (linear, expected) = (key.parts[0], order.len());
        let what = format!("layer {} `{linear}`: lora_b has {rows} rows, but the base expects {expected}", key.layer);
        return Err(format!("{what} (hint: trained on another base model?)"));
    }
    let mut peft = vec![0.0; data.len()];
    for (row, &peft_row) in data.chunks_exact(columns).zip(&order) {
        peft[peft_row * columns..(peft_row + 1) * columns].copy_from_slice(row);
    }
    Ok(Matrix { rows, columns, data: peft })
}

fn parse_tensor_name(name: &str, config: &ModelConfig) -> Result<TensorKey, String> {
    static KEY: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^blk\.(\d{1,6})\.(\w+)\.weight\.lora_([ab])$").expect("the pattern is constant"));
    let refuse = || format!("tensor `{name}` is not LoRA of a known linear layer (hint: q, k, v, o, gate, up or down)");
    let parts = KEY.captures(name).ok_or_else(refuse)?;
    let layer = parts[1].parse().map_err(|_| refuse())?;
    let linears = config.architecture.gguf_names.parts(&parts[2]);
    let module = match linears.as_slice() {
        [] => return Err(refuse()),
        [linear] => format!("model.{}", module_name(layer, *linear)),
        _ => format!("blk.{layer}.{}", &parts[2]),
    };
    Ok(TensorKey { layer, parts: linears, module, half: if &parts[3] == "a" { Half::A } else { Half::B } })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{LoraAdapter, RopeLayout, config::tests::tiny, testing::write_random_adapter};

    fn counting(linear: Linear, rank: usize, scaling: f32) -> LoraPair {
        let (rows, columns) = linear.shape(&tiny());
        let values = |count: usize| (0..count).map(|at| at as f32 / 8.0 - 9.0).collect();
        LoraPair { a: values(rank * columns), b: values(rows * rank), rank, scaling }
    }

    fn written(pairs: impl IntoIterator<Item = ((usize, Linear), LoraPair)>) -> (tempfile::TempDir, Gguf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        let adapter = LoraAdapter::from_pairs("it", pairs.into_iter().collect());
        adapter.save_gguf(&path, &tiny(), Precision::F32).unwrap();
        let file = Gguf::open(&path).unwrap();
        (folder, file)
    }

    fn floats(file: &Gguf, tensor: &str) -> Vec<f32> {
        file.tensor(tensor).unwrap().1.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
    }

    #[test]
    fn the_file_is_laid_out_as_llama_cpp_asks() {
        let (_folder, file) = written([((1, Linear::Q), counting(Linear::Q, 2, 2.0))]);
        assert_eq!(file.str("general.type").unwrap(), "adapter");
        assert_eq!(file.str("general.architecture").unwrap(), "llama");
        assert_eq!(file.str("adapter.type").unwrap(), "lora");
        assert_eq!(file.f32(ALPHA).unwrap(), 4.0);
        let names: Vec<&str> = file.tensors().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["blk.1.attn_q.weight.lora_a", "blk.1.attn_q.weight.lora_b"]);
        // ggml's `ne` is the other way round: (64, 2) and (2, 64).
        assert_eq!(file.tensors()[0].1.shape, [2, 64]);
        assert_eq!(file.tensors()[1].1.shape, [64, 2]);
        // Heads are 16 wide: rows 0, 8, 1, 9, ... of the first, two numbers each.
        let pair = counting(Linear::Q, 2, 2.0);
        assert_eq!(floats(&file, names[0]), pair.a);
        let rows: Vec<f32> = [0, 8, 1, 9].iter().flat_map(|row| pair.b[2 * row..2 * row + 2].to_vec()).collect();
        assert_eq!(floats(&file, names[1])[..8], rows);
    }

    #[test]
    fn every_linear_is_read_back_to_the_bit() {
        for (rank, scaling) in [(2, 2.0), (3, 16.0 / 3.0), (8, 32.0 / 8f32.sqrt())] {
            let pairs: Pairs = (0..2)
                .flat_map(|layer| Linear::ALL.map(|linear| ((layer, linear), counting(linear, rank, scaling))))
                .collect();
            let (_folder, file) = written(pairs.clone());
            let back = LoraAdapter::open_gguf(file.path(), &tiny()).unwrap();
            assert_eq!(back.pairs(), pairs, "rank {rank}, scaling {scaling}");
            // A folder's configuration has the other layout; the file is still for the GGUF base.
            let folder = ModelConfig { rope_layout: RopeLayout::Halves, ..tiny() };
            assert_eq!(LoraAdapter::open_gguf(file.path(), &folder).unwrap().pairs(), pairs);
        }
    }

    #[test]
    fn pairs_of_another_scaling_carry_it_in_b() {
        let pairs: Pairs = BTreeMap::from([
            ((0, Linear::V), counting(Linear::V, 2, 2.0)),
            ((0, Linear::O), counting(Linear::O, 4, 1.0)),
            ((1, Linear::V), counting(Linear::V, 2, 0.5)),
            ((1, Linear::O), counting(Linear::O, 2, 0.0)),
        ]);
        let (_folder, file) = written(pairs.clone());
        assert_eq!(file.f32(ALPHA).unwrap(), 4.0);
        let back = LoraAdapter::open_gguf(file.path(), &tiny()).unwrap();
        let expect = |key: (usize, Linear), factor: f32, scaling: f32| {
            let LoraPair { a, b, rank, .. } = pairs[&key].clone();
            let b = b.into_iter().map(|b| b * factor).collect();
            assert_eq!(back.pairs()[&key], LoraPair { a, b, rank, scaling }, "{key:?}");
        };
        expect((0, Linear::V), 1.0, 2.0);
        expect((0, Linear::O), 1.0, 1.0);
        expect((1, Linear::V), 0.25, 2.0);
        expect((1, Linear::O), 0.0, 2.0);
    }

    #[test]
    fn what_is_no_such_adapter_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        write_random_adapter(folder.path(), &tiny(), 4, 1);
        let adapter = LoraAdapter::open(folder.path()).unwrap();
        let path = folder.path().join("a.gguf");
        let check = |spoil: &dyn Fn(&mut GgufWriter), config: &ModelConfig, says: &[&str]| {
            let mut writer = to_writer("it", &adapter.pairs(), &tiny(), Precision::F16).unwrap();
            spoil(&mut writer);
            writer.write(&path).unwrap();
            let error = LoraAdapter::open_gguf(&path, config).expect_err("refused").to_string();
            for part in says.iter().chain(&["a.gguf"]) {
                assert!(error.contains(part), "`{error}` does not say `{part}`");
            }
        };
        let add = |writer: &mut GgufWriter, name: &str, dtype: BlockType| {
            let bytes = vec![0; 32 * dtype.type_size() / dtype.block_size()];
            writer.tensor(name, &[1, 32], dtype, bytes);
        };
        check(&|w| w.remove("general.type"), &tiny(), &["general.type", "is this a model"]);
        check(&|w| _ = w.replace("general.type", "model"), &tiny(), &["general.type", "model", "`adapter`"]);
        check(&|w| _ = w.replace("adapter.type", "ia3"), &tiny(), &["adapter.type", "ia3"]);
        check(&|w| _ = w.replace("general.architecture", "gemma3"), &tiny(), &["gemma3", "`llama`"]);
        check(&|w| _ = w.replace(ALPHA, f32::NAN), &tiny(), &[ALPHA, "NaN"]);
        check(&|w| _ = w.replace(ALPHA, "much"), &tiny(), &[ALPHA, "a text"]);
        check(&|w| _ = w.set("adapter.alora.invocation_tokens", vec![1i64]), &tiny(), &["activated LoRA"]);
        check(&|w| add(w, "token_embd.weight.lora_a", BlockType::F32), &tiny(), &["token_embd.weight.lora_a"]);
        check(&|w| add(w, "blk.0.attn_k.weight.lora_a", BlockType::Q8_0), &tiny(), &["blk.0.attn_k", "Q8_0"]);
        check(&|w| add(w, "blk.0.attn_k.weight.lora_a", BlockType::F32), &tiny(), &["k_proj", "only one of"]);
        check(&|w| w.remove_tensor("blk.0.attn_v.weight.lora_b"), &tiny(), &["v_proj", "only one of"]);
        let other = ModelConfig { num_heads: 8, ..tiny() };
        check(&|_| (), &other, &["q_proj", "64 rows", "expects 128", "another base"]);
        check(
            &|_| (),
            &ModelConfig { layers: vec![Default::default()], ..tiny() },
            &["layer 1", "the base has 1 layers"],
        );
    }

    #[test]
    fn a_value_too_large_for_f16_is_refused() {
        let mut pair = counting(Linear::V, 2, 2.0);
        pair.b[3] = 70_000.0;
        let adapter = LoraAdapter::from_pairs("it", BTreeMap::from([((0, Linear::V), pair)]));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        for error in [
            adapter.save_gguf(&path, &tiny(), Precision::F16).unwrap_err().to_string(),
            adapter.save(folder.path(), "base", Precision::F16).unwrap_err().to_string(),
        ] {
            assert!(error.contains("70000") && error.contains("write f32"), "{error}");
        }
        adapter.save_gguf(&path, &tiny(), Precision::F32).unwrap();
    }
}
