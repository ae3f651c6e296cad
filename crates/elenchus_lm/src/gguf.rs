//! GGUF files: metadata and tensors, read from a memory map without trusting a single number in it.
//!
//! Every count is checked against the bytes that are left before anything is allocated, and tensors must lie where
//! llama.cpp's writer puts them: one after the other, in the order of their descriptions. A damaged header is an error
//! or, where the damage cannot be seen, another well-formed file; it never panics.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::{collections::HashSet, ops::Range, path::Path};

pub use self::writer::GgufWriter;
use crate::{BlockType, Error, Result, mapped_file::MappedFile};

mod split;
mod writer;

const MAGIC: [u8; 4] = *b"GGUF";
const DEFAULT_ALIGNMENT: usize = 32;
const MAX_DIMS: usize = 4;
const MAX_ARRAY_DEPTH: usize = 4;
/// The longest texts of real files are chat templates of some 10 kB.
const MAX_STRING_BYTES: usize = 1 << 24;
/// All metadata values together; a vocabulary of 256k tokens with types, scores and merges has about a million.
const MAX_VALUES: usize = 1 << 23;

/// A parsed file, or all files of a split one; tensor data stays in the maps.
#[derive(Debug)]
pub struct Gguf {
    /// One, or the parts of a split model in order.
    files: Vec<MappedFile>,
    /// The first file's metadata, and the tensors of all.
    header: Header,
}

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any integer type. Unsigned values above `i64::MAX` are refused at parsing.
    Int(i64),
    /// Either float type.
    Float(f64),
    /// A flag.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// Values of one type.
    Array(Vec<Value>),
}

/// A tensor's place and contents.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// Rows first: `[out_features, in_features]` (GGUF stores them the other way round).
    pub shape: Vec<usize>,
    /// Block type.
    pub dtype: BlockType,
    /// Which file of a split model it lies in; 0 for the first.
    pub part: usize,
    /// Byte offset from the start of that file.
    pub offset: usize,
    /// Length in bytes.
    pub bytes: usize,
}

impl Gguf {
    /// Maps and checks a file; of a split model all files, by the name of the first: `name-00001-of-00003.gguf`.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, header) = open_one(path)?;
        match split::Split::of(path, &header.metadata)? {
            None => Ok(Self { files: vec![file], header }),
            Some(split) => split.open_others(file, header),
        }
    }

    /// The file's path; the first one's of a split model.
    pub fn path(&self) -> &Path {
        self.files[0].path()
    }

    /// The whole file, or each file of a split model.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.files.iter().map(|file| &**file)
    }

    /// All metadata in file order.
    pub fn metadata(&self) -> &[(String, Value)] {
        &self.header.metadata
    }

    /// A metadata value.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.header.metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// An integer that must be present.
    pub fn usize(&self, key: &str) -> Result<usize> {
        match self.need(key)? {
            Value::Int(int) => usize::try_from(*int)
                .map_err(|_| Error::model_file(self.path(), format!("`{key}` is {int}, which cannot be a size"))),
            other => Err(self.wrong_type(key, "an integer", other)),
        }
    }

    /// A float that must be present.
    pub fn f32(&self, key: &str) -> Result<f32> {
        match self.need(key)? {
            Value::Float(float) => Ok(*float as f32),
            other => Err(self.wrong_type(key, "a float", other)),
        }
    }

    /// A text that must be present.
    pub fn str(&self, key: &str) -> Result<&str> {
        match self.need(key)? {
            Value::String(text) => Ok(text),
            other => Err(self.wrong_type(key, "a text", other)),
        }
    }

    /// A flag, or `default` where the key is absent.
    pub(crate) fn bool_or(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong_type(key, "a flag", other)),
        }
    }

    /// An array that must be present.
    pub(crate) fn array(&self, key: &str) -> Result<&[Value]> {
        match self.need(key)? {
            Value::Array(values) => Ok(values),
            other => Err(self.wrong_type(key, "an array", other)),
        }
    }

    /// All tensors in file order.
    pub fn tensors(&self) -> &[(String, TensorInfo)] {
        &self.header.tensors
    }

    /// A tensor's description and bytes.
    pub fn tensor(&self, name: &str) -> Option<(&TensorInfo, &[u8])> {
        let (_, info) = self.header.tensors.iter().find(|(other, _)| other == name)?;
        Some((info, &self.files[info.part][info.byte_range()]))
    }

    fn need(&self, key: &str) -> Result<&Value> {
        self.get(key).ok_or_else(|| {
            Error::model_file(self.path(), format!("`{key}` is missing (hint: is this a complete language model?)"))
        })
    }

    pub(crate) fn wrong_type(&self, key: &str, expected: &str, found: &Value) -> Error {
        Error::model_file(self.path(), format!("`{key}` should be {expected} but is {}", found.kind()))
    }
}

/// Maps and checks one file.
fn open_one(path: &Path) -> Result<(MappedFile, Header)> {
    let file = MappedFile::open(path)?;
    let header = Header::parse(&file).map_err(|reason| Error::model_file(path, reason))?;
    Ok((file, header))
}

impl Value {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Int(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a flag",
            Self::String(_) => "a text",
            Self::Array(_) => "an array",
        }
    }
}

impl TensorInfo {
    fn byte_range(&self) -> Range<usize> {
        self.offset..self.offset + self.bytes
    }
}

/// The size of a tensor in bytes, or why it is impossible. `shape` is rows first.
fn tensor_bytes(shape: &[usize], dtype: BlockType) -> Result<usize, String> {
    let row = *shape.last().ok_or("it has no dimension")?;
    if !row.is_multiple_of(dtype.block_size()) {
        return Err(format!("its rows of {row} are no multiple of the block size {} of {dtype:?}", dtype.block_size()));
    }
    shape
        .iter()
        .try_fold(1usize, |product, &dim| product.checked_mul(dim))
        .and_then(|elements| (elements / dtype.block_size()).checked_mul(dtype.type_size()))
        .ok_or_else(|| format!("its shape {shape:?} is absurdly large"))
}

/// GGUF's numbers of value types.
mod value_type {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;

    /// The fewest bytes a value takes in the file.
    pub fn min_bytes(value_type: u32) -> Result<usize, String> {
        match value_type {
            U8 | I8 | BOOL => Ok(1),
            U16 | I16 => Ok(2),
            U32 | I32 | F32 => Ok(4),
            U64 | I64 | F64 | STRING => Ok(8),
            ARRAY => Ok(12),
            other => Err(format!("it has the unknown value type {other}")),
        }
    }
}

/// The part before the tensor data, parsed and checked against the file's length.
#[derive(Debug, PartialEq)]
struct Header {
    metadata: Vec<(String, Value)>,
    tensors: Vec<(String, TensorInfo)>,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.starts_with(b"version https://git-lfs") {
            return Err("it is a pointer of Git LFS, not the file itself (hint: `git lfs pull`)".into());
        }
        if !bytes.starts_with(&MAGIC) {
            return Err("it does not start with `GGUF` (hint: not a model file, or a download's error page)".into());
        }
        let mut reader = Reader { bytes, at: MAGIC.len(), values_left: MAX_VALUES };
        match reader.u32()? {
            2 | 3 => {}
            1 => return Err("GGUF version 1 is not supported (hint: convert it again with llama.cpp)".into()),
            version if version.swap_bytes() < 16 => {
                return Err(
                    "it is big-endian, which is not supported (hint: take the little-endian file, or convert it \
                            with llama.cpp's gguf_convert_endian.py)"
                        .into(),
                );
            }
            version => return Err(format!("GGUF version {version} is not supported (2 and 3 are)")),
        }
        // The shortest entries: name length, number of dimensions, one dimension, type, offset; and key length, type,
        // value.
        let tensor_count = reader.count(8 + 4 + 8 + 4 + 8).map_err(|reason| format!("number of tensors: {reason}"))?;
        let metadata_count = reader.count(8 + 4 + 1).map_err(|reason| format!("number of metadata keys: {reason}"))?;

        let mut metadata = Vec::new();
        for number in 0..metadata_count {
            let key = reader.string().map_err(|reason| format!("metadata key {number}: {reason}"))?;
            let value = reader.entry_value().map_err(|reason| format!("metadata `{}`: {reason}", shorten(&key)))?;
            metadata.push((key, value));
        }
        no_duplicates("metadata key", &metadata)?;

        let mut tensors = Vec::new();
        for number in 0..tensor_count {
            let name = reader.string().map_err(|reason| format!("tensor {number}: {reason}"))?;
            let info = reader.tensor_info().map_err(|reason| format!("tensor `{}`: {reason}", shorten(&name)))?;
            tensors.push((name, info));
        }
        no_duplicates("tensor", &tensors)?;
        place(&mut tensors, reader.at, alignment(&metadata)?, bytes.len())?;
        Ok(Self { metadata, tensors })
    }
}

/// Turns offsets within the data section into offsets within the file, and checks that each tensor lies where it must.
fn place(tensors: &mut [(String, TensorInfo)], header: usize, align: usize, length: usize) -> Result<(), String> {
    let too_large = "the tensors are absurdly large";
    let start = header.checked_next_multiple_of(align).ok_or(too_large)?;
    let mut expected = 0usize;
    for (name, info) in tensors {
        if info.offset != expected {
            return Err(format!(
                "tensor `{name}` is said to begin at {} of the data, but the one before ends at {expected}",
                info.offset
            ));
        }
        expected =
            expected.checked_add(info.bytes).and_then(|end| end.checked_next_multiple_of(align)).ok_or(too_large)?;
        info.offset = start.checked_add(info.offset).ok_or(too_large)?;
        let end = info.offset.checked_add(info.bytes).ok_or(too_large)?;
        if end > length {
            return Err(format!(
                "the file ends at byte {length}, but tensor `{name}` goes to {end} (hint: an interrupted download?)"
            ));
        }
    }
    Ok(())
}

fn alignment(metadata: &[(String, Value)]) -> Result<usize, String> {
    match metadata.iter().find(|(key, _)| key == "general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some((_, Value::Int(int))) => match usize::try_from(*int) {
            Ok(align) if align.is_power_of_two() && align >= 8 => Ok(align),
            _ => Err(format!("`general.alignment` is {int}, but must be a power of two from 8 up")),
        },
        Some((_, other)) => Err(format!("`general.alignment` should be an integer but is {}", other.kind())),
    }
}

fn no_duplicates<T>(what: &str, entries: &[(String, T)]) -> Result<(), String> {
    let mut seen = HashSet::new();
    match entries.iter().find(|(name, _)| !seen.insert(name.as_str())) {
        Some((name, _)) => Err(format!("{what} `{}` appears twice", shorten(name))),
        None => Ok(()),
    }
}

/// Keeps an error readable when a damaged length made a name of megabytes.
fn shorten(name: &str) -> String {
    name.chars().take(80).collect()
}

/// Reads little-endian numbers from the front; every read is checked.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    values_left: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let taken = self.bytes[self.at..].get(..count).ok_or_else(|| {
            let (at, left) = (self.at, self.bytes.len() - self.at);
            format!("{count} bytes are announced at byte {at}, but {left} are left (hint: an interrupted download?)")
        })?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let taken = self.take(N)?;
        Ok(std::array::from_fn(|i| taken[i]))
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn size(&mut self) -> Result<usize, String> {
        let size = self.u64()?;
        usize::try_from(size).map_err(|_| format!("the size {size} does not fit this machine"))
    }

    /// A number of entries that take at least `min_bytes` each.
    fn count(&mut self, min_bytes: usize) -> Result<usize, String> {
        let count = self.size()?;
        let left = self.bytes.len() - self.at;
        if count > left / min_bytes {
            return Err(format!("{count} are announced, but the {left} bytes left hold at most {}", left / min_bytes));
        }
        Ok(count)
    }

    fn string(&mut self) -> Result<String, String> {
        let length = self.size()?;
        if length > MAX_STRING_BYTES {
            return Err(format!("a text of {length} bytes is announced; at most {MAX_STRING_BYTES} are accepted"));
        }
        let at = self.at;
        let text =
            std::str::from_utf8(self.take(length)?).map_err(|_| format!("the text at byte {at} is not UTF-8"))?;
        Ok(text.to_owned())
    }

    fn entry_value(&mut self) -> Result<Value, String> {
        let value_type = self.u32()?;
        self.value(value_type, 0)
    }

    fn value(&mut self, value_type: u32, depth: usize) -> Result<Value, String> {
        self.values_left =
            self.values_left.checked_sub(1).ok_or_else(|| format!("more than {MAX_VALUES} metadata values"))?;
        Ok(match value_type {
            value_type::U8 => Value::Int(u8::from_le_bytes(self.array()?).into()),
            value_type::I8 => Value::Int(i8::from_le_bytes(self.array()?).into()),
            value_type::U16 => Value::Int(u16::from_le_bytes(self.array()?).into()),
            value_type::I16 => Value::Int(i16::from_le_bytes(self.array()?).into()),
            value_type::U32 => Value::Int(self.u32()?.into()),
            value_type::I32 => Value::Int(i32::from_le_bytes(self.array()?).into()),
            value_type::U64 => {
                let int = self.u64()?;
                Value::Int(int.try_into().map_err(|_| format!("the integer {int} is absurdly large"))?)
            }
            value_type::I64 => Value::Int(i64::from_le_bytes(self.array()?)),
            value_type::F32 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            value_type::F64 => Value::Float(f64::from_le_bytes(self.array()?)),
            value_type::BOOL => match u8::from_le_bytes(self.array()?) {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => return Err(format!("a flag is 0 or 1, not {other}")),
            },
            value_type::STRING => Value::String(self.string()?),
            value_type::ARRAY => {
                if depth == MAX_ARRAY_DEPTH {
                    return Err(format!("arrays are nested more than {MAX_ARRAY_DEPTH} deep"));
                }
                let element = self.u32()?;
                let count = self.count(value_type::min_bytes(element)?)?;
                if count > self.values_left {
                    return Err(format!("{count} array values are announced; {MAX_VALUES} in all are accepted"));
                }
                let mut values = Vec::with_capacity(count);
                for _ in 0..count {
                    values.push(self.value(element, depth + 1)?);
                }
                Value::Array(values)
            }
            other => return Err(format!("it has the unknown value type {other}")),
        })
    }

    fn tensor_info(&mut self) -> Result<TensorInfo, String> {
        let dims = self.u32()? as usize;
        if !(1..=MAX_DIMS).contains(&dims) {
            return Err(format!("it has {dims} dimensions; 1 to {MAX_DIMS} are possible"));
        }
        let mut shape = (0..dims).map(|_| self.size()).collect::<Result<Vec<_>, _>>()?;
        shape.reverse();
        if shape.contains(&0) {
            return Err(format!("its shape {shape:?} is empty"));
        }
        let number = self.u32()?;
        let dtype = BlockType::ALL.into_iter().find(|dtype| dtype.number() == number).ok_or_else(|| {
            let name = unsupported_type(number)
                .map_or_else(|| format!("the number {number}"), |name| format!("{name}, number {number}"));
            format!(
                "its block type is {name}, which is not supported (hint: F32, F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, \
                 IQ4_NL, IQ4_XS, TQ1_0, TQ2_0 and MXFP4 are; take another file of the model, Q4_K_M for example)"
            )
        })?;
        let bytes = tensor_bytes(&shape, dtype)?;
        // Relative to the data section until `place` knows where that begins.
        let offset = self.size()?;
        Ok(TensorInfo { shape, dtype, part: 0, offset, bytes })
    }
}

/// ggml's names of the types that a downloaded file may have and this crate does not read. Source: `enum ggml_type`.
fn unsupported_type(number: u32) -> Option<&'static str> {
    Some(match number {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        40 => "NVFP4",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
