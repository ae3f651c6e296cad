//! The engine held to the exact numerics, and its rows to themselves.

use std::sync::Arc;

use candle_core::{Device, quantized::GgmlDType};

use super::*;
use crate::{CandleExecutor, LoraAdapter, Numerics, testing::TinyModel};

fn all_logits(executor: &dyn Executor, ids: &[u32], adapter: Option<&Adapter>) -> Vec<f32> {
    let mut cache = executor.new_cache();
    executor.forward(&mut [Row { tokens: ids, adapter, cache: &mut cache, logits: Logits::All }]).unwrap().remove(0)
}

#[test]
fn every_block_type_stays_near_the_exact_numerics() {
    for dtype in [
        GgmlDType::Q4_0, GgmlDType::Q4_1, GgmlDType::Q5_0, GgmlDType::Q5_1, GgmlDType::Q8_0,
        GgmlDType::Q4K, GgmlDType::Q5K, GgmlDType::Q6K, GgmlDType::Q3K, GgmlDType::F16,
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        let tiny = TinyModel { dtype, hidden: 256, ..TinyModel::default() };
        tiny.write_gguf(&path);
        tiny.write_adapter(folder.path(), 3);
        let weights = Weights::open(&path, &mut |_| {}).unwrap();
        let adapter = Adapter::new(Arc::new(LoraAdapter::open(folder.path()).unwrap()));
        let exact = CandleExecutor::new(&weights, &Device::Cpu, Numerics::Exact).unwrap();
        let ids: Vec<u32> = (0..90).map(|at| 20 + at * 7 % 200).collect();
        for adapter in [None, Some(&adapter)] {
            let expected = all_logits(&exact, &ids, adapter);
            for kernels in Kernels::available() {
                let ours = CpuExecutor::with_kernels(&weights, CpuSettings::default(), kernels).unwrap();
                let logits = all_logits(&ours, &ids, adapter);
                let (mut error, mut size) = (0f64, 0f64);
                for (x, y) in logits.iter().zip(&expected) {
                    error += f64::from(x - y).powi(2);
                    size += f64::from(*y).powi(2);
                }
                println!("{dtype:?} {kernels:?} adapter {}: {:.2e}", adapter.is_some(), (error / size).sqrt());
                assert!(logits.len() == expected.len() && (error / size).sqrt() < 0.03);
            }
        }
    }
}
