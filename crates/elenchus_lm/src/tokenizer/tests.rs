use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::{
    gguf::{GgufWriter, Value},
    testing::{END_OF_TEXT, IM_END, IM_START, TinyModel},
};

fn load(writer: &GgufWriter) -> Result<Tokenizer> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    writer.write(&path).unwrap();
    Tokenizer::from_gguf(&Gguf::open(&path).unwrap())
}

fn tiny() -> &'static Tokenizer {
    static TINY: LazyLock<Tokenizer> = LazyLock::new(|| load(&TinyModel::default().gguf()).unwrap());
    &TINY
}

/// A vocabulary file without a model: these tokens, each of a type of llama.cpp's numbering.
fn vocabulary(model: &str, pre: &str, tokens: &[(&str, i64)], merges: &[&str]) -> GgufWriter {
    let mut writer = GgufWriter::new();
    let (texts, types): (Vec<&str>, Vec<i64>) = tokens.iter().copied().unzip();
    writer
        .set("tokenizer.ggml.model", model)
        .set("tokenizer.ggml.pre", pre)
        .set("tokenizer.ggml.tokens", texts)
        .set("tokenizer.ggml.token_type", types)
        .set("tokenizer.ggml.merges", merges.to_vec());
    writer
}

/// The words into which a pre-tokenizer cuts a text of letters, digits and a few signs: every pair of them merges.
fn words(pre: &str, text: &str) -> Vec<String> {
    let letters: Vec<String> = {
        let mut letters: Vec<char> = text.bytes().map(byte_to_char).collect();
        letters.sort_unstable();
        letters.dedup();
        letters.into_iter().map(String::from).collect()
    };
    let spelt: Vec<char> = text.bytes().map(byte_to_char).collect();
    // Every substring is a token, built letter by letter from the left, so that a word always becomes one token.
    let mut tokens = letters.clone();
    let mut merges = Vec::new();
    for start in 0..spelt.len() {
        for end in start + 2..=spelt.len() {
            let token: String = spelt[start..end].iter().collect();
            if !tokens.contains(&token) {
                let left: String = spelt[start..end - 1].iter().collect();
                merges.push(format!("{left} {}", spelt[end - 1]));
                tokens.push(token);
            }
        }
    }
    let tokens: Vec<(&str, i64)> = tokens.iter().map(|token| (token.as_str(), 1)).collect();
    let merges: Vec<&str> = merges.iter().map(String::as_str).collect();
    let mut writer = vocabulary("gpt2", pre, &tokens, &merges);
    let tokenizer = load(writer.set("tokenizer.ggml.add_bos_token", false)).unwrap();
    let ids = tokenizer.encode(text, Markup::AsText).unwrap();
    ids.iter().map(|&id| tokenizer.decode(&[id])).collect()
}

#[test]
fn each_pre_tokenizer_cuts_its_own_words() {
    let check = |pre: &str, text: &str, expected: &[&str]| assert_eq!(words(pre, text), expected, "{pre}: {text:?}");
    check("smollm", "they're 12 x", &["they", "'re", " ", "1", "2", " x"]);
    check("gpt-2", "they're 12 x", &["they", "'re", " 12", " x"]);
    check("default", "a 1234=b", &["a", " ", "123", "4", "=", "b"]);
    check("llama-bpe", "We'RE 1234\n\n x", &["We", "'RE", " ", "123", "4", "\n\n", " x"]);
    check("gpt-2", "a  \n b", &["a", "  \n", " b"]);
    check("gpt-2", "a\tb", &["a", "\t", "b"]);
    check("qwen2", "We'RE 12\n\n x", &["We", "'RE", " ", "1", "2", "\n\n", " x"]);
    check("qwen35", "ae\u{301}b?", &["ae\u{301}b", "?"]);
    check("qwen2", "ae\u{301}b?", &["ae", "\u{301}b", "?"]);
    check("tekken", "helloWorld, ΑΒγΔ 12/\n", &["hello", "World", ",", " ΑΒγΔ", " ", "1", "2", "/\n"]);
    check("gpt-4o", "HTMLParser's 1234", &["HTMLParser's", " ", "123", "4"]);
    check("deepseek-llm", "ab? 12\n 中a", &["ab", "?", " ", "12", "\n", " ", "中", "a"]);
    check("deepseek-coder", "ab? 12", &["ab", "?", " ", "1", "2"]);
    check("deepseek-v3", "中文a 1234 +b", &["中文", "a", " ", "123", "4", " +", "b"]);
    check("falcon", "a`b 12345", &["a", "`", "b", " ", "123", "45"]);
    check("bloom", "a (b, c", &["a", " (", "b", ",", " c"]);
    check("laguna", "a\n\n b", &["a", "\n\n", " b"]);
    check("minicpm5", "a 12345", &["a", " ", "123", "45"]);
    check("seed-coder", "a +\n", &["a", " +", "\n"]);
    check("bailingmoe", "a\n b12", &["a", "\n", " b", "1", "2"]);
    check("llama-bpe", "a'\u{17f}", &["a", "'\u{17f}"]);
}

#[test]
fn a_token_of_the_tiny_model_is_a_byte() {
    let tokenizer = tiny();
    let check = |text: &str, markup: Markup, expected: &[u32]| {
        assert_eq!(tokenizer.encode(text, markup).unwrap(), expected, "{text:?} {markup:?}");
    };
    check("", Markup::AsText, &[]);
    check("", Markup::AsControl, &[]);
    check("aé\n", Markup::AsText, &[97, 0xc3, 0xa9, 10]);
    check("<|im_end|>", Markup::AsControl, &[IM_END]);
    check(
        "a<|im_end|><|im_start|>b<|im_end",
        Markup::AsControl,
        &[97, IM_END, IM_START, 98, 60, 124, 105, 109, 95, 101, 110, 100],
    );
    let letters: Vec<u32> = "<|im_end|>".bytes().map(u32::from).collect();
    check("<|im_end|>", Markup::AsText, &letters);
}

#[test]
fn a_seam_between_parts_makes_no_markup() {
    let tokenizer = tiny();
    let parts =
        [("<|im_start|>a<|im_", Markup::AsControl), ("end|>", Markup::AsText), ("<|im_end|>", Markup::AsControl)];
    let ids = tokenizer.encode_parts(&parts).unwrap();
    assert_eq!((ids[0], *ids.last().unwrap()), (IM_START, IM_END));
    assert!(ids[1..ids.len() - 1].iter().all(|&id| id < 256));
    assert_eq!(tokenizer.decode(&ids), "a<|im_end|>");
}

#[test]
fn ends_are_the_named_tokens_and_those_of_known_names() {
    let tokenizer = tiny();
    let ends: Vec<u32> = (0..300).filter(|&id| tokenizer.is_end(id)).collect();
    assert_eq!(ends, [END_OF_TEXT, IM_END]);
    assert_eq!((tokenizer.bos(), tokenizer.vocab_size()), (None, 259));
    assert_eq!(tokenizer.token_bytes(IM_END), b"");
    assert_eq!(tokenizer.token_bytes(0xff), b"\xff");
    assert_eq!(tokenizer.token_bytes(u32::MAX), b"");
    assert_eq!(tokenizer.decode(&[0xce, 97, IM_START, 0xce, 0xb1]), "\u{fffd}aα");
}

#[test]
fn the_begin_token_is_added_where_the_file_or_its_kind_says_so() {
    let bos = |model: &str, pre: &str, add: Option<bool>| {
        let mut writer =
            if model == "llama" { sentencepiece() } else { vocabulary(model, pre, &[("a", 1), ("<s>", 3)], &[]) };
        writer.set("tokenizer.ggml.bos_token_id", 1);
        if let Some(add) = add {
            writer.set("tokenizer.ggml.add_bos_token", add);
        }
        load(&writer).unwrap().bos()
    };
    assert_eq!(bos("gpt2", "smollm", None), None);
    assert_eq!(bos("gpt2", "smollm", Some(true)), Some(1));
    assert_eq!(bos("gpt2", "llama-bpe", None), Some(1));
    assert_eq!(bos("gpt2", "llama-bpe", Some(false)), None);
    assert_eq!(bos("llama", "", None), Some(1));
    assert_eq!(bos("llama", "", Some(false)), None);
}

/// `<unk>`, `<s>`, `</s>`, the bytes from id 3 on, and a few pieces from 259 on.
fn sentencepiece() -> GgufWriter {
    let bytes: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
    let mut tokens = vec![("<unk>", 2), ("<s>", 3), ("</s>", 3)];
    tokens.extend(bytes.iter().map(|byte| (byte.as_str(), 6)));
    tokens.extend(
        ["▁", "a", "b", "▁a", "ab", "<s", ">", "<", "s", "0", "x", "4", "1", "<0", "x4", "x41", "x41>"]
            .map(|piece| (piece, 1)),
    );
    let mut writer = vocabulary("llama", "default", &tokens, &[]);
    let scores: Vec<f32> = (0..tokens.len()).map(|id| -(id as f32)).collect();
    writer.set("tokenizer.ggml.scores", scores).set("tokenizer.ggml.eos_token_id", 2);
    writer
}

#[test]
fn sentencepiece_vocabularies_are_read() {
    let mut writer = sentencepiece();
    let tokenizer = load(writer.set("tokenizer.ggml.bos_token_id", 1)).unwrap();
    let check = |text: &str, markup: Markup, expected: &[u32]| {
        assert_eq!(tokenizer.encode(text, markup).unwrap(), expected, "{text:?} {markup:?}");
    };
    check("ab a", Markup::AsText, &[262, 261, 262]);
    check("é", Markup::AsText, &[259, 0xc3 + 3, 0xa9 + 3]);
    check("<s>a</s>", Markup::AsControl, &[1, 262, 2]);
    // Letters never become a control token or a byte token.
    check("<s>", Markup::AsText, &[259, 264, 265]);
    check("<0x41>", Markup::AsText, &[259, 272, 275]);
    assert_eq!(tokenizer.decode(&[262, 261, 1, 0xc3 + 3, 0xa9 + 3]), " abé");
    assert!(tokenizer.is_end(2) && !tokenizer.is_end(1));

    let bare = load(writer.set("tokenizer.ggml.add_space_prefix", false)).unwrap();
    assert_eq!(bare.encode("a", Markup::AsText).unwrap(), [260]);
}

#[test]
fn user_defined_tokens_are_cut_out_of_any_text_and_longer_ones_first() {
    let tokens = [("a", 1), ("b", 1), ("ab", 4), ("aba", 4), ("<a>", 3), ("<", 1), (">", 1)];
    let tokenizer = load(&vocabulary("gpt2", "gpt-2", &tokens, &[])).unwrap();
    let check = |text: &str, markup: Markup, expected: &[u32]| {
        assert_eq!(tokenizer.encode(text, markup).unwrap(), expected, "{text:?} {markup:?}");
    };
    check("abba", Markup::AsText, &[2, 1, 0]);
    check("ababab", Markup::AsText, &[3, 1, 2]);
    check("<a>", Markup::AsText, &[5, 0, 6]);
    check("<a>", Markup::AsControl, &[4]);
    assert_eq!(tokenizer.decode(&[3, 4, 0]), "abaa");
}

#[test]
fn damaged_vocabularies_say_what_is_wrong() {
    fn check(change: impl FnOnce(&mut GgufWriter), expected: &str) {
        let mut writer = TinyModel::default().gguf();
        change(&mut writer);
        let error = load(&writer).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("tiny.gguf"), "{error:?} should hold {expected:?}");
    }
    fn key(key: &str, value: impl Into<Value>, expected: &str) {
        check(
            |writer| {
                writer.replace(&format!("tokenizer.ggml.{key}"), value);
            },
            expected,
        );
    }
    key(
        "model",
        "t5",
        "tokenizer model `t5` (`tokenizer.ggml.model`) is not supported: gpt2, llama, gemma4, bert can be read",
    );
    key("model", 1, "`tokenizer.ggml.model` should be a text");
    key("pre", "made-up", "pre-tokenizer `made-up` (`tokenizer.ggml.pre`) is not supported: default, gpt-2");
    check(|writer| writer.remove("tokenizer.ggml.pre"), "the file does not say how it splits text");
    key("tokens", vec![1, 2], "`tokenizer.ggml.tokens` should hold texts, but entry 0 is Int(1)");
    key("tokens", "all", "`tokenizer.ggml.tokens` should be an array but is a text");
    key("token_type", vec![1, 3], "`tokenizer.ggml.token_type` has 2 entries for 259 tokens");
    key("token_type", vec![1, 77], "token types from 0 to 6, but entry 1 is Int(77)");
    key("merges", vec!["a b"], "`tokenizer.ggml.merges` 0 is \"a b\", but the vocabulary has no `ab`");
    key("merges", vec!["ab"], "`tokenizer.ggml.merges` 0 is \"ab\", not two tokens and a blank");
    key("merges", vec![" b"], "not two tokens and a blank");
    key("merges", vec!["a zz"], "the vocabulary has no `zz`");
    key("eos_token_id", 259, "`tokenizer.ggml.eos_token_id` is 259, but there are 259 tokens");
    key("eos_token_id", -1, "`tokenizer.ggml.eos_token_id` is -1");
    key("add_bos_token", 1, "`tokenizer.ggml.add_bos_token` should be a flag");
    key("model", "llama", "`tokenizer.ggml.scores` is missing");

    let error = |writer: &GgufWriter| load(writer).map(|_| ()).unwrap_err().to_string();
    let mut no_bos = vocabulary("gpt2", "llama-bpe", &[("a", 1)], &[]);
    assert!(error(&no_bos).contains("`tokenizer.ggml.bos_token_id` is missing"));
    no_bos.set("tokenizer.ggml.add_bos_token", false);
    assert!(load(&no_bos).is_ok());
    let mut no_bytes = vocabulary("llama", "", &[("a", 1)], &[]);
    assert!(error(no_bytes.set("tokenizer.ggml.scores", vec![0.0])).contains("no token for the byte <0x00>"));
    let mut odd_byte = vocabulary("llama", "", &[("<0xGG>", 6)], &[]);
    assert!(
        error(odd_byte.set("tokenizer.ggml.scores", vec![0.0])).contains("token 0 is of type byte, but is `<0xGG>`")
    );
}

proptest! {
    #[test]
    fn text_comes_back_and_never_becomes_control(text in r"(\PC|<\|im_end\|>|<\|im_start\|>|\n| ){0,40}") {
        let tokenizer = tiny();
        let ids = tokenizer.encode(&text, Markup::AsText).unwrap();
        prop_assert!(ids.iter().all(|&id| id < 256));
        prop_assert_eq!(tokenizer.decode(&ids), text);
    }

    #[test]
    fn sentencepiece_text_comes_back(text in r"(\PC|<s>|</s>|<0x41>|\n| ){0,40}") {
        let tokenizer = load(sentencepiece().set("tokenizer.ggml.add_space_prefix", false).set("tokenizer.ggml.bos_token_id", 1)).unwrap();
        let ids = tokenizer.encode(&text, Markup::AsText).unwrap();
        prop_assert!(ids.iter().all(|&id| id > 2));
        prop_assert_eq!(tokenizer.decode(&ids), text.replace('▁', " "));
    }
}

#[test]
fn a_long_unbroken_text_takes_no_longer_than_its_length_asks() {
    let byte_level = tiny();
    let pieces = load(sentencepiece().set("tokenizer.ggml.bos_token_id", 1)).unwrap();
    for text in ["a", " ", "\n", "7", "🫒", "a b", "<|im_end|>"] {
        for tokenizer in [byte_level, &pieces] {
            let text = text.repeat(100_000 / text.chars().count());
            let start = std::time::Instant::now();
            let ids = tokenizer.encode(&text, Markup::AsText).unwrap();
            // Quadratic code takes minutes here; other code, tens of milliseconds.
            assert!(start.elapsed().as_secs() < 5, "{:?} for {} tokens", start.elapsed(), ids.len());
        }
    }
}

#[test]
fn no_pre_tokenizer_is_slow_or_gives_up_on_a_long_text() {
    let bytes: Vec<String> = (0..=255).map(|byte| byte_to_char(byte).to_string()).collect();
    let tokens: Vec<(&str, i64)> = bytes.iter().map(|byte| (byte.as_str(), 1)).collect();
    for name in pre_tokenizers::PreTokenizer::all_names().split(", ") {
        let mut writer = vocabulary("gpt2", name, &tokens, &[]);
        let tokenizer = load(writer.set("tokenizer.ggml.add_bos_token", false)).unwrap();
        for text in ["a", "A", "aA", " ", " a", "\t", "\n", " \n", "7", "'", "é", "中", "🫒", "\u{301}", "a\u{301}"]
        {
            let text = format!("{}x", text.repeat(20_000));
            let start = std::time::Instant::now();
            let ids = tokenizer.encode(&text, Markup::AsText).unwrap();
            assert!(start.elapsed().as_secs() < 5, "{name}: {:?} for {} tokens", start.elapsed(), ids.len());
            assert_eq!(tokenizer.decode(&ids), text, "{name}");
        }
    }
}

/// A folder with a byte-level `tokenizer.json` of four tokens and one control token.
fn write_folder(folder: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let mut json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [
            {"id": 4, "content": "<|im_end|>", "single_word": false, "lstrip": false, "rstrip": false,
             "normalized": false, "special": true},
            {"id": 5, "content": "<s>", "special": true},
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [5], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3}, "merges": [["a", "b"]],
        },
    });
    change(&mut json);
    std::fs::write(folder.join("tokenizer.json"), json.to_string()).unwrap();
}

#[test]
fn a_folder_is_read_with_its_begin_and_end_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write_folder(folder.path(), |_| {});
    let plain = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(plain.encode("ab b<|im_end|>", Markup::AsControl).unwrap(), [3, 2, 1, 4]);
    assert!(!plain.encode("<|im_end|>", Markup::AsText).unwrap().contains(&4));
    assert_eq!((plain.decode(&[3, 2, 1, 4]).as_str(), plain.vocab_size()), ("ab b", 6));
    assert!(plain.is_end(4) && !plain.is_end(5));
    assert_eq!(plain.bos(), None, "no file names a begin token");

    write("tokenizer_config.json", r#"{"bos_token": {"content": "<s>"}, "eos_token": "ab"}"#);
    write("generation_config.json", r#"{"eos_token_id": [0, 1]}"#);
    let named = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(named.bos(), Some(5), "the post-processing adds it");
    assert_eq!((0..6).filter(|&id| named.is_end(id)).collect::<Vec<_>>(), [0, 1, 3, 4]);
    write("tokenizer_config.json", r#"{"bos_token": "<s>", "add_bos_token": false}"#);
    assert_eq!(Tokenizer::from_folder(folder.path()).unwrap().bos(), None);
    write_folder(folder.path(), |json| json["post_processor"] = serde_json::Value::Null);
    write("tokenizer_config.json", r#"{"bos_token": "<s>"}"#);
    assert_eq!(Tokenizer::from_folder(folder.path()).unwrap().bos(), None);
}

#[test]
fn a_space_before_the_first_word_is_not_added_after_control_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let encode = |scheme: &str| {
        write_folder(folder.path(), |json| {
            json["pre_tokenizer"] =
                serde_json::json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme});
            json["decoder"] = json["pre_tokenizer"].clone();
            json["model"]["vocab"] = serde_json::json!({"a": 0, "b": 1, "▁": 2, "ab": 3});
        });
        Tokenizer::from_folder(folder.path()).unwrap().encode("a<s>a b", Markup::AsControl).unwrap()
    };
    assert_eq!(encode("first"), [2, 0, 5, 0, 2, 1]);
    assert_eq!(encode("always"), [2, 0, 5, 2, 0, 2, 1]);
    assert_eq!(encode("never"), [0, 5, 0, 2, 1]);
}

#[test]
fn damaged_folders_say_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let error = || Tokenizer::from_folder(folder.path()).map(|_| ()).unwrap_err().to_string();
    assert!(error().contains("tokenizer.json"), "{}", error());
    let check = |change: &dyn Fn(&mut serde_json::Value), expected: &str| {
        write_folder(folder.path(), change);
        assert!(error().contains(expected), "{:?} should hold {expected:?}", error());
    };
    check(&|json| json["model"] = "none".into(), "tokenizer.json");
    check(
        &|json| json["model"]["merges"] = serde_json::json!([["a", "Ġ"]]),
        "makes a token that the vocabulary does not",
    );
    check(&|json| json["model"]["merges"] = serde_json::json!(["a a"]), "makes a token that the vocabulary does not");
    check(&|json| json["decoder"] = serde_json::Value::Null, "its decoder is neither");
    check(&|json| json["added_tokens"][0]["single_word"] = true.into(), "`<|im_end|>` with single_word");
    check(&|json| json["added_tokens"][0]["id"] = u32::MAX.into(), "the id 4294967295");
    check(&|json| json["added_tokens"] = 1.into(), "added_tokens: invalid type");
    std::fs::write(folder.path().join("tokenizer.json"), "[1, 2]").unwrap();
    assert!(error().contains("tokenizer.json"), "{}", error());
}

#[test]
fn sentencepiece_begins_and_ends_with_its_usual_tokens_where_the_file_names_none() {
    let mut writer = sentencepiece();
    writer.remove("tokenizer.ggml.eos_token_id");
    let tokenizer = load(&writer).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.is_end(2)), (Some(1), true));
    // Scores of whole numbers, and no types.
    let mut plain = vocabulary("gpt2", "gpt-2", &[("a", 1), ("<|im_end|>", 1)], &[]);
    plain.remove("tokenizer.ggml.token_type");
    assert_eq!(load(&plain).unwrap().encode("aa", Markup::AsText).unwrap(), [0, 0]);
}

#[test]
fn known_markup_is_control_whatever_its_type() {
    for token_type in [1, 4] {
        let tokens =
            [("a", 1), ("<", 1), ("|", 1), (">", 1), ("<|im_end|>", token_type), ("<|fim_prefix|>", token_type)];
        let tokenizer = load(&vocabulary("gpt2", "gpt-2", &tokens, &[])).unwrap();
        assert_eq!(tokenizer.encode("a<|im_end|>", Markup::AsControl).unwrap(), [0, 4]);
        let typed = tokenizer.encode("<|im_end|><|fim_prefix|>", Markup::AsText).unwrap();
        assert!(typed.iter().all(|&id| id < 4), "{typed:?}");
        assert!(tokenizer.is_end(4) && !tokenizer.is_end(5) && tokenizer.is_markup(5) && !tokenizer.is_markup(0));
        assert_eq!(tokenizer.decode(&[0, 4]), "a");
    }
}

#[test]
fn user_defined_markup_of_the_template_is_read_from_the_template_alone() {
    let tokens = [("<", 1), ("t", 1), (">", 1), ("<t>", 4), ("tt", 4), ("<tt>", 4), ("|", 1), ("<|t|>", 1)];
    let mut writer = vocabulary("gpt2", "gpt-2", &tokens, &[]);
    let tokenizer = load(writer.set("tokenizer.chat_template", "<t>{{ messages[0].content }}tt<|t|>")).unwrap();
    let check = |text: &str, markup: Markup, expected: &[u32]| {
        assert_eq!(tokenizer.encode(text, markup).unwrap(), expected, "{text:?} {markup:?}");
    };
    check("<t>", Markup::AsControl, &[3]);
    check("<t>", Markup::AsText, &[0, 1, 2]);
    check("tt<tt>", Markup::AsText, &[4, 5]);
    // Some converters store markup as plain tokens.
    check("<|t|>", Markup::AsControl, &[7]);
    check("<|t|>", Markup::AsText, &[0, 6, 1, 6, 2]);
    // A reply shows what was said with it: whoever shows replies decides about thoughts.
    assert_eq!(tokenizer.decode(&[3]), "<t>");
    assert!(tokenizer.is_markup(3) && !tokenizer.is_markup(5));
    assert_eq!((tokenizer.markup_id("<t>"), tokenizer.markup_id("<tt>")), (Some(3), None));
}

#[test]
fn phi_3_leaves_out_white_space_after_its_markup() {
    let tokens = [("a", 1), ("Ċ", 1), ("<|user|>", 3), ("<s>", 3), ("Ġ", 1)];
    let load = |name: &str| load(vocabulary("gpt2", "gpt-2", &tokens, &[]).set("general.name", name)).unwrap();
    let text = "\n<|user|>\n a<s>\n<|user|> \n";
    assert_eq!(load("Phi-3 mini").encode(text, Markup::AsControl).unwrap(), [1, 2, 0, 3, 1, 2]);
    assert_eq!(load("Other").encode(text, Markup::AsControl).unwrap(), [1, 2, 1, 4, 0, 3, 1, 2, 4, 1]);
    assert_eq!(load("phi3").encode("\n a", Markup::AsText).unwrap(), [1, 4, 0]);
}

#[test]
fn a_folders_tokens_may_take_the_white_space_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), |json| {
        json["added_tokens"][0]["rstrip"] = true.into();
        json["added_tokens"][0]["special"] = false.into();
        json["added_tokens"][1]["lstrip"] = true.into();
    });
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.encode("a <|im_end|> b <s> a", Markup::AsControl).unwrap(), [0, 2, 4, 1, 5, 2, 0]);
    assert!(tokenizer.is_end(4), "known markup is control");
    assert!(!tokenizer.encode("<|im_end|>", Markup::AsText).unwrap().contains(&4));
}

#[test]
fn whole_lines_are_merged_and_line_breaks_are_tokens() {
    let bytes: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
    let mut tokens: Vec<(&str, i64)> = bytes.iter().map(|byte| (byte.as_str(), 6)).collect();
    tokens.extend([("<bos>", 3), ("a", 1), ("▁", 1), ("▁a", 1), ("a▁a", 1), ("\n", 1), ("\n\n", 1)]);
    let mut writer = vocabulary("gemma4", "", &tokens, &["a ▁a", "▁ a"]);
    writer.set("tokenizer.ggml.bos_token_id", 256).set("tokenizer.ggml.add_bos_token", false);
    let tokenizer = load(&writer).unwrap();
    let check = |text: &str, expected: &[u32]| {
        assert_eq!(tokenizer.encode(text, Markup::AsText).unwrap(), expected, "{text:?}");
    };
    check("", &[]);
    check("a a", &[260]);
    check(" a\n\na", &[259, 262, 257]);
    check("\n\n\n", &[261, 261, 261]);
    check("aé", &[257, 0xc3, 0xa9]);
    assert_eq!(tokenizer.decode(&[260, 262, 0xc3, 0xa9]), "a a\n\né");
    assert_eq!(tokenizer.bos(), Some(256));
}

#[test]
fn words_of_bert_are_put_together() {
    let tokens = [("[UNK]", 3), ("▁cafe", 1), ("▁s", 1), ("ea", 1)];
    let mut writer = vocabulary("bert", "", &tokens, &[]);
    writer.set("tokenizer.ggml.unknown_token_id", 0).set("tokenizer.ggml.add_bos_token", false);
    let tokenizer = load(&writer).unwrap();
    assert_eq!(tokenizer.encode("Café sea! sex", Markup::AsText).unwrap(), [1, 2, 3, 0, 0]);
}

/// A hostile file must not make a tokenizer slow: a quarter of a million control tokens, and a text that has all their
/// pairs of bytes.
#[test]
fn many_control_tokens_take_no_longer_than_their_number_asks() {
    let names: Vec<String> = (0..250_000).map(|number| format!("<|{number:017b}x|>")).collect();
    let mut tokens: Vec<(&str, i64)> = vec![("0", 1), ("1", 1)];
    tokens.extend(names.iter().map(|name| (name.as_str(), 3)));
    let tokenizer = load(&vocabulary("gpt2", "gpt-2", &tokens, &[])).unwrap();
    let start = std::time::Instant::now();
    tokenizer.encode(&"01100".repeat(1000), Markup::AsControl).unwrap();
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}
