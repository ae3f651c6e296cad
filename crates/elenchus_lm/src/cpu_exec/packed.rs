//! Weights packed for the kernels, all in one allocation with huge pages if the system gives them.
//!
//! Sixteen rows of a matrix form a tile that stores each block of 32 columns together: one register of
//! weights is multiplied by one number of the input. Nothing else of the model file stays in memory.

use std::ops::Range;

use half::f16;
use memmap2::{Mmap, MmapMut, MmapOptions};

use super::kernels::{Format, LANES, MatrixView, Team};
use crate::{BlockType, Error, Linear, ModelConfig, RawTensor, Result, TensorName, Weights, block_type::Block};

/// A whole model's matrices and norms.
#[derive(Debug)]
pub(super) struct PackedModel {
    memory: Mmap,
    pub embedding: Matrix,
    pub output: Matrix,
    /// What each position adds to its token's embedding, `(max_positions, hidden_size)`.
    pub positions: Option<Vec<f32>>,
    pub output_norm: Norm,
    pub layers: Vec<PackedLayer>,
}

/// One block's.
#[derive(Debug)]
pub(super) struct PackedLayer {
    /// Of what attention and the feed-forward part read.
    pub norms: Option<[Norm; 2]>,
    /// Of what the two add.
    pub post_norms: Option<[Vec<f32>; 2]>,
    /// In the order of [`Linear::ALL`]; `None` for what the layer does not have.
    pub linears: [Option<Matrix>; 7],
    /// Biases of their products, padded to whole tiles.
    pub biases: [Option<Vec<f32>>; 7],
    /// The norms of q and of k, padded as what they norm.
    pub qk_norm: Option<[Vec<f32>; 2]>,
}

/// A norm of the residual stream, padded as it is.
#[derive(Debug)]
pub(super) struct Norm {
    pub weight: Vec<f32>,
    /// In LayerNorm.
    pub bias: Option<Vec<f32>>,
}

/// A matrix's place and format.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix {
    pub rows: usize,
    format: Format,
    blocks: usize,
    offset: usize,
    tile_stride: usize,
}

/// A matrix to be packed.
struct Source<'a> {
    raw: RawTensor<'a>,
    format: Format,
    /// What its numbers are quantised to first; `None` for the file's own blocks, and for eight bits.
    quantised: Option<BlockType>,
    /// For each row of the matrix the row of the tensor, where they differ.
    order: Option<Vec<usize>>,
}

/// A tile to be filled.
struct Tile<'a> {
    source: usize,
    tile: usize,
    bytes: &'a mut [u8],
}

/// Cache lines are not shared between tiles.
const TILE_ALIGNMENT: usize = 64;

impl PackedModel {
    /// Packs a model, on all threads of the team; dense matrices but the head become blocks of a type.
    pub fn new(weights: &Weights, dense: BlockType, team: &Team) -> Result<Self> {
        let config = weights.config();
        let is_tied = weights.is_tied();
        let mut sources = Vec::new();
        // The order of use; matrices that are read together alternate tile by tile: gate with up.
        let mut groups: Vec<Range<usize>> = Vec::new();
        for layer in 0..config.num_layers() {
            for linear in config.layers[layer].linears() {
                let raw = weights.tensor(TensorName::Linear(layer, linear))?;
                sources.push(Source::new(raw, row_order(config, linear)));
                match linear {
                    Linear::Up if config.layers[layer].is_gated => {
                        groups.last_mut().expect("the gate comes before").end += 1;
                    }
                    _ => groups.push(sources.len() - 1..sources.len()),
                }
            }
        }
        for name in
            if is_tied { vec![TensorName::Output] } else { vec![TensorName::TokenEmbedding, TensorName::Output] }
        {
            groups.push(sources.len()..sources.len() + 1);
            sources.push(Source::new(weights.tensor(name)?, None));
        }
        let (_, but_the_head) = sources.split_last_mut().expect("there is a head");
        but_the_head.iter_mut().for_each(|source| source.quantise_dense(dense));
        let (matrices, bytes) = place(&sources, &groups);
        let mut memory = huge_memory(bytes).map_err(|source| Error::io(weights.path(), source))?;
        fill(&sources, &groups, &matrices, &mut memory, team);
        let memory = memory.make_read_only().map_err(|source| Error::io(weights.path(), source))?;

        let padded = |mut norm: Vec<f32>| {
            norm.resize(norm.len().next_multiple_of(32), 0.0);
            norm
        };
        let rms_norm = |name| weights.norm(name).map(padded);
        let norm =
            |name| -> Result<Norm> { Ok(Norm { weight: rms_norm(name)?, bias: weights.norm_bias(name)?.map(padded) }) };
        let head_norm = |name| -> Result<Vec<f32>> {
            let mut norm = weights.norm(name)?;
            norm.resize(norm.len().next_multiple_of(LANES), 0.0);
            Ok(norm)
        };
        let bias = |layer: usize, linear: Linear| -> Result<Option<Vec<f32>>> {
            if !config.layers[layer].biases[linear as usize] {
                return Ok(None);
            }
            let values = weights.tensor(TensorName::Bias(layer, linear))?.dequantise();
            let mut bias = match row_order(config, linear) {
                Some(order) => order.into_iter().map(|row| values[row]).collect(),
                None => values,
            };
            bias.resize(bias.len().next_multiple_of(LANES), 0.0);
            Ok(Some(bias))
        };
        let mut of_linears = matrices.iter().copied();
        let layers = (0..config.num_layers())
            .map(|layer| {
                let [q, k, v, o, gate, up, down] = Linear::ALL.map(|linear| bias(layer, linear));
                Ok(PackedLayer {
                    biases: [q?, k?, v?, o?, gate?, up?, down?],
                    qk_norm: match config.layers[layer].qk_norm {
                        Some(_) => Some([head_norm(TensorName::QNorm(layer))?, head_norm(TensorName::KNorm(layer))?]),
                        None => None,
                    },
                    norms: match config.layers[layer].norms.is_before() {
                        true => Some([norm(TensorName::AttentionNorm(layer))?, norm(TensorName::FfnNorm(layer))?]),
                        false => None,
                    },
                    post_norms: match config.layers[layer].norms.is_after() {
                        true => {
                            let [attention, ffn] =
                                [TensorName::PostAttentionNorm(layer), TensorName::PostFfnNorm(layer)].map(rms_norm);
                            Some([attention?, ffn?])
                        }
                        false => None,
                    },
                    linears: Linear::ALL.map(|linear| {
                        config.layers[layer].has(linear).then(|| of_linears.next().expect("each has its place"))
                    }),
                })
            })
            .collect::<Result<_>>()?;
        let output = matrices[matrices.len() - 1];
        let embedding = if is_tied { output } else { matrices[matrices.len() - 2] };
        // A scale of the logits is one of what the head reads.
        let mut output_norm = norm(TensorName::OutputNorm)?;
        let Norm { weight, bias } = &mut output_norm;
        weight.iter_mut().chain(bias.iter_mut().flatten()).for_each(|number| *number *= config.scales.logits);
        let positions = match config.has_position_embedding {
            true => Some(weights.tensor(TensorName::PositionEmbedding)?.dequantise()),
            false => None,
        };
        Ok(Self { memory, embedding, output, positions, output_norm, layers })
    }

    /// A matrix for the kernels.
    pub fn view(&self, matrix: Matrix) -> MatrixView<'_> {
        MatrixView {
            format: matrix.format,
            data: &self.memory[matrix.offset..],
            tile_stride: matrix.tile_stride,
            tiles: matrix.tiles(),
            blocks: matrix.blocks,
        }
    }

    /// One row as f32, padded to whole blocks.
    pub fn row(&self, matrix: Matrix, row: usize, out: &mut [f32]) {
        let tile = &self.memory[matrix.offset + row / LANES * matrix.tile_stride..];
        for (block, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate().take(matrix.blocks) {
            *out = read(matrix.format, tile, block, row % LANES).values(zero(matrix.format));
        }
    }

    /// Bytes of weights that one token reads: all but the rows of an embedding that is not also the head.
    pub fn bytes_per_token(&self) -> usize {
        let linears = self.layers.iter().flat_map(|layer| layer.linears).flatten();
        linears.chain([self.output]).map(|matrix| matrix.tiles() * matrix.format.tile_bytes(matrix.blocks)).sum()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let norms = (2 * self.layers.len() + 1) * self.output_norm.weight.len();
        self.memory.len() + (norms + self.positions.as_ref().map_or(0, Vec::len)) * size_of::<f32>()
    }
}

impl PackedLayer {
    /// A linear that the layer has.
    pub fn linear(&self, linear: Linear) -> Matrix {
        self.linears[linear as usize].expect("only the linears of a layer are used")
    }
}

impl Matrix {
    /// Tiles of sixteen rows, the last one padded.
    pub fn tiles(self) -> usize {
        self.rows.div_ceil(LANES)
    }
}

impl<'a> Source<'a> {
    fn new(raw: RawTensor<'a>, order: Option<Vec<usize>>) -> Self {
        let format = format_of(raw.dtype).unwrap_or(Format::Q8);
        Self { raw, format, quantised: None, order }
    }

    /// Makes a dense matrix one of these blocks, if it is as wide as whole ones.
    fn quantise_dense(&mut self, to: BlockType) {
        if let Some(to) = to.for_columns(self.columns())
            && self.raw.dtype.is_dense()
            && to != BlockType::Q8_0
        {
            self.format = format_of(to).unwrap_or(Format::Q8);
            self.quantised = Some(to);
        }
    }

    fn rows(&self) -> usize {
        self.raw.shape[0]
    }

    fn columns(&self) -> usize {
        self.raw.shape[1]
    }

    fn blocks(&self) -> usize {
        self.columns().div_ceil(32)
    }

    fn tile_bytes(&self) -> usize {
        self.format.tile_bytes(self.blocks()).next_multiple_of(TILE_ALIGNMENT)
    }

    /// Blocks of one of the matrix's rows.
    fn row(&self, row: usize) -> Vec<Block> {
        let row = self.order.as_ref().map_or(row, |order| order[row]);
        let bytes = self.raw.bytes.len() / self.rows();
        let bytes = &self.raw.bytes[row * bytes..(row + 1) * bytes];
        if format_of(self.raw.dtype).is_some() {
            return self.raw.dtype.read_row(bytes);
        }
        let mut values = self.raw.dtype.dequantise(bytes);
        if let Some((to, bytes)) = self.quantised.and_then(|to| Some((to, to.quantise(&values)?))) {
            return to.read_row(&bytes);
        }
        values.resize(self.blocks() * 32, 0.0);
        values.as_chunks().0.iter().map(Block::quantise).collect()
    }
}

/// The bytes that a matrix takes when it is packed.
pub(super) fn bytes_of(raw: RawTensor<'_>) -> usize {
    let source = Source::new(raw, None);
    source.rows().div_ceil(LANES) * source.tile_bytes()
}

/// The format for a block type, `None` for types that are dequantised and then quantised to eight bits.
///
/// Quants are the file's own. Scales are f16 here: those that a file computes from two numbers (k-quants, `IQ4_XS`) are
/// rounded once. The weights of a ternary type are three of Q4's sixteen values, MXFP4's are integers from -12 to 12, and
/// those of a code book of eight bits take eight bits, which costs twice the file's memory. MXFP4's powers of two are
/// exact from 2^-24 to 2^15; what lies beyond is zero or infinite, and in no sane model.
fn format_of(dtype: BlockType) -> Option<Format> {
    Some(match dtype {
        BlockType::Q4_0 | BlockType::TQ1_0 | BlockType::TQ2_0 => Format::Q4,
        BlockType::Q4_1 | BlockType::Q4K => Format::Q4Offset,
        BlockType::Q5_0 | BlockType::MXFP4 => Format::Q5,
        BlockType::Q5_1 | BlockType::Q5K => Format::Q5Offset,
        BlockType::Q8_0 | BlockType::IQ4NL | BlockType::IQ4XS => Format::Q8,
        BlockType::Q6K => Format::Q8Halves,
        BlockType::F32 | BlockType::F16 | BlockType::BF16 | BlockType::Q2K | BlockType::Q3K => return None,
    })
}

/// For each packed row of a linear the file's row; `None` where they are the same. Rows of q and k are packed in
/// Hugging Face's order, which adapters use, whatever the file's order is.
fn row_order(config: &ModelConfig, linear: Linear) -> Option<Vec<usize>> {
    let heads = match linear {
        Linear::Q => config.num_heads,
        Linear::K => config.num_kv_heads,
        _ => return None,
    };
    let packed = config.rope_row_order(heads)?;
    let mut order = vec![0; packed.len()];
    packed.into_iter().enumerate().for_each(|(row, packed)| order[packed] = row);
    Some(order)
}

/// Gives every matrix its place; returns the total size.
fn place(sources: &[Source<'_>], groups: &[Range<usize>]) -> (Vec<Matrix>, usize) {
    let mut matrices = Vec::new();
    let mut end = 0;
    for group in groups {
        let members = &sources[group.clone()];
        let stride = members.iter().map(Source::tile_bytes).sum();
        let mut offset = end;
        for source in members {
            let (rows, blocks) = (source.rows(), source.blocks());
            matrices.push(Matrix { rows, format: source.format, blocks, offset, tile_stride: stride });
            offset += source.tile_bytes();
        }
        end += members[0].rows().div_ceil(LANES) * stride;
    }
    (matrices, end)
}

/// Anonymous memory; with huge pages, reading all of it causes fewer TLB misses.
fn huge_memory(bytes: usize) -> std::io::Result<MmapMut> {
    let memory = MmapOptions::new().len(bytes).map_anon()?;
    #[cfg(target_os = "linux")]
    if let Err(error) = memory.advise(memmap2::Advice::HugePage) {
        tracing::debug!("the system gives no huge pages: {error}");
    }
    Ok(memory)
}

fn fill(sources: &[Source<'_>], groups: &[Range<usize>], matrices: &[Matrix], memory: &mut [u8], team: &Team) {
    let mut tiles = Vec::new();
    let mut rest = memory;
    for group in groups {
        for tile in 0..matrices[group.start].tiles() {
            for source in group.clone() {
                let (bytes, after) = rest.split_at_mut(sources[source].tile_bytes());
                tiles.push(Tile { source, tile, bytes });
                rest = after;
            }
        }
    }
    let mut parts: Vec<&mut [Tile<'_>]> = tiles.chunks_mut(64).collect();
    team.each(&mut parts, |tiles| tiles.iter_mut().for_each(|tile| fill_tile(&sources[tile.source], tile)));
}

fn fill_tile(source: &Source<'_>, tile: &mut Tile<'_>) {
    for column in 0..LANES {
        let row = tile.tile * LANES + column;
        if row < source.rows() {
            for (number, block) in source.row(row).iter().enumerate() {
                write(source.format, tile.bytes, number, column, block);
            }
        }
    }
}

/// What is subtracted from a stored weight before scaling.
fn zero(format: Format) -> f32 {
    match format {
        Format::Q4 => 8.0,
        Format::Q5 => 16.0,
        Format::Q8 | Format::Q8Halves => 128.0,
        Format::Q4Offset | Format::Q5Offset => 0.0,
    }
}

/// Byte and shift of weight `k` of a column within a block: nibbles of four `k` share bytes with those of the next
/// four.
fn nibble_at(k: usize, column: usize) -> (usize, u32) {
    (k / 8 * 64 + column * 4 + k % 4, (k / 4 % 2 * 4) as u32)
}

/// Byte and bit of the fifth bit of weight `k` of a column, after the nibbles.
fn fifth_at(k: usize, column: usize) -> (usize, u32) {
    let bit = column * 4 + k % 4;
    (256 + k / 4 * 8 + bit / 8, (bit % 8) as u32)
}

/// A block's weights and scales within a tile, and the offsets of the columns' first and second numbers in it.
fn block_range(format: Format, block: usize) -> (Range<usize>, usize, usize) {
    let (weights, scales) = format.block_bytes();
    let first = block * (weights + scales);
    (first..first + weights + scales, weights, weights + 2 * LANES)
}

fn write(format: Format, tile: &mut [u8], block: usize, column: usize, value: &Block) {
    let (weight_bytes, scale_bytes) = format.block_bytes();
    let (range, first, second) = block_range(format, block);
    let bytes = &mut tile[range];
    for (k, &quant) in value.quants.iter().enumerate() {
        match format {
            Format::Q8 | Format::Q8Halves => bytes[k / 4 * 64 + column * 4 + k % 4] = quant,
            _ => {
                let (byte, shift) = nibble_at(k, column);
                bytes[byte] |= (quant & 15) << shift;
                if weight_bytes > 256 {
                    let (byte, bit) = fifth_at(k, column);
                    bytes[byte] |= (quant >> 4) << bit;
                }
            }
        }
    }
    let mut put = |at: usize, value: f32| {
        bytes[at + 2 * column..at + 2 * column + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
    };
    put(first, value.scales[0]);
    if scale_bytes > 32 {
        put(second, if format == Format::Q8Halves { value.scales[1] } else { value.offset });
    }
}

/// Reads what [`write`] wrote.
fn read(format: Format, tile: &[u8], block: usize, column: usize) -> Block {
    let (weight_bytes, scale_bytes) = format.block_bytes();
    let (range, first, second) = block_range(format, block);
    let bytes = &tile[range];
    let quants = std::array::from_fn(|k| match format {
        Format::Q8 | Format::Q8Halves => bytes[k / 4 * 64 + column * 4 + k % 4],
        _ => {
            let (byte, shift) = nibble_at(k, column);
            let (fifth, bit) = fifth_at(k, column);
            bytes[byte] >> shift & 15 | if weight_bytes > 256 { (bytes[fifth] >> bit & 1) << 4 } else { 0 }
        }
    });
    let number = |at: usize| f16::from_le_bytes([bytes[at + 2 * column], bytes[at + 2 * column + 1]]).to_f32();
    let second = if scale_bytes > 32 { number(second) } else { 0.0 };
    match format {
        Format::Q8Halves => Block { quants, scales: [number(first), second], offset: 0.0 },
        _ => Block { quants, scales: [number(first); 2], offset: second },
    }
}
