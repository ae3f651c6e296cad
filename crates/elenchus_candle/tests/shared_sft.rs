//! Compares loss and gradients of one fixed batch with PEFT's.

mod common;

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use common::{executor, real_weights, shared};
use elenchus_candle::{Activations, PackedSequences, Segment, TrainableLora};
use elenchus_lm::{LoraAdapter, Numerics};

fn load(path: std::path::PathBuf) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn rows<T: candle_core::WithDType>(tensor: &Tensor, dtype: DType) -> Vec<Vec<T>> {
    tensor.to_dtype(dtype).unwrap().to_vec2().unwrap()
}

fn norm(tensor: &Tensor) -> f32 {
    tensor.sqr().unwrap().sum_all().unwrap().sqrt().unwrap().to_scalar().unwrap()
}

#[test]
#[ignore = "needs ../shared"]
fn shared_sft_loss_and_gradients_equal_peft() {
    let folder = shared().join("reference/smollm2");
    let batch = load(folder.join("sft_batch.safetensors"));
    let ids: Vec<Vec<u32>> = rows(&batch["input_ids"], DType::U32);
    let mask: Vec<Vec<i64>> = rows(&batch["attention_mask"], DType::I64);
    let labels: Vec<Vec<i64>> = rows(&batch["labels"], DType::I64);
    let expected: Vec<Vec<f32>> = rows(&batch["token_logprobs"], DType::F32);

    // Rows without their padding, concatenated; a label belongs to the position before it.
    let lengths: Vec<usize> = mask.iter().map(|row| row.iter().sum::<i64>() as usize).collect();
    let tokens: Vec<u32> = ids.iter().zip(&lengths).flat_map(|(ids, &length)| ids[..length].to_vec()).collect();
    let (mut positions, mut targets, mut reference) = (Vec::new(), Vec::new(), Vec::new());
    let mut start = 0;
    for (row, &length) in lengths.iter().enumerate() {
        for at in 0..length - 1 {
            if labels[row][at + 1] != -100 {
                positions.push((start + at) as u32);
                targets.push(labels[row][at + 1] as u32);
                reference.push(expected[row][at]);
            }
        }
        start += length;
    }
    assert_eq!(targets.len(), 202);

    let executor = executor(real_weights(), Numerics::Exact);
    let lora = TrainableLora::new(&LoraAdapter::open(&folder.join("adapter")).unwrap(), &executor).unwrap();
    let segments: Vec<Segment> = lengths.iter().map(|&length| Segment::alone(length)).collect();
    let packed = PackedSequences { tokens: &tokens, segments: &segments };
    let hidden = executor.hidden_states(packed, Some(&lora), None, Activations::Keep).unwrap();
    let hidden = hidden.index_select(&Tensor::new(positions, &Device::Cpu).unwrap(), 0).unwrap();
    let logprobs = executor.token_logprobs(&hidden, &targets, true).unwrap();
    let ours: Vec<f32> = logprobs.to_vec1().unwrap();
    let difference = common::largest_difference(&ours, &reference);
    let loss = logprobs.mean_all().unwrap().neg().unwrap();
    let value = loss.to_scalar::<f32>().unwrap();
    println!("loss {value:.6} (PEFT 1.172513); largest difference of a logprob {difference:.2e}");
    assert!((value - 1.172_513).abs() < 1e-4 && difference < 5e-4);

    let gradients = load(folder.join("sft_grads.safetensors"));
    let grads = loss.backward().unwrap();
    let mut worst = 0f32;
    let mut seen = 0;
    for ((layer, linear), pair) in lora.pairs() {
        for (half, var) in [("A", &pair.a), ("B", &pair.b)] {
            let module = linear.hf_module();
            let name = format!("base_model.model.model.layers.{layer}.{module}.{linear}.lora_{half}.weight");
            let expected = &gradients[&name];
            let ours = grads.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
            let error = norm(&(ours - expected).unwrap()) / norm(expected);
            assert!(error < 1e-3, "{name}: {error}");
            worst = worst.max(error);
            seen += 1;
        }
    }
    assert_eq!(seen, gradients.len());
    println!("{seen} gradients, largest relative error {worst:.2e}");
}
