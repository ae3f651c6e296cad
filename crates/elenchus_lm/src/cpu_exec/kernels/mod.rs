//! The engine's arithmetic, and all of its unsafe code: kernels chosen at run time, and the threads they run on.
//!
//! Every function outside is safe: it checks lengths and calls code compiled for the instruction set that
//! [`Kernels::detect`] found. All instruction sets compute the same bits; tests compare each with the plain one.
//!
//! `tools/asan` runs the tests under `AddressSanitizer`, which reports accesses beyond a slice.
#![expect(unsafe_code, reason = "SIMD intrinsics, and items lent to other threads")]
#![allow(clippy::too_many_arguments, reason = "a kernel takes pointers, strides and counts")]
#![allow(clippy::needless_range_loop, reason = "several small arrays share an index, and stay in registers")]

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod kv;
mod matmul;
#[cfg(target_arch = "aarch64")]
mod neon;
mod panels;
mod rows;
mod scalar;
mod team;
#[cfg(test)]
mod tests;
mod vector;

use std::{fmt, ops::Range};

pub(crate) use self::{
    attention::MAX_HEAD,
    panels::{PanelRow, Panels},
    team::Team,
    vector::LANES,
};
use self::{
    attention::Task,
    matmul::{Block, Q4, Q4Offset, Q5, Q5Offset, Q8, Q8Halves},
    panels::RawPanel,
    rows::BlockNumbers,
};
use crate::{Activation, kv_cache::PAGE_TOKENS};

/// How a packed matrix stores blocks of 32 weights. A tile is 16 rows of the matrix, block by block: the weights of all
/// rows, then their scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Four bits minus 8, a scale: Q4_0, `TQ1_0`, `TQ2_0`.
    Q4,
    /// Four bits, a scale and an offset: Q4_1, Q4_K.
    Q4Offset,
    /// Five bits minus 16, a scale: Q5_0, MXFP4.
    Q5,
    /// Five bits, a scale and an offset: Q5_1, Q5_K.
    Q5Offset,
    /// Eight bits minus 128, a scale: Q8_0, `IQ4_NL`, `IQ4_XS`, and dense types.
    Q8,
    /// Eight bits minus 128, a scale for each half: Q6_K.
    Q8Halves,
}

impl Format {
    /// Bytes of a tile's block: weights, and scales.
    pub const fn block_bytes(self) -> (usize, usize) {
        match self {
            Self::Q4 => (256, 32),
            Self::Q4Offset => (256, 64),
            Self::Q5 => (320, 32),
            Self::Q5Offset => (320, 64),
            Self::Q8 => (512, 32),
            Self::Q8Halves => (512, 64),
        }
    }

    /// Bytes of a tile of so many blocks.
    pub fn tile_bytes(self, blocks: usize) -> usize {
        let (weights, scales) = self.block_bytes();
        blocks * (weights + scales)
    }
}

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvPrecision {
    /// Two bytes a number.
    #[default]
    F16,
    /// One byte a number, and a scale for each token and head: half the memory.
    Int8,
}

// Tables of kernels are indexed by these types, and a kernel's strides are those of the format.
const _: () = {
    const fn is_block<B: Block>(format: Format, at: usize) -> bool {
        let (weights, scales) = format.block_bytes();
        format as usize == at && B::WEIGHT_BYTES == weights && B::BYTES == weights + scales
    }
    assert!(is_block::<Q4>(Format::Q4, 0) && is_block::<Q4Offset>(Format::Q4Offset, 1));
    assert!(is_block::<Q5>(Format::Q5, 2) && is_block::<Q5Offset>(Format::Q5Offset, 3));
    assert!(is_block::<Q8>(Format::Q8, 4) && is_block::<Q8Halves>(Format::Q8Halves, 5));
    assert!(KvPrecision::F16 as usize == 0 && KvPrecision::Int8 as usize == 1);
    // A padded head is no wider than the widest.
    assert!(MAX_HEAD.is_multiple_of(LANES));
};

/// A packed matrix, for kernels.
#[derive(Clone, Copy)]
pub(crate) struct MatrixView<'a> {
    pub format: Format,
    /// From the first tile on.
    pub data: &'a [u8],
    /// Bytes from one tile to the next.
    pub tile_stride: usize,
    pub tiles: usize,
    /// Blocks of 32 a row has.
    pub blocks: usize,
}

/// Tiles to multiply with a panel.
struct Tiles {
    weights: *const u8,
    stride: usize,
    count: usize,
    /// `(rows of the panel, 16)` of the first tile.
    out: *mut f32,
    /// Numbers from one tile's output to the next's.
    out_stride: usize,
    /// Whether the tiles come from memory, so that the next ones are prefetched: true for the first panel.
    ahead: bool,
}

/// Keys, values and queries of one key/value head.
pub(crate) struct Attention<'a> {
    /// For each page from `first_page` on, the bytes of one layer and head ([`KvPrecision::page_bytes`]).
    pub pages: &'a [&'a [u8]],
    pub first_page: usize,
    pub precision: KvPrecision,
    pub head_dim: usize,
    /// For each query the first and the last position it sees.
    pub seen: &'a [(usize, usize)],
    /// `(queries, head_dim padded to 16)`, scaled; overwritten with the attention output.
    pub queries: &'a mut [f32],
    /// Scores are `cap * tanh(score / cap)`.
    pub cap: Option<f32>,
}

type MultiplyFn = unsafe fn(&Tiles, &RawPanel);

/// One instruction set's entry points.
pub(crate) struct Kernels {
    name: &'static str,
    /// By format, then by the logarithm of the panel's height.
    multiply: [&'static [MultiplyFn]; 6],
    rms_norm: unsafe fn(*const f32, *const f32, *mut f32, usize, usize, f32),
    layer_norm: unsafe fn(*const f32, (*const f32, *const f32), *mut f32, usize, usize, f32),
    quantise: unsafe fn(*const f32, usize, *mut i8, usize, *mut BlockNumbers, usize),
    add: unsafe fn(*mut f32, *const f32, usize, usize),
    rotate: unsafe fn(*mut f32, *const f32, *const f32, *const f32, usize),
    swiglu: unsafe fn(*mut f32, *const f32, usize),
    geglu: unsafe fn(*mut f32, *const f32, usize),
    soft_cap: unsafe fn(*mut f32, usize, f32),
    /// For one row and for four.
    lora_down: [unsafe fn(*const f32, usize, usize, *const u16, usize, f32, *mut f32, usize); 2],
    lora_up: [unsafe fn(*const f32, usize, *const u16, usize, *mut f32); 2],
    attend: [unsafe fn(&Task<'_>); 2],
    write_kv: [unsafe fn(*const f32, *const f32, *mut u8, usize, usize, usize); 2],
}

/// Compiles every kernel for an instruction set.
macro_rules! entry_points {
    ($module:ident, $vector:ty, $name:literal $(, $feature:literal)?; $heights:expr) => {
        mod $module {
            //! # Safety of every function here
            //! The machine has the instruction set; the rest is the contract of the called kernel.
            #![allow(dead_code, reason = "an instruction set with fewer registers takes fewer rows at a time")]

            use super::{
                Kernels, MultiplyFn, RawPanel, Tiles,
                attention::{self, F16, Int8, KvNumbers, Task},
                kv,
                matmul::{self, Block, Q4, Q4Offset, Q5, Q5Offset, Q8, Q8Halves},
                rows::{self, BlockNumbers},
            };

            type V = $vector;

            $(#[target_feature(enable = $feature)])?
            unsafe fn one_row<B: Block>(tiles: &Tiles, panel: &RawPanel) {
                // SAFETY: the caller upholds this contract.
                unsafe { matmul::one_row::<V, B>(tiles, panel) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn two_rows<B: Block>(tiles: &Tiles, panel: &RawPanel) {
                // SAFETY: the caller upholds this contract.
                unsafe { matmul::two_rows::<V, B>(tiles, panel) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn four_rows<B: Block>(tiles: &Tiles, panel: &RawPanel) {
                // SAFETY: the caller upholds this contract.
                unsafe { matmul::four_rows::<V, B>(tiles, panel) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn eight_rows<B: Block>(tiles: &Tiles, panel: &RawPanel) {
                // SAFETY: the caller upholds this contract.
                unsafe { matmul::eight_rows::<V, B>(tiles, panel) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn sixteen_rows<B: Block>(tiles: &Tiles, panel: &RawPanel) {
                // SAFETY: the caller upholds this contract.
                unsafe { matmul::sixteen_rows::<V, B>(tiles, panel) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn rms_norm(x: *const f32, w: *const f32, y: *mut f32, vectors: usize, count: usize, eps: f32) {
                // SAFETY: the caller upholds this contract.
                unsafe { rows::rms_norm::<V>(x, w, y, vectors, count, eps) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn layer_norm(
                x: *const f32,
                by: (*const f32, *const f32),
                y: *mut f32,
                vectors: usize,
                count: usize,
                eps: f32,
            ) {
                // SAFETY: the caller upholds this contract.
                unsafe { rows::layer_norm::<V>(x, by, y, vectors, count, eps) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn quantise(
                x: *const f32,
                blocks: usize,
                quants: *mut i8,
                quant_stride: usize,
                numbers: *mut BlockNumbers,
                number_stride: usize,
            ) {
                // SAFETY: the caller upholds this contract.
                unsafe { rows::quantise::<V>(x, blocks, quants, quant_stride, numbers, number_stride) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn add(y: *mut f32, x: *const f32, x_stride: usize, vectors: usize) {
                // SAFETY: the caller upholds this contract.
                unsafe { rows::add::<V>(y, x, x_stride, vectors) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn rotate(x: *mut f32, partners: *const f32, cos: *const f32, sin: *const f32, vectors: usize) {
                // SAFETY: the caller upholds this contract.
                unsafe { rows::rotate::<V>(x, partners, cos, sin, vectors) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn swiglu(gate: *mut f32, up: *const f32, vectors: usize) {
                // SAFETY: the caller upholds this contract.
                unsafe { rows::swiglu::<V>(gate, up, vectors) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn geglu(gate: *mut f32, up: *const f32, vectors: usize) {
                // SAFETY: the caller upholds this contract.
                unsafe { rows::geglu::<V>(gate, up, vectors) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn soft_cap(x: *mut f32, vectors: usize, cap: f32) {
                // SAFETY: the caller upholds this contract.
                unsafe { rows::soft_cap::<V>(x, vectors, cap) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn lora_down<const M: usize>(
                x: *const f32,
                x_stride: usize,
                width: usize,
                a: *const u16,
                rank: usize,
                scale: f32,
                out: *mut f32,
                out_stride: usize,
            ) {
                // SAFETY: the caller upholds this contract.
                unsafe { rows::lora_down::<V, M>(x, x_stride, width, a, rank, scale, out, out_stride) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn lora_up<const M: usize>(h: *const f32, h_stride: usize, b: *const u16, rank: usize, y: *mut f32) {
                // SAFETY: the caller upholds this contract.
                unsafe { rows::lora_up::<V, M>(h, h_stride, b, rank, y) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn attend<N: KvNumbers>(task: &Task<'_>) {
                // SAFETY: the caller upholds this contract.
                unsafe { attention::attend::<V, N>(task) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn write_kv<N: KvNumbers>(
                k: *const f32,
                v: *const f32,
                page: *mut u8,
                slot: usize,
                head_dim: usize,
                padded: usize,
            ) {
                // SAFETY: the caller upholds this contract.
                unsafe { kv::write::<V, N>(k, v, page, slot, head_dim, padded) }
            }

            /// By the logarithm of the panel's height; the last is the instruction set's preferred height.
            const fn heights<B: Block>() -> &'static [MultiplyFn] {
                $heights
            }

            pub(super) static KERNELS: Kernels = Kernels {
                name: $name,
                multiply: [
                    heights::<Q4>(),
                    heights::<Q4Offset>(),
                    heights::<Q5>(),
                    heights::<Q5Offset>(),
                    heights::<Q8>(),
                    heights::<Q8Halves>(),
                ],
                rms_norm,
                layer_norm,
                quantise,
                add,
                rotate,
                swiglu,
                geglu,
                soft_cap,
                lora_down: [lora_down::<1>, lora_down::<4>],
                lora_up: [lora_up::<1>, lora_up::<4>],
                attend: [attend::<F16>, attend::<Int8>],
                write_kv: [write_kv::<F16>, write_kv::<Int8>],
            };
        }
    };
}

entry_points!(on_anything, super::scalar::Scalar, "scalar"; &[one_row::<B>, two_rows::<B>]);
#[cfg(target_arch = "x86_64")]
entry_points!(on_avx2, super::avx2::Avx2, "AVX2", "avx2,fma,f16c"; &[one_row::<B>, two_rows::<B>, four_rows::<B>]);
#[cfg(target_arch = "x86_64")]
entry_points!(on_avx_vnni, super::avx2::AvxVnni, "AVX-VNNI", "avx2,fma,f16c,avxvnni"; &[one_row::<B>, two_rows::<B>, four_rows::<B>]);
#[cfg(target_arch = "x86_64")]
entry_points!(
    on_avx512,
    super::avx512::Avx512,
    "AVX-512 VNNI",
    "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c";
    &[one_row::<B>, two_rows::<B>, four_rows::<B>, eight_rows::<B>, sixteen_rows::<B>]
);

#[cfg(target_arch = "aarch64")]
entry_points!(
    on_neon,
    super::neon::Neon,
    "NEON dotprod",
    "neon,dotprod";
    &[one_row::<B>, two_rows::<B>, four_rows::<B>, eight_rows::<B>]
);

impl Kernels {
    /// The best this machine has.
    pub fn detect() -> &'static Self {
        Self::available()[0]
    }

    /// All that this machine has, best first; the last runs anywhere.
    pub fn available() -> Vec<&'static Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 =
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
            if avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
            {
                found.push(&on_avx512::KERNELS);
            }
            if avx2 && is_x86_feature_detected!("avxvnni") {
                found.push(&on_avx_vnni::KERNELS);
            }
            if avx2 {
                found.push(&on_avx2::KERNELS);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            found.push(&on_neon::KERNELS);
        }
        found.push(&on_anything::KERNELS);
        found
    }

    /// The instruction set's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The preferred panel height of these kernels.
    pub fn panels(&self) -> Panels {
        Panels::new(1 << (self.multiply[0].len() - 1))
    }

    /// Some tiles of a matrix times all rows of `x`; `out` is `(tiles, rows, 16)`.
    pub fn multiply(&self, matrix: &MatrixView<'_>, tiles: Range<usize>, x: &Panels, out: &mut [f32]) {
        assert_eq!(x.blocks(), matrix.blocks, "the rows are as wide as the matrix");
        let tile_bytes = matrix.format.tile_bytes(matrix.blocks);
        assert!(tiles.end <= matrix.tiles && matrix.tile_stride >= tile_bytes);
        assert!(
            lie_within(matrix.data.len(), matrix.tiles, matrix.tile_stride, tile_bytes),
            "the matrix has its tiles"
        );
        let numbers = tiles.len().checked_mul(x.rows()).and_then(|rows| rows.checked_mul(LANES));
        assert_eq!(Some(out.len()), numbers, "there is room for each tile and row");
        if tiles.is_empty() || x.rows() == 0 {
            return;
        }
        let functions = &self.multiply[matrix.format as usize];
        let out_stride = x.rows() * LANES;
        // One panel: all tiles in one call. Several: a tile stays in the cache while all panels use it.
        let step = if x.panels().nth(1).is_none() { tiles.len() } else { 1 };
        for at in (0..tiles.len()).step_by(step) {
            for (first, height) in x.panels() {
                let panel = x.raw(first);
                let tiles = Tiles {
                    weights: matrix.data[(tiles.start + at) * matrix.tile_stride..].as_ptr(),
                    stride: matrix.tile_stride,
                    count: step,
                    out: out[at * out_stride + first * LANES..].as_mut_ptr(),
                    out_stride,
                    ahead: first == 0,
                };
                // SAFETY: the machine has the instruction set (`available`); the matrix has its tiles and the output
                // room for them, as asserted above; the panel begins a panel of `x`, and the function found by its
                // height, a power of two, reads as many rows as it has.
                unsafe { functions[height.ilog2() as usize](&tiles, &panel) }
            }
        }
    }

    /// `y = x / rms(x) * weight`, the mean taken over `count` numbers. Lengths are equal multiples of 16, padded by zeros.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], y: &mut [f32], count: usize, eps: f32) {
        assert!(x.len() == weight.len() && x.len() == y.len() && x.len().is_multiple_of(LANES));
        // SAFETY: the machine has the instruction set; all three are this long.
        unsafe { (self.rms_norm)(x.as_ptr(), weight.as_ptr(), y.as_mut_ptr(), x.len() / LANES, count, eps) }
    }

    /// `y = (x - mean(x)) / deviation(x) * weight + bias` of `count` numbers, the same padding.
    pub fn layer_norm(&self, x: &[f32], by: (&[f32], &[f32]), y: &mut [f32], count: usize, eps: f32) {
        let (weight, bias) = by;
        assert!([weight, bias, y].iter().all(|other| other.len() == x.len()) && x.len().is_multiple_of(LANES));
        let by = (weight.as_ptr(), bias.as_ptr());
        // SAFETY: the machine has the instruction set; all four are this long.
        unsafe { (self.layer_norm)(x.as_ptr(), by, y.as_mut_ptr(), x.len() / LANES, count, eps) }
    }

    /// Quantises a row into its place; `x` is as long as the row's blocks.
    pub fn quantise(&self, x: &[f32], row: &mut PanelRow<'_>) {
        assert_eq!(x.len(), row.blocks * 32);
        // SAFETY: the machine has the instruction set; a row's blocks lie `height` apart within the panels.
        unsafe { (self.quantise)(x.as_ptr(), row.blocks, row.quants, row.height * 32, row.numbers, row.height) }
    }

    /// `y += x`, where `x` is in pieces of 16 that are `stride` apart.
    pub fn add(&self, y: &mut [f32], x: &[f32], stride: usize) {
        assert!(y.len().is_multiple_of(LANES));
        let vectors = y.len() / LANES;
        assert!(lie_within(x.len(), vectors, stride, LANES), "`x` has as many pieces as `y`");
        // SAFETY: the machine has the instruction set; lengths as asserted.
        unsafe { (self.add)(y.as_mut_ptr(), x.as_ptr(), stride, vectors) }
    }

    /// `x = x * cos + partners * sin`; lengths are equal multiples of 16.
    pub fn rotate(&self, x: &mut [f32], partners: &[f32], cos: &[f32], sin: &[f32]) {
        assert!(x.len().is_multiple_of(LANES));
        assert!([partners, cos, sin].iter().all(|other| other.len() == x.len()), "all are as long");
        let vectors = x.len() / LANES;
        // SAFETY: the machine has the instruction set; lengths as asserted.
        unsafe { (self.rotate)(x.as_mut_ptr(), partners.as_ptr(), cos.as_ptr(), sin.as_ptr(), vectors) }
    }

    /// `gate = activation(gate) * up`.
    pub fn gated(&self, activation: Activation, gate: &mut [f32], up: &[f32]) {
        assert!(gate.len() == up.len() && up.len().is_multiple_of(LANES));
        let kernel = match activation {
            Activation::Silu => self.swiglu,
            Activation::GeluTanh => self.geglu,
        };
        // SAFETY: the machine has the instruction set; lengths as asserted.
        unsafe { kernel(gate.as_mut_ptr(), up.as_ptr(), up.len() / LANES) }
    }

    /// `x = cap * tanh(x / cap)`; the length is a multiple of 16.
    pub fn soft_cap(&self, x: &mut [f32], cap: f32) {
        assert!(x.len().is_multiple_of(LANES));
        // SAFETY: the machine has the instruction set; the length as asserted.
        unsafe { (self.soft_cap)(x.as_mut_ptr(), x.len() / LANES, cap) }
    }

    /// `out[m] = scale * a x[m]`: `x` is `(rows, x_width)`, `a` `(x_width, rank)` in f16, `out` `(rows, rank)` with
    /// `out_stride` from row to row; `x_width` a multiple of 4, `rank` of 16.
    pub fn lora_down(&self, x: &[f32], x_width: usize, a: &[u16], scale: f32, out: &mut [f32], out_stride: usize) {
        let (rows, rank) = (x.len() / x_width, a.len() / x_width);
        assert!(x.len() == rows * x_width && a.len() == rank * x_width);
        assert!(x_width.is_multiple_of(4) && rank.is_multiple_of(LANES) && rank <= out_stride);
        assert!(lie_within(out.len(), rows, out_stride, rank), "there is room for each row");
        let mut row = 0;
        while row < rows {
            let four = usize::from(rows - row >= 4);
            let (x, out) = (&x[row * x_width..], &mut out[row * out_stride..]);
            // SAFETY: the machine has the instruction set; lengths as asserted.
            unsafe {
                let (x, out) = (x.as_ptr(), out.as_mut_ptr());
                (self.lora_down[four])(x, x_width, x_width, a.as_ptr(), rank, scale, out, out_stride);
            }
            row += if four == 1 { 4 } else { 1 };
        }
    }

    /// `y[m] += b h[m]` for a tile: `h` is `(rows, h_stride)` of which the first `rank` count, `b` `(rank, 16)` in f16, `y`
    /// `(rows, 16)`.
    pub fn lora_up(&self, h: &[f32], h_stride: usize, b: &[u16], y: &mut [f32]) {
        let (rows, rank) = (y.len() / LANES, b.len() / LANES);
        assert!(rank <= h_stride && lie_within(h.len(), rows, h_stride, rank), "`h` has a row for each of `y`");
        let mut row = 0;
        while row < rows {
            let four = usize::from(rows - row >= 4);
            let (h, y) = (&h[row * h_stride..], &mut y[row * LANES..]);
            // SAFETY: the machine has the instruction set; lengths as asserted.
            unsafe { (self.lora_up[four])(h.as_ptr(), h_stride, b.as_ptr(), rank, y.as_mut_ptr()) }
            row += if four == 1 { 4 } else { 1 };
        }
    }

    /// Attends with a few queries of one key/value head.
    pub fn attend(&self, attention: Attention<'_>) {
        let Attention { pages, first_page, precision, head_dim, seen, queries, cap } = attention;
        assert!((1..=MAX_HEAD).contains(&head_dim), "heads are at most {MAX_HEAD} wide");
        let padded = head_dim.next_multiple_of(LANES);
        assert_eq!(queries.len(), seen.len() * padded, "a query is as wide as a padded head");
        assert!(pages.iter().all(|page| page.len() >= precision.page_bytes(head_dim)));
        let pages_end = (first_page + pages.len()) * PAGE_TOKENS;
        assert!(
            seen.iter().all(|&(first, last)| first_page * PAGE_TOKENS <= first && first <= last && last < pages_end)
        );
        let pages: Vec<*const u8> = pages.iter().map(|page| page.as_ptr()).collect();
        let queries = queries.as_mut_ptr();
        let task = Task { pages: &pages, first_page, head_dim, padded, queries, seen, cap };
        // SAFETY: the machine has the instruction set; pages and queries as asserted; pages are indexed through
        // `pages`, so that a position beyond them panics.
        unsafe { (self.attend[precision as usize])(&task) }
    }

    /// Writes a token's key and value of one head into its slot of a page.
    pub fn write_kv(
        &self,
        precision: KvPrecision,
        k: &[f32],
        v: &[f32],
        page: &mut [u8],
        slot: usize,
        head_dim: usize,
    ) {
        assert!(head_dim <= MAX_HEAD, "heads are at most {MAX_HEAD} wide");
        let padded = head_dim.next_multiple_of(LANES);
        assert!(k.len() == padded && v.len() == padded && slot < PAGE_TOKENS);
        assert!(page.len() >= precision.page_bytes(head_dim));
        // SAFETY: the machine has the instruction set; lengths as asserted.
        unsafe {
            (self.write_kv[precision as usize])(k.as_ptr(), v.as_ptr(), page.as_mut_ptr(), slot, head_dim, padded);
        }
    }
}

/// Whether `count` pieces of `len` that begin `stride` apart lie within `all`, also where the sum would overflow.
fn lie_within(all: usize, count: usize, stride: usize, len: usize) -> bool {
    let Some(before_last) = count.checked_sub(1) else { return true };
    stride.checked_mul(before_last).and_then(|last| last.checked_add(len)).is_some_and(|end| end <= all)
}

impl KvPrecision {
    /// Bytes of a page's keys and values of one head: keys dimension by dimension, values token by token, and scales.
    pub(crate) fn page_bytes(self, head_dim: usize) -> usize {
        let numbers = 2 * PAGE_TOKENS * head_dim.next_multiple_of(LANES);
        match self {
            Self::F16 => 2 * numbers,
            Self::Int8 => numbers + 2 * 2 * PAGE_TOKENS,
        }
    }
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
