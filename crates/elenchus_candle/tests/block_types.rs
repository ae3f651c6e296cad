//! Block types and the tiny model's file, compared with candle's own reader.

use std::{borrow::Cow, collections::HashSet, fs, path::Path};

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, QStorage, QTensor, gguf_file::Content},
};
use candle_transformers::models::quantized_llama::ModelWeights;
use elenchus_candle::testing::{has, quantised};
use elenchus_lm::{BlockType, testing::TinyModel};
use rand::{Rng as _, SeedableRng as _};

fn ggml_type(block_type: BlockType) -> GgmlDType {
    use GgmlDType::{BF16, F16, F32, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    let all = [F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K];
    BlockType::ALL.into_iter().zip(all).find(|(own, _)| *own == block_type).unwrap().1
}

#[test]
fn every_type_is_read_to_the_bit_as_candle_reads_it() {
    let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(1);
    for block_type in BlockType::ALL.into_iter().filter(|&block_type| has(block_type)) {
        let ggml = ggml_type(block_type);
        assert_eq!((block_type.block_size(), block_type.type_size()), (ggml.block_size(), ggml.type_size()));
        if block_type.is_dense() {
            continue;
        }
        let blocks = 64;
        let mut bytes = vec![0u8; blocks * block_type.type_size()];
        rng.fill(&mut bytes[..]);
        let scales: &[usize] = match block_type {
            BlockType::Q2K => &[80, 82],
            BlockType::Q3K => &[108],
            BlockType::Q6K => &[208],
            BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => &[0, 2],
            _ => &[0],
        };
        // A scale with the highest exponent would be infinite or NaN.
        for block in bytes.chunks_exact_mut(block_type.type_size()) {
            scales.iter().for_each(|&at| block[at + 1] &= 0xbb);
        }
        let storage = QStorage::from_data(Cow::Borrowed(&bytes), &Device::Cpu, ggml).unwrap();
        let tensor = QTensor::new(storage, (1, blocks * block_type.block_size())).unwrap();
        let expected: Vec<f32> = tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(block_type.dequantise(&bytes), expected, "{block_type:?}");
    }
}

/// Candle's own reader and model: running the file shows that others understand it too.
fn greedy(path: &Path, prompt: &str) -> Vec<u32> {
    let mut file = fs::File::open(path).unwrap();
    let content = Content::read(&mut file).unwrap();
    let mut model = ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap();
    let mut ids: Vec<u32> = prompt.bytes().map(u32::from).collect();
    let mut read = 0;
    for _ in 0..64 {
        let input = Tensor::new(&ids[read..], &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let logits = model.forward(&input, read).unwrap().squeeze(0).unwrap().to_vec1::<f32>().unwrap();
        read = ids.len();
        ids.push((0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32);
    }
    ids.split_off(prompt.len())
}

#[test]
fn greedy_output_is_varied_and_depends_on_prompt_and_seed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let mut replies = HashSet::new();
    for seed in 0..4 {
        TinyModel { seed, ..TinyModel::default() }.write_gguf(&path);
        for prompt in ["What is virtue?", "What is courage?"] {
            let reply = greedy(&path, prompt);
            let distinct = reply.iter().collect::<HashSet<_>>().len();
            assert!(distinct >= 12, "seed {seed}, {prompt}: only {distinct} different tokens in {reply:?}");
            assert!(replies.insert(reply));
        }
    }
}

#[test]
fn blocks_are_those_that_candle_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (own, candle) = (folder.path().join("own.gguf"), folder.path().join("candle.gguf"));
    for dtype in [BlockType::F32, BlockType::F16, BlockType::BF16, BlockType::Q8_0] {
        let model = TinyModel { dtype, ..TinyModel::default() };
        model.write_gguf(&own);
        model.gguf_by(&quantised).write(&candle).unwrap();
        assert!(fs::read(&own).unwrap() == fs::read(&candle).unwrap(), "{dtype:?}");
    }
}
