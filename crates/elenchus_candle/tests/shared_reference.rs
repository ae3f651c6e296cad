//! Compares our numbers with those of transformers and PEFT, made with the scripts that lie beside them.

mod common;

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use candle_core::{Device, Tensor};
use common::{all_logits, executor, largest_difference, real_weights, shared};
use elenchus_lm::{Adapter, Executor, Logits, LoraAdapter, Numerics, Row, Weights};

/// transformers' own f32 and f64 logits differ by up to 1e-4.
const TOLERANCE: f32 = 5e-4;

fn load(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// `run(m, ..)` in fixtures.py: logits of three prompts, and the last position of the three left-padded to one batch.
fn check_smollm2(file: &str, adapter: Option<&Adapter>) {
    let folder = shared().join("reference/smollm2");
    let expected = load(&folder.join(file));
    let info: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("reference.json")).unwrap()).unwrap();
    let prompts: Vec<Vec<u32>> =
        (0..3).map(|at| serde_json::from_value(info["base"][at]["ids"].clone()).unwrap()).collect();
    let executor = executor(real_weights(), Numerics::Exact);
    for (at, ids) in prompts.iter().enumerate() {
        let ours = all_logits(&executor, ids, adapter);
        let difference = largest_difference(&ours, &floats(&expected[&format!("logits_{at}")]));
        println!("{file} prompt {at}: largest difference {difference:.2e}");
        assert!(difference < TOLERANCE, "prompt {at}: {difference}");
    }
    let mut caches: Vec<_> = prompts.iter().map(|_| executor.new_cache()).collect();
    let mut batch: Vec<Row<'_>> = prompts
        .iter()
        .zip(&mut caches)
        .map(|(tokens, cache)| Row { tokens, adapter, cache, logits: Logits::Last })
        .collect();
    let ours = executor.forward(&mut batch).unwrap().concat();
    let difference = largest_difference(&ours, &floats(&expected["leftpad_last_logits"]));
    println!("{file} batch of three: largest difference {difference:.2e}");
    assert!(difference < TOLERANCE, "batch: {difference}");
}

#[test]
#[ignore = "needs ../shared"]
fn shared_smollm2_logits_equal_transformers() {
    check_smollm2("logits_base.safetensors", None);
}

#[test]
#[ignore = "needs ../shared"]
fn shared_smollm2_logits_with_an_adapter_equal_peft() {
    let folder = shared();
    let lora = LoraAdapter::open(&folder.join("reference/smollm2/adapter")).unwrap();
    check_smollm2("logits_lora.safetensors", Some(&Adapter::new(Arc::new(lora))));
}

#[test]
#[ignore = "needs ../shared"]
fn shared_tiny_checkpoints_equal_transformers() {
    let folder = shared();
    for name in ["llama_tiny", "mistral_tiny"] {
        let folder = folder.join("reference").join(name);
        let reference = load(&folder.join("reference.safetensors"));
        let weights = Weights::open(&folder, &mut |_| {}).unwrap();
        let executor = executor(&weights, Numerics::Exact);
        let rows = reference["input_ids"].to_dtype(candle_core::DType::U32).unwrap().to_vec2::<u32>().unwrap();
        let ours: Vec<f32> = rows.iter().flat_map(|ids| all_logits(&executor, ids, None)).collect();
        let difference = largest_difference(&ours, &floats(&reference["logits"]));
        println!("{name}: largest difference {difference:.2e}");
        assert!(difference < TOLERANCE, "{name}: {difference}");
        // generate(input_ids[:, :12], max_new_tokens=16, do_sample=False)
        let greedy = reference["greedy"].to_dtype(candle_core::DType::U32).unwrap().to_vec2::<u32>().unwrap();
        for row in greedy {
            let settings =
                elenchus_lm::SamplerSettings { temperature: 0.0, repetition_penalty: 1.0, ..Default::default() };
            let mut sampler = elenchus_lm::Sampler { settings, rng: elenchus_lm::Rng::from_seed(0) };
            let ids = elenchus_lm::generate(&executor, &row[..12], None, &mut sampler, 16, |_| false).unwrap();
            assert_eq!(ids, row[12..], "{name}");
        }
    }
}
