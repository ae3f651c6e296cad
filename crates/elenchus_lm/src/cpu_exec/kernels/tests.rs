//! Compares every instruction set of this machine with the plain one, to the bit, over ragged shapes.

use rand::{Rng as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;

use super::*;

const FORMATS: [Format; 6] = [Format::Q4, Format::Q4Offset, Format::Q5, Format::Q5Offset, Format::Q8, Format::Q8Halves];

fn others() -> Vec<&'static Kernels> {
    let mut all = Kernels::available();
    assert_eq!(all.pop().map(Kernels::name), Some("scalar"));
    println!("compared with the scalar kernels: {all:?}");
    all
}

fn plain() -> &'static Kernels {
    &on_anything::KERNELS
}

fn numbers(rng: &mut Pcg64Mcg, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.random_range(-3.0..3.0)).collect()
}

fn halves(rng: &mut Pcg64Mcg, count: usize) -> Vec<u16> {
    (0..count).map(|_| half::f16::from_f32(rng.random_range(-1.0..1.0)).to_bits()).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Rows quantised by some kernels into their own panels.
fn panels(kernels: &Kernels, x: &[f32], rows: usize) -> Panels {
    let mut panels = kernels.panels();
    panels.resize(rows, x.len() / rows);
    for (x, mut row) in x.chunks_exact(x.len() / rows).zip(panels.rows_mut()) {
        kernels.quantise(x, &mut row);
    }
    panels
}

/// Random tiles: any bits are weights, scales are small numbers.
fn random_matrix(rng: &mut Pcg64Mcg, format: Format, tiles: usize, blocks: usize) -> Vec<u8> {
    let (weights, scales) = format.block_bytes();
    (0..tiles * blocks)
        .flat_map(|_| {
            let scales = halves(rng, scales / 2).into_iter().flat_map(u16::to_le_bytes);
            (0..weights).map(|_| rng.random()).collect::<Vec<u8>>().into_iter().chain(scales)
        })
        .collect()
}

#[test]
fn products_are_the_same_bits_on_every_instruction_set() {
    let rng = &mut Pcg64Mcg::seed_from_u64(1);
    for format in FORMATS {
        for rows in [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 37] {
            let (tiles, blocks) = (rng.random_range(1..5), rng.random_range(1..7));
            let data = random_matrix(rng, format, tiles, blocks);
            let tile_stride = format.tile_bytes(blocks);
            let view = MatrixView { format, data: &data, tile_stride, tiles, blocks };
            let x = numbers(rng, rows * blocks * 32);
            let product = |kernels: &Kernels| {
                let mut out = vec![0f32; tiles * rows * LANES];
                kernels.multiply(&view, 0..tiles, &panels(kernels, &x, rows), &mut out);
                out
            };
            let expected = product(plain());
            for kernels in others() {
                assert_eq!(bits(&product(kernels)), bits(&expected), "{kernels:?} {format:?} {rows} rows");
            }
            // One tile and one row alone.
            let alone = &x[(rows - 1) * blocks * 32..];
            let mut out = vec![0f32; LANES];
            plain().multiply(&view, tiles - 1..tiles, &panels(plain(), alone, 1), &mut out);
            assert_eq!(bits(&out), bits(&expected[expected.len() - LANES..]), "{format:?}");
        }
    }
}

/// A product of a column and a row in exact integers and wide floats.
#[test]
fn plain_products_are_the_sum_they_stand_for() {
    let rng = &mut Pcg64Mcg::seed_from_u64(2);
    for (format, zero) in [(Format::Q4, 8), (Format::Q5, 16), (Format::Q8, 128), (Format::Q4Offset, 0)] {
        let blocks = 3;
        let data = random_matrix(rng, format, 1, blocks);
        let view = MatrixView { format, data: &data, tile_stride: data.len(), tiles: 1, blocks };
        let x = numbers(rng, blocks * 32);
        let mut out = [0f32; LANES];
        plain().multiply(&view, 0..1, &panels(plain(), &x, 1), &mut out);
        let (weight_bytes, scale_bytes) = format.block_bytes();
        for (column, out) in out.iter().enumerate() {
            let (mut sum, mut size) = (0f64, 0f64);
            for block in 0..blocks {
                let bytes = &data[block * (weight_bytes + scale_bytes)..];
                let number = |at: usize| {
                    let at = weight_bytes + at * 32 + 2 * column;
                    f64::from(half::f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32())
                };
                let offset = if format == Format::Q4Offset { number(1) } else { 0.0 };
                for k in 0..32 {
                    let byte = |g: usize| bytes[g * 64 + column * 4 + k % 4];
                    let nibble = if k / 4 % 2 == 0 { byte(k / 8) & 15 } else { byte(k / 8) >> 4 };
                    let fifth = bytes[(256 + k / 4 * 8 + (column * 4 + k % 4) / 8).min(bytes.len() - 1)]
                        >> (k % 4 + column % 2 * 4)
                        & 1;
                    let quant = match format {
                        Format::Q8 => byte(k / 4),
                        Format::Q5 => nibble | fifth << 4,
                        _ => nibble,
                    };
                    let weight = number(0) * f64::from(i32::from(quant) - zero) + offset;
                    sum += weight * f64::from(x[block * 32 + k]);
                    size += (weight * f64::from(x[block * 32 + k])).abs();
                }
            }
            assert!((f64::from(*out) - sum).abs() < 0.01 * size, "{format:?}: {out} instead of {sum}");
        }
    }
}

#[test]
fn rows_are_the_same_bits_on_every_instruction_set() {
    let rng = &mut Pcg64Mcg::seed_from_u64(3);
    for width in [32, 64, 96, 576] {
        let (x, y) = (numbers(rng, width), numbers(rng, width));
        let [partners, cos, sin] = [(); 3].map(|()| numbers(rng, width));
        let run = |kernels: &Kernels| {
            let mut normed = vec![0f32; width];
            kernels.rms_norm(&x, &y, &mut normed, width - 3, 1e-5);
            let mut padded = x.clone();
            padded[width - 3..].fill(0.0);
            let mut layer_normed = vec![0f32; width];
            kernels.layer_norm(&padded, (&y, &partners), &mut layer_normed, width - 3, 1e-5);
            normed.extend(layer_normed);
            let mut added = x.clone();
            kernels.add(&mut added, &y, LANES);
            let mut gated = x.iter().map(|x| x * 40.0).collect::<Vec<_>>();
            kernels.gated(Activation::Silu, &mut gated, &y);
            let mut gelu = x.iter().map(|x| x * 4.0).collect::<Vec<_>>();
            kernels.gated(Activation::GeluTanh, &mut gelu, &y);
            gated.extend(gelu);
            let mut capped = x.iter().map(|x| x * 40.0).collect::<Vec<_>>();
            kernels.soft_cap(&mut capped, 30.0);
            gated.extend(capped);
            let mut rotated = x.clone();
            kernels.rotate(&mut rotated, &partners, &cos, &sin);
            let row = panels(kernels, &x, 1);
            let mut back = vec![0f32; LANES];
            // Quantised numbers are compared through a product with random weights.
            let data = random_matrix(&mut Pcg64Mcg::seed_from_u64(9), Format::Q8Halves, 1, width / 32);
            let stride = data.len();
            let view =
                MatrixView { format: Format::Q8Halves, data: &data, tile_stride: stride, tiles: 1, blocks: width / 32 };
            kernels.multiply(&view, 0..1, &row, &mut back);
            [bits(&normed), bits(&added), bits(&gated), bits(&rotated), bits(&back)]
        };
        let expected = run(plain());
        for kernels in others() {
            assert_eq!(run(kernels), expected, "{kernels:?} width {width}");
        }
    }
}

#[test]
fn numbers_too_small_for_an_inverse_count_as_zero() {
    let data = random_matrix(&mut Pcg64Mcg::seed_from_u64(6), Format::Q4Offset, 1, 1);
    let view = MatrixView { format: Format::Q4Offset, data: &data, tile_stride: data.len(), tiles: 1, blocks: 1 };
    for small in [0.0, f32::from_bits(1), 1e-40, 3e-37, -3e-37] {
        let mut x = vec![small; 32];
        x[3] = 0.0;
        for kernels in Kernels::available() {
            let mut out = [1f32; LANES];
            kernels.multiply(&view, 0..1, &panels(kernels, &x, 1), &mut out);
            assert_eq!(out, [0.0; LANES], "{kernels:?} {small:e}");
        }
    }
}

#[test]
fn pieces_lie_within_what_can_hold_them() {
    for (all, count, stride, len, expected) in [
        (0, 0, usize::MAX, usize::MAX, true),
        (5, 1, usize::MAX, 5, true),
        (5, 1, 0, 6, false),
        (21, 3, 8, 5, true),
        (20, 3, 8, 5, false),
        // Counted modulo 2^64, these would end at 4 and at 1.
        (100, 3, 1 << 63, 4, false),
        (100, 2, usize::MAX, 2, false),
    ] {
        assert_eq!(lie_within(all, count, stride, len), expected, "{count} of {len}, {stride} apart, in {all}");
    }
}

#[test]
fn what_would_reach_beyond_its_slices_panics() {
    let said = |run: &dyn Fn(&Kernels)| {
        let run = std::panic::AssertUnwindSafe(|| run(plain()));
        let panic = std::panic::catch_unwind(run).expect_err("it went through");
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap()
    };
    let check = |expected: &str, run: &dyn Fn(&Kernels)| {
        let said = said(run);
        assert!(said.contains(expected), "`{said}` instead of `{expected}`");
    };
    let data = [0u8; 288];
    let view = |tile_stride, tiles| MatrixView { format: Format::Q4, data: &data, tile_stride, tiles, blocks: 1 };
    let row = |kernels: &Kernels| panels(kernels, &[0.0; 32], 1);
    check("the matrix has its tiles", &|kernels| {
        kernels.multiply(&view(1 << 63, 3), 0..3, &row(kernels), &mut [0.0; 48]);
    });
    check("the matrix has its tiles", &|kernels| kernels.multiply(&view(288, 2), 0..1, &row(kernels), &mut [0.0; 16]));
    check("room for each tile", &|kernels| kernels.multiply(&view(288, 1), 0..1, &row(kernels), &mut [0.0; 15]));
    check("as wide as the matrix", &|kernels| {
        let mut panels = row(kernels);
        panels.resize(1, 64);
        kernels.multiply(&view(288, 1), 0..1, &panels, &mut [0.0; 16]);
    });
    check("rows fit into memory", &|kernels| kernels.panels().resize(1 << 60, 1 << 20));
    check("as many pieces", &|kernels| kernels.add(&mut [0.0; 48], &[0.0; 48], 1 << 63));
    check("divide by zero", &|kernels| kernels.lora_down(&[], 0, &[], 1.0, &mut [], 16));
    check("room for each row", &|kernels| {
        kernels.lora_down(&[0.0; 12], 4, &[0; 64], 1.0, &mut [0.0; 48], 1 << 63);
    });
    check("a row for each", &|kernels| kernels.lora_up(&[0.0; 16], 1 << 63, &[0; 16], &mut [0.0; 48]));
    check("heads are at most", &|kernels| {
        kernels.write_kv(KvPrecision::F16, &[], &[], &mut [], 0, usize::MAX);
    });
    let attend = |kernels: &Kernels, head_dim, first_page, seen| {
        let page = vec![0u8; KvPrecision::F16.page_bytes(16)];
        let (precision, queries) = (KvPrecision::F16, &mut [0.0; 16]);
        kernels.attend(Attention {
            pages: &[&page],
            first_page,
            precision,
            head_dim,
            seen: &[seen],
            queries,
            cap: None,
        });
    };
    check("heads are at most", &|kernels| attend(kernels, usize::MAX, 0, (0, 0)));
    check("first_page * PAGE_TOKENS <= first", &|kernels| attend(kernels, 16, 1, (31, 32)));
    check("last < pages_end", &|kernels| attend(kernels, 16, 0, (0, 32)));
}

#[test]
fn swiglu_and_norm_are_what_they_are_called() {
    let x: Vec<f32> = (0..32).map(|at| at as f32 * 6.0 - 90.0).collect();
    let ones = vec![1.0; 32];
    let mut y = x.clone();
    plain().gated(Activation::Silu, &mut y, &ones);
    for (x, y) in x.iter().zip(&y) {
        let silu = f64::from(*x) / (1.0 + (-f64::from(*x)).exp());
        assert!((f64::from(*y) - silu).abs() <= 1e-6 * silu.abs() + 1e-30, "{x}: {y} instead of {silu}");
    }
    let gates: Vec<f32> = x.iter().map(|x| x / 12.0).collect();
    y.copy_from_slice(&gates);
    plain().gated(Activation::GeluTanh, &mut y, &ones);
    for (x, y) in gates.iter().map(|x| f64::from(*x)).zip(&y) {
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        let gelu = x / 2.0 * (1.0 + inner.tanh());
        assert!((f64::from(*y) - gelu).abs() <= 2e-6 * gelu.abs() + 1e-7, "{x}: {y} instead of {gelu}");
    }
    for scale in [0.001, 0.5, 4.0, 1e4] {
        let scores: Vec<f32> = x.iter().map(|x| x * scale).collect();
        y.copy_from_slice(&scores);
        plain().soft_cap(&mut y, 50.0);
        for (x, y) in scores.iter().map(|x| f64::from(*x)).zip(&y) {
            let capped = 50.0 * (x / 50.0).tanh();
            assert!((f64::from(*y) - capped).abs() <= 1e-5, "{x}: {y} instead of {capped}");
        }
    }
    // Nineteen numbers far from zero, then padding.
    let mut padded: Vec<f32> = x.iter().map(|x| x / 9.0 + 30.0).collect();
    padded[19..].fill(0.0);
    let bias = vec![0.5; 32];
    plain().layer_norm(&padded, (&ones, &bias), &mut y, 19, 1e-5);
    let mean = padded.iter().map(|x| f64::from(*x)).sum::<f64>() / 19.0;
    let variance = padded[..19].iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / 19.0;
    for (x, y) in padded[..19].iter().zip(&y) {
        let expected = (f64::from(*x) - mean) / (variance + 1e-5).sqrt() + 0.5;
        assert!((f64::from(*y) - expected).abs() < 1e-5, "{y} instead of {expected}");
    }
    plain().rms_norm(&x, &ones, &mut y, 32, 1e-5);
    let mean = x.iter().map(|x| x * x).sum::<f32>() / 32.0;
    assert!((y[0] - x[0] / (mean + 1e-5).sqrt()).abs() < 1e-6);
}

#[test]
fn lora_is_the_same_bits_on_every_instruction_set_and_beside_other_rows() {
    let rng = &mut Pcg64Mcg::seed_from_u64(4);
    for (rank, width, rows) in [(16, 64, 1), (16, 96, 4), (32, 64, 5), (64, 32, 9)] {
        let (x, a, b) = (numbers(rng, rows * width), halves(rng, width * rank), halves(rng, rank * LANES));
        let run = |kernels: &Kernels, x: &[f32]| {
            let rows = x.len() / width;
            let mut hidden = vec![0f32; rows * (rank + 16)];
            kernels.lora_down(x, width, &a, 1.5, &mut hidden, rank + 16);
            let mut y = vec![0.25f32; rows * LANES];
            kernels.lora_up(&hidden, rank + 16, &b, &mut y);
            bits(&y)
        };
        let expected = run(plain(), &x);
        for kernels in others() {
            assert_eq!(run(kernels, &x), expected, "{kernels:?} rank {rank}");
        }
        assert_eq!(run(plain(), &x[(rows - 1) * width..]), expected[(rows - 1) * LANES..]);
        // In wide floats, for the last row's last column.
        let value = |bits: u16| f64::from(half::f16::from_bits(bits).to_f32());
        let x = &x[(rows - 1) * width..];
        let hidden = |r: usize| 1.5 * (0..width).map(|k| f64::from(x[k]) * value(a[k * rank + r])).sum::<f64>();
        let y = 0.25 + (0..rank).map(|r| hidden(r) * value(b[r * LANES + 15])).sum::<f64>();
        assert!((f64::from(f32::from_bits(expected[rows * LANES - 1])) - y).abs() < 1e-3 * y.abs().max(1.0));
    }
}

#[test]
fn attention_is_the_same_bits_everywhere_and_near_the_formula() {
    let rng = &mut Pcg64Mcg::seed_from_u64(5);
    for precision in [KvPrecision::F16, KvPrecision::Int8] {
        for (head_dim, tokens, queries, window, cap) in [
            (16, 1, 1, 99, None),
            (64, 70, 3, 99, None),
            (64, 97, 12, 99, None),
            (80, 33, 7, 20, None),
            (80, 33, 7, 20, Some(1.5)),
            (24, 40, 6, 5, None),
            (128, 64, 4, 33, None),
            (256, 10, 2, 99, Some(0.8)),
            // Beyond a stretch of pages, and windows that begin before one and end in it.
            (64, 600, 13, 9_999, None),
            (32, 258, 14, 40, None),
            (32, 258, 14, 40, Some(2.0)),
        ] {
            let padded = usize::next_multiple_of(head_dim, LANES);
            let (k, v) = (numbers(rng, tokens * padded), numbers(rng, tokens * padded));
            let q: Vec<f32> = numbers(rng, queries * padded).iter().map(|q| q / 8.0).collect();
            // Several queries a position, the last ones at the end.
            let seen: Vec<(usize, usize)> = (0..queries)
                .map(|query| tokens - 1 - (queries - 1 - query) / 3 % tokens)
                .map(|last| ((last + 1usize).saturating_sub(window), last))
                .collect();
            let run = |kernels: &Kernels, only: Option<usize>| {
                let mut pages = vec![vec![0u8; precision.page_bytes(head_dim)]; tokens.div_ceil(PAGE_TOKENS)];
                for token in 0..tokens {
                    let at = token * padded..(token + 1) * padded;
                    let page = &mut pages[token / PAGE_TOKENS];
                    kernels.write_kv(precision, &k[at.clone()], &v[at], page, token % PAGE_TOKENS, head_dim);
                }
                let (mut q, mut seen) = (q.clone(), seen.clone());
                if let Some(only) = only {
                    (q, seen) = (q[only * padded..(only + 1) * padded].to_vec(), vec![seen[only]]);
                }
                let first_page = seen[0].0 / PAGE_TOKENS;
                let pages: Vec<&[u8]> = pages[first_page..].iter().map(Vec::as_slice).collect();
                kernels.attend(Attention {
                    pages: &pages,
                    first_page,
                    precision,
                    head_dim,
                    seen: &seen,
                    queries: &mut q,
                    cap,
                });
                q
            };
            let together = run(plain(), None);
            for kernels in others() {
                assert_eq!(bits(&run(kernels, None)), bits(&together), "{kernels:?} {precision:?} {head_dim}");
            }
            for query in 0..queries {
                let own = &together[query * padded..(query + 1) * padded];
                assert_eq!(bits(&run(plain(), Some(query))), bits(own), "{precision:?} {head_dim} query {query}");
                let weights: Vec<f64> = (seen[query].0..=seen[query].1)
                    .map(|token| {
                        let products = (0..head_dim).map(|d| q[query * padded + d] * k[token * padded + d]);
                        let score: f64 = products.map(f64::from).sum();
                        cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh()).exp()
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                for d in 0..head_dim {
                    let weighed =
                        (seen[query].0..).zip(&weights).map(|(token, w)| w * f64::from(v[token * padded + d]));
                    let expected = weighed.sum::<f64>() / total;
                    let tolerance = if precision == KvPrecision::F16 { 0.01 } else { 0.1 };
                    assert!(
                        (f64::from(own[d]) - expected).abs() < tolerance,
                        "{precision:?}: {} for {expected}",
                        own[d]
                    );
                }
            }
        }
    }
}
