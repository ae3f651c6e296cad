//! Unusual model files: their tokenizers and templates are read as expected, or refused with a reason.

mod common;

use std::{fs, path::Path};

use common::shared;
use elenchus_lm::{
    ChatTemplate, CpuExecutor, CpuSettings, Executor, Logits, Markup, Message, Result, Role, Row, Tokenizer, Weights,
    gguf::Gguf,
};

fn open(path: &Path) -> Result<(Tokenizer, ChatTemplate)> {
    if path.is_dir() {
        return Ok((Tokenizer::from_folder(path)?, ChatTemplate::from_folder(path)?));
    }
    let gguf = Gguf::open(path)?;
    Ok((Tokenizer::from_gguf(&gguf)?, ChatTemplate::from_gguf(&gguf)?))
}

/// A prompt with persona and line, control tokens by number.
fn prompt(path: &Path) -> Result<String> {
    let (tokenizer, template) = open(path)?;
    let message = |role, content: &str| Message { role, content: content.to_owned() };
    let messages = [message(Role::System, "PERSONA"), message(Role::User, "LINE")];
    let ids = template.encode(&tokenizer, &messages, true)?;
    let shown = ids.iter().map(|&id| match tokenizer.token_bytes(id) {
        [] => format!("<{id}>"),
        bytes => String::from_utf8_lossy(bytes).into_owned(),
    });
    Ok(shown.collect())
}

const CHATML: &str = "<257>system\nPERSONA<258>\n<257>user\nLINE<258>\n<257>assistant\n";

#[test]
#[ignore = "needs ../shared"]
fn shared_templates_give_a_prompt_with_persona_and_line() {
    let check = |name: &str, expected: &str| {
        let prompt = prompt(&shared().join("cases").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(prompt, expected, "{name}");
    };
    let without_system = "<257>user\nPERSONA\nLINE<258>\n<257>assistant\n";
    check("gguf/template_generation_tag.gguf", CHATML);
    check("gguf/template_system_refused.gguf", &without_system.replace("assistant", "model"));
    check("gguf/template_system_left_out.gguf", without_system);
    check("gguf/template_content_parts.gguf", CHATML);
    check("gguf/template_content_parts_only.gguf", CHATML);
    check("gguf/template_tools_is_not_none.gguf", CHATML);
    check("gguf/template_macro_and_loop_controls.gguf", CHATML);
    check("gguf/template_qwen3_like.gguf", &format!("{CHATML}<think>\n\n</think>\n\n"));
    check("gguf/template_think_in_prompt.gguf", &format!("{CHATML}<think>\n"));
    check("gguf/template_strftime_today.gguf", &CHATML.replace("PERSONA", "It is 00:00:00.\nPERSONA"));
    check("gguf/template_no_end_token.gguf", "PERSONA\n\n### Instruction:\nLINE\n\n### Response:\n");
    check("gguf/template_only_tool_use.gguf", CHATML);
    check("gguf/no_template.gguf", CHATML);
    // Its begin token is that of a turn: the template's, and none besides.
    check("gguf/bos_twice.gguf", &format!("<257>{CHATML}"));
    check("hf/template_json_file", &CHATML.replace("PERSONA", "[[PERSONA]]").replace("LINE", "[[LINE]]"));
    check("hf/template_list_without_default", CHATML);
}

#[test]
#[ignore = "needs ../shared"]
fn shared_files_are_read_or_refused_with_a_reason() {
    let cases = shared().join("cases");
    let refused = |name: &str, reason: &str| {
        let error = open(&cases.join(name)).map(|_| ()).expect_err(name).to_string();
        assert!(error.contains(reason) && error.contains(name.rsplit('/').next().unwrap()), "{name}: {error}");
    };
    refused("gguf/no_pre.gguf", "does not say how it splits text");
    refused("gguf/pre_made-up.gguf", "pre-tokenizer `made-up`");
    refused("gguf/version1.gguf", "GGUF version 1 is not supported");
    refused("gguf/big_endian.gguf", "big-endian");
    refused("gguf/lfs_pointer.gguf", "git lfs pull");
    refused("gguf/not_found_page.gguf", "a download's error page");
    refused("gguf/cut_short.gguf", "interrupted download");
    let names = ["pre_qwen2", "pre_gpt-4o", "pre_deepseek-llm", "pre_tekken", "version2", "tiny", "f16", "spm"];
    for name in names {
        open(&cases.join(format!("gguf/{name}.gguf"))).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    for entry in fs::read_dir(cases.join("gguf")).unwrap().chain(fs::read_dir(cases.join("hf")).unwrap()) {
        let path = entry.unwrap().path();
        if let Err(error) = prompt(&path) {
            println!("{}", error);
        }
    }
    for entry in fs::read_dir(cases.join("templates")).unwrap() {
        let source = fs::read_to_string(entry.unwrap().path()).unwrap();
        ChatTemplate::from_source(&source).unwrap();
    }
}

#[test]
#[ignore = "needs ../shared"]
fn shared_markup_is_control_whatever_its_type() {
    let cases = shared().join("cases");
    let texts: Vec<String> = serde_json::from_slice(&fs::read(cases.join("data/markup_texts.json")).unwrap()).unwrap();
    let names = ["gguf/tiny.gguf", "gguf/markup_user_defined.gguf", "gguf/markup_normal.gguf", "hf/markup_not_special"];
    for name in names {
        let (tokenizer, _) = open(&cases.join(name)).unwrap();
        for text in &texts {
            let bytes: Vec<u32> = text.bytes().map(u32::from).collect();
            assert_eq!(tokenizer.encode(text, Markup::AsText).unwrap(), bytes, "{name} {text:?}");
        }
        assert!(tokenizer.is_end(258) && tokenizer.is_markup(257) && !tokenizer.is_end(97), "{name}");
    }
    for name in ["says_hi_end_is_user_defined", "eos_is_endoftext", "eos_is_endoftext_markup_user_defined"] {
        assert!(open(&cases.join(format!("gguf/{name}.gguf"))).unwrap().0.is_end(258), "{name}");
    }
}

/// The ids of llama.cpp: ▁ 259, a to z 260 to 285, ▁a 286, ab 287, ▁▁ 288, \[NPC\] 289; a byte is its value and 3.
#[test]
#[ignore = "needs ../shared"]
fn shared_sentencepiece_spaces_are_those_of_llama_cpp() {
    let ids = |name: &str, text: &str| {
        let (tokenizer, _) = open(&shared().join(format!("cases/gguf/{name}.gguf"))).unwrap();
        tokenizer.encode(text, Markup::AsControl).unwrap()
    };
    assert_eq!(ids("spm", "ab"), [286, 261]);
    assert_eq!(ids("spm_no_space_prefix", "ab"), [287]);
    assert_eq!(ids("spm", "<s>ab"), [1, 286, 261]);
    assert!(ids("spm", "").is_empty());
    assert_eq!(ids("spm", "é"), [259, 0xc3 + 3, 0xa9 + 3]);
    assert_eq!(ids("spm_added_token", "[NPC]ab"), [289, 286, 261]);
}

/// Opens a model as a game does and generates a few tokens.
fn run(path: &Path) -> Result<String> {
    let weights = Weights::open(path, &mut |_| {})?;
    let (tokenizer, template) = (weights.tokenizer()?, weights.chat_template()?);
    let executor = CpuExecutor::new(&weights, CpuSettings::default())?;
    let message = |role, content: &str| Message { role, content: content.to_owned() };
    let messages = [message(Role::System, "PERSONA"), message(Role::User, "LINE")];
    let ids = template.encode(&tokenizer, &messages, true)?;
    let mut cache = executor.new_cache();
    let (mut next, mut said) = (ids, Vec::new());
    for _ in 0..8 {
        let row = Row { tokens: &next, adapter: None, cache: &mut cache, logits: Logits::Last };
        let logits = executor.forward(&mut [row])?.concat();
        assert!(logits.iter().all(|logit| logit.is_finite()), "{}: logits that are no numbers", path.display());
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32;
        said.push(best);
        if tokenizer.is_end(best) {
            break;
        }
        next = vec![best];
    }
    Ok(tokenizer.decode(&said))
}

/// What each file of the cases does; run with `--nocapture` to read it.
#[test]
#[ignore = "needs ../shared"]
fn shared_files_all_run_or_are_refused_with_a_reason() {
    let mut refused = Vec::new();
    for folder in ["gguf", "hf"] {
        let entries = fs::read_dir(shared().join("cases").join(folder)).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            match run(&path) {
                Ok(said) => println!("{folder}/{name}: {said:?}"),
                Err(error) => {
                    println!("{folder}/{name}: refused: {error}");
                    refused.push(name);
                }
            }
        }
    }
    let expected = [
        "big_endian.gguf",
        "cut_short.gguf",
        "lfs_pointer.gguf",
        "lora_ok.gguf",
        "lora_with_embedding.gguf",
        "no_pre.gguf",
        "not_found_page.gguf",
        "pre_made-up.gguf",
        "split-00002-of-00002.gguf",
        "version1.gguf",
    ];
    assert_eq!(refused, expected);
}
