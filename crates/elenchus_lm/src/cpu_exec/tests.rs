//! Compares the engine with the exact numerics, and its rows with themselves in other batches.

use std::{path::Path, sync::Arc};

use super::*;
use sha2::{Digest, Sha256};

use crate::{
    BlockType, LoraAdapter,
    testing::{TinyModel, random_blocks},
};

fn tiny(folder: &Path, dtype: BlockType) -> Weights {
    let path = folder.join("tiny.gguf");
    let model = TinyModel { dtype, hidden: 256, ..TinyModel::default() };
    model.gguf_by(&random_blocks).write(&path).unwrap();
    Weights::open(&path, &mut |_| {}).unwrap()
}

fn voice(folder: &Path, seed: u64) -> Adapter {
    let folder = folder.join(seed.to_string());
    TinyModel { hidden: 256, ..TinyModel::default() }.write_adapter(&folder, seed);
    Adapter { lora: Arc::new(LoraAdapter::open(&folder).unwrap()), scale: 1.0 + seed as f32 / 10.0 }
}

fn all_logits(executor: &dyn Executor, ids: &[u32], adapter: Option<&Adapter>) -> Vec<f32> {
    let mut cache = executor.new_cache();
    executor.forward(&mut [Row { tokens: ids, adapter, cache: &mut cache, logits: Logits::All }]).unwrap().remove(0)
}

#[test]
fn every_block_type_gives_the_same_bits_on_every_instruction_set() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = voice(folder.path(), 3);
    let ids: Vec<u32> = (0..90).map(|at| 20 + at * 7 % 200).collect();
    for dtype in BlockType::ALL {
        let weights = tiny(folder.path(), dtype);
        for adapter in [None, Some(&adapter)] {
            let run = |kernels| {
                let executor = CpuExecutor::with_kernels(&weights, CpuSettings::default(), kernels).unwrap();
                all_logits(&executor, &ids, adapter)
            };
            let mut results = Kernels::available().into_iter().map(run);
            let best = results.next().unwrap();
            assert!(results.all(|other| other == best), "{dtype:?}: instruction sets differ");
        }
    }
}

#[test]
fn every_kind_of_block_gives_the_same_bits_on_every_instruction_set_and_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let ids: Vec<u32> = (0..90).map(|at| 20 + at * 7 % 200).collect();
    for architecture in ["qwen3", "olmo2", "gemma2", "gemma3", "phi3", "gpt2"] {
        let model = TinyModel { architecture, dtype: BlockType::Q4_1, hidden: 256, ..TinyModel::default() };
        model.gguf_by(&random_blocks).write(&path).unwrap();
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        let run = |kernels| {
            let executor = CpuExecutor::with_kernels(&weights, CpuSettings::default(), kernels).unwrap();
            let whole = all_logits(&executor, &ids, None);
            assert!(whole.iter().all(|logit| logit.is_finite()), "{architecture}");
            let mut cache = executor.new_cache();
            for piece in ids.chunks(37) {
                let row = Row { tokens: piece, adapter: None, cache: &mut cache, logits: Logits::Last };
                let last = executor.forward(&mut [row]).unwrap().remove(0);
                let end = cache.len() * last.len();
                assert!(whole[end - last.len()..end] == last, "{architecture}: cut");
            }
            whole
        };
        let mut results = Kernels::available().into_iter().map(run);
        let best = results.next().unwrap();
        assert!(results.all(|other| other == best), "{architecture}: instruction sets differ");
    }
}

/// The same numbers on x86-64 and on aarch64, where `.ci/run` runs this test under emulation: weights, adapter, rotary
/// embedding, kernels and sampler.
#[test]
fn a_fixed_prompt_gives_the_same_bits_on_every_machine() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = voice(folder.path(), 3);
    let ids: Vec<u32> = (0..300).map(|at| 20 + at * 7 % 200).collect();
    let mut hash = Sha256::new();
    for (architecture, dtype) in [("llama", BlockType::Q4_1), ("llama", BlockType::Q6K), ("qwen2", BlockType::Q8_0)] {
        let path = folder.path().join("tiny.gguf");
        let model = TinyModel { architecture, dtype, hidden: 256, ..TinyModel::default() };
        model.gguf_by(&random_blocks).write(&path).unwrap();
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        for kv_precision in [KvPrecision::F16, KvPrecision::Int8] {
            let executor = CpuExecutor::new(&weights, CpuSettings { kv_precision, ..CpuSettings::default() }).unwrap();
            let logits = all_logits(&executor, &ids, Some(&adapter));
            assert!(logits.iter().all(|logit| logit.is_finite()));
            logits.iter().for_each(|logit| hash.update(logit.to_le_bytes()));
            let settings = crate::SamplerSettings { temperature: 0.9, min_p: 0.01, ..Default::default() };
            let mut sampler = crate::Sampler { settings, rng: crate::Rng::from_seed(1) };
            let vocabulary = logits.len() / ids.len();
            let mut said = Vec::new();
            for logits in logits.chunks_exact(vocabulary) {
                said.push(sampler.sample(&mut logits.to_vec(), &said).unwrap());
            }
            said.iter().for_each(|token| hash.update(token.to_le_bytes()));
        }
    }
    assert_eq!(crate::hex::hex(&hash.finalize()), "de7ad656fbdf2dab05cfbbf5ed767432e00d0b9f2b0235da7625104ca0b6a753");
}

/// Reads `rows` after each cache's past; logits of the last positions.
fn last_logits(
    executor: &CpuExecutor,
    rows: &[Vec<u32>],
    voices: &[Option<Adapter>],
    caches: &mut [KvCache],
) -> Vec<Vec<f32>> {
    let rows = rows.iter().zip(voices).zip(caches);
    let mut batch: Vec<Row<'_>> = rows
        .map(|((tokens, adapter), cache)| Row { tokens, adapter: adapter.as_ref(), cache, logits: Logits::Last })
        .collect();
    executor.forward(&mut batch).unwrap()
}

#[test]
fn a_row_is_the_same_bits_alone_in_a_batch_in_pieces_and_from_a_cached_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let weights = tiny(folder.path(), BlockType::Q4_1);
    let voices: Vec<Option<Adapter>> =
        std::iter::once(None).chain((1..8).map(|seed| Some(voice(folder.path(), seed % 6)))).collect();
    let prompts: Vec<Vec<u32>> =
        (0..8u32).map(|row| (0..3 + 17 * row).map(|at| 17 + (at * 31 + row * 97) % 200).collect()).collect();
    let next: Vec<Vec<u32>> = (0..8).map(|row| vec![40 + row]).collect();
    for (threads, kv_precision) in [(1, KvPrecision::F16), (3, KvPrecision::F16), (2, KvPrecision::Int8)] {
        let settings = CpuSettings { threads, kv_precision, ..CpuSettings::default() };
        let executor = CpuExecutor::new(&weights, settings).unwrap();
        let fresh = || -> Vec<KvCache> { (0..8).map(|_| executor.new_cache()).collect() };
        let mut together = fresh();
        let first = last_logits(&executor, &prompts, &voices, &mut together);
        let second = last_logits(&executor, &next, &voices, &mut together);
        for row in 0..8 {
            let voice = &voices[row..row + 1];
            let mut alone = [executor.new_cache()];
            assert_eq!(last_logits(&executor, &prompts[row..row + 1], voice, &mut alone)[0], first[row]);
            assert_eq!(last_logits(&executor, &next[row..row + 1], voice, &mut alone)[0], second[row]);
            for size in [1, 5, 33] {
                let mut cut = [executor.new_cache()];
                for piece in prompts[row].chunks(size) {
                    last_logits(&executor, &[piece.to_vec()], voice, &mut cut);
                }
                assert_eq!(last_logits(&executor, &next[row..row + 1], voice, &mut cut)[0], second[row], "by {size}");
            }
            // A snapshot that was continued elsewhere, truncated and continued again.
            let mut restored = [alone[0].clone()];
            last_logits(&executor, &[vec![99; 40]], voice, &mut alone);
            let middle = prompts[row].len() / 2;
            restored[0].truncate(middle);
            last_logits(&executor, &[prompts[row][middle..].to_vec()], voice, &mut restored);
            assert_eq!(last_logits(&executor, &next[row..row + 1], voice, &mut restored)[0], second[row]);
        }
    }
}

#[test]
fn more_lines_than_go_through_together_are_the_same_as_few() {
    let folder = tempfile::tempdir().unwrap();
    let weights = tiny(folder.path(), BlockType::Q8_0);
    let executor = CpuExecutor::new(&weights, CpuSettings { threads: 2, ..CpuSettings::default() }).unwrap();
    let prompts: Vec<Vec<u32>> =
        (0..7u32).map(|row| (0..90).map(|at| 17 + (at * 31 + row * 97) % 200).collect()).collect();
    assert!(prompts.iter().map(Vec::len).sum::<usize>() > 2 * MOST_LINES);
    let mut caches: Vec<KvCache> = (0..7).map(|_| executor.new_cache()).collect();
    let rows = prompts.iter().zip(&mut caches);
    let mut batch: Vec<Row<'_>> =
        rows.map(|(tokens, cache)| Row { tokens, adapter: None, cache, logits: Logits::All }).collect();
    let together = executor.forward(&mut batch).unwrap();
    for (prompt, together) in prompts.iter().zip(together) {
        assert!(all_logits(&executor, prompt, None) == together);
    }
}

#[test]
fn a_pass_that_is_given_up_leaves_the_caches_as_they_were() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let folder = tempfile::tempdir().unwrap();
    let weights = tiny(folder.path(), BlockType::Q8_0);
    for kv_precision in [KvPrecision::F16, KvPrecision::Int8] {
        let executor =
            CpuExecutor::new(&weights, CpuSettings { threads: 2, kv_precision, ..CpuSettings::default() }).unwrap();
        let prompts: Vec<Vec<u32>> = (0..2u32).map(|row| (0..40).map(|at| 17 + at * 3 + row * 50).collect()).collect();
        let next = [vec![40], vec![41, 42]];
        let mut caches: Vec<KvCache> = (0..2).map(|_| executor.new_cache()).collect();
        last_logits(&executor, &prompts, &[None, None], &mut caches);
        let expected = last_logits(&executor, &next, &[None, None], &mut caches.clone());
        let layers = executor.config().num_layers();
        for layers_run in 0..layers {
            let asked = AtomicUsize::new(0);
            let rows = next.iter().zip(&mut caches);
            let mut batch: Vec<Row<'_>> =
                rows.map(|(tokens, cache)| Row { tokens, adapter: None, cache, logits: Logits::Last }).collect();
            let is_unwanted = || asked.fetch_add(1, Ordering::SeqCst) >= layers_run;
            assert_eq!(executor.forward_unless(&mut batch, &is_unwanted).unwrap(), None);
            assert_eq!((asked.into_inner(), caches[0].len(), caches[1].len()), (layers_run + 1, 40, 40));
            assert_eq!(last_logits(&executor, &next, &[None, None], &mut caches.clone()), expected);
        }
    }
}

#[test]
fn a_cache_takes_the_bytes_it_is_said_to_take() {
    let folder = tempfile::tempdir().unwrap();
    let weights = tiny(folder.path(), BlockType::Q8_0);
    for (kv_precision, numbers) in [(KvPrecision::F16, 2), (KvPrecision::Int8, 1)] {
        let executor = CpuExecutor::new(&weights, CpuSettings { kv_precision, ..CpuSettings::default() }).unwrap();
        let config = executor.config();
        let scales = if kv_precision == KvPrecision::Int8 { 2 * config.num_kv_heads * 2 } else { 0 };
        let expected = config.num_layers() * (2 * config.kv_dim() * numbers + scales);
        assert_eq!(executor.cache_bytes_per_token(), expected);
        let mut cache = [executor.new_cache()];
        last_logits(&executor, &[vec![20; 33]], &[None], &mut cache);
        assert_eq!(cache[0].held().bytes(), 2 * 32 * expected);
    }
}

#[test]
fn packing_types_with_one_stored_scale_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let team = Team::new(1, || {}).unwrap();
    for dtype in [
        BlockType::Q4_0,
        BlockType::Q5_0,
        BlockType::Q8_0,
        BlockType::IQ4NL,
        BlockType::TQ1_0,
        BlockType::TQ2_0,
        BlockType::MXFP4,
    ] {
        let weights = tiny(folder.path(), dtype);
        let packed = PackedModel::new(&weights, BlockType::Q8_0, &team).unwrap();
        let expected = weights.tensor(crate::TensorName::TokenEmbedding).unwrap().dequantise();
        let mut row = vec![0.0; weights.config().hidden_size];
        for (number, expected) in expected.chunks_exact(row.len()).enumerate() {
            packed.row(packed.embedding, number, &mut row);
            assert!(row == expected, "{dtype}: row {number}");
        }
    }
}

/// Half of the memory, and logits that resemble those of eight bits: `tests/save_gguf.rs` compares them with a file of the
/// same blocks.
#[test]
fn a_dense_model_is_quantised_at_load() {
    let folder = tempfile::tempdir().unwrap();
    let ids: Vec<u32> = (0..40).map(|at| 20 + at * 7 % 200).collect();
    let path = folder.path().join("tiny.gguf");
    TinyModel { dtype: BlockType::F32, hidden: 256, ..TinyModel::default() }.write_gguf(&path);
    let weights = Weights::open(&path, &mut |_| {}).unwrap();
    let executor = |dense| CpuExecutor::new(&weights, CpuSettings { dense, ..CpuSettings::default() });
    let run = |dense| {
        let executor = executor(dense).unwrap();
        (executor.weight_bytes(), all_logits(&executor, &ids, None))
    };
    let (bytes, eight) = run(BlockType::Q8_0);
    for dense in [BlockType::Q4K, BlockType::Q4_0] {
        let (fewer, four) = run(dense);
        assert!((fewer as f64) < 0.7 * bytes as f64, "{dense}: {fewer} of {bytes} bytes");
        let difference: f32 = four.iter().zip(&eight).map(|(a, b)| (a - b) * (a - b)).sum();
        let size: f32 = eight.iter().map(|logit| logit * logit).sum();
        println!("{dense}: relative error {}", (difference / size).sqrt());
        assert!(difference > 0.0 && difference < 0.5 * size, "{dense}: {difference} of {size}");
    }
    let error = executor(BlockType::Q6K).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("Q8_0, Q4_K, Q4_0 are possible"), "{error}");
}
