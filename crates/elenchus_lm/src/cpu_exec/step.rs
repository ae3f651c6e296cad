//! One pass of some lines through the model, in steps that end when all threads have done their parts.

use std::ops::Range;

use super::{
    CpuExecutor,
    adapter::Scaled,
    kernels::{Attention, Kernels, LANES, Panels},
    packed::PackedLayer,
    pass::{Pass, Pending, State, gather, room, with_buffer},
};
use crate::{Linear, QkNorm, Row, config::window_start, kv_cache::PAGE_TOKENS};

/// One token of a batch.
pub(super) struct Line {
    /// Its row of the batch.
    pub sequence: usize,
    pub position: usize,
    pub token: u32,
    pub wants_logits: bool,
}

/// What a pass runs, and when it is given up.
#[derive(Clone, Copy)]
pub(super) struct Lines<'a> {
    pub lines: &'a [Line],
    /// For each row of the batch.
    pub adapters: &'a [Option<Scaled<'a>>],
    pub is_unwanted: &'a (dyn Fn() -> bool + Sync),
}

/// Cosines and signed sines of the lines' positions, `(lines, head_dim padded)`.
#[derive(Clone, Copy)]
struct Rotation<'a> {
    cos: &'a [f32],
    sin: &'a [f32],
}

impl<'a> Rotation<'a> {
    /// Of one line.
    fn line(self, line: usize, padded: usize) -> Self {
        let of_line = line * padded..(line + 1) * padded;
        Self { cos: &self.cos[of_line.clone()], sin: &self.sin[of_line] }
    }
}

/// The lines of a pass in one of its layers.
#[derive(Clone, Copy)]
struct InLayer<'a> {
    lines: &'a [Line],
    layer: usize,
    rotation: Rotation<'a>,
}

/// A product of so many lines, stored tile by tile.
#[derive(Clone, Copy)]
struct Product<'a> {
    numbers: &'a [f32],
    lines: usize,
    /// What each of its heads is normed by, padded as a head is.
    norm: Option<&'a [f32]>,
}

/// Logits of a line.
pub(super) struct Wanted {
    pub line: usize,
    pub logits: Vec<f32>,
}

/// Memory of a pass, reused by the next.
pub(super) struct Scratch {
    /// The residual stream, `(lines, hidden_size padded)`.
    x: Vec<f32>,
    /// Queries, keys and values, tile by tile.
    qkv: Vec<f32>,
    /// For each run of lines that attend together `(kv_heads, lines, heads of the group, head_dim padded)`: queries,
    /// overwritten with the attention output.
    attended: Vec<f32>,
    /// The next addition to the residual stream, tile by tile.
    product: Vec<f32>,
    /// What the feed-forward part's last product reads, tile by tile.
    inner: Vec<f32>,
    /// Results of LoRA's first halves, `(lines, linears of the step, rank)`.
    hidden: Vec<f32>,
    /// Cosines and signed sines, `(rotary bases, lines, head_dim padded)`.
    cos: Vec<f32>,
    sin: Vec<f32>,
    panels: Panels,
    /// The head's product, tile by tile.
    logits: Vec<f32>,
}

/// Lines of a sequence that attend together: six queries share each load, and heads come in threes and fours.
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
    /// Runs lines through the model, writes their keys and values, and returns the requested logits; `None` if it was given up
    /// between two layers.
    pub(super) fn step(
        &self,
        scratch: &mut Scratch,
        Lines { lines, adapters, is_unwanted }: Lines<'_>,
        batch: &mut [Row<'_>],
    ) -> Option<Vec<Wanted>> {
        let config = &self.config;
        let pass = Pass::new(self, lines, adapters);
        let n = lines.len();
        let Scratch { x, qkv, attended, product, inner, hidden, cos, sin, panels, logits } = scratch;
        let x = room(x, n * pass.width);
        let product = room(product, config.hidden_size.div_ceil(LANES) * n * LANES);
        let inner = room(inner, config.intermediate_size.div_ceil(LANES) * n * LANES);
        let padded = config.head_dim.next_multiple_of(LANES);
        let attended = room(attended, n * config.num_heads * padded);
        for (line, x) in lines.iter().zip(x.chunks_exact_mut(pass.width)) {
            x.fill(0.0);
            self.model.row(self.model.embedding, line.token as usize, x);
            scale(x, config.scales.embedding);
            if let Some(positions) = &self.model.positions {
                let own = &positions[line.position * config.hidden_size..][..config.hidden_size];
                x.iter_mut().zip(own).for_each(|(x, position)| *x += position);
            }
        }
        let mut state = State { x, panels, hidden: room(hidden, n * pass.hidden_stride) };
        let rotations = self.rotations(lines, cos, sin);
        let rotation_of = &self.rope_frequencies.1;
        let runs: Vec<Range<usize>> = attention_runs(lines).flat_map(|run| vec![run.clone(); run.len()]).collect();

        for (number, layer) in self.model.layers.iter().enumerate() {
            if is_unwanted() {
                return None;
            }
            let spec = &config.layers[number];
            let [attention_norm, ffn_norm] = [0, 1].map(|part| layer.norms.as_ref().map(|norms| &norms[part]));
            let here = InLayer { lines, layer: number, rotation: rotations[rotation_of[number]] };
            // What the layer before adds; the first follows the embedding.
            let before = number.checked_sub(1).map(|before| pending(&self.model.layers[before], 1, product));
            let linears = [Linear::Q, Linear::K, Linear::V];
            pass.rows(&mut state, (number, &linears), config.hidden_size, |line, x, out| {
                pass.norm(line, x, before, attention_norm, out);
            });
            let tiles = linears.map(|linear| layer.linear(linear).tiles());
            let qkv = room(qkv, tiles.iter().sum::<usize>() * n * LANES);
            pass.tiles(&state, number, &linears, qkv);
            if let (Some(QkNorm::Whole), Some([q_norm, k_norm])) = (spec.qk_norm, &layer.qk_norm) {
                let (q, kv) = qkv.split_at_mut(tiles[0] * n * LANES);
                self.norm_lines(q, n, q_norm, config.q_dim());
                self.norm_lines(&mut kv[..tiles[1] * n * LANES], n, k_norm, config.kv_dim());
            }
            let (q, kv) = qkv.split_at(tiles[0] * n * LANES);
            let (k, v) = kv.split_at(tiles[1] * n * LANES);
            let of_heads = layer.qk_norm.as_ref().filter(|_| spec.qk_norm == Some(QkNorm::Heads));
            let [q_norm, k_norm] = [0, 1].map(|which| of_heads.map(|norms| norms[which].as_slice()));
            let product_of = |numbers, norm| Product { numbers, lines: n, norm };
            let (q, k, v) = (product_of(q, q_norm), product_of(k, k_norm), product_of(v, None));
            self.write_kv(here, batch, k, v);
            self.attend(here, batch, q, attended);
            let attended: &[f32] = attended;
            pass.rows(&mut state, (number, &[Linear::O]), config.q_dim(), |line, _, out| {
                let group = config.num_heads / config.num_kv_heads;
                let run = &runs[line];
                let of_run = &attended[run.start * config.num_heads * padded..];
                for (head, out) in out[..config.q_dim()].chunks_exact_mut(config.head_dim).enumerate() {
                    let at = ((head / group * run.len() + line - run.start) * group + head % group) * padded;
                    out.copy_from_slice(&of_run[at..at + config.head_dim]);
                }
                scale(out, config.scales.residual);
            });
            pass.tiles(&state, number, &[Linear::O], product);
            let attended = pending(layer, 0, product);
            let linears: &[Linear] = if spec.is_gated { &[Linear::Gate, Linear::Up] } else { &[Linear::Up] };
            pass.rows(&mut state, (number, linears), config.hidden_size, |line, x, out| {
                pass.norm(line, x, Some(attended), ffn_norm, out);
            });
            match spec.is_gated {
                true => pass.gate_and_up(&state, number, inner),
                false => pass.activated(&state, number, inner),
            }
            let activated: &[f32] = inner;
            pass.rows(&mut state, (number, &[Linear::Down]), config.intermediate_size, |line, _, out| {
                let of_line = activated.as_chunks::<LANES>().0[line..].iter().step_by(n);
                out.as_chunks_mut::<LANES>().0.iter_mut().zip(of_line).for_each(|(out, tile)| *out = *tile);
                scale(out, config.scales.residual);
            });
            pass.tiles(&state, number, &[Linear::Down], product);
        }
        let wanted: Vec<usize> = (0..n).filter(|&line| lines[line].wants_logits).collect();
        Some(self.head(&pass, &wanted, &mut state, product, logits))
    }

    /// Norms each line of a product `(tiles, lines, 16)`, `count` numbers wide.
    fn norm_lines(&self, product: &mut [f32], lines: usize, weight: &[f32], count: usize) {
        with_buffer(2 * weight.len(), |buffer| {
            let (x, y) = buffer.split_at_mut(weight.len());
            for line in 0..lines {
                gather(product, lines, line, &mut x[..count]);
                x[count..].fill(0.0);
                self.kernels.rms_norm(x, weight, y, count, self.config.norm_eps);
                let tiles = product.as_chunks_mut::<LANES>().0[line..].iter_mut().step_by(lines);
                tiles.zip(y.as_chunks::<LANES>().0).for_each(|(tile, y)| *tile = *y);
            }
        });
    }

    /// One for each set of rotary frequencies.
    fn rotations<'a>(&self, lines: &[Line], cos: &'a mut Vec<f32>, sin: &'a mut Vec<f32>) -> Vec<Rotation<'a>> {
        let sets = &self.rope_frequencies.0;
        let (head_dim, rotary_dim) = (self.config.head_dim, self.config.rotary_dim);
        let (half, magnitude) = (rotary_dim / 2, self.config.rope_magnitude);
        let padded = head_dim.next_multiple_of(LANES);
        let size = lines.len() * padded;
        let (cos, sin) = (room(cos, sets.len() * size), room(sin, sets.len() * size));
        let parts = cos.chunks_exact_mut(size).zip(sin.chunks_exact_mut(size)).zip(sets);
        let fill = |((cos, sin), frequencies): ((&'a mut [f32], &'a mut [f32]), &Vec<f32>)| {
            // Angles in f32, as transformers computes them.
            for (line, (cos, sin)) in lines.iter().zip(cos.chunks_exact_mut(padded).zip(sin.chunks_exact_mut(padded))) {
                for (i, frequency) in frequencies.iter().enumerate() {
                    let (s, c) = libm::sincosf(line.position as f32 * frequency);
                    let (s, c) = (s * magnitude, c * magnitude);
                    (cos[i], cos[half + i]) = (c, c);
                    (sin[i], sin[half + i]) = (-s, s);
                }
                // What does not rotate stays as it is.
                cos[rotary_dim..head_dim].fill(1.0);
                cos[head_dim..].fill(0.0);
                sin[rotary_dim..].fill(0.0);
            }
            Rotation { cos, sin }
        };
        parts.map(fill).collect()
    }

    /// A line's numbers from `first` on, a head's, normed and rotated to the line's position, then zeros up to `head`'s length; `partners`
    /// is scratch space of the same size.
    fn gather_rotated(
        &self,
        product: Product<'_>,
        (line, first): (usize, usize),
        rotation: Rotation<'_>,
        head: &mut [f32],
        partners: &mut [f32],
    ) {
        let (head_dim, rotary_dim, padded) = (self.config.head_dim, self.config.rotary_dim, head.len());
        product.gather(line, first, &mut head[..head_dim]);
        head[head_dim..].fill(0.0);
        if let Some(norm) = product.norm {
            self.kernels.rms_norm(head, norm, partners, head_dim, self.config.norm_eps);
            head.copy_from_slice(partners);
        }
        let half = rotary_dim / 2;
        partners[rotary_dim..].fill(0.0);
        partners[..half].copy_from_slice(&head[half..rotary_dim]);
        partners[half..rotary_dim].copy_from_slice(&head[..half]);
        let Rotation { cos, sin } = rotation.line(line, padded);
        self.kernels.rotate(head, partners, cos, sin);
    }

    /// Writes keys and values (tile by tile) into the sequences' pages; a part is a page.
    fn write_kv(&self, here: InLayer<'_>, batch: &mut [Row<'_>], k: Product<'_>, v: Product<'_>) {
        struct Part<'a> {
            page: &'a mut [u8],
            lines: Range<usize>,
        }
        let InLayer { lines, layer, rotation } = here;
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
        let head_bytes = precision.page_bytes(head_dim);
        self.team.each(&mut parts, |part| {
            let padded = head_dim.next_multiple_of(LANES);
            with_buffer(3 * padded, |buffer| {
                let (key, buffer) = buffer.split_at_mut(padded);
                let (value, partners) = buffer.split_at_mut(padded);
                value.fill(0.0);
                for line in part.lines.clone() {
                    for head in 0..kv_heads {
                        self.gather_rotated(k, (line, head * head_dim), rotation, key, partners);
                        v.gather(line, head * head_dim, &mut value[..head_dim]);
                        let page = &mut part.page[(layer * kv_heads + head) * head_bytes..][..head_bytes];
                        let slot = lines[line].position % PAGE_TOKENS;
                        self.kernels.write_kv(precision, key, value, page, slot, head_dim);
                    }
                }
            });
        });
    }

    /// Attends over the pages; a part is a few lines of a sequence and one key/value head.
    fn attend(&self, here: InLayer<'_>, batch: &[Row<'_>], q: Product<'_>, attended: &mut [f32]) {
        struct Part<'a> {
            lines: Range<usize>,
            kv_head: usize,
            queries: &'a mut [f32],
        }
        let InLayer { lines, layer, rotation } = here;
        let config = &self.config;
        let (kv_heads, head_dim, precision) = (config.num_kv_heads, config.head_dim, self.kv_precision);
        let (group, padded) = (config.num_heads / kv_heads, head_dim.next_multiple_of(LANES));
        let head_bytes = precision.page_bytes(head_dim);
        let mut parts = Vec::new();
        let mut rest = attended;
        // Heads of one page lie side by side.
        for lines in attention_runs(lines) {
            for kv_head in 0..kv_heads {
                let (queries, after) = rest.split_at_mut(lines.len() * group * padded);
                rest = after;
                parts.push(Part { lines: lines.clone(), kv_head, queries });
            }
        }
        let scale = config.attention_scale();
        self.team.each(&mut parts, |part| {
            let mut seen = Vec::with_capacity(part.lines.len() * group);
            with_buffer(padded, |partners| {
                for (at, line) in part.lines.clone().enumerate() {
                    let position = lines[line].position;
                    for head in 0..group {
                        let query = &mut part.queries[(at * group + head) * padded..][..padded];
                        let first = (part.kv_head * group + head) * head_dim;
                        self.gather_rotated(q, (line, first), rotation, query, partners);
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
            let cap = config.layers[layer].attention_cap;
            let attention = Attention { pages: &pages, first_page, precision, head_dim, seen: &seen, queries, cap };
            self.kernels.attend(attention);
        });
    }

    /// The last norm and the head, for the lines whose logits are wanted.
    fn head(
        &self,
        pass: &Pass<'_>,
        wanted: &[usize],
        state: &mut State<'_>,
        product: &[f32],
        logits: &mut Vec<f32>,
    ) -> Vec<Wanted> {
        let (config, model) = (&self.config, &self.model);
        let State { x, panels, .. } = state;
        let mut results = Vec::new();
        for wanted in wanted.chunks(HEAD_LINES) {
            panels.resize(wanted.len(), config.hidden_size);
            with_buffer(pass.width, |out| {
                for (&line, mut row) in wanted.iter().zip(panels.rows_mut()) {
                    let x = &mut x[line * pass.width..(line + 1) * pass.width];
                    let last = model.layers.last().map(|layer| pending(layer, 1, product));
                    pass.norm(line, x, last, Some(&model.output_norm), out);
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
                if let Some(cap) = config.logit_cap {
                    self.kernels.soft_cap(&mut wanted.logits, cap);
                }
                wanted.logits.truncate(config.vocab_size);
            });
            results.extend(rows.into_iter().map(|(_, wanted)| wanted));
        }
        results
    }
}

/// What attention (0) or the feed-forward part (1) of a layer adds.
fn pending<'a>(layer: &'a PackedLayer, part: usize, product: &'a [f32]) -> Pending<'a> {
    Pending { product, norm: layer.post_norms.as_ref().map(|norms| norms[part].as_slice()) }
}

/// Multiplies by a constant that is 1 in most families.
fn scale(x: &mut [f32], by: f32) {
    if by != 1.0 {
        x.iter_mut().for_each(|x| *x *= by);
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

impl Product<'_> {
    /// A line's numbers from `first` on.
    fn gather(self, line: usize, first: usize, out: &mut [f32]) {
        let Self { numbers, lines, .. } = self;
        if first.is_multiple_of(LANES) {
            // Whole tiles, the case for most heads.
            return gather(&numbers[first * lines..], lines, line, out);
        }
        let tile = |number: usize| &numbers[(number * lines + line) * LANES..][..LANES];
        for (at, out) in (first..).zip(out) {
            *out = tile(at / LANES)[at % LANES];
        }
    }
}
