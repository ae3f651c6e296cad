//! A tokenizer from a Hugging Face folder: `tokenizer.json`, with `tokenizer_config.json` and `generation_config.json`
//! for begin and end tokens.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::Path,
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{Special, Spelling, Splitter, Tokenizer, Vocabulary, markup};
use crate::{Error, Result, chat_template};

/// The largest real vocabularies have some 260,000 tokens.
const MAX_ID: u32 = 1 << 22;

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

#[derive(Default, Deserialize)]
struct TokenizerConfig {
    add_bos_token: Option<bool>,
    bos_token: Option<TokenText>,
    eos_token: Option<TokenText>,
}

/// A token by its text, plain or with its properties around it.
#[derive(Deserialize)]
#[serde(untagged)]
enum TokenText {
    Plain(String),
    Full { content: String },
}

#[derive(Default, Deserialize)]
struct GenerationConfig {
    eos_token_id: Option<EndIds>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum EndIds {
    One(u32),
    Several(Vec<u32>),
}

impl TokenText {
    fn text(&self) -> &str {
        match self {
            Self::Plain(text) | Self::Full { content: text } => text,
        }
    }
}

/// Reads and checks a vocabulary.
pub fn read(folder: &Path) -> Result<Tokenizer> {
    let path = folder.join("tokenizer.json");
    let bad = |reason: String| Error::model_file(&path, reason);
    let json: Map<String, Value> = read_json(&path)?.ok_or_else(|| Error::io(&path, io::ErrorKind::NotFound.into()))?;
    let mut json = Value::Object(json);
    let mut added: Vec<AddedToken> = match json.get_mut("added_tokens").map(Value::take) {
        None => Vec::new(),
        Some(added) => serde_json::from_value(added).map_err(|error| bad(format!("added_tokens: {error}")))?,
    };
    if let Some(token) = added.iter().find(|token| token.single_word) {
        return Err(Error::Unsupported {
            what: format!("{}: token `{}` with single_word", path.display(), token.content),
            hint: "use a GGUF file of the model".into(),
        });
    }
    // Known markup is control, whatever the file says.
    let known = markup::controls(|name| added.iter().any(|token| token.content == name));
    for token in &mut added {
        token.special |= known.contains(&token.content.as_str());
    }
    // Control tokens are cut out before the pipeline, so it must not know them.
    json["added_tokens"] = Value::Array(Vec::new());
    json["truncation"] = Value::Null;
    json["padding"] = Value::Null;
    let control: HashSet<&str> =
        added.iter().filter(|token| token.special).map(|token| token.content.as_str()).collect();
    check_merges(&json).map_err(bad)?;
    let spelling = spelling(&json)
        .ok_or_else(|| bad("its decoder is neither byte-level nor SentencePiece's (hint: use a GGUF file)".into()))?;
    let build = |json: &Value| -> Result<Box<tokenizers::Tokenizer>> {
        serde_json::from_value(json.clone()).map(Box::new).map_err(|error| bad(error.to_string()))
    };
    let at_start = build(&json)?;
    let elsewhere = if never_prepend(&mut json["pre_tokenizer"]) { Some(build(&json)?) } else { None };

    let model = at_start.get_vocab(false);
    let ids: HashMap<&str, u32> = model
        .iter()
        .map(|(token, &id)| (token.as_str(), id))
        .chain(added.iter().map(|token| (token.content.as_str(), token.id)))
        .collect();
    let highest = ids.values().copied().max().ok_or_else(|| bad("its vocabulary is empty".into()))?;
    if highest > MAX_ID {
        return Err(bad(format!("a token has the id {highest}; at most {MAX_ID} is possible")));
    }
    let mut bytes = vec![Box::default(); highest as usize + 1];
    for (token, &id) in model.iter().filter(|(token, _)| !control.contains(token.as_str())) {
        bytes[id as usize] = spelling.bytes(token);
    }
    for token in added.iter().filter(|token| !token.special) {
        bytes[token.id as usize] = token.content.as_bytes().into();
    }

    let config: TokenizerConfig = read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
    let generation: GenerationConfig = read_json(&folder.join("generation_config.json"))?.unwrap_or_default();
    let id_of = |token: &Option<TokenText>| token.as_ref().and_then(|token| ids.get(token.text()).copied());
    let mut ends: Vec<u32> = id_of(&config.eos_token).into_iter().collect();
    match generation.eos_token_id {
        None => {}
        Some(EndIds::One(id)) => ends.push(id),
        Some(EndIds::Several(ids)) => ends.extend(ids),
    }
    let bos =
        id_of(&config.bos_token).filter(|&bos| config.add_bos_token.unwrap_or_else(|| begins_with(&at_start, bos)));
    let template = chat_template::source_of_folder(folder)?.map_or(String::new(), |(source, _)| source);
    let specials = added
        .into_iter()
        .map(|AddedToken { id, content, special, lstrip, rstrip, .. }| {
            let control = special || markup::is_of_template(&content, &template);
            Special { text: content, id, control, lstrip, rstrip }
        })
        .collect();
    Ok(Tokenizer::new(Splitter::Pipeline(at_start, elsewhere), Vocabulary { specials, bytes }, ends, bos))
}

/// Whether the file's own post-processing adds this token in front.
fn begins_with(pipeline: &tokenizers::Tokenizer, bos: u32) -> bool {
    pipeline.encode_fast("", true).is_ok_and(|encoding| encoding.get_ids().first() == Some(&bos))
}

/// The crate's builder panics on merges that make a token longer than any of the vocabulary.
fn check_merges(json: &Value) -> Result<(), String> {
    let model = &json["model"];
    let (Some(vocab), Some(merges)) = (model["vocab"].as_object(), model["merges"].as_array()) else { return Ok(()) };
    for merge in merges {
        let joined = match merge {
            Value::String(pair) => pair.replacen(' ', "", 1),
            other => other.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
        };
        if !vocab.contains_key(&joined) {
            return Err(format!("the merge {merge} makes a token that the vocabulary does not have"));
        }
    }
    Ok(())
}

/// The spelling of tokens follows from the decoder.
pub(super) fn spelling(json: &Value) -> Option<Spelling> {
    let decoder = json["decoder"].to_string();
    let has = |name: &str| decoder.contains(&format!("\"type\":\"{name}\""));
    if has("ByteLevel") {
        Some(Spelling::ByteLevel)
    } else if has("ByteFallback") || has("Metaspace") {
        Some(Spelling::SentencePiece)
    } else {
        None
    }
}

/// Turns "a space before the first word only" into "never", as after a control token. False if it said neither.
fn never_prepend(pre_tokenizer: &mut Value) -> bool {
    match pre_tokenizer {
        Value::Object(fields) => {
            let mut changed = false;
            for (key, value) in fields {
                if key == "prepend_scheme" && value == "first" {
                    *value = "never".into();
                    changed = true;
                } else {
                    changed |= never_prepend(value);
                }
            }
            changed
        }
        Value::Array(values) => values.iter_mut().fold(false, |changed, value| never_prepend(value) | changed),
        _ => false,
    }
}

/// A file's JSON; `None` where there is no such file.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::model_file(path, error.to_string()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, error)),
    }
}
