//! The two kinds of step a pass is made of, which take turns.
//!
//! In one, a part is some lines: they are normed and quantised, and meet LoRA's first half. In the other a part is some
//! tiles of a matrix: all lines are multiplied with them, and what follows for these columns alone (LoRA's second half,
//! SwiGLU) is done while they are near. Products lie tile by tile, `(tiles, lines, 16)`, so every part writes a
//! stretch of its own.

use std::{cell::RefCell, ops::Range};

use super::{
    CpuExecutor,
    adapter::{Worn, WornPair},
    kernels::{LANES, PanelRow, Panels},
    packed::{Matrix, PackedLayer},
    step::Line,
};
use crate::Linear;

/// What all steps of a pass share.
pub(super) struct Pass<'a> {
    exec: &'a CpuExecutor,
    groups: Vec<Group<'a>>,
    lines: usize,
    /// Numbers from one line's LoRA state to the next's, and from one linear's to the next's within it.
    pub hidden_stride: usize,
    rank: usize,
    /// Padded width of the residual stream.
    pub width: usize,
}

/// Neighbouring lines in one voice, at most as many as LoRA's kernels take at a time.
struct Group<'a> {
    lines: Range<usize>,
    adapter: Option<Worn<'a>>,
}

const GROUP_LINES: usize = 4;

/// A group's update of a linear, and where its LoRA state begins.
struct AdaptedLines<'a> {
    lines: Range<usize>,
    hidden: usize,
    pair: WornPair<'a>,
}

/// Parts a step is cut into for each thread, where there is more than one: who is held up leaves the rest to others.
const PARTS: usize = 4;

/// Some tiles of one of a step's matrices.
pub(super) struct TilesPart<'a> {
    pub matrix: usize,
    pub tiles: Range<usize>,
    /// `(tiles, lines, 16)`.
    pub out: &'a mut [f32],
}

impl<'a> Pass<'a> {
    pub fn new(exec: &'a CpuExecutor, lines: &[Line], adapters: &[Option<Worn<'a>>]) -> Self {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            let adapter = adapters[line.sequence];
            match groups.last_mut() {
                Some(last) if last.lines.len() < GROUP_LINES && Worn::same(last.adapter, adapter) => {
                    last.lines.end += 1;
                }
                _ => groups.push(Group { lines: at..at + 1, adapter }),
            }
        }
        let rank = adapters.iter().flatten().map(Worn::most_rank).max().unwrap_or(0);
        let width = exec.config.hidden_size.next_multiple_of(32);
        Self { exec, groups, lines: lines.len(), hidden_stride: 3 * rank, rank, width }
    }

    /// Adds what is due to a line of the residual stream and norms it.
    pub fn norm(&self, line: usize, x: &mut [f32], residual: Option<&[f32]>, weight: &[f32], out: &mut [f32]) {
        let CpuExecutor { kernels, config, .. } = self.exec;
        if let Some(residual) = residual {
            let width = config.hidden_size.next_multiple_of(LANES);
            kernels.add(&mut x[..width], &residual[line * LANES..], self.lines * LANES);
        }
        kernels.rms_norm(x, weight, out, config.hidden_size, config.rms_norm_eps);
    }

    /// Quantises what `produce` gives for each line (from its part of the residual stream, into a row of zeros behind
    /// `in_features`), and takes it through the first halves of the linears' LoRA.
    pub fn rows(
        &self,
        x: &mut [f32],
        panels: &mut Panels,
        hidden: &mut [f32],
        layer: usize,
        linears: &[Linear],
        in_features: usize,
        produce: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
    ) {
        struct Part<'a> {
            group: &'a Group<'a>,
            x: &'a mut [f32],
            rows: Vec<PanelRow<'a>>,
            hidden: &'a mut [f32],
        }
        let kernels = self.exec.kernels;
        panels.resize(self.lines, in_features);
        let width = in_features.next_multiple_of(32);
        let mut rows = panels.rows_mut();
        let (mut x, mut hidden) = (x, hidden);
        let mut parts = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            let lines = group.lines.len();
            let (own_x, other_x) = x.split_at_mut(lines * self.width);
            let (own_hidden, other_hidden) = hidden.split_at_mut(lines * self.hidden_stride);
            (x, hidden) = (other_x, other_hidden);
            parts.push(Part { group, x: own_x, rows: rows.by_ref().take(lines).collect(), hidden: own_hidden });
        }
        self.exec.team.each(&mut parts, |part| {
            with_buffer(part.rows.len() * width, |buffer| {
                let lines = part.x.chunks_exact_mut(self.width).zip(buffer.chunks_exact_mut(width)).zip(&mut part.rows);
                for (line, ((x, out), row)) in part.group.lines.clone().zip(lines) {
                    out[in_features..].fill(0.0);
                    produce(line, x, out);
                    kernels.quantise(out, row);
                }
                let Some(adapter) = part.group.adapter else { return };
                for (number, &linear) in linears.iter().enumerate() {
                    if let Some(pair) = adapter.pair(layer, linear) {
                        let hidden = &mut part.hidden[number * self.rank..];
                        kernels.lora_down(buffer, width, pair.a, pair.scale, hidden, self.hidden_stride);
                    }
                }
            });
        });
    }

    /// Cuts matrices' tiles into parts; `out` is `(tiles of all, lines, 16)`.
    pub fn parts<'o>(&self, matrices: &[Matrix], lines: usize, out: &'o mut [f32]) -> Vec<TilesPart<'o>> {
        let threads = self.exec.team.threads();
        let all: usize = matrices.iter().map(|matrix| matrix.tiles()).sum();
        let most = if threads == 1 { all } else { all.div_ceil(threads * PARTS) }.max(1);
        let mut rest = out;
        let mut parts = Vec::new();
        for (matrix, tiles) in matrices.iter().map(|matrix| matrix.tiles()).enumerate() {
            for first in (0..tiles).step_by(most) {
                let tiles = first..tiles.min(first + most);
                let (out, behind) = rest.split_at_mut(tiles.len() * lines * LANES);
                rest = behind;
                parts.push(TilesPart { matrix, tiles, out });
            }
        }
        parts
    }

    /// Multiplies all lines with some linears that read the same input.
    pub fn tiles(
        &self,
        layer: &PackedLayer,
        number: usize,
        linears: &[Linear],
        panels: &Panels,
        hidden: &[f32],
        out: &mut [f32],
    ) {
        let exec = self.exec;
        let matrices: Vec<Matrix> = linears.iter().map(|&linear| layer.linears[linear as usize]).collect();
        let mut parts = self.parts(&matrices, self.lines, out);
        exec.team.each(&mut parts, |part| {
            exec.kernels.multiply(&exec.model.view(matrices[part.matrix]), part.tiles.clone(), panels, part.out);
            self.add_bias(layer, linears[part.matrix], part.tiles.clone(), part.out);
            let pairs = self.pairs(number, linears[part.matrix], part.matrix);
            self.lora_up(&pairs, part.tiles.clone(), hidden, part.out);
        });
    }

    /// SwiGLU's two products, each tile of one beside that of the other.
    pub fn gate_and_up(&self, layer: &PackedLayer, number: usize, panels: &Panels, hidden: &[f32], out: &mut [f32]) {
        let exec = self.exec;
        let [gate, up] = [Linear::Gate, Linear::Up].map(|linear| exec.model.view(layer.linears[linear as usize]));
        let mut parts = self.parts(&[layer.linears[Linear::Gate as usize]], self.lines, out);
        exec.team.each(&mut parts, |part| {
            let tile_numbers = self.lines * LANES;
            let (gate_pairs, up_pairs) = (self.pairs(number, Linear::Gate, 0), self.pairs(number, Linear::Up, 1));
            with_buffer(tile_numbers, |other| {
                for (tile, out) in part.tiles.clone().zip(part.out.chunks_exact_mut(tile_numbers)) {
                    exec.kernels.multiply(&gate, tile..tile + 1, panels, out);
                    exec.kernels.multiply(&up, tile..tile + 1, panels, other);
                    self.add_bias(layer, Linear::Gate, tile..tile + 1, out);
                    self.add_bias(layer, Linear::Up, tile..tile + 1, other);
                    self.lora_up(&gate_pairs, tile..tile + 1, hidden, out);
                    self.lora_up(&up_pairs, tile..tile + 1, hidden, other);
                    exec.kernels.swiglu(out, other);
                }
            });
        });
    }

    /// Adds a linear's bias to some tiles of its product, where it has one.
    fn add_bias(&self, layer: &PackedLayer, linear: Linear, tiles: Range<usize>, out: &mut [f32]) {
        let Some(bias) = &layer.biases[linear as usize] else { return };
        let bias = &bias.as_chunks::<LANES>().0[tiles];
        for (bias, lines) in bias.iter().zip(out.chunks_exact_mut(self.lines * LANES)) {
            for line in lines.as_chunks_mut::<LANES>().0 {
                line.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
            }
        }
    }

    /// Whose lines a linear of a layer, the step's linear `index`, is adapted for.
    fn pairs(&self, layer: usize, linear: Linear, index: usize) -> Vec<AdaptedLines<'a>> {
        let adapted = |group: &Group<'a>| {
            let hidden = group.lines.start * self.hidden_stride + index * self.rank;
            Some(AdaptedLines { lines: group.lines.clone(), hidden, pair: group.adapter?.pair(layer, linear)? })
        };
        self.groups.iter().filter_map(adapted).collect()
    }

    /// Adds LoRA's second halves to some tiles.
    fn lora_up(&self, pairs: &[AdaptedLines<'_>], tiles: Range<usize>, hidden: &[f32], out: &mut [f32]) {
        for AdaptedLines { lines, hidden: at, pair } in pairs {
            let hidden = &hidden[*at..];
            for (tile, out) in tiles.clone().zip(out.chunks_exact_mut(self.lines * LANES)) {
                let out = &mut out[lines.start * LANES..lines.end * LANES];
                self.exec.kernels.lora_up(hidden, self.hidden_stride, pair.tile(tile), out);
            }
        }
    }
}

/// The first `len` numbers of a buffer that grows as needed; what they hold is void.
pub(super) fn room(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// Memory of a thread's own for one part of a step.
pub(super) fn with_buffer<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        static BUFFER: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| work(room(buffer, len)))
}
