//! GGUF files: metadata and tensors, read from a memory map without trusting a single number in it.

use std::path::Path;

use candle_core::quantized::GgmlDType;

use crate::{Result, mapped_file::MappedFile};

/// A parsed file; tensor data stays in the map.
#[derive(Debug)]
pub struct Gguf {
    file: MappedFile,
}

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any integer type.
    Int(i64),
    /// Unsigned 64-bit values above `i64::MAX` cannot occur in a file we accept.
    Float(f64),
    /// A flag.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// Values of one type.
    Array(Vec<Value>),
}

/// Where a tensor lies and what it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// Rows first: `[out_features, in_features]` (GGUF stores them the other way round).
    pub shape: Vec<usize>,
    /// Block type.
    pub dtype: GgmlDType,
    /// Byte offset from the start of the file.
    pub offset: usize,
    /// Length in bytes.
    pub bytes: usize,
}

impl Gguf {
    /// Maps and checks a file.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { file: MappedFile::open(path)? })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The whole file.
    pub fn file_bytes(&self) -> &[u8] {
        &self.file
    }

    /// All metadata in file order.
    pub fn metadata(&self) -> &[(String, Value)] {
        todo!()
    }

    /// A metadata value.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let _ = key;
        todo!()
    }

    /// An integer that must be there.
    pub fn usize(&self, key: &str) -> Result<usize> {
        let _ = key;
        todo!()
    }

    /// A float that must be there.
    pub fn f32(&self, key: &str) -> Result<f32> {
        let _ = key;
        todo!()
    }

    /// A text that must be there.
    pub fn str(&self, key: &str) -> Result<&str> {
        let _ = key;
        todo!()
    }

    /// All tensors in file order.
    pub fn tensors(&self) -> &[(String, TensorInfo)] {
        todo!()
    }

    /// A tensor's description and bytes.
    pub fn tensor(&self, name: &str) -> Option<(&TensorInfo, &[u8])> {
        let _ = name;
        todo!()
    }
}
