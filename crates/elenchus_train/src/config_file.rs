//! What all configurations in TOML share: errors that name file, line and field, and the words several of them use.

use std::{fs, num::NonZeroUsize, path::Path};

use elenchus_lm::Linear;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use toml::de::{DeTable, DeValue};

use crate::{Error, Result};

/// Reads a file of text.
///
/// # Errors
/// The file, and what the system says.
pub fn read_text(file: &Path) -> Result<String> {
    fs::read_to_string(file).map_err(|cause| Error::File { file: file.to_owned(), cause, hint: "" })
}

/// Reads a configuration's text; `file` is what errors call it, with the line.
pub fn parse<T: DeserializeOwned>(text: &str, file: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map(|span| span.start);
        let reason = with_suggestion(error.message());
        Error::Config {
            file: at.map_or_else(|| file.to_owned(), |at| format!("{file}:{}", line(text, at))),
            reason: match at.and_then(|at| field_at(DeTable::parse(text).ok()?.get_ref(), at)) {
                Some(field) => format!("`{field}`: {reason}"),
                None => reason,
            },
        }
    })
}

/// The same, checked for values that make no sense.
pub(crate) fn parse_checked<T: DeserializeOwned>(
    text: &str,
    file: &str,
    check: impl Fn(&T) -> Result<(), Misfit>,
) -> Result<T> {
    let config = parse(text, file)?;
    check(&config).map_err(|misfit| misfit.at(text, file))?;
    Ok(config)
}

/// A field with a value that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Its dotted name.
    pub field: &'static str,
    /// What is wrong with it, and the fix; continues a sentence that begins with the field's name.
    pub reason: String,
}

impl Misfit {
    /// The error, with the line that holds the field.
    pub fn at(self, text: &str, file: &str) -> Error {
        let Self { field, reason } = self;
        Error::Config {
            file: place(text, field).map_or_else(|| file.to_owned(), |at| format!("{file}:{}", line(text, at))),
            reason: format!("`{field}` {reason}"),
        }
    }
}

/// Counts, by the fields that hold them, of which none may be 0.
pub fn at_least_one(fields: &[(&'static str, u64)]) -> Result<(), Misfit> {
    match fields.iter().find(|(_, value)| *value == 0) {
        Some((field, _)) => Err(Misfit { field, reason: "is 0, expected at least 1".to_owned() }),
        None => Ok(()),
    }
}

/// Numbers that must be finite and above 0.
pub fn above_zero(fields: &[(&'static str, f64)]) -> Result<(), Misfit> {
    each(fields, |value| value.is_finite() && value > 0.0, "a number above 0")
}

/// Numbers that must be finite and not below 0.
pub fn not_negative(fields: &[(&'static str, f64)]) -> Result<(), Misfit> {
    each(fields, |value| value.is_finite() && value >= 0.0, "0 or more")
}

/// Shares of which something is left.
pub(crate) fn below_one(fields: &[(&'static str, f64)]) -> Result<(), Misfit> {
    each(fields, |value| (0.0..1.0).contains(&value), "0 or more and less than 1")
}

/// Shares that may be the whole.
pub fn at_most_one(fields: &[(&'static str, f64)]) -> Result<(), Misfit> {
    each(fields, |value| (0.0..=1.0).contains(&value), "0 or more and 1 at most")
}

fn each(fields: &[(&'static str, f64)], fits: fn(f64) -> bool, expected: &str) -> Result<(), Misfit> {
    match fields.iter().find(|(_, value)| !fits(*value)) {
        Some((field, value)) => Err(Misfit { field, reason: format!("is {value}, expected {expected}") }),
        None => Ok(()),
    }
}

/// The line of a place in a text, from 1.
fn line(text: &str, place: usize) -> usize {
    text.bytes().take(place).filter(|&byte| byte == b'\n').count() + 1
}

/// Where the value of a dotted field is written.
fn place(text: &str, field: &str) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let mut names = field.split('.');
    let mut value = table.get_ref().get(names.next()?)?;
    for name in names {
        let DeValue::Table(table) = value.get_ref() else { return None };
        value = table.get(name)?;
    }
    Some(value.span().start)
}

/// The dotted field whose value is written at a place.
fn field_at(table: &DeTable<'_>, place: usize) -> Option<String> {
    table.iter().find_map(|(name, value)| match value.get_ref() {
        DeValue::Table(table) => Some(format!("{}.{}", name.get_ref(), field_at(table, place)?)),
        _ => value.span().contains(&place).then(|| name.get_ref().to_string()),
    })
}

/// What serde says of an unknown name, with the known name that is nearest to it instead of all of them.
pub(crate) fn with_suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let nearest = quoted.next().filter(|_| message.starts_with("unknown ")).and_then(|unknown| {
        let likeness = |known: &&str| strsim::normalized_damerau_levenshtein(unknown, known);
        let nearest = quoted.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
        (likeness(&nearest) >= 0.5).then_some((unknown, nearest))
    });
    match (nearest, message.split_once(',')) {
        (Some((_, nearest)), Some((what, _))) => format!("{what} (hint: did you mean `{nearest}`?)"),
        _ => message.trim().to_owned(),
    }
}

pub(crate) fn yes() -> bool {
    true
}

pub(crate) fn four() -> NonZeroUsize {
    NonZeroUsize::new(4).unwrap_or(NonZeroUsize::MIN)
}

/// PEFT's word for every linear of a block.
const ALL_LINEAR: &str = "all-linear";

/// A name, or a list of names.
pub(crate) fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a list of linears, or \"all-linear\"")]
    enum Names {
        One(String),
        More(Vec<String>),
    }
    Ok(match Names::deserialize(deserializer)? {
        Names::One(name) => vec![name],
        Names::More(names) => names,
    })
}

/// Names of linears as linears.
pub(crate) fn linears(names: &[String]) -> Result<Vec<Linear>, String> {
    if names == [ALL_LINEAR] {
        return Ok(Linear::ALL.to_vec());
    }
    if names.is_empty() {
        return Err("is empty (hint: [\"q_proj\", \"v_proj\"])".to_owned());
    }
    let linear = |name: &String| {
        Linear::from_hf_name(name).ok_or_else(|| {
            let known: Vec<&str> = Linear::ALL.iter().map(|linear| linear.hf_name()).collect();
            format!("names `{name}` (hint: {}, or \"{ALL_LINEAR}\" alone)", known.join(", "))
        })
    };
    names.iter().map(linear).collect()
}
