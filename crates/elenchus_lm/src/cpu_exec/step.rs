//! One pass of some lines through the model, in steps that end when all threads have done their parts.

use std::ops::Range;

use super::{
    CpuExecutor,
    adapter::Worn,
    kernels::{Attention, Kernels, LANES, Panels},
    pass::{Pass, room, with_buffer},
};
use crate::{Linear, Row, config::window_start, kv_cache::PAGE_TOKENS};

/// One token of a batch.
pub(super) struct Line {
    /// Its row of the batch.
    pub sequence: usize,
    pub position: usize,
    pub token: u32,
    pub wants_logits: bool,
}

/// Cosines and signed sines of the lines' positions, `(lines, head_dim padded)`.
#[derive(Clone, Copy)]
struct Rotation<'a> {
    cos: &'a [f32],
    sin: &'a [f32],
}

/// Logits of a line.
pub(super) struct Wanted {
    pub line: usize,
    pub logits: Vec<f32>,
}

/// Memory of a pass, kept from one to the next.
pub(super) struct Scratch {
    /// The residual stream, `(lines, hidden_size padded)`.
    x: Vec<f32>,
    /// Queries, keys and values, tile by tile.
    qkv: Vec<f32>,
    /// For each run of lines that attend together `(kv_heads, lines, heads of the group, head_dim padded)`: queries, then
    /// what they attended to.
    attended: Vec<f32>,
    /// What is added to the residual stream next, tile by tile.
    product: Vec<f32>,
    /// SwiGLU's output, tile by tile.
    inner: Vec<f32>,
    /// What LoRA's first halves leave, `(lines, linears of the step, rank)`.
    hidden: Vec<f32>,
    /// Cosines and signed sines, `(rotary bases, lines, head_dim padded)`.
    cos: Vec<f32>,
    sin: Vec<f32>,
    panels: Panels,
    /// The head's product, tile by tile.
    logits: Vec<f32>,
}

/// Lines of a sequence that attend together: six queries share what is loaded, and heads come in threes and fours.
const ATTENTION_LINES: usize = 4;

/// Head rows that are multiplied at a time.
const HEAD_LINES: usize = 16;

impl Scratch {
    pub fn new(kernels: &Kernels) -> Self {
        let none = Vec::new;
        Self {
            x: none(),
            qkv: none(),
            attended: none(),
            product: none(),
            inner: none(),
            hidden: none(),
            cos: none(),
            sin: none(),
            panels: kernels.panels(),
            logits: none(),
        }
    }
}

impl CpuExecutor {
    /// Runs lines through the model, writes their keys and values, and returns the logits that are wanted.
    pub(super) fn step(
        &self,
        scratch: &mut Scratch,
        lines: &[Line],
        batch: &mut [Row<'_>],
        adapters: &[Option<Worn<'_>>],
    ) -> Vec<Wanted> {
        let config = &self.config;
        let pass = Pass::new(self, lines, adapters);
        let n = lines.len();
        let Scratch { x, qkv, attended, product, inner, hidden, cos, sin, panels, logits } = scratch;
        let x = room(x, n * pass.width);
        let hidden = room(hidden, n * pass.hidden_stride);
        let product = room(product, config.hidden_size.div_ceil(LANES) * n * LANES);
        let inner = room(inner, config.intermediate_size.div_ceil(LANES) * n * LANES);
        let padded = config.head_dim.next_multiple_of(LANES);
        let attended = room(attended, n * config.num_heads * padded);
        for (line, x) in lines.iter().zip(x.chunks_exact_mut(pass.width)) {
            x.fill(0.0);
            self.model.row(self.model.embedding, line.token as usize, x);
        }
        let (thetas, theta_of) = &self.rope_thetas;
        let rotations = self.rotations(thetas, lines, cos, sin);
        let runs: Vec<Range<usize>> = attention_runs(lines).flat_map(|run| vec![run.clone(); run.len()]).collect();

        for (number, layer) in self.model.layers.iter().enumerate() {
            let add = number > 0;
            let rotation = rotations[theta_of[number]];
            let residual: &[f32] = product;
            pass.rows(
                x,
                panels,
                hidden,
                number,
                &[Linear::Q, Linear::K, Linear::V],
                config.hidden_size,
                |line, x, out| {
                    pass.norm(line, x, add.then_some(residual), &layer.attention_norm, out);
                },
            );
            let tiles = [Linear::Q, Linear::K, Linear::V].map(|linear| layer.linears[linear as usize].tiles());
            let qkv = room(qkv, tiles.iter().sum::<usize>() * n * LANES);
            pass.tiles(layer, number, &[Linear::Q, Linear::K, Linear::V], panels, hidden, qkv);
            let (q, kv) = qkv.split_at(tiles[0] * n * LANES);
            let (k, v) = kv.split_at(tiles[1] * n * LANES);
            self.write_kv(lines, batch, number, rotation, k, v);
            self.attend(lines, batch, number, rotation, q, attended);
            let attended: &[f32] = attended;
            pass.rows(x, panels, hidden, number, &[Linear::O], config.q_dim(), |line, _, out| {
                let group = config.num_heads / config.num_kv_heads;
                let run = &runs[line];
                let of_run = &attended[run.start * config.num_heads * padded..];
                for (head, out) in out[..config.q_dim()].chunks_exact_mut(config.head_dim).enumerate() {
                    let at = ((head / group * run.len() + line - run.start) * group + head % group) * padded;
                    out.copy_from_slice(&of_run[at..at + config.head_dim]);
                }
            });
            pass.tiles(layer, number, &[Linear::O], panels, hidden, product);
            let residual: &[f32] = product;
            let linears = [Linear::Gate, Linear::Up];
            pass.rows(x, panels, hidden, number, &linears, config.hidden_size, |line, x, out| {
                pass.norm(line, x, Some(residual), &layer.ffn_norm, out);
            });
            pass.gate_and_up(layer, number, panels, hidden, inner);
            let activated: &[f32] = inner;
            pass.rows(x, panels, hidden, number, &[Linear::Down], config.intermediate_size, |line, _, out| {
                let of_line = activated.as_chunks::<LANES>().0[line..].iter().step_by(n);
                out.as_chunks_mut::<LANES>().0.iter_mut().zip(of_line).for_each(|(out, tile)| *out = *tile);
            });
            pass.tiles(layer, number, &[Linear::Down], panels, hidden, product);
        }
        self.head(&pass, lines, x, product, panels, logits)
    }

    /// One for each rotary base.
    fn rotations<'a>(
        &self,
        thetas: &[f32],
        lines: &[Line],
        cos: &'a mut Vec<f32>,
        sin: &'a mut Vec<f32>,
    ) -> Vec<Rotation<'a>> {
        let (head_dim, half) = (self.config.head_dim, self.config.head_dim / 2);
        let padded = head_dim.next_multiple_of(LANES);
        let size = lines.len() * padded;
        let (cos, sin) = (room(cos, thetas.len() * size), room(sin, thetas.len() * size));
        let parts = cos.chunks_exact_mut(size).zip(sin.chunks_exact_mut(size)).zip(thetas);
        let fill = |((cos, sin), theta): ((&'a mut [f32], &'a mut [f32]), &f32)| {
            // Angles in f32 as transformers has them: position * theta^(-2i / head_dim).
            let frequency = |i: usize| 1.0 / theta.powf((2 * i) as f32 / head_dim as f32);
            let frequencies: Vec<f32> = (0..half).map(frequency).collect();
            for (line, (cos, sin)) in lines.iter().zip(cos.chunks_exact_mut(padded).zip(sin.chunks_exact_mut(padded))) {
                for (i, frequency) in frequencies.iter().enumerate() {
                    let (s, c) = (line.position as f32 * frequency).sin_cos();
                    (cos[i], cos[half + i]) = (c, c);
                    (sin[i], sin[half + i]) = (-s, s);
                }
                cos[head_dim..].fill(0.0);
                sin[head_dim..].fill(0.0);
            }
            Rotation { cos, sin }
        };
        parts.map(fill).collect()
    }

    /// A head's numbers out of a product, rotated to their line's position, then zeros up to `head`'s length; `partners`
    /// is room for as many.
    fn gather_rotated(
        &self,
        product: &[f32],
        n: usize,
        line: usize,
        first: usize,
        rotation: Rotation<'_>,
        head: &mut [f32],
        partners: &mut [f32],
    ) {
        let (head_dim, half, padded) = (self.config.head_dim, self.config.head_dim / 2, head.len());
        gather(product, n, line, first, &mut head[..head_dim]);
        head[head_dim..].fill(0.0);
        partners[head_dim..].fill(0.0);
        partners[..half].copy_from_slice(&head[half..head_dim]);
        partners[half..head_dim].copy_from_slice(&head[..half]);
        let of_line = line * padded..(line + 1) * padded;
        let (cos, sin) = (&rotation.cos[of_line.clone()], &rotation.sin[of_line]);
        self.kernels.rotate(head, partners, cos, sin);
    }

    /// Puts keys and values (tile by tile) into the sequences' pages; a part is a page.
    fn write_kv(
        &self,
        lines: &[Line],
        batch: &mut [Row<'_>],
        layer: usize,
        rotation: Rotation<'_>,
        k: &[f32],
        v: &[f32],
    ) {
        struct Part<'a> {
            page: &'a mut [u8],
            lines: Range<usize>,
        }
        let (kv_heads, head_dim, precision) = (self.config.num_kv_heads, self.config.head_dim, self.kv_precision);
        let mut parts = Vec::new();
        let mut rows = batch.iter_mut().enumerate();
        for (sequence, of_sequence) in sequences(lines) {
            let (_, row) = rows.find(|(number, _)| *number == sequence).expect("lines come in the order of the batch");
            let mut at = of_sequence.start;
            for page in row.cache.room::<Vec<u8>>(lines[at].position / PAGE_TOKENS) {
                let end = of_sequence.end.min(at + PAGE_TOKENS - lines[at].position % PAGE_TOKENS);
                parts.push(Part { page, lines: at..end });
                at = end;
                if at == of_sequence.end {
                    break;
                }
            }
        }
        let (n, head_bytes) = (lines.len(), precision.page_bytes(head_dim));
        self.team.each(&mut parts, |part| {
            let padded = head_dim.next_multiple_of(LANES);
            with_buffer(3 * padded, |buffer| {
                let (key, buffer) = buffer.split_at_mut(padded);
                let (value, partners) = buffer.split_at_mut(padded);
                value.fill(0.0);
                for line in part.lines.clone() {
                    for head in 0..kv_heads {
                        self.gather_rotated(k, n, line, head * head_dim, rotation, key, partners);
                        gather(v, n, line, head * head_dim, &mut value[..head_dim]);
                        let page = &mut part.page[(layer * kv_heads + head) * head_bytes..][..head_bytes];
                        let slot = lines[line].position % PAGE_TOKENS;
                        self.kernels.write_kv(precision, key, value, page, slot, head_dim);
                    }
                }
            });
        });
    }

    /// Attends over the pages; a part is a few lines of a sequence and one key/value head.
    fn attend(
        &self,
        lines: &[Line],
        batch: &[Row<'_>],
        layer: usize,
        rotation: Rotation<'_>,
        q: &[f32],
        attended: &mut [f32],
    ) {
        struct Part<'a> {
            lines: Range<usize>,
            kv_head: usize,
            queries: &'a mut [f32],
        }
        let config = &self.config;
        let (kv_heads, head_dim, precision) = (config.num_kv_heads, config.head_dim, self.kv_precision);
        let (group, padded, n) = (config.num_heads / kv_heads, head_dim.next_multiple_of(LANES), lines.len());
        let head_bytes = precision.page_bytes(head_dim);
        let mut parts = Vec::new();
        let mut rest = attended;
        // Heads of one page lie side by side.
        for lines in attention_runs(lines) {
            for kv_head in 0..kv_heads {
                let (queries, behind) = rest.split_at_mut(lines.len() * group * padded);
                rest = behind;
                parts.push(Part { lines: lines.clone(), kv_head, queries });
            }
        }
        let scale = 1.0 / (head_dim as f32).sqrt();
        self.team.each(&mut parts, |part| {
            let mut seen = Vec::with_capacity(part.lines.len() * group);
            with_buffer(padded, |partners| {
                for (at, line) in part.lines.clone().enumerate() {
                    let position = lines[line].position;
                    for head in 0..group {
                        let query = &mut part.queries[(at * group + head) * padded..][..padded];
                        let first = (part.kv_head * group + head) * head_dim;
                        self.gather_rotated(q, n, line, first, rotation, query, partners);
                        query.iter_mut().for_each(|q| *q *= scale);
                        seen.push((window_start(config.layers[layer].sliding_window, position), position));
                    }
                }
            });
            let (first_page, last_page) = (seen[0].0 / PAGE_TOKENS, seen[seen.len() - 1].1 / PAGE_TOKENS);
            let cache = &batch[lines[part.lines.start].sequence].cache;
            let at = (layer * kv_heads + part.kv_head) * head_bytes;
            let pages: Vec<&[u8]> =
                (first_page..=last_page).map(|page| &cache.page::<Vec<u8>>(page)[at..at + head_bytes]).collect();
            let queries = &mut *part.queries;
            let attention = Attention { pages: &pages, first_page, precision, head_dim, seen: &seen, queries };
            self.kernels.attend(attention);
        });
    }

    /// The last norm and the head, for the lines whose logits are wanted.
    fn head(
        &self,
        pass: &Pass<'_>,
        lines: &[Line],
        x: &mut [f32],
        product: &[f32],
        panels: &mut Panels,
        logits: &mut Vec<f32>,
    ) -> Vec<Wanted> {
        let (config, model) = (&self.config, &self.model);
        let wanted: Vec<usize> = (0..lines.len()).filter(|&line| lines[line].wants_logits).collect();
        let mut results = Vec::new();
        for wanted in wanted.chunks(HEAD_LINES) {
            panels.resize(wanted.len(), config.hidden_size);
            with_buffer(pass.width, |out| {
                for (&line, mut row) in wanted.iter().zip(panels.rows_mut()) {
                    let x = &mut x[line * pass.width..(line + 1) * pass.width];
                    pass.norm(line, x, Some(product), &model.output_norm, out);
                    self.kernels.quantise(out, &mut row);
                }
            });
            let (matrix, n) = (model.output, wanted.len());
            let out = room(logits, matrix.tiles() * n * LANES);
            let panels: &Panels = panels;
            let mut parts = pass.parts(&[matrix], n, out);
            self.team.each(&mut parts, |part| {
                self.kernels.multiply(&model.view(matrix), part.tiles.clone(), panels, part.out);
            });
            drop(parts);
            let out: &[f32] = out;
            let mut rows: Vec<(usize, Wanted)> =
                wanted.iter().map(|&line| Wanted { line, logits: Vec::new() }).enumerate().collect();
            self.team.each(&mut rows, |(at, wanted)| {
                wanted.logits = Vec::with_capacity(matrix.tiles() * LANES);
                for tile in out.as_chunks::<LANES>().0[*at..].iter().step_by(n) {
                    wanted.logits.extend_from_slice(tile);
                }
                wanted.logits.truncate(config.vocab_size);
            });
            results.extend(rows.into_iter().map(|(_, wanted)| wanted));
        }
        results
    }
}

/// Runs of lines of the same sequence.
fn sequences(lines: &[Line]) -> impl Iterator<Item = (usize, Range<usize>)> {
    let mut at = 0;
    lines.chunk_by(|one, next| one.sequence == next.sequence).map(move |chunk| {
        at += chunk.len();
        (chunk[0].sequence, at - chunk.len()..at)
    })
}

/// Lines that attend together.
fn attention_runs(lines: &[Line]) -> impl Iterator<Item = Range<usize>> {
    sequences(lines).flat_map(|(_, lines)| {
        lines.clone().step_by(ATTENTION_LINES).map(move |first| first..lines.end.min(first + ATTENTION_LINES))
    })
}

/// Numbers from `first` on of one of `lines` lines, out of a product that lies tile by tile.
fn gather(product: &[f32], lines: usize, line: usize, first: usize, out: &mut [f32]) {
    let tile = |number: usize| &product[(number * lines + line) * LANES..][..LANES];
    if first.is_multiple_of(LANES) {
        // Whole tiles, as most heads are made of.
        let (whole, rest) = out.as_chunks_mut::<LANES>();
        let count = whole.len();
        let tiles = product.as_chunks::<LANES>().0[first / LANES * lines + line..].iter().step_by(lines);
        whole.iter_mut().zip(tiles).for_each(|(out, tile)| *out = *tile);
        let left = rest.len();
        if left > 0 {
            rest.copy_from_slice(&tile(first / LANES + count)[..left]);
        }
        return;
    }
    for (at, out) in (first..).zip(out) {
        *out = tile(at / LANES)[at % LANES];
    }
}
