//! The weight files of a Hugging Face folder, mapped: `model.safetensors`, or the shards that
//! `model.safetensors.index.json` names. Other files of the folder are ignored, as in transformers.
//!
//! Tensors may begin at any byte of the map: a reader of 4-byte values must not assume alignment.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::Path,
};

use safetensors::{Dtype, tensor::Metadata};
use serde::Deserialize;

use crate::{BlockType, Error, RawTensor, Result, mapped_file::MappedFile};

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
/// Real headers take some 100 kB.
const MAX_HEADER_BYTES: usize = 1 << 24;

/// Mapped weight files in name order, and the place of each tensor.
pub struct SafetensorsFolder {
    files: Vec<MappedFile>,
    tensors: BTreeMap<String, Place>,
}

/// A tensor's place: which file, and which bytes of it.
struct Place {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

impl SafetensorsFolder {
    pub fn open(folder: &Path) -> Result<Self> {
        let index = folder.join(INDEX);
        let names: BTreeSet<String> = if index.exists() {
            let json = fs::read(&index).map_err(|source| Error::io(&index, source))?;
            let Index { weight_map } =
                serde_json::from_slice(&json).map_err(|error| Error::model_file(&index, error.to_string()))?;
            weight_map.into_values().collect()
        } else {
            BTreeSet::from([SINGLE.to_owned()])
        };
        let mut found = Self { files: Vec::new(), tensors: BTreeMap::new() };
        for name in names {
            if name.contains(['/', '\\']) {
                return Err(Error::model_file(index, format!("it names the shard `{name}` outside the folder")));
            }
            found.add_file(&folder.join(name))?;
        }
        Ok(found)
    }

    fn add_file(&mut self, path: &Path) -> Result<()> {
        let file = MappedFile::open(path)?;
        let (data_start, metadata) = parse_header(&file).map_err(|reason| Error::model_file(path, reason))?;
        for (name, info) in metadata.tensors() {
            let (start, end) = (data_start + info.data_offsets.0, data_start + info.data_offsets.1);
            let place = Place { file: self.files.len(), dtype: info.dtype, shape: info.shape.clone(), start, end };
            if let Some(first) = self.tensors.insert(name.clone(), place) {
                let first = self.files[first.file].path().display();
                return Err(Error::model_file(path, format!("tensor `{name}` also lies in {first}")));
            }
        }
        self.files.push(file);
        Ok(())
    }

    /// The files in name order.
    pub fn files(&self) -> &[MappedFile] {
        &self.files
    }

    /// All tensor names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor of one of the three float types a checkpoint is run from, and the file it lies in.
    pub fn tensor(&self, name: &str) -> Result<Option<RawTensor<'_>>> {
        let Some(place) = self.tensors.get(name) else { return Ok(None) };
        let file = &self.files[place.file];
        let dtype = match place.dtype {
            Dtype::F32 => BlockType::F32,
            Dtype::F16 => BlockType::F16,
            Dtype::BF16 => BlockType::BF16,
            other => {
                return Err(Error::Unsupported {
                    what: format!("{}: tensor `{name}` of type {other:?}", file.path().display()),
                    hint: "use a checkpoint in F32, F16 or BF16, or a GGUF file".into(),
                });
            }
        };
        Ok(Some(RawTensor { shape: place.shape.clone(), dtype, bytes: Cow::Borrowed(&file[place.start..place.end]) }))
    }
}

/// Where the data begins, and its contents. Metadata's own reader checks that tensors lie one after the other and take
/// the bytes their shapes need; their sum is checked against the file here, where it cannot overflow.
fn parse_header(bytes: &[u8]) -> Result<(usize, Metadata), String> {
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or("it is shorter than a header")?;
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length)
        .ok()
        .filter(|&length| length <= MAX_HEADER_BYTES)
        .and_then(|length| rest.get(..length))
        .ok_or_else(|| {
            format!("a header of {length} bytes is announced in a file of {} (hint: is it safetensors?)", bytes.len())
        })?;
    let metadata: Metadata = serde_json::from_slice(header).map_err(|error| format!("header: {error}"))?;
    let data = rest.len() - header.len();
    if metadata.data_len() != data {
        return Err(format!(
            "its tensors take {} bytes, but {data} follow the header (hint: an interrupted download?)",
            metadata.data_len()
        ));
    }
    Ok((bytes.len() - data, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
    }

    const ONE: &str = r#"{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#;

    #[test]
    fn damaged_headers_say_what_is_wrong() {
        assert!(parse_header(&file(ONE, 24)).is_ok());
        let check = |bytes: &[u8], expected: &str| {
            let reason = parse_header(bytes).map(|_| ()).unwrap_err();
            assert!(reason.contains(expected), "{reason:?} should hold {expected:?}");
        };
        check(&[0; 7], "shorter than a header");
        check(&[0xff; 64], "a header of 18446744073709551615 bytes is announced in a file of 64");
        check(&file(ONE, 23), "its tensors take 24 bytes, but 23 follow");
        check(&file(ONE, 25), "its tensors take 24 bytes, but 25 follow");
        check(&file("{", 0), "header: EOF");
        check(&file(&ONE.replace("[2,3]", "[2,4]"), 24), "header:");
        check(&file(&ONE.replace("[2,3]", "[4294967296,4294967296]"), 24), "header:");
        check(&file(&ONE.replace("[0,24]", "[8,32]"), 32), "header:");
        // Eight tensors whose sizes add up to just below 2^64: their sum with the header's length would wrap around.
        let quarter = usize::MAX / 8 / 4 * 4;
        let huge: Vec<String> = (0..8)
            .map(|i| {
                let (start, end) = (quarter * i, quarter * (i + 1));
                format!(r#""w{i}":{{"dtype":"I8","shape":[{quarter}],"data_offsets":[{start},{end}]}}"#)
            })
            .collect();
        check(&file(&format!("{{{}}}", huge.join(",")), 24), "follow the header");
    }

    #[test]
    fn a_header_cut_or_flipped_anywhere_never_panics() {
        let mut bytes = file(ONE, 24);
        for length in 0..bytes.len() {
            assert!(parse_header(&bytes[..length]).is_err(), "cut at {length}");
        }
        for bit in 0..(bytes.len() - 24) * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok((start, metadata)) = parse_header(&bytes) {
                assert_eq!(start + metadata.data_len(), bytes.len());
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn shards_are_found_by_the_index_and_other_files_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        write("reference.safetensors", b"not looked at");
        assert!(matches!(SafetensorsFolder::open(folder.path()), Err(Error::Io { .. })));
        write("a.safetensors", &file(ONE, 24));
        write("b.safetensors", &file(&ONE.replace('w', "v").replace("F32", "I32"), 24));
        write(INDEX, br#"{"metadata":{},"weight_map":{"v":"b.safetensors","w":"a.safetensors"}}"#);
        let shards = SafetensorsFolder::open(folder.path()).unwrap();
        assert_eq!((shards.files().len(), shards.names().collect::<Vec<_>>()), (2, vec!["v", "w"]));
        assert_eq!(shards.tensor("w").unwrap().unwrap().shape, [2, 3]);
        assert!(shards.tensor("x").unwrap().is_none());
        let error = shards.tensor("v").unwrap_err().to_string();
        assert!(error.contains("tensor `v` of type I32"), "{error}");

        let check = |expected: &str| {
            let error = SafetensorsFolder::open(folder.path()).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} should hold {expected:?}");
        };
        write("b.safetensors", &file(ONE, 24));
        check("tensor `w` also lies in");
        write(INDEX, br#"{"weight_map":{"w":"../a.safetensors"}}"#);
        check("`../a.safetensors` outside the folder");
        write(INDEX, b"{}");
        check("weight_map");
        write(INDEX, br#"{"weight_map":{"w":"gone.safetensors"}}"#);
        check("gone.safetensors");
    }
}
