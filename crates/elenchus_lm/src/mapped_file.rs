//! Memory-mapped model files. The one unsafe module of this crate.
#![expect(unsafe_code, reason = "mapping a file is unsafe: another process may truncate it while it is read")]

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
        // SAFETY: the map is read-only and private to this process. Model files are written under a temporary name and
        // renamed, never changed in place; a user who truncates one while a game runs gets SIGBUS,
        // as with any program that maps its data.
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
