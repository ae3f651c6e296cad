//! Compares a block's gradients with finite differences, and the fused op with its composition, for every kind of block.

use std::sync::Arc;

use candle_core::Device;

use super::{
    super::{super::matrix::Matrix, DropoutMask, Rotation, tests::*},
    *,
};
use elenchus_lm::{BlockSpec, ModelConfig};

use crate::{Segment, ops::tests::tiny};

/// Two sequences that begin with the same two tokens.
const SEGMENTS: [Segment; 3] = [
    Segment { behind: None, length: 2 },
    Segment { behind: Some(0), length: 3 },
    Segment { behind: Some(0), length: 1 },
];
const RANK: usize = 2;

/// What families' blocks differ in.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Llama,
    /// Norms of the heads of q and k, and a scale of the residual stream.
    Scaled,
    /// Norms on both sides of the parts, and GeGLU.
    Sandwich,
    /// Norms after the parts, and of q and k as a whole.
    After,
    /// Norms on both sides of the parts, GeGLU, and a cap of the scores.
    Capped,
    /// LayerNorm, and no gate.
    Gpt,
}

const KINDS: [Kind; 6] = [Kind::Llama, Kind::Scaled, Kind::Sandwich, Kind::After, Kind::Capped, Kind::Gpt];

impl Kind {
    fn has(self, linear: Linear) -> bool {
        self != Self::Gpt || linear != Linear::Gate
    }
}

fn block(config: &ModelConfig, dropout: f32, kind: Kind) -> Block {
    let positions: Vec<usize> = (0..5).chain([2]).collect();
    let frequencies = &config.rope_frequencies().0[0];
    let rotation = Arc::new(Rotation::new(config, frequencies, &positions, &Device::Cpu).unwrap());
    // Small, so that attention is not too sharp for finite differences.
    let qk_norm = |widths: [usize; 2]| {
        [(5, widths[0]), (6, widths[1])].map(|(seed, width)| ((random(seed, &[width]) * 0.3).unwrap() + 0.6).unwrap())
    };
    let norm = |seed| (random(seed, &[config.hidden_size]) + 2.0).unwrap();
    Block {
        projections: Linear::ALL.map(|linear| {
            let (rows, columns) = linear.shape(config);
            let weight = (random(10 + linear as u64, &[rows, columns]) * 0.4).unwrap();
            kind.has(linear).then(|| Projection {
                weight: Arc::new(Matrix::Dense(weight)),
                bias: (linear as usize).is_multiple_of(2).then(|| random(20 + linear as u64, &[rows])),
                scaling: 0.7,
                dropout: (dropout > 0.0).then(|| DropoutMask::new(dropout, linear as u64)),
            })
        }),
        rotation,
        qk_norm: match kind {
            Kind::Scaled => Some(qk_norm([config.head_dim; 2])),
            Kind::After => Some(qk_norm([config.q_dim(), config.kv_dim()])),
            Kind::Llama | Kind::Sandwich | Kind::Capped | Kind::Gpt => None,
        },
        residual_scale: if kind == Kind::Scaled { 0.6 } else { 1.0 },
        norms: Norms {
            before: (kind != Kind::After).then(|| {
                [(1, 41), (2, 42)].map(|(weight, bias)| Norm {
                    weight: norm(weight),
                    bias: (kind == Kind::Gpt).then(|| random(bias, &[config.hidden_size])),
                })
            }),
            after: matches!(kind, Kind::Sandwich | Kind::After | Kind::Capped).then(|| [norm(7), norm(8)]),
        },
        activation: match kind {
            Kind::Sandwich | Kind::Capped | Kind::Gpt => Activation::GeluTanh,
            Kind::Llama | Kind::Scaled | Kind::After => Activation::Silu,
        },
        eps: 1e-5,
        attention: CausalAttention::new(config, &SEGMENTS)
            .of_layer(&BlockSpec { attention_cap: (kind == Kind::Capped).then_some(0.8), ..BlockSpec::default() }),
    }
}

/// `x`, then A and B of each linear.
fn inputs(config: &ModelConfig, linears: &[Linear]) -> Vec<Tensor> {
    let both = linears.iter().flat_map(|linear| {
        let (rows, columns) = linear.shape(config);
        [random(20 + *linear as u64, &[RANK, columns]), random(30 + *linear as u64, &[rows, RANK])]
    });
    std::iter::once(random(3, &[6, config.hidden_size])).chain(both.map(|half| (half * 0.4).unwrap())).collect()
}

fn variables(linears: &[Linear], inputs: &[Tensor]) -> Vec<Variables> {
    let halves = inputs[1..].chunks_exact(2);
    linears.iter().zip(halves).map(|(linear, half)| (*linear, half[0].clone(), half[1].clone())).collect()
}

const ADAPTED: [&[Linear]; 5] =
    [&[], &[Linear::Q, Linear::V], &[Linear::O], &[Linear::Down, Linear::Gate], &Linear::ALL];

/// Every gradient equals finite differences, for any adapted linears, with dropout and without.
#[test]
fn gradient_equals_finite_differences() {
    let config = ModelConfig { hidden_size: 8, intermediate_size: 6, head_dim: 4, rotary_dim: 4, ..tiny() };
    for linears in ADAPTED {
        for (dropout, activations) in [(0.0, Activations::Keep), (0.3, Activations::Recompute)] {
            for kind in KINDS {
                let linears: Vec<Linear> = linears.iter().copied().filter(|&linear| kind.has(linear)).collect();
                check_gradient(&inputs(&config, &linears), |inputs| {
                    let variables = variables(&linears, inputs);
                    block(&config, dropout, kind).apply(&inputs[0], &variables, activations).unwrap()
                });
            }
        }
    }
}

/// Values and gradients equal those of tensor operations, also if the input is no variable, and for a second
/// gradient.
#[test]
fn fused_equals_composed() {
    let config = tiny();
    for linears in ADAPTED {
        for (is_input_variable, kind) in KINDS.map(|kind| (true, kind)).into_iter().chain([(false, Kind::Llama)]) {
            if !is_input_variable && linears.is_empty() {
                continue;
            }
            let linears: Vec<Linear> = linears.iter().copied().filter(|&linear| kind.has(linear)).collect();
            let inputs = inputs(&config, &linears);
            let vars: Vec<Var> = inputs.iter().map(|input| Var::from_tensor(input).unwrap()).collect();
            let mut tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
            if !is_input_variable {
                tensors[0] = tensors[0].detach();
            }
            let variables = variables(&linears, &tensors);
            let weighing = random(9, inputs[0].dims());
            let loss = |y: &Tensor| (y * &weighing).unwrap().sum_all().unwrap();
            let fused = block(&config, 0.2, kind).apply(&tensors[0], &variables, Activations::Keep).unwrap();
            let composed = block(&config, 0.2, kind).composed(&tensors[0], &variables).unwrap();
            assert!(distance(&fused, &composed) < 1e-4, "{linears:?}");
            let expected = loss(&composed).backward().unwrap();
            for _ in 0..2 {
                let grads = loss(&fused).backward().unwrap();
                for (at, var) in vars.iter().enumerate().skip(usize::from(!is_input_variable)) {
                    // Gradients reach 1,200 here, where sums in another order differ by 2e-3: the test compares the
                    // share of the largest (2.5e-6 measured on AVX2).
                    let expected = expected.get(var).unwrap();
                    let difference = distance(grads.get(var).unwrap(), expected);
                    let largest = distance(expected, &expected.zeros_like().unwrap());
                    assert!(difference < 1e-5 * largest, "{linears:?}, input {at}: {difference} of {largest}");
                }
            }
            let dropped = block(&config, 0.2, kind).apply(&tensors[0], &variables, Activations::Drop).unwrap();
            assert!(!dropped.track_op() && distance(&fused, &dropped) == 0.0);
        }
    }
}
