//! Prefill and decode beside candle-transformers' quantised Llama: same file, same threads, in turns.
//!
//! `cargo bench -p elenchus_lm --bench candle` prints medians and the ratio ours / candle's of each pair of turns;
//! `CANDLE_NUM_THREADS` and `RAYON_NUM_THREADS` set the threads of both.

use std::{fs::File, time::Instant};

use candle_core::{Device, Tensor, quantized::gguf_file};
use candle_transformers::models::quantized_llama::ModelWeights;
use elenchus_candle::CandleExecutor;
use elenchus_lm::{Executor, Logits, Numerics, Row, Weights};

const PROMPT: usize = 128;
const GENERATED: usize = 48;
const TURNS: usize = 9;

/// Tokens a second of one turn: prefill and decode.
type Speed = (f64, f64);

fn ours(executor: &CandleExecutor, prompt: &[u32]) -> Speed {
    let mut cache = executor.new_cache();
    let mut step = |tokens: &[u32]| {
        let row = Row { tokens, adapter: None, cache: &mut cache, logits: Logits::Last };
        argmax(&executor.forward(&mut [row]).unwrap()[0])
    };
    measure(prompt, |tokens, _| step(tokens))
}

fn candle(model: &mut ModelWeights, prompt: &[u32]) -> Speed {
    measure(prompt, |tokens, position| {
        let input = Tensor::new(tokens, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        argmax(&model.forward(&input, position).unwrap().flatten_all().unwrap().to_vec1().unwrap())
    })
}

/// Runs `step(tokens, position)` over the prompt and then token by token.
fn measure(prompt: &[u32], mut step: impl FnMut(&[u32], usize) -> u32) -> Speed {
    let start = Instant::now();
    let mut token = step(prompt, 0);
    let prefill = start.elapsed();
    let start = Instant::now();
    for position in prompt.len()..prompt.len() + GENERATED {
        token = step(&[token], position);
    }
    (prompt.len() as f64 / prefill.as_secs_f64(), GENERATED as f64 / start.elapsed().as_secs_f64())
}

fn argmax(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|&x, &y| logits[x].total_cmp(&logits[y])).unwrap() as u32
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let path = elenchus_fetch::fetch_default(&mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
    let weights = Weights::open(&path, &mut |_| {}).unwrap();
    let executor = CandleExecutor::new(&weights, &Device::Cpu, Numerics::Quantised).unwrap();
    let mut file = File::open(&path).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let mut model = ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap();
    let prompt: Vec<u32> = (0..PROMPT as u32).map(|at| 1000 + at * 37 % 20_000).collect();

    ours(&executor, &prompt);
    candle(&mut model, &prompt);
    let turns: Vec<(Speed, Speed)> =
        (0..TURNS).map(|_| (ours(&executor, &prompt), candle(&mut model, &prompt))).collect();
    println!("SmolLM2-135M Q4_1, {TURNS} turns each, medians in tokens/s");
    for (name, pick) in [("prefill 128", (|speed| speed.0) as fn(&Speed) -> f64), ("decode", |speed| speed.1)] {
        let ours = median(turns.iter().map(|(ours, _)| pick(ours)));
        let candle = median(turns.iter().map(|(_, candle)| pick(candle)));
        let ratio = median(turns.iter().map(|(ours, candle)| pick(ours) / pick(candle)));
        println!("{name:12} elenchus {ours:7.1}   candle-transformers {candle:7.1}   ratio {ratio:.2}");
    }
}
