//! Damaged model files, opened the way a game opens them: an error or a model, never a panic.

use std::{fs, path::Path};

use elenchus_lm::{Message, Result, Role, Weights, testing::TinyModel};
use rand::{Rng as _, SeedableRng as _};

/// Everything that a game needs from a model file before the first reply.
fn open(path: &Path) -> Result<()> {
    let weights = Weights::open(path, &mut |_| {})?;
    let (tokenizer, template) = (weights.tokenizer()?, weights.chat_template()?);
    let message = Message { role: Role::User, content: "What is virtue?".into() };
    template.encode(&tokenizer, &[message], true)?;
    Ok(())
}

fn tiny_bytes(path: &Path) -> Vec<u8> {
    TinyModel { layers: 1, ..TinyModel::default() }.write_gguf(path);
    open(path).unwrap();
    fs::read(path).unwrap()
}

#[test]
fn a_model_file_cut_anywhere_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let bytes = tiny_bytes(&path);
    for length in (0..bytes.len()).step_by(101).chain([bytes.len() - 1]) {
        fs::write(&path, &bytes[..length]).unwrap();
        let error = open(&path).expect_err(&format!("cut at {length} of {}", bytes.len())).to_string();
        assert!(error.contains("tiny.gguf"), "cut at {length}: {error}");
    }
}

#[test]
fn a_model_file_with_a_flipped_bit_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let mut bytes = tiny_bytes(&path);
    let header = elenchus_lm::gguf::Gguf::open(&path).unwrap().tensors()[0].1.offset;
    let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(1);
    let mut refused = 0;
    for _ in 0..3000 {
        let (at, bit) = (rng.random_range(0..header), rng.random_range(0..8));
        bytes[at] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        refused += usize::from(open(&path).is_err());
        bytes[at] ^= 1 << bit;
    }
    assert!(refused > 1000, "{refused} of 3000 were refused");
}
