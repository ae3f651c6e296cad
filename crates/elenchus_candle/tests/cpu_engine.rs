//! Compares the CPU engine with the exact numerics, beside candle's own quantised products.

mod common;

use std::{path::Path, sync::Arc};

use common::{all_logits, executor, relative_error};
use elenchus_candle::testing::{has, quantised};
use elenchus_lm::{
    Adapter, BlockType, CpuExecutor, CpuSettings, LoraAdapter, Numerics, Weights,
    testing::{TinyModel, random_blocks},
};

fn tiny(folder: &Path, dtype: BlockType, architecture: &'static str) -> Weights {
    let path = folder.join("tiny.gguf");
    // Every fourth layer of some families differs.
    let layers = if architecture == "smollm3" { 4 } else { 2 };
    TinyModel { architecture, dtype, layers, hidden: 256, ..TinyModel::default() }
        .gguf_by(if has(dtype) { &quantised } else { &random_blocks })
        .write(&path)
        .unwrap();
    Weights::open(&path, &mut |_| {}).unwrap()
}

#[test]
fn every_block_type_is_as_near_the_exact_numerics_as_candle() {
    let folder = tempfile::tempdir().unwrap();
    TinyModel { hidden: 256, ..TinyModel::default() }.write_adapter(&folder.path().join("voice"), 3);
    let adapter = Adapter { lora: Arc::new(LoraAdapter::open(&folder.path().join("voice")).unwrap()), scale: 1.3 };
    let ids: Vec<u32> = (0..90).map(|at| 20 + at * 7 % 200).collect();
    let few = [BlockType::Q4_1, BlockType::Q8_0];
    let others = ["qwen2", "qwen3", "smollm3", "granite", "olmo2", "gemma2", "gemma3", "phi3", "gpt2"]
        .map(|name| (name, few.as_slice()));
    let families = std::iter::once(("llama", BlockType::ALL.as_slice())).chain(others);
    for (architecture, dtype) in families.flat_map(|(name, types)| types.iter().map(move |&of| (name, of))) {
        let weights = tiny(folder.path(), dtype, architecture);
        let candle = |numerics| executor(&weights, numerics);
        let engine = CpuExecutor::new(&weights, CpuSettings::default()).unwrap();
        for adapter in [None, Some(&adapter)] {
            let expected = all_logits(&candle(Numerics::Exact), &ids, adapter);
            let peer = relative_error(&all_logits(&candle(Numerics::Quantised), &ids, adapter), &expected);
            let ours = relative_error(&all_logits(&engine, &ids, adapter), &expected);
            println!("{architecture} {dtype:?}, adapter {}: error {ours:.4}, candle's {peer:.4}", adapter.is_some());
            assert!(ours < 1.25 * peer + 0.003, "{architecture} {dtype:?}: {ours} beside candle's {peer}");
        }
    }
}
