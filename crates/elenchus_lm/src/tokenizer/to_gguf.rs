//! A Hugging Face folder's tokenizer as the `tokenizer.ggml.*` keys of a GGUF file.
//!
//! GGUF has a name for how words are cut where `tokenizer.json` has expressions. The name is the one whose reading gives
//! the ids of the folder's own tokenizer on [`PROBE`], as llama.cpp's converter recognises it by the ids of its own text.

use std::{collections::HashMap, path::Path};

use serde_json::{Map, Value as Json};

use super::{Markup, Tokenizer, byte_token, folder, pre_tokenizers::PreTokenizer};
use crate::{
    Error, Result, chat_template,
    gguf::{Gguf, GgufWriter, Value},
};

/// What pre-tokenizers cut differently: numbers, apostrophes, capitals, line breaks, spaces, marks and several scripts.
const PROBE: &str = "Ὁ δὲ ἀνεξέταστος βίος οὐ βιωτὸς ἀνθρώπῳ. I'm sure THEY'RE we'll DON'T \n\n\n \n\t\t x\r\n   y    z  \
    3 33 333 3333 33333 333333 3.14 1,000 1/2 ½ Ⅷ ٣ camelCase HTTPServer x=y+1; a||b; (c) [d] {e} <f> $5 50% #tag @you \
    http://a.b/c?d=e&f=g_h ~!@#$%^&*()_+-=`'\"... --- ==== \u{a0}\u{3000}ends 你好，世界。哲学 ソクラテス ñandú e\u{301} \
    привет Ёж שלום مرحبا नमस्ते 안녕하세요 ไทย 🙂👍🏽 ﬁ ª ĳ İ ß ẞ   \n";
/// Texts that must have the same ids before and after.
const CHECKED: [&str; 4] = [PROBE, "", " ", "What is virtue?\nCan it be taught, Socrates?"];

/// What a token is, by its number in `tokenizer.ggml.token_type`. Source: `llama_token_type` in llama.h.
#[derive(Clone, Copy)]
enum TokenType {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// The keys that a folder's tokenizer and chat template become, for a model of so many rows in its embedding.
pub fn keys(folder: &Path, rows: usize) -> Result<Vec<(String, Value)>> {
    let path = folder.join("tokenizer.json");
    let json = folder::read_json::<Map<String, Json>>(&path)?;
    let json = Json::Object(json.ok_or_else(|| Error::io(&path, std::io::ErrorKind::NotFound.into()))?);
    let own = Tokenizer::from_folder(folder)?;
    let unsupported = |what: &str, hint: &str| {
        Err(Error::Unsupported { what: format!("{}: {what}, in GGUF,", path.display()), hint: hint.into() })
    };
    if json["model"]["type"] != "BPE" {
        let what = format!("a tokenizer of type {}", json["model"]["type"]);
        return unsupported(&what, "convert this model with llama.cpp's convert_hf_to_gguf.py");
    }
    let is_byte_level = folder::spelling(&json) == Some(super::Spelling::ByteLevel);
    let tokens = tokens(&json, rows).map_err(|reason| Error::model_file(&path, reason))?;
    let merges = merges(&json);
    let mut keys: Vec<(String, Value)> = Vec::new();
    let mut set = |key: &str, value: Value| keys.push((format!("tokenizer.{key}"), value));
    set("ggml.tokens", tokens.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().into());
    set("ggml.token_type", tokens.iter().map(|(_, token_type)| *token_type as i64).collect::<Vec<_>>().into());
    if is_byte_level {
        set("ggml.merges", merges.iter().map(String::as_str).collect::<Vec<_>>().into());
    } else {
        let scores = scores(&tokens, &merges);
        set("ggml.scores", scores.into());
        set("ggml.add_space_prefix", adds_space(&json).into());
    }
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, (text, _))| (text.as_str(), id)).collect();
    let config = folder::read_json::<Json>(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
    let of_config = |name: &str| {
        let token = &config[name];
        ids.get(token.as_str().or(token["content"].as_str())?).map(|&id| id as i64)
    };
    for (key, name) in [("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token")]
    {
        if let Some(id) = of_config(name) {
            set(&format!("ggml.{key}_token_id"), id.into());
        }
    }
    // A second end, of a turn; its place in a folder is `generation_config.json`.
    let generation = folder::read_json::<Json>(&folder.join("generation_config.json"))?.unwrap_or_default();
    let mut ends = generation["eos_token_id"].as_array().cloned().unwrap_or(vec![generation["eos_token_id"].clone()]);
    ends.retain(|end| end.as_i64().is_some() && end.as_i64() != of_config("eos_token"));
    let slots: &[&str] = if of_config("eos_token").is_some() { &["eot", "eom"] } else { &["eos", "eot", "eom"] };
    for (key, end) in slots.iter().zip(&ends) {
        set(&format!("ggml.{key}_token_id"), end.as_i64().unwrap_or_default().into());
    }
    if let Some(bos) = own.bos() {
        // Where the configuration names it otherwise, what is put in front counts.
        keys.retain(|(key, _)| key != "tokenizer.ggml.bos_token_id");
        keys.push(("tokenizer.ggml.bos_token_id".into(), i64::from(bos).into()));
    }
    keys.push(("tokenizer.ggml.add_bos_token".into(), own.bos().is_some().into()));
    if let Some((template, _)) = chat_template::source_of_folder(folder)? {
        keys.push(("tokenizer.chat_template".into(), template.as_str().into()));
    }
    with_model(folder, &own, keys, is_byte_level)
}

/// Adds the names of the tokenizer's model and pre-tokenizer under which the keys give the folder's ids.
fn with_model(
    folder: &Path,
    own: &Tokenizer,
    keys: Vec<(String, Value)>,
    is_byte_level: bool,
) -> Result<Vec<(String, Value)>> {
    let names: Vec<Option<&str>> = match is_byte_level {
        true => PreTokenizer::all().map(|pre| Some(pre.names[0])).collect(),
        false => vec![None],
    };
    let scratch = tempfile::tempdir().map_err(|source| Error::io("a temporary folder", source))?;
    let path = scratch.path().join("vocabulary.gguf");
    for pre in names {
        let mut all: Vec<(String, Value)> =
            vec![("tokenizer.ggml.model".into(), if is_byte_level { "gpt2" } else { "llama" }.into())];
        all.extend(pre.map(|pre| ("tokenizer.ggml.pre".into(), pre.into())));
        all.extend(keys.iter().cloned());
        let mut writer = GgufWriter::new();
        for (key, value) in &all {
            writer.set(key.as_str(), value.clone());
        }
        writer.write(&path)?;
        if reads_alike(own, &Tokenizer::from_gguf(&Gguf::open(&path)?)?)? {
            return Ok(all);
        }
    }
    Err(Error::Unsupported {
        what: format!("{}: this way to cut words or spaces, in GGUF,", folder.join("tokenizer.json").display()),
        hint: "convert this model with llama.cpp's convert_hf_to_gguf.py".into(),
    })
}

/// Whether two tokenizers give the same ids on [`CHECKED`] and around a control token, and mean the same by each id.
fn reads_alike(a: &Tokenizer, b: &Tokenizer) -> Result<bool> {
    let control = a.specials.iter().find(|special| special.control).map_or("", |special| &special.text);
    let around = format!("What is{control}virtue{control} Socrates?");
    for text in CHECKED.into_iter().chain([around.as_str()]) {
        for markup in [Markup::AsText, Markup::AsControl] {
            if a.encode(text, markup)? != b.encode(text, markup)? {
                return Ok(false);
            }
        }
    }
    let same = |id: u32| {
        a.token_bytes(id) == b.token_bytes(id) && a.is_end(id) == b.is_end(id) && a.is_markup(id) == b.is_markup(id)
    };
    Ok(a.bos() == b.bos() && (0..a.vocab_size() as u32).all(same))
}

/// Texts and types by id; rows of the embedding that no token has become unused ones.
fn tokens(json: &Json, rows: usize) -> Result<Vec<(String, TokenType)>, String> {
    let mut tokens: Vec<Option<(String, TokenType)>> = vec![None; rows];
    let unknown = json["model"]["unk_token"].as_str();
    let of_model = json["model"]["vocab"].as_object().into_iter().flatten().map(|(text, id)| {
        let token_type = match text {
            text if Some(text.as_str()) == unknown => TokenType::Unknown,
            text if byte_token(text).is_some() => TokenType::Byte,
            _ => TokenType::Normal,
        };
        (text.as_str(), id, token_type)
    });
    let added = json["added_tokens"].as_array().into_iter().flatten().map(|token| {
        let text = token["content"].as_str().unwrap_or_default();
        let token_type = match token["special"].as_bool() {
            Some(true) if Some(text) == unknown => TokenType::Unknown,
            Some(true) => TokenType::Control,
            _ => TokenType::UserDefined,
        };
        (text, &token["id"], token_type)
    });
    for (text, id, token_type) in of_model.chain(added) {
        let place = id.as_u64().and_then(|id| tokens.get_mut(usize::try_from(id).ok()?));
        *place.ok_or_else(|| format!("token `{text}` has the id {id}, but the embedding has {rows} rows"))? =
            Some((text.to_owned(), token_type));
    }
    let unused = |(id, token): (usize, Option<_>)| token.unwrap_or_else(|| (format!("[PAD{id}]"), TokenType::Unused));
    Ok(tokens.into_iter().enumerate().map(unused).collect())
}

/// Two tokens and a blank, as older files write them; newer ones have pairs.
fn merges(json: &Json) -> Vec<String> {
    let merges = json["model"]["merges"].as_array().into_iter().flatten();
    merges
        .map(|merge| match merge.as_array() {
            Some(pair) => pair.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(" "),
            None => merge.as_str().unwrap_or_default().to_owned(),
        })
        .collect()
}

/// SentencePiece joins by the score of the result: that of the first merge that makes it.
fn scores(tokens: &[(String, TokenType)], merges: &[String]) -> Vec<f32> {
    let mut ranks = HashMap::new();
    for (rank, merge) in merges.iter().enumerate() {
        ranks.entry(merge.replacen(' ', "", 1)).or_insert(rank);
    }
    // What no merge makes is never joined: last of all.
    tokens.iter().map(|(text, _)| -(ranks.get(text).copied().unwrap_or(merges.len()) as f32)).collect()
}

/// Whether a space goes before the first word.
fn adds_space(json: &Json) -> bool {
    let (normalizer, pre_tokenizer) = (json["normalizer"].to_string(), json["pre_tokenizer"].to_string());
    normalizer.contains("\"Prepend\"")
        || pre_tokenizer.contains("\"prepend_scheme\":\"first\"")
        || pre_tokenizer.contains("\"prepend_scheme\":\"always\"")
}
