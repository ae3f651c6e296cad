//! Our side: the steps of the trainer, one for each line on stdin, and where their time goes.

use std::{
    io::{self, BufRead},
    time::Instant,
};

use candle_core::{Device, Tensor};
use elenchus_candle::{Activations, LoraDropout, PackedSequences, Segment};
use elenchus_lm::Linear;
use elenchus_train::{AdamW, batch, gradients};
use serde_json::{Value, json};

use crate::{
    peer::{Result, median, say},
    task::{Base, Task},
};

/// Takes the step it is told, as `elenchus train sft` does, until nobody tells it any more.
pub fn steps(task: &str) -> Result<()> {
    let base = Base::open()?;
    let task = Task::named(task, &base)?;
    let settings = &task.config.training;
    let schedule = settings.schedule(task.examples.len());
    let lora = task.fresh(&base)?;
    let mut optimiser = AdamW::new(lora.vars(), settings.adamw)?;
    say(&json!({"ready": true}))?;
    for order in io::stdin().lock().lines() {
        let order: Value = serde_json::from_str(&order?)?;
        let step = order["step"].as_u64().ok_or("no step")?;
        let started = Instant::now();
        let batch = batch(&task.examples, settings, step);
        let mut dropout = LoraDropout::new(task.config.lora.dropout, step);
        let (loss, targets, grads) = gradients(&base.executor, &lora, &batch, &mut dropout, settings)?;
        let norm = optimiser.grad_norm(&grads)?;
        let scale = (settings.max_grad_norm / norm.max(1e-12)).min(1.0);
        optimiser.step(&grads, scale, schedule.rate(step))?;
        let seconds = started.elapsed().as_secs_f64();
        let tokens: usize = batch.iter().map(|example| example.tokens.len()).sum();
        say(&json!({"seconds": seconds, "loss": loss, "tokens": tokens, "targets": targets}))?;
    }
    Ok(())
}

/// One dense step's phases, and the products in it by themselves; medians, in seconds.
pub fn phases(repetitions: usize) -> Result<()> {
    let base = Base::open()?;
    let task = Task::named(crate::task::DENSE, &base)?;
    let lora = task.fresh(&base)?;
    let mut optimiser = AdamW::new(lora.vars(), task.config.training.adamw)?;
    let rows = &task.examples;
    let tokens: Vec<u32> = rows.iter().flat_map(|row| &row.tokens).copied().collect();
    let segments: Vec<Segment> = rows.iter().map(|row| Segment::alone(row.tokens.len())).collect();
    let targets: Vec<u32> = tokens[1..].iter().copied().chain([tokens[0]]).collect();

    let mut phases = [const { Vec::new() }; 4];
    for number in 0..=repetitions {
        let mut clock = Instant::now();
        let mut lap = |phase: usize| {
            // The first round pays for fresh memory.
            if number > 0 {
                phases[phase].push(clock.elapsed().as_secs_f64());
            }
            clock = Instant::now();
        };
        let mut dropout = LoraDropout::new(task.config.lora.dropout, number as u64);
        let packed = PackedSequences { tokens: &tokens, segments: &segments };
        let hidden = base.executor.hidden_states(packed, Some(&lora), Some(&mut dropout), Activations::Keep)?;
        lap(0);
        let loss = base.executor.token_logprobs(&hidden, &targets, true)?.mean_all()?.neg()?;
        lap(1);
        let grads = loss.backward()?;
        lap(2);
        optimiser.grad_norm(&grads)?;
        optimiser.step(&grads, 1.0, 1e-6)?;
        lap(3);
    }
    let [forward, head, backward, optimiser] = phases.map(|times| median(&times));
    let products = products(&base, tokens.len(), repetitions)?;
    say(&json!({
        "forward": forward, "head": head, "backward": backward, "optimiser": optimiser, "products": products,
    }))
}

/// The frozen products of a dense step, alone: forward in each layer, backward by the input where a variable lies before
/// it (not q, k and v of the first layer), the head's both ways.
fn products(base: &Base, tokens: usize, repetitions: usize) -> Result<Value> {
    let config = base.weights.config();
    let layers = config.num_layers();
    let mut shapes: Vec<(String, (usize, usize), usize, usize)> = Linear::ALL
        .into_iter()
        .map(|linear| {
            let is_first_free = matches!(linear, Linear::Q | Linear::K | Linear::V);
            (linear.to_string(), linear.shape(config), layers, layers - usize::from(is_first_free))
        })
        .collect();
    shapes.push(("head".to_owned(), (config.vocab_size, config.hidden_size), 1, 1));
    let lines = shapes.into_iter().map(|(name, (out_features, in_features), forwards, backwards)| {
        let random = |shape: (usize, usize)| Tensor::rand(-1f32, 1.0, shape, &Device::Cpu);
        let (x, grad) = (random((tokens, in_features))?, random((tokens, out_features))?);
        let weight = random((out_features, in_features))?;
        let timed = |run: &dyn Fn() -> candle_core::Result<Tensor>| -> Result<f64> {
            run()?;
            let times = (0..repetitions.max(3)).map(|_| {
                let started = Instant::now();
                run().map(|_| started.elapsed().as_secs_f64())
            });
            Ok(median(&times.collect::<candle_core::Result<Vec<_>>>()?))
        };
        let forward = timed(&|| x.matmul(&weight.t()?))?;
        let backward = timed(&|| grad.matmul(&weight))?;
        Ok(json!({
            "name": name, "in": in_features, "out": out_features, "forward": forward, "backward": backward,
            "seconds": forward * forwards as f64 + backward * backwards as f64,
        }))
    });
    Ok(Value::Array(lines.collect::<Result<_>>()?))
}
