//! Quantised rows, in a layout that lets a kernel read the same block of all its rows at once.
//!
//! Rows are gathered into panels as high as the instruction set multiplies at a time; the rest is split into powers
//! of two. A panel is stored block by block: `(blocks, height, 32)`.

use std::marker::PhantomData;

use super::rows::BlockNumbers;

/// Quantised rows of one width.
#[derive(Debug)]
pub(crate) struct Panels {
    max_height: usize,
    blocks: usize,
    rows: usize,
    quants: Vec<i8>,
    numbers: Vec<BlockNumbers>,
}

/// One panel, for kernels.
pub(super) struct RawPanel {
    pub blocks: usize,
    pub quants: *const i8,
    pub numbers: *const BlockNumbers,
}

/// The place of one row, for the thread that quantises it.
pub(crate) struct PanelRow<'a> {
    pub(super) blocks: usize,
    pub(super) quants: *mut i8,
    pub(super) numbers: *mut BlockNumbers,
    pub(super) height: usize,
    panels: PhantomData<&'a mut Panels>,
}

// SAFETY: it stands for `&mut` to parts of the panels' two vectors that belong to no other row.
unsafe impl Send for PanelRow<'_> {}

impl Panels {
    /// No rows yet; `max_height` is a power of two.
    pub(super) fn new(max_height: usize) -> Self {
        assert!(max_height.is_power_of_two());
        Self { max_height, blocks: 0, rows: 0, quants: Vec::new(), numbers: Vec::new() }
    }

    /// Makes room for `rows` rows of `width` numbers, padded to whole blocks; the old contents are void.
    pub fn resize(&mut self, rows: usize, width: usize) {
        let row_blocks = width.div_ceil(32);
        let blocks = rows.checked_mul(row_blocks).expect("rows fit into memory");
        if self.numbers.len() < blocks {
            self.quants.resize(blocks.checked_mul(32).expect("rows fit into memory"), 0);
            self.numbers.resize(blocks, BlockNumbers::default());
        }
        // The fields that kernels rely on are set last: if an allocation fails, they still describe the old size.
        (self.rows, self.blocks) = (rows, row_blocks);
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// First row and height of every panel.
    pub(super) fn panels(&self) -> impl Iterator<Item = (usize, usize)> {
        let (rows, max_height) = (self.rows, self.max_height);
        let mut first = 0;
        std::iter::from_fn(move || {
            let left = rows - first;
            let height = if left >= max_height { max_height } else { 1 << left.checked_ilog2()? };
            first += height;
            Some((first - height, height))
        })
    }

    /// The panel that begins at a row.
    pub(super) fn raw(&self, first: usize) -> RawPanel {
        let at = first * self.blocks;
        let (quants, numbers) = (&self.quants[at * 32..], &self.numbers[at..]);
        RawPanel { blocks: self.blocks, quants: quants.as_ptr(), numbers: numbers.as_ptr() }
    }

    /// Every row's place, in order.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = PanelRow<'_>> {
        let (quants, numbers, blocks) = (self.quants.as_mut_ptr(), self.numbers.as_mut_ptr(), self.blocks);
        let rows = self.panels().flat_map(|(first, height)| (0..height).map(move |row| (first, height, row)));
        rows.map(move |(first, height, row)| {
            let at = first * blocks + row;
            // SAFETY: a row's last block ends at `first * blocks + height * blocks` at most, within the vectors, which
            // `resize` made long enough for all rows.
            let (quants, numbers) = unsafe { (quants.add(at * 32), numbers.add(at)) };
            PanelRow { blocks, quants, numbers, height, panels: PhantomData }
        })
    }
}
