//! Rotary position embedding, in the layout of the model's rows.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{host, row_chunks, with_host};
use elenchus_lm::{ModelConfig, RopeLayout};

/// Cosines and sines of the positions in a batch, `(rows, rotary_dim / 2)` each; layers of one rotary base share them.
pub(crate) struct Rotation {
    cos: Tensor,
    sin: Tensor,
    layout: RopeLayout,
    head_dim: usize,
    rotary_dim: usize,
}

impl Rotation {
    /// From `rotary_dim / 2` frequencies; angles are computed in f32, as transformers does.
    pub fn new(config: &ModelConfig, frequencies: &[f32], positions: &[usize], device: &Device) -> Result<Self> {
        let ModelConfig { head_dim, rotary_dim, rope_layout: layout, rope_magnitude, .. } = *config;
        let half = rotary_dim / 2;
        let angles = positions.iter().flat_map(|&position| frequencies.iter().map(move |f| position as f32 * f));
        let scaled = |(sin, cos): (f32, f32)| (sin * rope_magnitude, cos * rope_magnitude);
        let (sin, cos): (Vec<f32>, Vec<f32>) = angles.map(f32::sin_cos).map(scaled).unzip();
        let tensor = |values| Tensor::from_vec(values, (positions.len(), half), device);
        Ok(Self { cos: tensor(cos)?, sin: tensor(sin)?, layout, head_dim, rotary_dim })
    }

    /// Each layer's.
    pub fn of_layers(config: &ModelConfig, positions: &[usize], device: &Device) -> Result<Vec<Arc<Self>>> {
        let (sets, of_layers) = config.rope_frequencies();
        let rotations = sets.iter().map(|set| Self::new(config, set, positions, device).map(Arc::new));
        let rotations = rotations.collect::<Result<Vec<_>>>()?;
        Ok(of_layers.into_iter().map(|number| rotations[number].clone()).collect())
    }
}

struct Rope {
    layout: RopeLayout,
    head_dim: usize,
    rotary_dim: usize,
    /// 1, or -1 to rotate back.
    direction: f32,
}

/// Rotates every head of `x` `(rows, heads * head_dim)` by its row's position.
pub(crate) fn rope(x: &Tensor, rotation: &Rotation) -> Result<Tensor> {
    if x.device().is_cpu() {
        let op = Rope::new(rotation, 1.0);
        x.apply_op3(&rotation.cos, &rotation.sin, op)
    } else {
        composed(x, rotation)
    }
}

fn composed(x: &Tensor, rotation: &Rotation) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let Rotation { head_dim, rotary_dim, .. } = *rotation;
    let (heads, half) = (width / head_dim, rotary_dim / 2);
    let (cos, sin) = (rotation.cos.unsqueeze(1)?, rotation.sin.unsqueeze(1)?);
    // The two sides of each pair, (rows, heads, half).
    let (pairs, side) = match rotation.layout {
        RopeLayout::Halves => ((rows, heads, 2, half), 2),
        RopeLayout::Interleaved => ((rows, heads, half, 2), 3),
    };
    let heads_of = x.reshape((rows, heads, head_dim))?;
    let x = heads_of.narrow(2, 0, rotary_dim)?.reshape(pairs)?;
    let (a, b) = (x.narrow(side, 0, 1)?.squeeze(side)?, x.narrow(side, 1, 1)?.squeeze(side)?);
    let new_a = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let new_b = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
    let rotated = Tensor::stack(&[new_a, new_b], side)?.reshape((rows, heads, rotary_dim))?;
    if rotary_dim == head_dim {
        return rotated.reshape((rows, width));
    }
    let rest = heads_of.narrow(2, rotary_dim, head_dim - rotary_dim)?;
    Tensor::cat(&[rotated, rest], 2)?.reshape((rows, width))
}

/// Rotates the rows of `y` in place.
pub(super) fn rotate(y: &mut [f32], rows: usize, rotation: &Rotation) -> Result<()> {
    turned(y, rows, rotation, 1.0)
}

/// Rotates the rows of a gradient back in place.
pub(super) fn unrotate(grad: &mut [f32], rows: usize, rotation: &Rotation) -> Result<()> {
    turned(grad, rows, rotation, -1.0)
}

fn turned(y: &mut [f32], rows: usize, rotation: &Rotation, direction: f32) -> Result<()> {
    if rotation.cos.dim(0)? != rows {
        candle_core::bail!("rope: {rows} rows, but {} positions", rotation.cos.dim(0)?)
    }
    let op = Rope::new(rotation, direction);
    with_host(&rotation.cos, |cos| with_host(&rotation.sin, |sin| op.turn(y, cos, sin)))?
}

impl Rope {
    fn new(rotation: &Rotation, direction: f32) -> Self {
        let Rotation { layout, head_dim, rotary_dim, .. } = *rotation;
        Self { layout, head_dim, rotary_dim, direction }
    }

    /// Rotates every head of `y`; `cos` and `sin` have one row of half of what rotates for each of its rows.
    fn turn(&self, y: &mut [f32], cos: &[f32], sin: &[f32]) {
        let half = self.rotary_dim / 2;
        let rows = cos.len() / half;
        let (width, chunk) = (y.len() / rows, row_chunks(rows, y.len() / rows));
        let parts = y.par_chunks_mut(chunk * width).zip(cos.par_chunks(chunk * half)).zip(sin.par_chunks(chunk * half));
        parts.for_each(|((y, cos), sin)| {
            vectorised!({
                let rows = y.chunks_exact_mut(width).zip(cos.chunks_exact(half)).zip(sin.chunks_exact(half));
                for ((row, cos), sin) in rows {
                    for head in row.chunks_exact_mut(self.head_dim) {
                        let head = &mut head[..self.rotary_dim];
                        match self.layout {
                            RopeLayout::Halves => rotate_halves(head, cos, sin, self.direction),
                            RopeLayout::Interleaved => rotate_interleaved(head, cos, sin, self.direction),
                        }
                    }
                }
            });
        });
    }
}

impl CustomOp3 for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_l: &Layout,
        cos: &CpuStorage,
        cos_l: &Layout,
        sin: &CpuStorage,
        sin_l: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut y = host(x, x_l)?.to_vec();
        self.turn(&mut y, host(cos, cos_l)?, host(sin, sin_l)?);
        Ok((CpuStorage::F32(y), x_l.shape().clone()))
    }

    /// A rotation's gradient is the inverse rotation, times the same magnitude.
    fn bwd(
        &self,
        _: &Tensor,
        cos: &Tensor,
        sin: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let back = Self { direction: -self.direction, ..*self };
        Ok((Some(grad.contiguous()?.apply_op3_no_bwd(cos, sin, &back)?), None, None))
    }
}

#[inline(always)]
fn rotate_halves(head: &mut [f32], cos: &[f32], sin: &[f32], direction: f32) {
    let (a, b) = head.split_at_mut(cos.len());
    for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
        let sin = sin * direction;
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}

#[inline(always)]
fn rotate_interleaved(head: &mut [f32], cos: &[f32], sin: &[f32], direction: f32) {
    for ((pair, cos), sin) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
        let sin = sin * direction;
        *pair = [pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos];
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};
    use crate::ops::tests::tiny;

    #[test]
    fn fused_equals_composed_in_both_layouts() {
        for (rope_layout, rotary_dim) in
            [(RopeLayout::Halves, 16), (RopeLayout::Interleaved, 16), (RopeLayout::Halves, 6)]
        {
            let config = ModelConfig { rope_layout, rotary_dim, rope_magnitude: 1.2, ..tiny() };
            let rotation =
                Rotation::new(&config, &config.rope_frequencies().0[0], &[0, 1, 7, 100], &Device::Cpu).unwrap();
            let x = random(3, &[4, 3 * config.head_dim]);
            let difference = distance(&rope(&x, &rotation).unwrap(), &composed(&x, &rotation).unwrap());
            assert!(difference < 1e-6, "{rope_layout:?}, {rotary_dim}: {difference}");
        }
    }

    #[test]
    fn the_two_layouts_are_one_rotation_of_reordered_rows() {
        let interleaved = tiny();
        let halves = ModelConfig { rope_layout: RopeLayout::Halves, ..tiny() };
        let x = random(4, &[3, 2 * interleaved.head_dim]);
        let order: Vec<u32> = interleaved.rope_row_order(2).unwrap().iter().map(|&row| row as u32).collect();
        let order = Tensor::new(order, &Device::Cpu).unwrap();
        let rotate = |config: &ModelConfig, x: &Tensor| {
            rope(x, &Rotation::new(config, &config.rope_frequencies().0[0], &[5, 6, 90], &Device::Cpu).unwrap())
                .unwrap()
        };
        let reordered = rotate(&interleaved, &x.index_select(&order, 1).unwrap());
        let expected = rotate(&halves, &x).index_select(&order, 1).unwrap();
        assert!(distance(&reordered, &expected) < 1e-6);
    }

    #[test]
    fn gradient_equals_finite_differences() {
        for (rope_layout, rotary_dim) in
            [(RopeLayout::Halves, 6), (RopeLayout::Interleaved, 6), (RopeLayout::Halves, 4)]
        {
            let config = ModelConfig { rope_layout, head_dim: 6, rotary_dim, rope_magnitude: 1.2, ..tiny() };
            let rotation = Rotation::new(&config, &config.rope_frequencies().0[0], &[0, 3, 50], &Device::Cpu).unwrap();
            check_gradient(&[random(1, &[3, 12])], |inputs| rope(&inputs[0], &rotation).unwrap());
        }
    }
}
