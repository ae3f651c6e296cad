//! Compares every family's tiny checkpoint with transformers, PEFT and llama.cpp: logits, an adapter on all linears,
//! gradients.

mod common;

use std::{collections::HashMap, path::Path, sync::Arc};

use candle_core::{DType, Device, Tensor};
use common::{all_logits, executor, largest_difference, relative_error};
use elenchus_candle::{Activations, PackedSequences, Segment, TrainableLora};
use elenchus_lm::{Adapter, CpuExecutor, CpuSettings, Executor, LoraAdapter, Numerics, Weights, peft_tensor_name};

/// transformers' own f32 and f64 logits differ by up to 1e-4.
const TOLERANCE: f32 = 5e-4;

/// llama.cpp reads GELU from a table of f16.
const GELU_TOLERANCE: f32 = 5e-3;

/// The family, and whether llama.cpp computes the same (it knows no window under `llama`).
const FAMILIES: [(&str, bool); 10] = [
    ("llama", true),
    ("mistral", false),
    ("qwen2", true),
    ("qwen2_tied", true),
    ("qwen3", true),
    ("llama3", true),
    ("smollm3", true),
    ("granite", true),
    ("olmo2", true),
    ("gemma3_text", true),
];

fn load(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn open(path: &Path) -> Weights {
    Weights::open(path, &mut |_| {}).unwrap()
}

fn logits(executor: &dyn Executor, rows: &[Vec<u32>], adapter: Option<&Adapter>) -> Vec<f32> {
    rows.iter().flat_map(|ids| all_logits(executor, ids, adapter)).collect()
}

#[test]
#[ignore = "needs ../shared"]
fn logits_adapters_and_gradients_of_every_family() {
    let shared = common::shared().join("reference");
    for (family, is_llama_cpps) in FAMILIES {
        let folder = shared.join(format!("{family}_tiny"));
        let reference = load(&folder.join("reference.safetensors"));
        let rows = reference["input_ids"].to_dtype(DType::U32).unwrap().to_vec2::<u32>().unwrap();
        let (plain, adapted) = (floats(&reference["logits"]), floats(&reference["lora_logits"]));
        let lora = Arc::new(LoraAdapter::open(&folder.join("adapter")).unwrap());
        let adapter = Adapter::new(lora.clone());
        let check = |what: &str, ours: &[f32], expected: &[f32]| {
            let difference = largest_difference(ours, expected);
            println!("{family}, {what}: {difference:.1e}");
            let has_table = family.starts_with("gemma") && what.starts_with("llama.cpp");
            let tolerance = if has_table { GELU_TOLERANCE } else { TOLERANCE };
            assert!(difference < tolerance, "{family}, {what}: {difference}");
        };

        let weights = open(&folder);
        let exact = executor(&weights, Numerics::Exact);
        check("transformers", &logits(&exact, &rows, None), &plain);
        check("PEFT", &logits(&exact, &rows, Some(&adapter)), &adapted);
        let (loss, gradients) = gradients(&exact, &lora, &rows, &reference);
        let expected = floats(reference.get("loss_lora").unwrap_or_else(|| &reference["loss"]))[0];
        assert!((loss - expected).abs() < 1e-4, "{family}: loss {loss}, PEFT {expected}");
        let of_peft = load(&folder.join("lora_grads.safetensors"));
        assert_eq!(gradients.len(), of_peft.len());
        let errors = gradients.iter().map(|(name, ours)| relative_error(&floats(ours), &floats(&of_peft[name])));
        let worst = errors.fold(0.0, f64::max);
        println!("{family}, gradients: {worst:.1e}");
        assert!(worst < 1e-3, "{family}: {worst}");

        let engine = |weights: &Weights| CpuExecutor::new(weights, CpuSettings::default()).unwrap();
        let quantised = executor(&weights, Numerics::Quantised);
        for (adapter, expected) in [(None, &plain), (Some(&adapter), &adapted)] {
            let (ours, peer) = (logits(&engine(&weights), &rows, adapter), logits(&quantised, &rows, adapter));
            let (ours, peer) = (relative_error(&ours, expected), relative_error(&peer, expected));
            println!("{family}, CPU engine, adapter {}: {ours:.4}, candle's {peer:.4}", adapter.is_some());
            assert!(ours < 1.25 * peer + 0.003, "{family}: {ours} beside {peer}");
        }

        if is_llama_cpps {
            let weights = open(&folder.join("model.f32.gguf"));
            let exact = executor(&weights, Numerics::Exact);
            let of_llama_cpp = load(&folder.join("llama_cpp.safetensors"));
            check("llama.cpp", &logits(&exact, &rows, None), &floats(&of_llama_cpp["logits"]));
            let exported = LoraAdapter::open_gguf(&folder.join("adapter.gguf"), weights.config()).unwrap();
            for lora in [lora, Arc::new(exported)] {
                let ours = logits(&exact, &rows, Some(&Adapter::new(lora)));
                check("llama.cpp's adapter", &ours, &floats(&of_llama_cpp["lora_logits"]));
            }
            let error = relative_error(&logits(&engine(&weights), &rows, Some(&adapter)), &adapted);
            println!("{family}, CPU engine on GGUF: {error:.4}");
            assert!(error < 0.05, "{family}: {error}");
        }
    }
}

/// Loss of the batch and gradients by PEFT's names.
fn gradients(
    executor: &elenchus_candle::CandleExecutor,
    lora: &LoraAdapter,
    rows: &[Vec<u32>],
    reference: &HashMap<String, Tensor>,
) -> (f32, Vec<(String, Tensor)>) {
    let labels = reference["labels"].to_dtype(DType::I64).unwrap().to_vec2::<i64>().unwrap();
    let lora = TrainableLora::new(lora, executor).unwrap();
    let segments: Vec<Segment> = rows.iter().map(|row| Segment::alone(row.len())).collect();
    let (mut positions, mut targets, mut start) = (Vec::new(), Vec::new(), 0);
    for labels in &labels {
        for (at, label) in labels.iter().enumerate().skip(1).filter(|(_, label)| **label >= 0) {
            positions.push((start + at - 1) as u32);
            targets.push(*label as u32);
        }
        start += labels.len();
    }
    let packed = PackedSequences { tokens: &rows.concat(), segments: &segments };
    let hidden = executor.hidden_states(packed, Some(&lora), None, Activations::Keep).unwrap();
    let hidden = hidden.index_select(&Tensor::new(positions, &Device::Cpu).unwrap(), 0).unwrap();
    let loss = executor.token_logprobs(&hidden, &targets, true).unwrap().mean_all().unwrap().neg().unwrap();
    let grads = loss.backward().unwrap();
    let of_pair = |(&(layer, linear), pair): (&(usize, elenchus_lm::Linear), &elenchus_candle::TrainablePair)| {
        [(elenchus_lm::Half::A, &pair.a), (elenchus_lm::Half::B, &pair.b)]
            .map(|(half, var)| (peft_tensor_name(layer, linear, half), grads.get(var).unwrap().clone()))
    };
    (loss.to_scalar().unwrap(), lora.pairs().iter().flat_map(of_pair).collect())
}
