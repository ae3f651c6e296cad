//! The CPU engine held to the exact numerics, beside candle's own quantised products.

use std::{path::Path, sync::Arc};

use candle_core::Device;
use elenchus_candle::{CandleExecutor, testing::quantised};
use elenchus_lm::{
    Adapter, BlockType, CpuExecutor, CpuSettings, Executor, Logits, LoraAdapter, Numerics, Row, Weights,
    testing::TinyModel,
};

const TYPES: [BlockType; 10] = [
    BlockType::Q4_0,
    BlockType::Q4_1,
    BlockType::Q5_0,
    BlockType::Q5_1,
    BlockType::Q8_0,
    BlockType::Q4K,
    BlockType::Q5K,
    BlockType::Q6K,
    BlockType::Q3K,
    BlockType::F16,
];

fn tiny(folder: &Path, dtype: BlockType, architecture: &'static str) -> Weights {
    let path = folder.join("tiny.gguf");
    TinyModel { architecture, dtype, hidden: 256, ..TinyModel::default() }.gguf_by(&quantised).write(&path).unwrap();
    Weights::open(&path, &mut |_| {}).unwrap()
}

fn all_logits(executor: &dyn Executor, ids: &[u32], adapter: Option<&Adapter>) -> Vec<f32> {
    let mut cache = executor.new_cache();
    executor.forward(&mut [Row { tokens: ids, adapter, cache: &mut cache, logits: Logits::All }]).unwrap().remove(0)
}

/// The root of the mean square error, as a share of the expected numbers'.
fn error(x: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(x.len(), expected.len());
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
    (squares(&mut x.iter().zip(expected).map(|(x, y)| x - y)) / squares(&mut expected.iter().copied())).sqrt()
}

#[test]
fn every_block_type_is_as_near_the_exact_numerics_as_candle() {
    let folder = tempfile::tempdir().unwrap();
    TinyModel { hidden: 256, ..TinyModel::default() }.write_adapter(&folder.path().join("voice"), 3);
    let adapter = Adapter { lora: Arc::new(LoraAdapter::open(&folder.path().join("voice")).unwrap()), scale: 1.3 };
    let ids: Vec<u32> = (0..90).map(|at| 20 + at * 7 % 200).collect();
    let families = [("llama", TYPES.as_slice()), ("qwen2", &[BlockType::Q4_1, BlockType::Q8_0])];
    for (architecture, dtype) in families.into_iter().flat_map(|(name, types)| types.iter().map(move |&of| (name, of)))
    {
        let weights = tiny(folder.path(), dtype, architecture);
        let candle = |numerics| CandleExecutor::new(&weights, &Device::Cpu, numerics).unwrap();
        let engine = CpuExecutor::new(&weights, CpuSettings::default()).unwrap();
        for adapter in [None, Some(&adapter)] {
            let expected = all_logits(&candle(Numerics::Exact), &ids, adapter);
            let peer = error(&all_logits(&candle(Numerics::Quantised), &ids, adapter), &expected);
            let ours = error(&all_logits(&engine, &ids, adapter), &expected);
            println!("{architecture} {dtype:?}, adapter {}: error {ours:.4}, candle's {peer:.4}", adapter.is_some());
            assert!(ours < 1.25 * peer + 0.003, "{architecture} {dtype:?}: {ours} beside candle's {peer}");
        }
    }
}
