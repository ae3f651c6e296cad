//! The sentiment classifier beside transformers' own numbers. Needs `../shared`.

use std::{fs, path::PathBuf};

use candle_core::{Device, Tensor};
use elenchus_train::judge::Sentiment;

/// `reference/bert_tiny`, with a vocabulary beside it: the reference is of token ids and has none.
#[test]
#[ignore = "needs ../shared"]
fn shared_logits_equal_those_of_transformers() {
    let shared = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared"));
    let reference = shared.join("reference/bert_tiny");
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(reference.join(file), folder.path().join(file)).unwrap();
    }
    fs::write(folder.path().join("vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\n").unwrap();
    let classifier = Sentiment::open(folder.path()).unwrap();
    let tensors = candle_core::safetensors::load(reference.join("reference.safetensors"), &Device::Cpu).unwrap();
    let ids = |name: &str| -> Vec<Vec<u32>> {
        let widened: &Tensor = &tensors[name].to_dtype(candle_core::DType::U32).unwrap();
        widened.to_vec2().unwrap()
    };
    let (ids, types, mask) = (ids("input_ids"), ids("token_type_ids"), ids("attention_mask"));
    let expected: Vec<Vec<f32>> = tensors["logits"].to_vec2().unwrap();
    assert_eq!(expected.len(), 3);
    for (row, expected) in expected.iter().enumerate() {
        // Rows are padded there and not here.
        let length = mask[row].iter().filter(|&&seen| seen == 1).count();
        let logits = classifier.logits(&ids[row][..length], &types[row][..length]).unwrap();
        let apart = logits.iter().zip(expected).map(|(ours, theirs)| (ours - theirs).abs()).fold(0f32, f32::max);
        println!("row {row}, {length} tokens: largest difference {apart:.2e}");
        assert!(apart < 1e-4, "{logits:?} instead of {expected:?}");
    }
}
