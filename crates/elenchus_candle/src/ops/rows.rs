//! Rows of numbers in memory, which products use without a copy.

use candle_core::{CpuStorage, Layout, Result, backend::BackendStorage, bail};

/// A matrix of f32, row by row.
pub(crate) struct Rows {
    storage: CpuStorage,
    layout: Layout,
}

impl Rows {
    pub fn new(values: Vec<f32>, rows: usize) -> Result<Self> {
        if rows == 0 || !values.len().is_multiple_of(rows) {
            bail!("{} numbers are not {rows} rows", values.len())
        }
        let layout = Layout::contiguous((rows, values.len() / rows));
        Ok(Self { storage: CpuStorage::F32(values), layout })
    }

    /// The result of a product.
    pub fn from_storage(storage: CpuStorage, rows: usize) -> Result<Self> {
        match storage {
            CpuStorage::F32(values) => Self::new(values, rows),
            other => bail!("a product gave {:?} instead of f32", other.dtype()),
        }
    }

    pub fn rows(&self) -> usize {
        self.layout.dims()[0]
    }

    pub fn storage(&self) -> &CpuStorage {
        &self.storage
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub fn values(&self) -> Result<&[f32]> {
        self.storage.as_slice()
    }

    pub fn values_mut(&mut self) -> Result<&mut [f32]> {
        match &mut self.storage {
            CpuStorage::F32(values) => Ok(values),
            other => bail!("rows hold {:?} instead of f32", other.dtype()),
        }
    }

    pub fn into_values(self) -> Result<Vec<f32>> {
        match self.storage {
            CpuStorage::F32(values) => Ok(values),
            other => bail!("rows hold {:?} instead of f32", other.dtype()),
        }
    }

    /// The product with a matrix of `layout` `(width, columns)`.
    pub fn times(&self, by: &CpuStorage, layout: &Layout) -> Result<Self> {
        let (rows, width) = self.layout.shape().dims2()?;
        let columns = layout.shape().dims2()?.1;
        Self::from_storage(self.storage.matmul(by, (1, rows, columns, width), &self.layout, layout)?, rows)
    }

    /// The transpose's product with as many rows: `(width, columns)`.
    pub fn transposed_times(&self, by: &Self) -> Result<Self> {
        let ((rows, width), (_, columns)) = (self.layout.shape().dims2()?, by.layout.shape().dims2()?);
        let layout = self.layout.transpose(0, 1)?;
        Self::from_storage(self.storage.matmul(&by.storage, (1, width, columns, rows), &layout, &by.layout)?, width)
    }
}
