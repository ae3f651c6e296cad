//! Models that llama.cpp's `llama-gguf-split` cut into several files.
//!
//! The first file names the model and holds all metadata; the others hold tensors. They are found by their names, as
//! llama.cpp finds them, and each says which part of how many it is.

use std::path::{Path, PathBuf};

use super::{Gguf, Header, Value, no_duplicates, open_one};
use crate::{Error, Result, mapped_file::MappedFile};

const NO: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";
/// The largest models are uploaded in some hundred parts.
const MAX_PARTS: usize = 1 << 12;

/// The first file of a split model, as its keys describe it.
pub(super) struct Split {
    /// The path up to `-00001-of-00003.gguf`.
    prefix: PathBuf,
    count: usize,
    /// Tensors in all files.
    tensors: usize,
}

impl Split {
    /// What a file's keys say; `None` for a whole model. An error for a part that is not the first.
    pub fn of(path: &Path, metadata: &[(String, Value)]) -> Result<Option<Self>> {
        let bad = |reason: String| Error::model_file(path, reason);
        if !metadata.iter().any(|(name, _)| name == COUNT) {
            return Ok(None);
        }
        let number = |key| number(metadata, key).map_err(bad);
        let (no, count) = (number(NO)?, number(COUNT)?);
        if count <= 1 {
            return Ok(None);
        }
        if no >= count || count > MAX_PARTS {
            return Err(bad(format!(
                "`{NO}` is {no} of `{COUNT}` {count}, of at most {MAX_PARTS} (hint: a damaged file?)"
            )));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(prefix) = name.strip_suffix(&suffix(no, count)) else {
            return Err(bad(format!(
                "it is part {} of {count} of a split model, but its name does not end in `{}`, by which the others are \
                 found (hint: give the parts their own names again)",
                no + 1,
                suffix(no, count)
            )));
        };
        if no != 0 {
            let first = format!("{prefix}{}", suffix(0, count));
            return Err(bad(format!(
                "it is part {} of {count} of a split model (hint: name the first part, `{first}`; it opens all)",
                no + 1
            )));
        }
        Ok(Some(Self { prefix: path.with_file_name(prefix), count, tensors: number(TENSORS)? }))
    }

    /// Opens the other parts beside the first.
    pub fn open_others(&self, first: MappedFile, mut header: Header) -> Result<Gguf> {
        let mut files = vec![first];
        for part in 1..self.count {
            let path = self.part(part);
            if !path.exists() {
                return Err(Error::model_file(
                    files[0].path(),
                    format!(
                        "part {} of {} is missing: {} (hint: all parts belong into one folder; or join them with \
                         llama.cpp's `llama-gguf-split --merge`)",
                        part + 1,
                        self.count,
                        path.display()
                    ),
                ));
            }
            let (file, mut other) = open_one(&path)?;
            let number = |key| number(&other.metadata, key).map_err(|reason| Error::model_file(&path, reason));
            let (no, count) = (number(NO)?, number(COUNT)?);
            if (no, count) != (part, self.count) {
                let reason = format!(
                    "by its name it is part {} of {}, by its keys part {} of {count} (hint: a renamed file?)",
                    part + 1,
                    self.count,
                    no + 1
                );
                return Err(Error::model_file(path, reason));
            }
            other.tensors.iter_mut().for_each(|(_, info)| info.part = part);
            header.tensors.append(&mut other.tensors);
            files.push(file);
        }
        let bad = |reason: String| Error::model_file(files[0].path(), reason);
        no_duplicates("tensor", &header.tensors).map_err(bad)?;
        if header.tensors.len() != self.tensors {
            let reason = format!(
                "`{TENSORS}` is {}, but its {} parts have {} (hint: parts of different models?)",
                self.tensors,
                self.count,
                header.tensors.len()
            );
            return Err(bad(reason));
        }
        Ok(Gguf { files, header })
    }

    /// The path of a part, counted from 0.
    fn part(&self, no: usize) -> PathBuf {
        let mut path = self.prefix.clone().into_os_string();
        path.push(suffix(no, self.count));
        path.into()
    }
}

/// How the name of a part ends, counted from 0. Source: `llama_split_path` in llama.cpp.
fn suffix(no: usize, count: usize) -> String {
    format!("-{:05}-of-{count:05}.gguf", no + 1)
}

fn number(metadata: &[(String, Value)], key: &str) -> Result<usize, String> {
    match metadata.iter().find(|(name, _)| name == key) {
        Some((_, Value::Int(int))) => usize::try_from(*int).map_err(|_| format!("`{key}` is {int}")),
        Some((_, other)) => Err(format!("`{key}` should be an integer but is {}", other.kind())),
        None => Err(format!("`{key}` is missing, so it is no part of a split model")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{BlockType, Weights, gguf::GgufWriter, testing::TinyModel};

    /// One part with these keys and tensors.
    fn part(no: i64, count: i64, tensors: &[&str]) -> GgufWriter {
        let mut writer = GgufWriter::new();
        writer.set(NO, no).set(COUNT, count).set(TENSORS, 3);
        for name in tensors {
            writer.tensor(*name, &[2], BlockType::F32, vec![no as u8; 8]);
        }
        writer
    }

    #[test]
    fn the_first_part_opens_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        part(0, 3, &[]).set("greeting", "χαῖρε").write(&path("m-00001-of-00003.gguf")).unwrap();
        part(1, 3, &["a", "b"]).write(&path("m-00002-of-00003.gguf")).unwrap();
        part(2, 3, &["c"]).write(&path("m-00003-of-00003.gguf")).unwrap();
        let gguf = Gguf::open(&path("m-00001-of-00003.gguf")).unwrap();
        assert_eq!((gguf.str("greeting").unwrap(), gguf.parts().len(), gguf.tensors().len()), ("χαῖρε", 3, 3));
        assert_eq!((gguf.tensor("b").unwrap().1, gguf.tensor("c").unwrap().1), (&[1u8; 8][..], &[2u8; 8][..]));
    }

    #[test]
    fn what_is_missing_or_misnamed_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let check = |name: &str, expected: &[&str]| {
            let error = Gguf::open(&path(name)).map(|_| ()).unwrap_err().to_string();
            expected.iter().for_each(|words| assert!(error.contains(words), "{error:?} should hold {words:?}"));
        };
        let (first, second) = ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf");
        part(0, 2, &["a"]).write(&path(first)).unwrap();
        check(first, &["part 2 of 2 is missing", second, "--merge"]);
        part(1, 2, &["b"]).write(&path(second)).unwrap();
        check(first, &["`split.tensors.count` is 3, but its 2 parts have 2"]);
        check(second, &["it is part 2 of 2", &format!("name the first part, `{first}`")]);
        part(1, 2, &["a", "c"]).write(&path(second)).unwrap();
        check(first, &["tensor `a` appears twice"]);
        part(0, 2, &["b", "c"]).write(&path(second)).unwrap();
        check(first, &["by its name it is part 2 of 2, by its keys part 1 of 2", second]);
        GgufWriter::new().write(&path(second)).unwrap();
        check(first, &["`split.no` is missing", second]);
        fs::rename(path(first), path("renamed.gguf")).unwrap();
        check("renamed.gguf", &["part 1 of 2", "does not end in `-00001-of-00002.gguf`"]);
        part(7, 2, &[]).write(&path(first)).unwrap();
        check(first, &["`split.no` is 7 of `split.count` 2"]);
        part(-1, 2, &[]).write(&path(first)).unwrap();
        check(first, &["`split.no` is -1"]);
        part(0, i64::MAX, &[]).write(&path(first)).unwrap();
        check(first, &["of at most 4096"]);
    }

    #[test]
    fn a_file_that_is_the_only_part_is_a_whole_model() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("any name.gguf");
        part(0, 1, &["a"]).write(&path).unwrap();
        assert_eq!(Gguf::open(&path).unwrap().tensors().len(), 1);
    }

    #[test]
    fn the_hash_covers_all_parts_and_weights_are_those_of_the_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let whole = TinyModel::default().gguf();
        whole.write(&path("whole.gguf")).unwrap();
        let mut parts = [TinyModel::default().gguf(), GgufWriter::new()];
        let names: Vec<String> =
            Gguf::open(&path("whole.gguf")).unwrap().tensors().iter().map(|(name, _)| name.clone()).collect();
        let whole = Gguf::open(&path("whole.gguf")).unwrap();
        for name in names.iter().skip(9) {
            parts[0].remove_tensor(name);
            let (info, bytes) = whole.tensor(name).unwrap();
            parts[1].tensor(name, &info.shape, info.dtype, bytes.to_vec());
        }
        for (no, part) in parts.iter_mut().enumerate() {
            part.set(NO, no as i64).set(COUNT, 2).set(TENSORS, names.len() as i64);
            part.write(&path(&format!("m{}", suffix(no, 2)))).unwrap();
        }
        let open = |name: &str| Weights::open(&path(name), &mut |_| {}).unwrap();
        let (first, weights) = (open("whole.gguf"), open("m-00001-of-00002.gguf"));
        assert_eq!(weights.config(), first.config());
        for name in crate::TensorName::all(first.config()) {
            assert_eq!(weights.tensor(name).unwrap().bytes, first.tensor(name).unwrap().bytes, "{name:?}");
        }
        let mut bytes = fs::read(path("m-00002-of-00002.gguf")).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path("changed"), &bytes).unwrap();
        fs::rename(path("changed"), path("m-00002-of-00002.gguf")).unwrap();
        assert_ne!(open("m-00001-of-00002.gguf").hash(), weights.hash());
    }
}
