//! Writes GGUF version 3, for test models, exported adapters and quantised models: the tensors from memory or as they are
//! made, then one atomic replacement.

use std::{io, path::Path};

use super::{DEFAULT_ALIGNMENT, MAGIC, MAX_DIMS, Value, tensor_bytes, value_type};
use crate::{BlockType, Error, Result};

/// A file under construction: metadata and tensors in the order they were added.
#[derive(Debug, Default)]
pub struct GgufWriter {
    metadata: Vec<(String, Value)>,
    tensors: Vec<(String, Vec<usize>, BlockType, Vec<u8>)>,
}

impl GgufWriter {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metadata value. Integers are written as `u32` where they fit (as `i32` or `i64` otherwise), those of an
    /// array as `i32` first, floats as `f32`.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) -> &mut Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Adds a tensor; `shape` is rows first, `bytes` its blocks row by row.
    pub fn tensor(&mut self, name: impl Into<String>, shape: &[usize], dtype: BlockType, bytes: Vec<u8>) -> &mut Self {
        self.tensors.push((name.into(), shape.to_vec(), dtype, bytes));
        self
    }

    /// Adds a tensor whose bytes [`Self::write_streamed`] asks for.
    pub fn declare(&mut self, name: impl Into<String>, shape: &[usize], dtype: BlockType) -> &mut Self {
        self.tensor(name, shape, dtype, Vec::new())
    }

    /// Removes a tensor.
    #[cfg(test)]
    pub(crate) fn remove_tensor(&mut self, name: &str) {
        self.tensors.retain(|(other, ..)| other != name);
    }

    /// Removes a metadata value.
    #[cfg(test)]
    pub(crate) fn remove(&mut self, key: &str) {
        self.metadata.retain(|(other, _)| other != key);
    }

    /// Sets a metadata value, replacing an existing one.
    #[cfg(test)]
    pub(crate) fn replace(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.remove(key);
        self.set(key, value)
    }

    /// Writes the file under a temporary name and renames it. Fails on a tensor whose bytes do not match its shape, and
    /// on arrays of mixed types.
    pub fn write(&self, path: &Path) -> Result<()> {
        let bytes = self.to_bytes().map_err(|reason| Error::model_file(path, reason))?;
        crate::write_whole(path, &bytes).map_err(|source| Error::io(path, source))
    }

    /// [`Self::write`] with the bytes of each tensor, by its number, made when they are written.
    pub fn write_streamed(&self, path: &Path, bytes: &mut dyn FnMut(usize) -> Result<Vec<u8>>) -> Result<()> {
        let bad = |reason: String| Error::model_file(path, reason);
        let header = self.header().map_err(bad)?;
        /// Tells an error of the file from one of what is written to it.
        enum Failure {
            File(io::Error),
            Bytes(Error),
        }
        impl From<io::Error> for Failure {
            fn from(error: io::Error) -> Self {
                Self::File(error)
            }
        }
        let written = crate::whole_file::write_whole_by(path, |file| {
            file.write_all(&header)?;
            file.write_all(&padding(header.len()))?;
            for (index, (name, shape, dtype, _)) in self.tensors.iter().enumerate() {
                let bytes = bytes(index).map_err(Failure::Bytes)?;
                check_length(name, shape, *dtype, &bytes).map_err(|reason| Failure::Bytes(bad(reason)))?;
                file.write_all(&bytes)?;
                if index + 1 < self.tensors.len() {
                    file.write_all(&padding(bytes.len()))?;
                }
            }
            Ok(())
        });
        written.map_err(|failure| match failure {
            Failure::File(source) => Error::io(path, source),
            Failure::Bytes(error) => error,
        })
    }

    /// The file's bytes.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let mut out = self.header()?;
        for (name, shape, dtype, bytes) in &self.tensors {
            check_length(name, shape, *dtype, bytes)?;
            out.resize(out.len().next_multiple_of(DEFAULT_ALIGNMENT), 0);
            out.extend_from_slice(bytes);
        }
        Ok(out)
    }

    /// All before the data of tensors.
    fn header(&self) -> Result<Vec<u8>, String> {
        let mut out = MAGIC.to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_str(&mut out, key);
            let value_type = type_of(value);
            out.extend(value_type.to_le_bytes());
            put_value(&mut out, value, value_type).map_err(|reason| format!("metadata `{key}`: {reason}"))?;
        }
        let mut offset = 0;
        for (name, shape, dtype, _) in &self.tensors {
            let bytes = tensor_bytes(shape, *dtype).map_err(|reason| format!("tensor `{name}`: {reason}"))?;
            if shape.len() > MAX_DIMS {
                return Err(format!("tensor `{name}` has {} dimensions; {MAX_DIMS} are possible", shape.len()));
            }
            put_str(&mut out, name);
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().rev().for_each(|&dim| out.extend((dim as u64).to_le_bytes()));
            out.extend(dtype.number().to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += bytes.next_multiple_of(DEFAULT_ALIGNMENT);
        }
        Ok(out)
    }
}

fn check_length(name: &str, shape: &[usize], dtype: BlockType, bytes: &[u8]) -> Result<(), String> {
    let expected = tensor_bytes(shape, dtype).map_err(|reason| format!("tensor `{name}`: {reason}"))?;
    if bytes.len() == expected {
        return Ok(());
    }
    Err(format!("tensor `{name}` of {shape:?} {dtype:?} takes {expected} bytes, {} were given", bytes.len()))
}

/// Zeros up to where the next tensor may begin.
fn padding(length: usize) -> Vec<u8> {
    vec![0; length.next_multiple_of(DEFAULT_ALIGNMENT) - length]
}

/// The narrowest of the types that GGUF readers expect.
fn type_of(value: &Value) -> u32 {
    match value {
        Value::Int(int) if u32::try_from(*int).is_ok() => value_type::U32,
        Value::Int(int) if i32::try_from(*int).is_ok() => value_type::I32,
        Value::Int(_) => value_type::I64,
        Value::Float(_) => value_type::F32,
        Value::Bool(_) => value_type::BOOL,
        Value::String(_) => value_type::STRING,
        Value::Array(_) => value_type::ARRAY,
    }
}

fn put_value(out: &mut Vec<u8>, value: &Value, as_type: u32) -> Result<(), String> {
    match (value, as_type) {
        (Value::Int(int), value_type::U32) => out.extend((*int as u32).to_le_bytes()),
        (Value::Int(int), value_type::I32) => out.extend((*int as i32).to_le_bytes()),
        (Value::Int(int), value_type::I64) => out.extend(int.to_le_bytes()),
        (Value::Float(float), value_type::F32) => out.extend((*float as f32).to_le_bytes()),
        (Value::Bool(flag), value_type::BOOL) => out.push(u8::from(*flag)),
        (Value::String(text), value_type::STRING) => put_str(out, text),
        (Value::Array(values), value_type::ARRAY) => {
            let element = array_type(values);
            out.extend(element.to_le_bytes());
            out.extend((values.len() as u64).to_le_bytes());
            for value in values {
                put_value(out, value, element)?;
            }
        }
        (value, _) => return Err(format!("an array of one type also holds {}", value.kind())),
    }
    Ok(())
}

fn array_type(values: &[Value]) -> u32 {
    let all = |fits: fn(i64) -> bool| values.iter().all(|value| matches!(value, Value::Int(int) if fits(*int)));
    match values.first() {
        None => value_type::STRING,
        // llama.cpp accepts token types only as `i32`.
        Some(Value::Int(_)) if all(|int| i32::try_from(int).is_ok()) => value_type::I32,
        Some(Value::Int(_)) if all(|int| u32::try_from(int).is_ok()) => value_type::U32,
        Some(Value::Int(_)) => value_type::I64,
        Some(other) => type_of(other),
    }
}

fn put_str(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

impl From<i64> for Value {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<f32> for Value {
    fn from(float: f32) -> Self {
        Self::Float(float.into())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        Self::Array(values.into_iter().map(Into::into).collect())
    }
}
