//! A tokenizer from the `tokenizer.ggml.*` keys, read as llama.cpp reads them.

use std::collections::{HashMap, HashSet};

use tokenizers::{
    models::bpe::{BPE, Vocab},
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
    tokenizer::SplitDelimiterBehavior,
};

use super::{
    Special, Spelling, Splitter, Tokenizer, Vocabulary, byte_token, lines::Lines, markup, pre_tokenizers::PreTokenizer,
    sentencepiece::SentencePiece, wordpiece::WordPiece,
};
use crate::{
    Error, Result,
    gguf::{Gguf, Value},
};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";

/// What a token is. Source: `llama_token_type` in llama.h.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TokenType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// What kind of tokenizer a file has, by its name there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// BPE over the letters of bytes.
    Gpt2,
    /// SentencePiece.
    Llama,
    /// BPE over letters.
    Gemma4,
    /// Words and their parts.
    Bert,
}

const KINDS: [(&str, Kind); 4] =
    [("gpt2", Kind::Gpt2), ("llama", Kind::Llama), ("gemma4", Kind::Gemma4), ("bert", Kind::Bert)];

/// Reads and checks a vocabulary.
pub fn read(gguf: &Gguf) -> Result<Tokenizer> {
    let tokens: Vec<&str> = typed_array(gguf, TOKENS, "texts", |value| match value {
        Value::String(text) => Some(text.as_str()),
        _ => None,
    })?;
    let types = token_types(gguf, &tokens)?;
    let kind = gguf.str(MODEL)?;
    let Some(&(_, kind)) = KINDS.iter().find(|(name, _)| *name == kind) else {
        let names = KINDS.map(|(name, _)| name).join(", ");
        return Err(Error::Unsupported {
            what: format!("{}: tokenizer model `{kind}` (`{MODEL}`)", gguf.path().display()),
            hint: format!("{names} can be read"),
        });
    };
    let (splitter, add_bos) = match kind {
        Kind::Gpt2 => byte_level(gguf, &tokens, &types)?,
        Kind::Llama => (sentencepiece(gguf, &tokens, &types)?, true),
        Kind::Gemma4 => (lines(gguf, &tokens, &types)?, true),
        Kind::Bert => (wordpiece(gguf, &tokens, &types)?, true),
    };
    let spelling = if kind == Kind::Gpt2 { Spelling::ByteLevel } else { Spelling::SentencePiece };
    let vocabulary = vocabulary(gguf, &tokens, &types, spelling);

    let mut ends = Vec::new();
    for name in ["eos", "eot", "eom"] {
        ends.extend(token_id(gguf, &format!("tokenizer.ggml.{name}_token_id"), tokens.len())?);
    }
    if kind == Kind::Llama && ends.is_empty() && tokens.len() > 2 {
        ends.push(2);
    }
    let add_bos = match kind {
        // Its first files say false, which was a mistake.
        Kind::Gemma4 => true,
        _ => gguf.bool_or("tokenizer.ggml.add_bos_token", add_bos)?,
    };
    // Where a file does not name it, these kinds have it in a fixed place.
    let place = match kind {
        Kind::Llama => Some(1),
        Kind::Bert => Some(101),
        Kind::Gpt2 | Kind::Gemma4 => None,
    };
    let bos = match add_bos {
        false => None,
        true => {
            let bos = token_id(gguf, BOS, tokens.len())?.or(place.filter(|&id| (id as usize) < tokens.len()));
            Some(bos.ok_or_else(|| {
                Error::model_file(gguf.path(), format!("a begin token is to be added, but `{BOS}` is missing"))
            })?)
        }
    };
    Ok(Tokenizer::new(splitter, vocabulary, ends, bos))
}

/// The types of the tokens; all are normal if the file has none. Known markup is of type control, whatever is said.
fn token_types(gguf: &Gguf, tokens: &[&str]) -> Result<Vec<TokenType>> {
    let mut types = match gguf.get(TYPES) {
        None => vec![TokenType::Normal; tokens.len()],
        Some(_) => typed_array(gguf, TYPES, "token types from 0 to 6", |value| match value {
            Value::Int(1) => Some(TokenType::Normal),
            Value::Int(2) => Some(TokenType::Unknown),
            Value::Int(3) => Some(TokenType::Control),
            Value::Int(4) => Some(TokenType::UserDefined),
            Value::Int(0 | 5) => Some(TokenType::Unused),
            Value::Int(6) => Some(TokenType::Byte),
            _ => None,
        })?,
    };
    same_length(gguf, TYPES, types.len(), tokens.len())?;
    let all: HashSet<&str> = tokens.iter().copied().collect();
    let known: HashSet<&str> = markup::controls(|name| all.contains(name)).into_iter().collect();
    for (token, token_type) in tokens.iter().zip(&mut types) {
        if known.contains(token) {
            *token_type = TokenType::Control;
        }
    }
    Ok(types)
}

/// What each token is in a text, and the bytes it stands for.
fn vocabulary(gguf: &Gguf, tokens: &[&str], types: &[TokenType], spelling: Spelling) -> Vocabulary {
    let template = match gguf.get("tokenizer.chat_template") {
        Some(Value::String(template)) => template.as_str(),
        _ => "",
    };
    // Phi-3's markup takes the white space after it, which no key says. Source: `LLAMA_TOKEN_ATTR_RSTRIP` in llama.cpp.
    let strips = match gguf.get("general.name") {
        Some(Value::String(name)) => ["phi-3", "phi3"].iter().any(|phi| name.to_lowercase().contains(phi)),
        _ => false,
    };
    let mut vocabulary = Vocabulary::default();
    for ((&token, &token_type), id) in tokens.iter().zip(types).zip(0u32..) {
        let control = matches!(token_type, TokenType::Control | TokenType::Unknown);
        let plain_markup = || token_type == TokenType::Normal && markup::is_of_template_though_plain(token, template);
        if control || token_type == TokenType::UserDefined || plain_markup() {
            vocabulary.specials.push(Special {
                text: token.to_owned(),
                id,
                control: control || markup::is_of_template(token, template),
                lstrip: false,
                rstrip: strips && !["<unk>", "<s>", "<|endoftext|>"].contains(&token),
            });
        }
        vocabulary.bytes.push(match token_type {
            TokenType::Control | TokenType::Unknown => Box::default(),
            TokenType::UserDefined if spelling == Spelling::ByteLevel => token.as_bytes().into(),
            TokenType::UserDefined | TokenType::Normal | TokenType::Unused | TokenType::Byte => spelling.bytes(token),
        });
    }
    vocabulary
}

/// BPE over bytes; the flag says whether such a model begins its prompts with a begin token by default.
fn byte_level(gguf: &Gguf, tokens: &[&str], types: &[TokenType]) -> Result<(Splitter, bool)> {
    if gguf.get(PRE).is_none() {
        let reason = format!(
            "`{PRE}` is missing: the file does not say how it splits text (hint: files from before May 2024 do not; \
             download a newer one, or convert the model again)"
        );
        return Err(Error::model_file(gguf.path(), reason));
    }
    let name = gguf.str(PRE)?;
    let pre = PreTokenizer::named(name).ok_or_else(|| Error::Unsupported {
        what: format!("{}: pre-tokenizer `{name}` (`{PRE}`)", gguf.path().display()),
        hint: format!("{} can be read", PreTokenizer::all_names()),
    })?;
    let model = bpe(gguf, tokens, types, pre.ignore_merges, false)?;
    let mut steps = Vec::new();
    for &pattern in pre.patterns {
        let pattern = SplitPattern::Regex(pattern.into());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
        steps.push(split.map_err(|error| crate_error(gguf, &error))?.into());
    }
    steps.push(ByteLevel::new(false, false, false).into());
    let mut pipeline = tokenizers::Tokenizer::new(model);
    pipeline.with_pre_tokenizer(Some(Sequence::new(steps)));
    Ok((Splitter::Pipeline(Box::new(pipeline), None), pre.add_bos))
}

fn lines(gguf: &Gguf, tokens: &[&str], types: &[TokenType]) -> Result<Splitter> {
    let breaks = tokens.iter().zip(types).zip(0..).filter(|((token, token_type), _)| {
        **token_type == TokenType::Normal && !token.is_empty() && token.bytes().all(|byte| byte == b'\n')
    });
    let breaks = breaks.map(|((token, _), id)| (token.len(), id)).collect();
    Ok(Splitter::Lines(Lines::new(bpe(gguf, tokens, types, false, true)?, breaks)))
}

fn wordpiece(gguf: &Gguf, tokens: &[&str], types: &[TokenType]) -> Result<Splitter> {
    let unknown = token_id(gguf, "tokenizer.ggml.unknown_token_id", tokens.len())?.unwrap_or(100);
    let lowercase = gguf.bool_or("tokenizer.ggml.normalizer.lowercase", true)?;
    let strip_accents = gguf.bool_or("tokenizer.ggml.normalizer.strip_accents", lowercase)?;
    let words = tokens.iter().zip(types).zip(0..).filter(|((_, token_type), _)| is_text(**token_type));
    let words: HashMap<String, u32> = words.map(|((token, _), id)| (token.to_string(), id)).collect();
    Ok(Splitter::WordPiece(WordPiece::new(words, unknown, lowercase, strip_accents)))
}

/// Whether plain text can become such a token.
fn is_text(token_type: TokenType) -> bool {
    !matches!(token_type, TokenType::Control | TokenType::Unknown)
}

/// The merges of a vocabulary.
fn bpe(gguf: &Gguf, tokens: &[&str], types: &[TokenType], ignore_merges: bool, byte_fallback: bool) -> Result<BPE> {
    // Control tokens are left out of the model, so that no plain text can become one.
    let vocab: Vocab = tokens
        .iter()
        .zip(types)
        .zip(0..)
        .filter(|((_, token_type), _)| is_text(**token_type))
        .map(|((token, _), id)| (token.to_string(), id))
        .collect();
    let controls: HashSet<&str> =
        tokens.iter().zip(types).filter(|(_, token_type)| !is_text(**token_type)).map(|(token, _)| *token).collect();
    let pairs: Vec<&str> = typed_array(gguf, MERGES, "texts", |value| match value {
        Value::String(text) => Some(text.as_str()),
        _ => None,
    })?;
    let mut merges = Vec::with_capacity(pairs.len());
    for (number, pair) in pairs.into_iter().enumerate() {
        // The letter for a space is `Ġ`: a blank can only be the separator, and neither side is empty.
        let (left, right) =
            pair.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty()).ok_or_else(|| {
                Error::model_file(gguf.path(), format!("`{MERGES}` {number} is {pair:?}, not two tokens and a blank"))
            })?;
        // The crate's builder would panic on some of these.
        let joined = format!("{left}{right}");
        if [left, right, &joined].iter().any(|token| controls.contains(token)) {
            continue;
        }
        for token in [left, right, &joined] {
            if !vocab.contains_key(token) {
                let reason = format!("`{MERGES}` {number} is {pair:?}, but the vocabulary has no `{token}`");
                return Err(Error::model_file(gguf.path(), reason));
            }
        }
        merges.push((left.to_owned(), right.to_owned()));
    }
    // The crate's cache lives per thread and outlives the tokenizer.
    BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(ignore_merges)
        .byte_fallback(byte_fallback)
        .cache_capacity(0)
        .build()
        .map_err(|error| crate_error(gguf, &error))
}

fn crate_error(gguf: &Gguf, error: &tokenizers::Error) -> Error {
    Error::Tokenizer(format!("{}: {error}", gguf.path().display()))
}

fn sentencepiece(gguf: &Gguf, tokens: &[&str], types: &[TokenType]) -> Result<Splitter> {
    let scores = typed_array(gguf, SCORES, "numbers", |value| match value {
        Value::Float(score) => Some(*score as f32),
        Value::Int(score) => Some(*score as f32),
        _ => None,
    })?;
    same_length(gguf, SCORES, scores.len(), tokens.len())?;
    let of_type = |wanted: fn(TokenType) -> bool| {
        tokens.iter().zip(types).zip(0u32..).filter(move |((_, t), _)| wanted(**t)).map(|((token, _), id)| (*token, id))
    };
    let mut bytes = [None; 256];
    for (token, id) in of_type(|token_type| token_type == TokenType::Byte) {
        let byte = byte_token(token).ok_or_else(|| {
            Error::model_file(
                gguf.path(),
                format!("token {id} is of type byte, but is `{token}`, not `<0x00>` to `<0xFF>`"),
            )
        })?;
        bytes[usize::from(byte)] = Some(id);
    }
    if let Some(byte) = bytes.iter().position(Option::is_none) {
        return Err(Error::model_file(gguf.path(), format!("`{TOKENS}` has no token for the byte <0x{byte:02X}>")));
    }
    let ids =
        of_type(|token_type| matches!(token_type, TokenType::Normal | TokenType::UserDefined | TokenType::Unused));
    Ok(Splitter::SentencePiece(SentencePiece {
        ids: ids.map(|(token, id)| (token.to_owned(), id)).collect(),
        scores,
        bytes: Box::new(bytes.map(Option::unwrap_or_default)),
        add_space_prefix: gguf.bool_or("tokenizer.ggml.add_space_prefix", true)?,
    }))
}

fn token_id(gguf: &Gguf, key: &str, vocab_size: usize) -> Result<Option<u32>> {
    if gguf.get(key).is_none() {
        return Ok(None);
    }
    let id = gguf.usize(key)?;
    if id >= vocab_size {
        return Err(Error::model_file(gguf.path(), format!("`{key}` is {id}, but there are {vocab_size} tokens")));
    }
    Ok(Some(id as u32))
}

fn typed_array<'a, T>(gguf: &'a Gguf, key: &str, what: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Vec<T>> {
    let values = gguf.array(key)?;
    let read_at = |(at, value): (usize, &'a Value)| {
        read(value).ok_or_else(|| {
            Error::model_file(gguf.path(), format!("`{key}` should hold {what}, but entry {at} is {value:?}"))
        })
    };
    values.iter().enumerate().map(read_at).collect()
}

fn same_length(gguf: &Gguf, key: &str, length: usize, tokens: usize) -> Result<()> {
    if length == tokens {
        return Ok(());
    }
    Err(Error::model_file(gguf.path(), format!("`{key}` has {length} entries for {tokens} tokens")))
}
