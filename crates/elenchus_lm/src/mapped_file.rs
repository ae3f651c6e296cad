//! Memory-mapped model files.
#![expect(unsafe_code, reason = "another process may write to a mapped file, or truncate it, while it is read")]

use std::{
    fs::File,
    ops::Deref,
    path::{Path, PathBuf},
};

use memmap2::Mmap;

use crate::{Error, Result};

/// A file's bytes, mapped read-only.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps a file; an empty one is an error.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::io(path, source))?;
        let length = file.metadata().map_err(|source| Error::io(path, source))?.len();
        if length == 0 {
            return Err(Error::model_file(path, "the file is empty (hint: fetch it again)"));
        }
        // SAFETY: we rely on nobody writing to the file while it is mapped. This program's own files are written under a
        // temporary name and renamed (`whole_file`), never changed in place. The system does not enforce it for others: a
        // process that writes to the file changes bytes under a `&[u8]`, which is undefined behaviour, and one that
        // truncates it makes a read fail with SIGBUS. `Weights::open` says so.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| Error::io(path, source))?;
        Ok(Self { path: path.to_owned(), map })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
