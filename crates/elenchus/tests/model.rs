//! `elenchus model` and `elenchus adapter`: the files they read and write.

#[expect(dead_code, reason = "each test binary uses its part")]
mod common;

use std::{fs, sync::Arc};

use common::{Stage, failed, succeeded, workspace};
use elenchus_candle::CandleExecutor;
use elenchus_lm::{Adapter, Executor, Logits, LoraAdapter, Numerics, Row, Weights, gguf::GgufWriter};
use safetensors::SafeTensors;

#[test]
fn tokenize_reads_markup_as_text_or_as_control() {
    let stage = Stage::new();
    fs::write(stage.path("texts.json"), r#"["Hi", "", "α", "<|im_end|>"]"#).unwrap();
    let run = |special: &str| {
        succeeded(
            stage
                .run(&format!("model tokenize --base tiny.gguf --texts-file texts.json {special} --out ids.json"), &[]),
        );
        serde_json::from_str::<Vec<Vec<u32>>>(&fs::read_to_string(stage.path("ids.json")).unwrap()).unwrap()
    };
    // The tiny model's tokens are bytes; its control tokens come after them.
    let text: Vec<u32> = "<|im_end|>".bytes().map(u32::from).collect();
    assert_eq!(run(""), [vec![72, 105], vec![], vec![0xCE, 0xB1], text]);
    assert_eq!(run("--special")[3], [elenchus_lm::testing::IM_END]);
}

#[test]
fn tokenize_reads_a_vocabulary_without_a_model() {
    let stage = Stage::new();
    let mut vocabulary = GgufWriter::new();
    vocabulary
        .set("tokenizer.ggml.model", "gpt2")
        .set("tokenizer.ggml.pre", "gpt-2")
        .set("tokenizer.ggml.tokens", vec!["a", "b", "ab"])
        .set("tokenizer.ggml.merges", vec!["a b"]);
    vocabulary.write(&stage.path("vocabulary.gguf")).unwrap();
    fs::write(stage.path("texts.json"), r#"["abba"]"#).unwrap();
    succeeded(stage.run("model tokenize --base vocabulary.gguf --texts-file texts.json --out ids.json", &[]));
    assert_eq!(fs::read_to_string(stage.path("ids.json")).unwrap(), "[[2,1,0]]");
}

#[test]
fn render_prints_a_conversation_or_says_why_not() {
    let stage = Stage::new();
    let write = |name: &str, text: &str| fs::write(stage.path(name), text).unwrap();
    write("turns.jinja", "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}");
    write("refuses.jinja", "{{ raise_exception('no such role') }}");
    write("broken.jinja", "{% for m in messages %}");
    write("context.json", r#"{"messages": [{"role": "user", "content": "Hi"}], "bos_token": "<s>"}"#);
    write("list.json", "[]");
    let render = |template: &str, context: &str| {
        stage.run(&format!("model render --template {template} --context {context}"), &[])
    };
    assert_eq!(succeeded(render("turns.jinja", "context.json")), "<s>user: Hi\n");
    let check = |template: &str, context: &str, expected: &str| {
        let error = failed(render(template, context));
        assert!(error.contains(expected) && error.contains(template), "{error}");
    };
    check("refuses.jinja", "context.json", "no such role");
    check("broken.jinja", "context.json", "unexpected end");
    check("turns.jinja", "list.json", "should be a JSON object");
    check("none.jinja", "context.json", "No such file");
}

#[test]
fn logits_are_the_executors_own() {
    let stage = Stage::new();
    let lists: [&[u32]; 3] = [&[72, 105], &[65], &[66, 67, 68, 69]];
    fs::write(stage.path("ids.json"), serde_json::to_string(&lists).unwrap()).unwrap();
    let weights = Arc::new(Weights::open(&stage.path("tiny.gguf"), &mut |_| ()).unwrap());
    let voice = Adapter::new(Arc::new(LoraAdapter::open(&stage.path("voice")).unwrap()));
    for (numerics, name) in [(Numerics::Exact, "exact"), (Numerics::Quantised, "quantised")] {
        let executor = CandleExecutor::new(&weights, &candle_core::Device::Cpu, numerics).unwrap();
        for (adapter, flag) in [(None, ""), (Some(&voice), "--adapter voice")] {
            let arguments = format!(
                "model logits --base tiny.gguf {flag} --ids-file ids.json --numerics {name} --executor candle --out f.safetensors"
            );
            succeeded(stage.run(&arguments, &[]));
            let bytes = fs::read(stage.path("f.safetensors")).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            assert_eq!(file.len(), 3);
            for (index, tokens) in lists.into_iter().enumerate() {
                let mut cache = executor.new_cache();
                let row = Row { tokens, adapter, cache: &mut cache, logits: Logits::Last };
                let expected = executor.forward(&mut [row]).unwrap().concat();
                let tensor = file.tensor(&format!("last_{index}")).unwrap();
                assert_eq!(tensor.shape(), [weights.config().vocab_size]);
                let written = tensor.data().chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
                assert_eq!(written.collect::<Vec<_>>(), expected, "{name}, list {index}, {flag}");
            }
        }
    }
}

#[test]
fn inspect_shows_what_is_in_the_files() {
    let stage = Stage::new();
    let check = |arguments: &str, expected: &[&str]| {
        let shown = succeeded(stage.run(arguments, &[]));
        for words in expected {
            assert!(shown.contains(words), "{words:?} is not in {shown}");
        }
    };
    check("model inspect --base tiny.gguf", &["llama", "sha256", "Q8_0", "memory", "PERSONA", "LINE"]);
    check(
        "adapter inspect voice --base tiny.gguf",
        &["rank        4", "q_proj, v_proj in 2 layers", "fits        tiny.gguf"],
    );
}

#[test]
fn bad_files_end_with_code_1_and_are_named() {
    let stage = Stage::new();
    fs::write(stage.path("list.json"), "[1, 2]").unwrap();
    fs::write(stage.path("empty.json"), "[[1], []]").unwrap();
    fs::write(stage.path("far.json"), "[[1], [99999]]").unwrap();
    let check = |arguments: &str, expected: &[&str]| {
        let error = failed(stage.run(arguments, &[]));
        for words in expected {
            assert!(error.contains(words), "{arguments} gave: {error}");
        }
    };
    let tokenize = "model tokenize --base tiny.gguf --out o.json --texts-file";
    let logits = "model logits --base tiny.gguf --numerics exact --executor candle --out o --ids-file";
    check(&format!("{tokenize} none.json"), &["none.json"]);
    check(&format!("{tokenize} list.json"), &["list.json is not a JSON list of strings"]);
    check(&format!("{logits} list.json"), &["list.json is not a JSON list of lists"]);
    check(&format!("{logits} empty.json"), &["empty.json: list 1 is empty"]);
    check(&format!("{logits} far.json"), &["far.json: list 1", "99999"]);
    check(&format!("{logits} far.json --adapter adapters"), &["adapters"]);
    check(&logits.replace("candle", "vulkan").replace("--ids-file", "--ids-file far.json"), &["`vulkan`", "candle"]);
    check("model inspect --base voice", &["voice"]);
    check("adapter inspect adapters --base tiny.gguf", &["adapters"]);
}

/// On the real model, fetched by the program itself where it is not there yet.
#[test]
fn real_model_is_fetched_and_each_character_speaks() {
    let run = |arguments: &str, say: &[&str]| {
        let mut command = Stage::new().command(arguments);
        command.current_dir(workspace()).args(say.iter().flat_map(|line| ["--say", line]));
        succeeded(command.output().unwrap())
    };
    let path = run("model fetch", &[]);
    assert!(path.trim_end().ends_with(elenchus_dialogue::base_model::DEFAULT_FILE), "{path}");
    let shown = run("model inspect", &[]);
    assert!(shown.contains(elenchus_dialogue::base_model::DEFAULT_SHA256) && shown.contains("Q4_1"), "{shown}");
    for character in ["socrates", "hippias", "olive_seller"] {
        let said = run(&format!("talk --character {character} --seed 1 --json"), &["Who are you?"]);
        let reply: serde_json::Value = serde_json::from_str(&said).unwrap();
        let text = reply["text"].as_str().unwrap();
        assert!(text.split_whitespace().count() >= 3, "{character} said {text:?}");
    }
}
