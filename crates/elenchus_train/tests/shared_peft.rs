//! The optimiser and four steps of a fixed batch beside PEFT and torch.

use std::{collections::HashMap, path::PathBuf};

use candle_core::{DType, Device, Tensor};
use elenchus_candle::{Activations, CandleExecutor, PackedSequences, Segment, TrainableLora};
use elenchus_lm::{LoraAdapter, Numerics, Weights};
use elenchus_train::{AdamW, AdamWSettings};

/// The folder with references, beside the project.
fn shared() -> PathBuf {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/smollm2"));
    assert!(folder.is_dir(), "{} is not there", folder.display());
    folder
}

fn load(path: PathBuf) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn setting() -> (CandleExecutor, Weights) {
    let path = elenchus_fetch::fetch_default(&mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
    let weights = Weights::open(&path, &mut |_| {}).unwrap();
    (CandleExecutor::new(&weights, &Device::Cpu, Numerics::Exact).unwrap(), weights)
}

/// The weights after one step of torch's AdamW, lr 1e-3, from the reference gradients.
#[test]
#[ignore = "needs ../shared"]
fn shared_adamw_fed_the_reference_gradients_gives_torchs_weights() {
    let folder = shared();
    let (executor, _) = setting();
    let lora = TrainableLora::new(&LoraAdapter::open(&folder.join("adapter")).unwrap(), &executor).unwrap();
    let gradients = load(folder.join("sft_grads.safetensors"));
    let mut optimiser = AdamW::new(lora.vars(), AdamWSettings::default()).unwrap();
    // The gradient of sum(w x) by x is w.
    let losses =
        lora.vars().into_iter().map(|(name, var)| (var.as_tensor() * &gradients[&name]).unwrap().sum_all().unwrap());
    let loss = losses.reduce(|sum, next| (sum + next).unwrap()).unwrap();
    let grads = loss.backward().unwrap();
    // torch.nn.utils.clip_grad_norm_ would have seen this norm.
    assert!((optimiser.grad_norm(&grads).unwrap() - 3.332_943_6).abs() < 1e-5);
    optimiser.step(&grads, 1.0, 1e-3).unwrap();
    let expected = load(folder.join("adapter_after_1_adamw.safetensors"));
    for (name, var) in lora.vars() {
        let difference = (var.as_tensor() - &expected[&name]).unwrap().abs().unwrap().flatten_all().unwrap();
        let difference = difference.max(0).unwrap().to_scalar::<f32>().unwrap();
        assert!(difference < 1e-6, "{name}: {difference}");
    }
}

/// Losses before steps one to four, ours end to end.
#[test]
#[ignore = "needs ../shared"]
fn shared_four_steps_lose_as_much_as_peft() {
    let folder = shared();
    let (executor, _) = setting();
    let lora = TrainableLora::new(&LoraAdapter::open(&folder.join("adapter")).unwrap(), &executor).unwrap();
    let batch = load(folder.join("sft_batch.safetensors"));
    let rows = |name: &str| batch[name].to_dtype(DType::I64).unwrap().to_vec2::<i64>().unwrap();
    let (ids, mask, labels) = (rows("input_ids"), rows("attention_mask"), rows("labels"));
    let lengths: Vec<usize> = mask.iter().map(|row| row.iter().sum::<i64>() as usize).collect();
    let (mut tokens, mut positions, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    for ((ids, labels), &length) in ids.iter().zip(&labels).zip(&lengths) {
        for (at, &label) in labels.iter().enumerate().take(length).skip(1).filter(|(_, label)| **label != -100) {
            positions.push((tokens.len() + at - 1) as u32);
            targets.push(label as u32);
        }
        tokens.extend(ids[..length].iter().map(|&id| id as u32));
    }
    let segments: Vec<Segment> = lengths.iter().map(|&length| Segment::alone(length)).collect();
    let positions = Tensor::new(positions, &Device::Cpu).unwrap();
    let mut optimiser = AdamW::new(lora.vars(), AdamWSettings::default()).unwrap();
    for expected in [1.172_513_5, 0.641_972_24, 0.468_274_74, 0.366_336_23] {
        let packed = PackedSequences { tokens: &tokens, segments: &segments };
        let hidden = executor
            .hidden_states(packed, Some(&lora), None, Activations::Keep)
            .unwrap()
            .index_select(&positions, 0)
            .unwrap();
        let loss = executor.token_logprobs(&hidden, &targets, true).unwrap().mean_all().unwrap().neg().unwrap();
        let value = loss.to_scalar::<f32>().unwrap();
        println!("loss {value:.6} (PEFT {expected:.6})");
        assert!((value - expected).abs() < 1e-3);
        optimiser.step(&loss.backward().unwrap(), 1.0, 1e-3).unwrap();
    }
}
