//! The two kinds of step in a pass, which alternate.
//!
//! In the first kind, a part is some lines: they are normed and quantised, and LoRA's first half runs. In the second
//! kind a part is some tiles of a matrix: all lines are multiplied with them, and what follows for these columns alone
//! (LoRA's second half, the activation) runs while they are in the cache. Products are stored tile by tile, `(tiles, lines,
//! 16)`, so every part writes its own stretch.

use std::{cell::RefCell, ops::Range};

use super::{
    CpuExecutor,
    adapter::{Scaled, ScaledPair},
    kernels::{LANES, PanelRow, Panels},
    packed::{Matrix, Norm, PackedLayer},
    step::Line,
};
use crate::Linear;

/// Data shared by all steps of a pass.
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

/// A product that is still to be added to the residual stream, and what it is normed by before.
#[derive(Clone, Copy)]
pub(super) struct Pending<'a> {
    /// `(tiles, lines, 16)`.
    pub product: &'a [f32],
    pub norm: Option<&'a [f32]>,
}

/// What steps hand to the next: the residual stream, quantised rows, and the results of LoRA's first halves.
pub(super) struct State<'a> {
    /// `(lines, width)`.
    pub x: &'a mut [f32],
    pub panels: &'a mut Panels,
    /// `(lines, linears of the step, rank)`.
    pub hidden: &'a mut [f32],
}

/// Neighbouring lines with the same adapter, at most as many as LoRA's kernels take at a time.
struct Group<'a> {
    lines: Range<usize>,
    adapter: Option<Scaled<'a>>,
}

const GROUP_LINES: usize = 4;

/// A group's update of a linear, and the offset of its LoRA state.
struct AdaptedLines<'a> {
    lines: Range<usize>,
    hidden: usize,
    pair: ScaledPair<'a>,
}

/// Parts of a step per thread, where there is more than one thread: a delayed thread leaves the rest to others.
const PARTS: usize = 4;

/// Tiles that are activated together where there is no gate.
const ACTIVATED_TILES: usize = 16;

/// Some tiles of one of a step's matrices.
pub(super) struct TilesPart<'a> {
    pub matrix: usize,
    pub tiles: Range<usize>,
    /// `(tiles, lines, 16)`.
    pub out: &'a mut [f32],
}

impl<'a> Pass<'a> {
    pub fn new(exec: &'a CpuExecutor, lines: &[Line], adapters: &[Option<Scaled<'a>>]) -> Self {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            let adapter = adapters[line.sequence];
            match groups.last_mut() {
                Some(last) if last.lines.len() < GROUP_LINES && Scaled::same(last.adapter, adapter) => {
                    last.lines.end += 1;
                }
                _ => groups.push(Group { lines: at..at + 1, adapter }),
            }
        }
        let rank = adapters.iter().flatten().map(Scaled::most_rank).max().unwrap_or(0);
        let width = exec.config.hidden_size.next_multiple_of(32);
        Self { exec, groups, lines: lines.len(), hidden_stride: 3 * rank, rank, width }
    }

    /// Adds what is pending to a line of the residual stream, and writes what the next part reads: the line normed, or as it
    /// is.
    pub fn norm(&self, line: usize, x: &mut [f32], pending: Option<Pending<'_>>, norm: Option<&Norm>, out: &mut [f32]) {
        let CpuExecutor { kernels, config, .. } = self.exec;
        let hidden = config.hidden_size;
        match pending {
            Some(Pending { product, norm: None }) => {
                let width = hidden.next_multiple_of(LANES);
                kernels.add(&mut x[..width], &product[line * LANES..], self.lines * LANES);
            }
            Some(Pending { product, norm: Some(norm) }) => with_buffer(x.len(), |normed| {
                gather(product, self.lines, line, &mut out[..hidden]);
                out[hidden..].fill(0.0);
                kernels.rms_norm(out, norm, normed, hidden, config.norm_eps);
                kernels.add(x, normed, LANES);
            }),
            None => {}
        }
        match norm {
            Some(Norm { weight, bias: None }) => kernels.rms_norm(x, weight, out, hidden, config.norm_eps),
            Some(Norm { weight, bias: Some(bias) }) => {
                kernels.layer_norm(x, (weight, bias), out, hidden, config.norm_eps);
            }
            None => out.copy_from_slice(x),
        }
    }

    /// Quantises the output of `produce` for each line (from its part of the residual stream, into a row of zeros after
    /// `in_features`), and runs the first halves of the LoRA of these linears of a layer on it.
    pub fn rows(
        &self,
        state: &mut State<'_>,
        (layer, linears): (usize, &[Linear]),
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
        state.panels.resize(self.lines, in_features);
        let width = in_features.next_multiple_of(32);
        let mut rows = state.panels.rows_mut();
        let (mut x, mut hidden) = (&mut *state.x, &mut *state.hidden);
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
                let (out, after) = rest.split_at_mut(tiles.len() * lines * LANES);
                rest = after;
                parts.push(TilesPart { matrix, tiles, out });
            }
        }
        parts
    }

    /// Multiplies all lines with some linears that read the same input.
    pub fn tiles(&self, state: &State<'_>, number: usize, linears: &[Linear], out: &mut [f32]) {
        let exec = self.exec;
        let (layer, panels, hidden) = (&exec.model.layers[number], &*state.panels, &*state.hidden);
        let matrices: Vec<Matrix> = linears.iter().map(|&linear| layer.linear(linear)).collect();
        let mut parts = self.parts(&matrices, self.lines, out);
        exec.team.each(&mut parts, |part| {
            exec.kernels.multiply(&exec.model.view(matrices[part.matrix]), part.tiles.clone(), panels, part.out);
            self.add_bias(layer, linears[part.matrix], part.tiles.clone(), part.out);
            let pairs = self.pairs(number, linears[part.matrix], part.matrix);
            self.lora_up(&pairs, part.tiles.clone(), hidden, part.out);
        });
    }

    /// The gated unit's two products, each tile of one beside that of the other.
    pub fn gate_and_up(&self, state: &State<'_>, number: usize, out: &mut [f32]) {
        let exec = self.exec;
        let (layer, panels, hidden) = (&exec.model.layers[number], &*state.panels, &*state.hidden);
        let [gate, up] = [Linear::Gate, Linear::Up].map(|linear| exec.model.view(layer.linear(linear)));
        let activation = exec.config.layers[number].activation;
        let mut parts = self.parts(&[layer.linear(Linear::Gate)], self.lines, out);
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
                    exec.kernels.gated(activation, out, other);
                }
            });
        });
    }

    /// The one product of a feed-forward part without a gate, and its activation.
    pub fn activated(&self, state: &State<'_>, number: usize, out: &mut [f32]) {
        let exec = self.exec;
        self.tiles(state, number, &[Linear::Up], out);
        let activation = exec.config.layers[number].activation;
        let mut parts: Vec<&mut [f32]> = out.chunks_mut(ACTIVATED_TILES * self.lines * LANES).collect();
        exec.team.each(&mut parts, |part| {
            with_buffer(part.len(), |ones| {
                ones.fill(1.0);
                exec.kernels.gated(activation, part, ones);
            });
        });
    }

    /// Adds a linear's bias, if it has one, to some tiles of its product.
    fn add_bias(&self, layer: &PackedLayer, linear: Linear, tiles: Range<usize>, out: &mut [f32]) {
        let Some(bias) = &layer.biases[linear as usize] else { return };
        let bias = &bias.as_chunks::<LANES>().0[tiles];
        for (bias, lines) in bias.iter().zip(out.chunks_exact_mut(self.lines * LANES)) {
            for line in lines.as_chunks_mut::<LANES>().0 {
                line.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
            }
        }
    }

    /// The lines for which a linear of a layer, the step's linear `index`, is adapted.
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

/// The first `len` numbers of a buffer that grows as needed; the contents are void.
pub(super) fn room(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// A thread's own memory for one part of a step, or for a piece of its work.
pub(super) fn with_buffer<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        static BUFFERS: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
    }
    let mut buffer = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    let result = work(room(&mut buffer, len));
    BUFFERS.with_borrow_mut(|buffers| buffers.push(buffer));
    result
}

/// A line's numbers of a product, `(tiles, lines, 16)`.
pub(super) fn gather(product: &[f32], lines: usize, line: usize, out: &mut [f32]) {
    let (whole, rest) = out.as_chunks_mut::<LANES>();
    let count = whole.len();
    let mut tiles = product.as_chunks::<LANES>().0[line..].iter().step_by(lines);
    whole.iter_mut().zip(tiles.by_ref().take(count)).for_each(|(out, tile)| *out = *tile);
    if let (false, Some(tile)) = (rest.is_empty(), tiles.next()) {
        rest.copy_from_slice(&tile[..rest.len()]);
    }
}
