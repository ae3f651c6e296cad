//! A tokenizer from the `tokenizer.ggml.*` keys, read as llama.cpp reads them.

use tokenizers::{
    models::bpe::{BPE, Vocab},
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
    tokenizer::SplitDelimiterBehavior,
};

use super::{Special, Spelling, Splitter, Tokenizer, Vocabulary, byte_token, sentencepiece::SentencePiece};
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

/// GPT-2's words. Its last alternative, a single space before a word that takes none, is what no alternative matches.
const GPT2_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";

/// How text is split into words before merging: each pattern cuts what the one before left.
struct PreTokenizer {
    names: &'static [&'static str],
    patterns: &'static [&'static str],
    /// A word that is a token is taken whole.
    ignore_merges: bool,
    add_bos: bool,
}

/// Source: `llama_vocab::impl::load` and `llm_tokenizer_bpe` in llama.cpp's `llama-vocab.cpp`.
const PRE_TOKENIZERS: [PreTokenizer; 4] = [
    PreTokenizer { names: &["smollm"], patterns: &[r"\p{N}", GPT2_WORDS], ignore_merges: false, add_bos: false },
    PreTokenizer { names: &["gpt-2"], patterns: &[GPT2_WORDS], ignore_merges: false, add_bos: false },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3"],
        patterns: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignore_merges: true,
        add_bos: true,
    },
    PreTokenizer {
        names: &["default"],
        patterns: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2_WORDS, r"\p{N}+", "[0-9][0-9][0-9]"],
        ignore_merges: false,
        add_bos: false,
    },
];

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

/// Reads and checks a vocabulary.
pub fn read(gguf: &Gguf) -> Result<Tokenizer> {
    let tokens: Vec<&str> = typed_array(gguf, TOKENS, "texts", |value| match value {
        Value::String(text) => Some(text.as_str()),
        _ => None,
    })?;
    let types = typed_array(gguf, TYPES, "token types from 1 to 6", |value| match value {
        Value::Int(1) => Some(TokenType::Normal),
        Value::Int(2) => Some(TokenType::Unknown),
        Value::Int(3) => Some(TokenType::Control),
        Value::Int(4) => Some(TokenType::UserDefined),
        Value::Int(5) => Some(TokenType::Unused),
        Value::Int(6) => Some(TokenType::Byte),
        _ => None,
    })?;
    same_length(gguf, TYPES, types.len(), tokens.len())?;

    let (splitter, spelling, add_bos) = match gguf.str(MODEL)? {
        "gpt2" => {
            let (splitter, add_bos) = byte_level(gguf, &tokens, &types)?;
            (splitter, Spelling::ByteLevel, add_bos)
        }
        "llama" => (sentencepiece(gguf, &tokens, &types)?, Spelling::SentencePiece, true),
        other => {
            return Err(Error::Unsupported {
                what: format!("{}: tokenizer model `{other}`", gguf.path().display()),
                hint: "files with a `gpt2` (byte-level BPE) or `llama` (SentencePiece) tokenizer can be read".into(),
            });
        }
    };
    let mut vocabulary = Vocabulary::default();
    for ((token, token_type), id) in tokens.iter().zip(types).zip(0u32..) {
        let control = matches!(token_type, TokenType::Control | TokenType::Unknown);
        if control || token_type == TokenType::UserDefined {
            vocabulary.specials.push(Special { text: token.to_string(), id, control });
        }
        vocabulary.bytes.push(match token_type {
            TokenType::Control | TokenType::Unknown => Box::default(),
            TokenType::UserDefined if spelling == Spelling::ByteLevel => token.as_bytes().into(),
            TokenType::UserDefined | TokenType::Normal | TokenType::Unused | TokenType::Byte => spelling.bytes(token),
        });
    }
    let mut ends = Vec::new();
    for name in ["eos", "eot", "eom"] {
        ends.extend(token_id(gguf, &format!("tokenizer.ggml.{name}_token_id"), tokens.len())?);
    }
    let bos = match gguf.bool_or("tokenizer.ggml.add_bos_token", add_bos)? {
        false => None,
        true => Some(token_id(gguf, BOS, tokens.len())?.ok_or_else(|| {
            Error::model_file(gguf.path(), format!("a begin token is to be added, but `{BOS}` is missing"))
        })?),
    };
    Ok(Tokenizer::new(splitter, vocabulary, ends, bos))
}

/// BPE over bytes; the flag says whether such a model begins its prompts with a begin token unless told otherwise.
fn byte_level(gguf: &Gguf, tokens: &[&str], types: &[TokenType]) -> Result<(Splitter, bool)> {
    let name = gguf.str(PRE)?;
    let pre = PRE_TOKENIZERS.iter().find(|pre| pre.names.contains(&name)).ok_or_else(|| Error::Unsupported {
        what: format!("{}: pre-tokenizer `{name}` (`{PRE}`)", gguf.path().display()),
        hint: format!("{} can be read", PRE_TOKENIZERS.map(|pre| pre.names.join(", ")).join(", ")),
    })?;
    // Control tokens are left out of the model, so that no plain text can become one.
    let vocab: Vocab = tokens
        .iter()
        .zip(types)
        .zip(0..)
        .filter(|((_, token_type), _)| !matches!(token_type, TokenType::Control | TokenType::Unknown))
        .map(|((token, _), id)| (token.to_string(), id))
        .collect();
    let pairs: Vec<&str> = typed_array(gguf, MERGES, "texts", |value| match value {
        Value::String(text) => Some(text.as_str()),
        _ => None,
    })?;
    let mut merges = Vec::with_capacity(pairs.len());
    for (number, pair) in pairs.into_iter().enumerate() {
        // The letter of a space is `Ġ`: a blank can only be the separator, and neither side is empty.
        let (left, right) =
            pair.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty()).ok_or_else(|| {
                Error::model_file(gguf.path(), format!("`{MERGES}` {number} is {pair:?}, not two tokens and a blank"))
            })?;
        // The crate's builder would panic on some of these.
        for token in [left, right, &format!("{left}{right}")] {
            if !vocab.contains_key(token) {
                let reason = format!("`{MERGES}` {number} is {pair:?}, but the vocabulary has no `{token}`");
                return Err(Error::model_file(gguf.path(), reason));
            }
        }
        merges.push((left.to_owned(), right.to_owned()));
    }
    let crate_error = |error: tokenizers::Error| Error::Tokenizer(format!("{}: {error}", gguf.path().display()));
    // The crate's cache lives per thread and outlives the tokenizer.
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(pre.ignore_merges)
        .cache_capacity(0)
        .build()
        .map_err(crate_error)?;
    let mut steps = Vec::new();
    for &pattern in pre.patterns {
        let pattern = SplitPattern::Regex(pattern.into());
        steps.push(Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(crate_error)?.into());
    }
    steps.push(ByteLevel::new(false, false, false).into());
    let mut pipeline = tokenizers::Tokenizer::new(model);
    pipeline.with_pre_tokenizer(Some(Sequence::new(steps)));
    Ok((Splitter::Pipeline(Box::new(pipeline), None), pre.add_bos))
}

fn sentencepiece(gguf: &Gguf, tokens: &[&str], types: &[TokenType]) -> Result<Splitter> {
    let scores = typed_array(gguf, SCORES, "floats", |value| match value {
        Value::Float(score) => Some(*score as f32),
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
