//! A whole block as one op with a gradient, for training. Between forward and backward it keeps what is costly to
//! recompute (queries, keys, values, both sides of the gate) and nothing that is cheap, or nothing at all (gradient
//! checkpointing). Gradients are summed in place; candle's own graph would use a fresh tensor each time.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Storage, Tensor, Var, backend::BackendStorage, bail};

use super::{
    causal_attention::{CausalAttention, causal_attention},
    gated_unit::{GateGradients, activated, gated, gated_unit},
    host,
    layer_norm::{add_layer_norm_gradient, layer_normalised},
    projection::{Adapted, LoraPart, Projection, add_scaled},
    rms_norm::{add_gradient, head_norm, normalised},
    rope::{Rotation, rope, rotate, unrotate},
    rows::Rows,
    with_host,
};
use elenchus_lm::{Activation, Linear};

use crate::norms::{Norm, Norms};

/// What a forward pass keeps for the gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activations {
    /// Nothing: there will be no gradient.
    Drop,
    /// What is costly to recompute: the fastest.
    #[default]
    Keep,
    /// Only each block's input; the backward pass computes the block again (gradient checkpointing).
    Recompute,
}

/// One block of the model, prepared for a pass.
pub(crate) struct Block {
    /// In the order of [`Linear::ALL`]; `None` for what the layer does not have: the gate.
    pub projections: [Option<Projection>; 7],
    pub rotation: Arc<Rotation>,
    /// The norms of q and of k, `(head_dim)` or as wide as all heads.
    pub qk_norm: Option<[Tensor; 2]>,
    /// Of what attention and feed-forward part add to the residual stream.
    pub residual_scale: f32,
    pub norms: Norms,
    pub activation: Activation,
    pub eps: f32,
    pub attention: CausalAttention,
}

/// A linear's A `(rank, in_features)` and B `(out_features, rank)`, rows in the base's order.
pub(crate) type Variables = (Linear, Tensor, Tensor);

impl Block {
    /// `x` `(rows, hidden_size)` to the same; differentiable by `x` and the variables unless activations are dropped.
    pub fn apply(self, x: &Tensor, variables: &[Variables], activations: Activations) -> Result<Tensor> {
        if !x.device().is_cpu() && activations != Activations::Recompute {
            return self.composed(x, variables);
        }
        // An op has few inputs, so all variables enter as one.
        let flat = variables.iter().flat_map(|(_, a, b)| [a, b]).map(Tensor::flatten_all);
        let mut flat = flat.collect::<Result<Vec<Tensor>>>()?;
        if flat.is_empty() {
            flat.push(Tensor::zeros(1, x.dtype(), x.device())?);
        }
        let (mut parts, mut start) = ([const { None }; 7], 0);
        for (linear, a, b) in variables {
            let mut part = |tensor: &Tensor| {
                start += tensor.elem_count();
                Layout::contiguous_with_offset(tensor.shape(), start - tensor.elem_count())
            };
            parts[*linear as usize] = Some((part(a), part(b)));
        }
        let composed = match x.device().is_cpu() {
            true => None,
            false => {
                let detached = variables.iter().map(|(linear, a, b)| (*linear, a.detach(), b.detach()));
                Some(self.composed(&x.detach(), &detached.collect::<Vec<_>>())?)
            }
        };
        let op = BlockOp { block: self, parts, activations, kept: Mutex::default(), composed };
        let flat = Tensor::cat(&flat, 0)?;
        match activations {
            Activations::Drop => x.apply_op2_no_bwd(&flat, &op),
            _ => x.apply_op2(&flat, op),
        }
    }

    /// The same with tensor operations, for devices other than the CPU.
    fn composed(&self, x: &Tensor, variables: &[Variables]) -> Result<Tensor> {
        let linear = |x: &Tensor, linear: Linear, residual: Option<&Tensor>| {
            let lora = variables.iter().find(|(adapted, ..)| *adapted == linear).map(|(_, a, b)| (a, b));
            self.projection(linear)?.composed(x, lora, residual)
        };
        let add = |x: &Tensor, read: &Tensor, last: Linear, part: usize| match &self.norms.after {
            Some(_) => x + self.norms.added(linear(read, last, None)?, part, self.eps)?,
            None => linear(read, last, Some(x)),
        };
        let h = self.norms.read(x, 0, self.eps)?;
        let (mut q, mut k, v) =
            (linear(&h, Linear::Q, None)?, linear(&h, Linear::K, None)?, linear(&h, Linear::V, None)?);
        if let Some([q_norm, k_norm]) = &self.qk_norm {
            (q, k) = (head_norm(&q, q_norm, self.eps)?, head_norm(&k, k_norm, self.eps)?);
        }
        let (q, k) = (rope(&q, &self.rotation)?, rope(&k, &self.rotation)?);
        let scaled = |x: Tensor| if self.residual_scale == 1.0 { Ok(x) } else { x * f64::from(self.residual_scale) };
        let attended = scaled(causal_attention(&q, &k, &v, &self.attention)?)?;
        let x = add(x, &attended, Linear::O, 0)?;
        let h = self.norms.read(&x, 1, self.eps)?;
        let up = linear(&h, Linear::Up, None)?;
        let inner = match self.is_gated() {
            true => gated_unit(&linear(&h, Linear::Gate, None)?, &up, self.activation)?,
            false => activated(&up, self.activation)?,
        };
        let inner = scaled(inner)?;
        add(&x, &inner, Linear::Down, 1)
    }

    fn projection(&self, linear: Linear) -> Result<&Projection> {
        let projection = self.projections[linear as usize].as_ref();
        projection.ok_or_else(|| candle_core::Error::msg(format!("the block has no {linear}")))
    }

    fn is_gated(&self) -> bool {
        self.projections[Linear::Gate as usize].is_some()
    }
}

struct BlockOp {
    block: Block,
    /// The offsets of A and B of each linear in the flat tensor of all variables.
    parts: [Option<(Layout, Layout)>; 7],
    activations: Activations,
    kept: Mutex<Option<Kept>>,
    /// The output, on devices other than the CPU.
    composed: Option<Tensor>,
}

/// What the gradient needs from a forward pass, besides its input.
struct Kept {
    /// Before their norm, if they have one.
    unnormed: Option<[Rows; 2]>,
    /// Normed and rotated, as attention saw them.
    q: Rows,
    k: Rows,
    v: Rows,
    /// The scaled attention output, if O is adapted.
    attended: Option<Rows>,
    /// What attention and feed-forward part add, before its norm, if it has one.
    unnormed_parts: Option<[Rows; 2]>,
    /// The sum after attention.
    middle: Rows,
    /// `None` in a block without a gate.
    gate: Option<Rows>,
    up: Rows,
    /// The values between A and B of each adapted linear.
    inner: [Option<Rows>; 7],
}

impl BlockOp {
    fn lora<'a>(&self, linear: Linear, values: &'a CpuStorage) -> Option<LoraPart<'a>> {
        let (a, b) = self.parts[linear as usize].clone()?;
        Some(LoraPart { values, a, b })
    }

    fn adapts(&self, linears: &[Linear]) -> bool {
        linears.iter().any(|linear| self.parts[*linear as usize].is_some())
    }

    fn norm(&self, x: &[f32], weight: &Tensor, rows: usize) -> Result<Rows> {
        Rows::new(with_host(weight, |weight| normalised(x, weight, self.block.eps))?, rows)
    }

    fn forward(&self, x: &[f32], rows: usize, values: &CpuStorage) -> Result<(Rows, Kept)> {
        let mut inner = [const { None }; 7];
        let mut project = |linear: Linear, x: &Rows| {
            let projection = self.block.projection(linear)?;
            let (y, between) = projection.forward(x, self.lora(linear, values).as_ref())?;
            inner[linear as usize] = between;
            Ok::<_, candle_core::Error>(y)
        };
        let h = self.read(x, 0, rows)?;
        let (mut q, mut k, v) = (project(Linear::Q, &h)?, project(Linear::K, &h)?, project(Linear::V, &h)?);
        drop(h);
        let unnormed = match &self.block.qk_norm {
            Some([q_norm, k_norm]) => {
                let normed = [self.norm(q.values()?, q_norm, rows)?, self.norm(k.values()?, k_norm, rows)?];
                let [normed_q, normed_k] = normed;
                Some([std::mem::replace(&mut q, normed_q), std::mem::replace(&mut k, normed_k)])
            }
            None => None,
        };
        for rotated in [&mut q, &mut k] {
            rotate(rotated.values_mut()?, rows, &self.block.rotation)?;
        }
        let mut attended = self.block.attention.attend(q.values()?, k.values()?, v.values()?)?;
        self.scale_residual(&mut attended);
        let attended = Rows::new(attended, rows)?;
        let (mut middle, unnormed_attention) = self.added(project(Linear::O, &attended)?, 0)?;
        add_scaled(middle.values_mut()?, 1.0, x);
        let h = self.read(middle.values()?, 1, rows)?;
        let gate = match self.block.is_gated() {
            true => Some(project(Linear::Gate, &h)?),
            false => None,
        };
        let up = project(Linear::Up, &h)?;
        drop(h);
        let (mut y, unnormed_ffn) = self.added(project(Linear::Down, &self.product(gate.as_ref(), &up)?)?, 1)?;
        add_scaled(y.values_mut()?, 1.0, middle.values()?);
        let unnormed_parts = unnormed_attention.zip(unnormed_ffn).map(<[Rows; 2]>::from);
        let attended = self.adapts(&[Linear::O]).then_some(attended);
        Ok((y, Kept { unnormed, q, k, v, attended, unnormed_parts, middle, gate, up, inner }))
    }

    /// What attention (0) or the feed-forward part (1) reads.
    fn read(&self, x: &[f32], part: usize, rows: usize) -> Result<Rows> {
        match &self.block.norms.before {
            Some(norms) => match &norms[part] {
                Norm { weight, bias: None } => self.norm(x, weight, rows),
                Norm { weight, bias: Some(bias) } => {
                    let eps = self.block.eps;
                    let y =
                        with_host(weight, |weight| with_host(bias, |bias| layer_normalised(x, weight, bias, eps)))??;
                    Rows::new(y, rows)
                }
            },
            None => Ok(Rows::new(x.to_vec(), rows)?),
        }
    }

    /// What it adds; with a norm of that, what was normed too.
    fn added(&self, y: Rows, part: usize) -> Result<(Rows, Option<Rows>)> {
        match &self.block.norms.after {
            Some(weights) => Ok((self.norm(y.values()?, &weights[part], y.rows())?, Some(y))),
            None => Ok((y, None)),
        }
    }

    /// The gradient of what a part's last linear gave, from the gradient of what the part adds.
    fn added_gradient(&self, unnormed: Option<&Rows>, part: usize, grad: &Rows) -> Result<Option<Rows>> {
        let (Some(weights), Some(unnormed)) = (&self.block.norms.after, unnormed) else { return Ok(None) };
        let mut d_y = Rows::new(vec![0f32; grad.values()?.len()], grad.rows())?;
        self.add_norm_gradient(unnormed.values()?, &weights[part], grad, &mut d_y)?;
        Ok(Some(d_y))
    }

    /// Adds to `d_x` the gradient that reaches a part's input through what it reads.
    fn add_read_gradient(&self, x: &[f32], part: usize, grad: &Rows, d_x: &mut Rows) -> Result<()> {
        match &self.block.norms.before {
            Some(norms) => match &norms[part] {
                Norm { weight, bias: None } => self.add_norm_gradient(x, weight, grad, d_x),
                Norm { weight, bias: Some(_) } => {
                    let (grad, d_x, eps) = (grad.values()?, d_x.values_mut()?, self.block.eps);
                    with_host(weight, |weight| add_layer_norm_gradient(x, weight, grad, eps, d_x))
                }
            },
            None => {
                add_scaled(d_x.values_mut()?, 1.0, grad.values()?);
                Ok(())
            }
        }
    }

    /// The input of Down.
    fn product(&self, gate: Option<&Rows>, up: &Rows) -> Result<Rows> {
        let mut product = match gate {
            Some(gate) => gated(gate.values()?, up.values()?, self.block.activation),
            // What a unit gives whose other branch is 1.
            None => gated(up.values()?, &vec![1.0; up.values()?.len()], self.block.activation),
        };
        self.scale_residual(&mut product);
        Rows::new(product, up.rows())
    }

    /// Scales what is added to the residual stream, or its gradient. The linear between is the same either way.
    fn scale_residual(&self, x: &mut [f32]) {
        if self.block.residual_scale != 1.0 {
            x.iter_mut().for_each(|x| *x *= self.block.residual_scale);
        }
    }

    /// Gradients for `x`, if `is_wanted`, and for the variables.
    fn backward(
        &self,
        x: &[f32],
        values: &CpuStorage,
        kept: Kept,
        grad: &[f32],
        is_wanted: bool,
    ) -> Result<(Option<Rows>, Vec<f32>)> {
        let Kept { unnormed, q, k, v, attended, unnormed_parts, middle, gate, up, inner } = kept;
        let [unnormed_attention, unnormed_ffn] = unnormed_parts.map_or([None, None], |parts| parts.map(Some));
        let rows = middle.rows();
        let mut d_values = vec![0f32; values.as_slice::<f32>()?.len()];
        let mut back = |linear: Linear, x: Option<&Rows>, grad: &Rows, is_wanted: bool| {
            let lora = self.lora(linear, values);
            let adapted = match (&lora, x, &inner[linear as usize]) {
                (Some(lora), Some(x), Some(inner)) => Some(Adapted { lora, x, inner }),
                (None, ..) => None,
                _ => bail!("the input of an adapted linear was not kept"),
            };
            self.block.projection(linear)?.backward(adapted, grad, &mut d_values, is_wanted)
        };

        let mut d_x = Rows::new(grad.to_vec(), rows)?;
        let product = match self.adapts(&[Linear::Down]) {
            true => Some(self.product(gate.as_ref(), &up)?),
            false => None,
        };
        let d_down = self.added_gradient(unnormed_ffn.as_ref(), 1, &d_x)?;
        let mut d_product = wanted(back(Linear::Down, product.as_ref(), d_down.as_ref().unwrap_or(&d_x), true)?)?;
        self.scale_residual(d_product.values_mut()?);
        drop((product, d_down, unnormed_ffn));
        let (mut d_gate, mut d_up) = (vec![0f32; up.values()?.len()], vec![0f32; up.values()?.len()]);
        match &gate {
            Some(gate) => {
                let gradients = GateGradients { gate: gate.values()?, up: up.values()?, grad: d_product.values()? };
                gradients.write(self.block.activation, &mut d_gate, &mut d_up);
            }
            None => {
                let ones = vec![1.0; up.values()?.len()];
                let gradients = GateGradients { gate: up.values()?, up: &ones, grad: d_product.values()? };
                gradients.write(self.block.activation, &mut d_up, &mut d_gate);
            }
        }
        drop((gate, up, d_product));
        let h = match self.adapts(&[Linear::Gate, Linear::Up]) {
            true => Some(self.read(middle.values()?, 1, rows)?),
            false => None,
        };
        let of_up = Rows::new(d_up, rows)?;
        let d_h = if self.block.is_gated() {
            let mut d_h = wanted(back(Linear::Gate, h.as_ref(), &Rows::new(d_gate, rows)?, true)?)?;
            let other = wanted(back(Linear::Up, h.as_ref(), &of_up, true)?)?;
            add_scaled(d_h.values_mut()?, 1.0, other.values()?);
            d_h
        } else {
            wanted(back(Linear::Up, h.as_ref(), &of_up, true)?)?
        };
        self.add_read_gradient(middle.values()?, 1, &d_h, &mut d_x)?;
        drop((h, of_up, d_h, middle));

        let d_o = self.added_gradient(unnormed_attention.as_ref(), 0, &d_x)?;
        let mut d_attended = wanted(back(Linear::O, attended.as_ref(), d_o.as_ref().unwrap_or(&d_x), true)?)?;
        drop((d_o, unnormed_attention));
        self.scale_residual(d_attended.values_mut()?);
        let (q_len, k_len) = (q.values()?.len(), k.values()?.len());
        let mut d_q = self.block.attention.gradients(q.values()?, k.values()?, v.values()?, d_attended.values()?);
        drop((q, k, v, attended, d_attended));
        let mut d_k = d_q.split_off(q_len);
        let d_v = d_k.split_off(k_len);
        let h = match self.adapts(&[Linear::Q, Linear::K, Linear::V]) {
            true => Some(self.read(x, 0, rows)?),
            false => None,
        };
        let mut d_h: Option<Rows> = None;
        for (number, (linear, mut grad)) in
            [(Linear::Q, d_q), (Linear::K, d_k), (Linear::V, d_v)].into_iter().enumerate()
        {
            if linear != Linear::V {
                unrotate(&mut grad, rows, &self.block.rotation)?;
            }
            if let (Some(unnormed), Some(norms), 0 | 1) = (&unnormed, &self.block.qk_norm, number) {
                let mut d_unnormed = vec![0f32; grad.len()];
                let x = unnormed[number].values()?;
                with_host(&norms[number], |norm| add_gradient(x, norm, &grad, self.block.eps, &mut d_unnormed))?;
                grad = d_unnormed;
            }
            let grad = Rows::new(grad, rows)?;
            let part = back(linear, h.as_ref(), &grad, is_wanted)?;
            match (&mut d_h, part) {
                (Some(d_h), Some(part)) => add_scaled(d_h.values_mut()?, 1.0, part.values()?),
                (_, part) => d_h = part,
            }
        }
        match d_h {
            Some(d_h) => {
                self.add_read_gradient(x, 0, &d_h, &mut d_x)?;
                Ok((Some(d_x), d_values))
            }
            None => Ok((None, d_values)),
        }
    }

    fn add_norm_gradient(&self, x: &[f32], weight: &Tensor, grad: &Rows, d_x: &mut Rows) -> Result<()> {
        let (grad, d_x) = (grad.values()?, d_x.values_mut()?);
        with_host(weight, |weight| add_gradient(x, weight, grad, self.block.eps, d_x))
    }

    /// The variables of each linear, from the flat tensor.
    fn variables(&self, flat: &Tensor) -> Result<Vec<Variables>> {
        let part = |layout: &Layout| {
            flat.narrow(0, layout.start_offset(), layout.shape().elem_count())?.reshape(layout.shape())
        };
        let parts = Linear::ALL.into_iter().zip(&self.parts);
        parts
            .filter_map(|(linear, part)| Some((linear, part.as_ref()?)))
            .map(|(linear, (a, b))| Ok((linear, part(a)?, part(b)?)))
            .collect()
    }
}

fn wanted(gradient: Option<Rows>) -> Result<Rows> {
    gradient.ok_or_else(|| candle_core::Error::msg("a gradient was requested and not computed"))
}

impl CustomOp2 for BlockOp {
    fn name(&self) -> &'static str {
        "block"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_l: &Layout, flat: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let (y, kept) = self.forward(host(x, x_l)?, x_l.dims()[0], flat)?;
        if self.activations == Activations::Keep {
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        }
        Ok((CpuStorage::F32(y.into_values()?), x_l.shape().clone()))
    }

    fn cuda_fwd(
        &self,
        _: &candle_core::CudaStorage,
        x_l: &Layout,
        _: &candle_core::CudaStorage,
        _: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let Some(output) = &self.composed else { bail!("a block on a GPU is composed of tensor operations") };
        let (storage, layout) = output.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, x_l.shape().clone())),
            _ => bail!("a block's output is not on the GPU"),
        }
    }

    fn bwd(&self, x: &Tensor, flat: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        if !x.device().is_cpu() {
            let (x, flat) = (Var::from_tensor(&x.detach())?, Var::from_tensor(&flat.detach())?);
            let y = self.block.composed(x.as_tensor(), &self.variables(flat.as_tensor())?)?;
            let mut grads = (y * grad)?.sum_all()?.backward()?;
            return Ok((grads.remove(&x), grads.remove(&flat)));
        }
        let rows = x.dim(0)?;
        let (storage, _) = flat.storage_and_layout();
        let Storage::Cpu(values) = &*storage else { bail!("a block's variables are not on the CPU") };
        // Taken, so that memory shrinks as the backward pass proceeds; a second gradient recomputes it.
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (d_x, d_values) = with_host(x, |x_values| {
            let kept = match kept {
                Some(kept) => kept,
                None => self.forward(x_values, rows, values)?.1,
            };
            with_host(&grad.contiguous()?, |grad| self.backward(x_values, values, kept, grad, x.track_op()))?
        })??;
        let d_x = d_x.map(|d_x| Tensor::from_vec(d_x.into_values()?, x.shape(), x.device())).transpose()?;
        Ok((d_x, Some(Tensor::from_vec(d_values, flat.shape(), flat.device())?)))
    }
}

#[cfg(test)]
mod tests;
