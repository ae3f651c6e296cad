//! Products of matrices that are small or cut causally, in registers: the building blocks of attention.
//!
//! The left side is packed in columns of [`ROWS`] numbers, the right side in panels two vectors wide, so that the innermost
//! loop reads both from front to back and holds its sums in registers. Vectors are as wide as the CPU has them (`pulp`).

use std::ops::Range;

use pulp::Simd;

/// Rows of a tile: with two vectors each, as many sums as AVX2 has registers for.
pub(super) const ROWS: usize = 6;

/// The right side of a product, `(depth, width)`, with zeros after the width's end.
pub(super) struct Panels<S: Simd> {
    data: Vec<[S::f32s; 2]>,
    depth: usize,
    count: usize,
}

impl<S: Simd> Panels<S> {
    /// Columns of a panel.
    pub const WIDTH: usize = 2 * S::F32_LANES;

    /// Packs the rows of a `(depth, width)` matrix.
    #[inline(always)]
    pub fn of_rows<'a>(simd: S, width: usize, rows: impl ExactSizeIterator<Item = &'a [f32]>) -> Self {
        let (depth, count) = (rows.len(), width.div_ceil(Self::WIDTH));
        let mut data = vec![[simd.splat_f32s(0.0); 2]; depth * count];
        for (at, row) in rows.enumerate() {
            for (panel, part) in row.chunks(Self::WIDTH).enumerate() {
                let (low, high) = part.split_at(part.len().min(S::F32_LANES));
                data[panel * depth + at] = [simd.partial_load_f32s(low), simd.partial_load_f32s(high)];
            }
        }
        Self { data, depth, count }
    }

    /// Packs the transpose: `columns` are the `width` columns, each of `depth` numbers.
    #[inline(always)]
    pub fn of_columns<'a>(simd: S, depth: usize, columns: impl ExactSizeIterator<Item = &'a [f32]>) -> Self {
        let count = columns.len().div_ceil(Self::WIDTH);
        let mut data = vec![[simd.splat_f32s(0.0); 2]; depth * count];
        let numbers: &mut [f32] = numbers_of::<S>(&mut data);
        for (column, values) in columns.enumerate() {
            let start = column / Self::WIDTH * depth * Self::WIDTH + column % Self::WIDTH;
            for (at, value) in values.iter().enumerate() {
                numbers[start + at * Self::WIDTH] = *value;
            }
        }
        Self { data, depth, count }
    }

    /// Columns, padding included: the width of a product's output.
    pub fn padded_width(&self) -> usize {
        self.count * Self::WIDTH
    }
}

/// The packed numbers.
#[inline(always)]
fn numbers_of<S: Simd>(data: &mut [[S::f32s; 2]]) -> &mut [f32] {
    pulp::bytemuck::cast_slice_mut(data.as_flattened_mut())
}

/// `into (+)= a b[depth..]` for the first `width` columns of `b`: `a` holds a column of [`ROWS`] numbers for every row of
/// `b` in `depth`, `into` has `padded_width` numbers a row.
#[inline(always)]
pub(super) fn product<S: Simd>(
    simd: S,
    a: &[[f32; ROWS]],
    b: &Panels<S>,
    depth: Range<usize>,
    width: usize,
    into: &mut [f32],
    is_sum: bool,
) {
    let padded_width = b.padded_width();
    let (into, _) = S::as_mut_simd_f32s(&mut into[..ROWS * padded_width]);
    let stride = padded_width / S::F32_LANES;
    for panel in 0..width.div_ceil(Panels::<S>::WIDTH) {
        let b = &b.data[panel * b.depth..][depth.clone()];
        let mut sums = [[simd.splat_f32s(0.0); 2]; ROWS];
        for (a, b) in a.iter().zip(b) {
            for row in 0..ROWS {
                let a = simd.splat_f32s(a[row]);
                sums[row][0] = simd.mul_add_e_f32s(a, b[0], sums[row][0]);
                sums[row][1] = simd.mul_add_e_f32s(a, b[1], sums[row][1]);
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            let into = &mut into[row * stride + 2 * panel..][..2];
            for (into, sum) in into.iter_mut().zip(sums) {
                *into = if is_sum { simd.add_f32s(*into, sum) } else { sum };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, WithSimd};

    use super::*;

    struct Check {
        depth: usize,
        width: usize,
    }

    impl WithSimd for Check {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Self { depth, width } = self;
            let value = |seed: usize, at: usize| ((at * 37 + seed * 11) % 19) as f32 - 9.0;
            let a: Vec<[f32; ROWS]> = (0..depth).map(|at| std::array::from_fn(|row| value(row, at))).collect();
            let rows: Vec<Vec<f32>> = (0..depth).map(|at| (0..width).map(|n| value(n, at * 3)).collect()).collect();
            let columns: Vec<Vec<f32>> = (0..width).map(|n| rows.iter().map(|row| row[n]).collect()).collect();
            for b in [
                Panels::of_rows(simd, width, rows.iter().map(Vec::as_slice)),
                Panels::of_columns(simd, depth, columns.iter().map(Vec::as_slice)),
            ] {
                let padded = b.padded_width();
                let part = depth / 3..depth;
                let mut once = vec![7.0; ROWS * padded];
                product(simd, &a[part.clone()], &b, part.clone(), width, &mut once, false);
                let mut twice = once.clone();
                product(simd, &a[part.clone()], &b, part.clone(), width, &mut twice, true);
                let all = (0..ROWS).flat_map(|row| (0..width).map(move |n| (row, n)));
                for (row, n) in all {
                    // Small whole numbers: every order of summing is exact.
                    let expected: f32 = part.clone().map(|at| a[at][row] * rows[at][n]).sum();
                    let at = row * padded + n;
                    assert_eq!((once[at], twice[at]), (expected, 2.0 * expected), "{depth} {width} {row} {n}");
                }
            }
        }
    }

    #[test]
    fn equals_the_plain_sum_over_ragged_shapes() {
        for (depth, width) in [(1, 1), (3, 7), (64, 33), (65, 64), (200, 100)] {
            Arch::new().dispatch(Check { depth, width });
            Arch::Scalar.dispatch(Check { depth, width });
        }
    }
}
