//! A row's numbers depend on itself alone: alone, in any batch, at any chunking, from any cached prefix.

mod common;

use std::sync::Arc;

use common::{all_logits, executor, largest_difference, real_weights};
use elenchus_lm::{
    Adapter, CpuExecutor, CpuSettings, Executor, KvCache, Logits, LoraAdapter, Markup, Numerics, Row,
    testing::TinyModel,
};

/// transformers 5.23 in f32 on the dequantised file: the five likeliest next tokens of "The capital of France is".
///
/// `torch.topk(model(input_ids=[[504, 3575, 282, 4649, 314]]).logits[0, -1], 5)`
const FRANCE_IDS: [u32; 5] = [504, 3575, 282, 4649, 314];
const FRANCE_TOP: [(usize, f32); 5] =
    [(7042, 17.37127), (260, 14.88859), (4528, 13.24498), (2250, 13.00947), (1315, 12.95152)];

#[test]
fn real_model_logits_equal_transformers() {
    let executor = executor(real_weights(), Numerics::Exact);
    let vocab_size = executor.config().vocab_size;
    let logits = all_logits(&executor, &FRANCE_IDS, None);
    let last = &logits[4 * vocab_size..];
    for (id, expected) in FRANCE_TOP {
        assert!((last[id] - expected).abs() < 5e-4, "token {id}: {} instead of {expected}", last[id]);
    }
    let best = (0..vocab_size).max_by(|&x, &y| last[x].total_cmp(&last[y])).unwrap();
    assert_eq!(best, FRANCE_TOP[0].0);
}

/// Eight voices for a model: none, and seven adapters on q and v, each with a different scale.
fn voices(folder: &std::path::Path, tiny: TinyModel) -> Vec<Option<Adapter>> {
    let voice = |seed: u64| {
        let folder = folder.join(format!("voice-{seed}"));
        tiny.write_adapter(&folder, seed);
        let lora = Arc::new(LoraAdapter::open(&folder).unwrap());
        Some(Adapter { lora, scale: 1.0 + seed as f32 / 10.0 })
    };
    std::iter::once(None).chain((1..8).map(voice)).collect()
}

/// Reads `rows` in one batch after each cache's own past, and returns each row's logits at its last position.
fn last_logits(
    executor: &dyn Executor,
    rows: &[Vec<u32>],
    voices: &[Option<Adapter>],
    caches: &mut [KvCache],
) -> Vec<Vec<f32>> {
    let mut batch: Vec<Row<'_>> = rows
        .iter()
        .zip(voices)
        .zip(caches)
        .map(|((tokens, adapter), cache)| Row { tokens, adapter: adapter.as_ref(), cache, logits: Logits::Last })
        .collect();
    executor.forward(&mut batch).unwrap()
}

/// Largest difference between each row alone and in a batch of eight with eight voices: ragged prefill, then a decode
/// step.
fn check_row_independence(executor: &dyn Executor, voices: &[Option<Adapter>], vocab: u32) -> f32 {
    let prompts: Vec<Vec<u32>> =
        (0..8u32).map(|row| (0..3 + 5 * row).map(|at| 17 + (at * 31 + row * 97) % (vocab - 17)).collect()).collect();
    let next: Vec<Vec<u32>> = (0..8).map(|row| vec![40 + row]).collect();
    let fresh = || -> Vec<KvCache> { (0..8).map(|_| executor.new_cache()).collect() };

    let mut together = fresh();
    let prefill = last_logits(executor, &prompts, voices, &mut together);
    let decode = last_logits(executor, &next, voices, &mut together);
    let mut largest = 0f32;
    for row in 0..8 {
        let mut alone = [executor.new_cache()];
        let rows = row..row + 1;
        let first = last_logits(executor, &prompts[rows.clone()], &voices[rows.clone()], &mut alone);
        let second = last_logits(executor, &next[rows.clone()], &voices[rows.clone()], &mut alone);
        largest = largest.max(largest_difference(&first[0], &prefill[row]));
        largest = largest.max(largest_difference(&second[0], &decode[row]));
        // Token by token, for a short row and for one that is longer than a page.
        if ![1, 7].contains(&row) {
            continue;
        }
        let mut chunked = [executor.new_cache()];
        let mut last = Vec::new();
        for token in prompts[row].iter().chain(&next[row]) {
            last = last_logits(executor, &[vec![*token]], &voices[rows.clone()], &mut chunked);
        }
        largest = largest.max(largest_difference(&last[0], &decode[row]));
    }
    largest
}

#[test]
fn rows_are_independent_of_their_batch() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = TinyModel::default();
    let path = folder.path().join("tiny.gguf");
    tiny.write_gguf(&path);
    let weights = elenchus_lm::Weights::open(&path, &mut |_| {}).unwrap();
    let voices = voices(folder.path(), tiny);
    for numerics in [Numerics::Exact, Numerics::Quantised] {
        let executor = executor(&weights, numerics);
        let largest = check_row_independence(&executor, &voices, weights.config().vocab_size as u32);
        println!("tiny, {numerics:?}: largest difference {largest:.2e}");
        assert!(largest < 5e-4, "{numerics:?}: {largest}");
    }
}

#[test]
fn real_model_rows_are_independent_of_their_batch() {
    let folder = tempfile::tempdir().unwrap();
    let config = real_weights().config();
    let voices: Vec<Option<Adapter>> = std::iter::once(None)
        .chain((1..8).map(|seed| {
            let folder = folder.path().join(seed.to_string());
            elenchus_lm::testing::write_random_adapter(&folder, config, 16, seed);
            Some(Adapter::new(Arc::new(LoraAdapter::open(&folder).unwrap())))
        }))
        .collect();
    for numerics in [Numerics::Exact, Numerics::Quantised] {
        let executor = executor(real_weights(), numerics);
        let largest = check_row_independence(&executor, &voices, config.vocab_size as u32);
        println!("SmolLM2-135M, {numerics:?}: largest difference {largest:.2e}");
        assert!(largest < 5e-4, "{numerics:?}: {largest}");
    }
    let engine = cpu_executor(2);
    assert_eq!(
        check_row_independence(&engine, &voices, config.vocab_size as u32),
        0.0,
        "the CPU engine's are the bits"
    );
}

fn cpu_executor(threads: usize) -> CpuExecutor {
    CpuExecutor::new(real_weights(), CpuSettings { threads, ..CpuSettings::default() }).unwrap()
}

/// How the exact distributions over a text change: sums over positions.
#[derive(Debug, Default)]
struct Drift {
    positions: f64,
    /// KL(exact || quantised).
    kl: f64,
    /// Positions where the exact margin is above 0.5, and how many of these have another likeliest token.
    firm: usize,
    changed: usize,
    /// How much less likely the text becomes, in nats.
    loss: f64,
}

impl Drift {
    fn add(&mut self, p: &[f32], q: &[f32], next: Option<u32>) {
        let (log_p, log_q) = (log_softmax(p), log_softmax(q));
        self.positions += 1.0;
        self.kl += log_p.iter().zip(&log_q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        let (first, margin) = top(p);
        if margin > 0.5 {
            self.firm += 1;
            self.changed += usize::from(top(q).0 != first);
        }
        self.loss += next.map_or(0.0, |next| log_p[next as usize] - log_q[next as usize]);
    }
}

/// Mean KL below 0.01, the likeliest token changed at no more than 0.5% of the firm positions, perplexity within 1% for
/// candle and 0.5% for the CPU engine.
#[test]
fn real_model_quantised_numerics_stay_near_the_exact() {
    let text = concat!(include_str!("../../../docs/plugin-guide.md"), include_str!("../../../docs/architecture.md"));
    let ids = real_weights().tokenizer().unwrap().encode(text, Markup::AsText).unwrap();
    assert!(ids.len() >= 2_000, "only {} tokens", ids.len());
    let vocab_size = real_weights().config().vocab_size;
    let exact = executor(real_weights(), Numerics::Exact);
    let candle = executor(real_weights(), Numerics::Quantised);
    let engine = cpu_executor(2);
    let mut sides = [("candle", &candle as &dyn Executor, Drift::default()), ("CPU engine", &engine, Drift::default())];
    for window in ids[..2_048.min(ids.len())].chunks(256) {
        let p = all_logits(&exact, window, None);
        for (_, quantised, drift) in &mut sides {
            let q = all_logits(*quantised, window, None);
            for (at, (p, q)) in p.chunks_exact(vocab_size).zip(q.chunks_exact(vocab_size)).enumerate() {
                drift.add(p, q, window.get(at + 1).copied());
            }
        }
    }
    for ((name, _, drift), most) in sides.into_iter().zip([0.01, 0.005]) {
        println!("{name}: {drift:?}");
        let kl = drift.kl / drift.positions;
        assert!(kl < 0.01, "{name}: mean KL {kl}");
        assert!(drift.changed * 200 <= drift.firm, "{name}: {} of {}", drift.changed, drift.firm);
        let off = (drift.loss / drift.positions).exp() - 1.0;
        assert!(off.abs() < most, "{name}: perplexity is off by {:.2} %", 100.0 * off);
    }
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|&x| f64::from(x - largest).exp()).sum();
    logits.iter().map(|&x| f64::from(x - largest) - total.ln()).collect()
}

/// The likeliest token and its logit's distance to the next.
fn top(logits: &[f32]) -> (usize, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    let mut second = f32::NEG_INFINITY;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            second = best.1;
            best = (id, logit);
        } else {
            second = second.max(logit);
        }
    }
    (best.0, best.1 - second)
}

#[test]
fn a_forked_cache_continues_as_a_fresh_one_and_errors_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    TinyModel::default().write_gguf(&path);
    let weights = elenchus_lm::Weights::open(&path, &mut |_| {}).unwrap();
    let executor = executor(&weights, Numerics::Quantised);
    let prompt: Vec<u32> = (20..90).collect();
    let mut first = [executor.new_cache()];
    last_logits(&executor, std::slice::from_ref(&prompt), &[None], &mut first);
    // The fork drops the last ten tokens and continues differently; the original is not disturbed.
    let mut fork = first.clone();
    fork[0].truncate(60);
    let forked = last_logits(&executor, &[vec![99, 98]], &[None], &mut fork);
    let fresh: Vec<u32> = prompt[..60].iter().copied().chain([99, 98]).collect();
    assert_eq!(forked[0], last_logits(&executor, &[fresh], &[None], &mut [executor.new_cache()])[0]);

    let before = first[0].len();
    for (tokens, says) in
        [(vec![], "no tokens"), (vec![1_000_000], "vocabulary"), (vec![5; 100_000], "more than the model's")]
    {
        let error = {
            let row = Row { tokens: &tokens, adapter: None, cache: &mut first[0], logits: Logits::Last };
            executor.forward(&mut [row]).unwrap_err().to_string()
        };
        assert!(error.contains(says), "{error}");
        assert_eq!(first[0].len(), before);
    }
    let continued = last_logits(&executor, &[vec![77]], &[None], &mut first);
    let fresh: Vec<u32> = prompt.iter().copied().chain([77]).collect();
    assert_eq!(continued[0], last_logits(&executor, &[fresh], &[None], &mut [executor.new_cache()])[0]);
}
