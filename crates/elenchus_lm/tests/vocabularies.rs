//! Vocabularies of today's models: our ids compared with llama.cpp's.

mod common;

use std::{
    fs::{self, File},
    io,
};

use common::shared;
use elenchus_lm::{Markup, Tokenizer, gguf::Gguf};

#[test]
#[ignore = "needs ../shared"]
fn shared_vocabularies_give_the_ids_of_llama_cpp() {
    let folder = shared().join("data/tokenizer_vectors");
    let unpacked = tempfile::tempdir().unwrap();
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "gz"));
    files.sort();
    assert!(files.len() >= 15, "{files:?}");
    let mut wrong = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let path = unpacked.path().join(name);
        let mut zipped = flate2::read::GzDecoder::new(File::open(&file).unwrap());
        io::copy(&mut zipped, &mut File::create(&path).unwrap()).unwrap();
        let read = |extension: &str| fs::read_to_string(folder.join(format!("{name}.{extension}"))).unwrap();
        let (texts, ids) = (read("inp"), read("out"));
        let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
        let ids: Vec<Vec<u32>> =
            ids.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect()).collect();
        assert!(texts.len() >= ids.len(), "{name}: {} texts, {} lists", texts.len(), ids.len());
        let tokenizer = match Gguf::open(&path).and_then(|gguf| Tokenizer::from_gguf(&gguf)) {
            Ok(tokenizer) => tokenizer,
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        for (text, expected) in texts.iter().zip(&ids) {
            let ids = tokenizer.encode(text, Markup::AsText).unwrap();
            if ids != *expected {
                wrong.push(format!("{name}: {text:?}\n  expected {expected:?}\n  found    {ids:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
