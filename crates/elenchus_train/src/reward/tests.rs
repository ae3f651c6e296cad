use std::sync::Arc;

use candle_core::Device;
use elenchus_dialogue::Turn;
use elenchus_lm::{
    CpuExecutor, CpuSettings, Numerics, Weights,
    testing::{IM_END, TinyModel},
};

use super::*;

const BASE: &str = "abc";

fn tiny(model: &TinyModel) -> (Weights, CandleExecutor) {
    let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
    model.write_gguf(file.path());
    // The map outlives the name.
    let weights = Weights::open(file.path(), &mut |_| {}).unwrap();
    let executor = CandleExecutor::new(&weights, &Device::Cpu, Numerics::Exact).unwrap();
    (weights, executor)
}

/// A model whose adapter says something already.
fn model(executor: &CandleExecutor) -> RewardModel {
    let model = RewardModel::fresh(executor, &[Linear::Q, Linear::V, Linear::Down], 4, 8.0, 7).unwrap();
    for (name, var) in model.vars().iter().filter(|(name, _)| name.contains("lora_B")) {
        let values = (0..var.elem_count()).map(|at| (at as f32 * 0.7 + name.len() as f32).sin() * 0.2);
        var.set(&Tensor::from_iter(values, &Device::Cpu).unwrap().reshape(var.shape()).unwrap()).unwrap();
    }
    model
}

/// A prompt of which the first letters are common to all, a reply, and its end.
fn ended(from: u32, count: u32) -> Example {
    let letters = |from: u32, count: u32| (from..from + count).map(|at| 97 + at * 7 % 25);
    let prompt: Vec<u32> = letters(0, 10).chain(letters(from, 4)).collect();
    let tokens = prompt.iter().copied().chain(letters(from + 3, count)).chain([IM_END]).collect();
    Example { tokens, reply_start: prompt.len(), is_ended: true, weight: 1.0 }
}

fn card(model: &RewardModel) -> RewardCard {
    RewardCard {
        kind: RewardKind::Style,
        loss: RewardLoss::BradleyTerry,
        aspect: None,
        character: "Meno".into(),
        base_name: "tiny".into(),
        base_sha256: BASE.into(),
        max_tokens: 100,
        steps: 3,
        pairs: 5,
        calibration: None,
        held_out: Accuracy { accuracy: 0.5, low: 0.125, high: 0.875, pairs: 2 },
        length_only_accuracy: 0.5,
        token_count_only_accuracy: 0.5,
        shuffled_labels: false,
        gain: model.gain,
        bias: model.bias,
    }
}

fn assert_near(ours: &[f32], expected: &[f32], distance: f32) {
    assert_eq!(ours.len(), expected.len());
    assert!(ours.iter().zip(expected).all(|(a, b)| (a - b).abs() < distance), "{ours:?} instead of {expected:?}");
}

#[test]
fn a_fresh_head_is_as_wide_as_the_model_asks() {
    let (weights, executor) = tiny(&TinyModel::default());
    let heads = (0..40).map(|seed| RewardModel::fresh(&executor, &[Linear::V], 2, 4.0, seed).unwrap().head);
    let weights_of_heads: Vec<f32> =
        heads.flat_map(|head| head.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect();
    let (count, hidden_size) = (weights_of_heads.len() as f32, weights.config().hidden_size);
    assert_eq!(weights_of_heads.len(), 40 * hidden_size);
    let mean = weights_of_heads.iter().sum::<f32>() / count;
    let variance = weights_of_heads.iter().map(|weight| (weight - mean).powi(2)).sum::<f32>() / count;
    let expected = 1.0 / (hidden_size as f32 + 1.0);
    // Four standard errors of 2,560 numbers.
    assert!(mean.abs() < 4.0 * (expected / count).sqrt(), "{mean}");
    assert!((variance / expected - 1.0).abs() < 4.0 * (2.0 / count).sqrt(), "{variance} instead of {expected}");
}

#[test]
fn a_score_does_not_depend_on_who_else_is_scored() {
    let (_, executor) = tiny(&TinyModel::default());
    let model = model(&executor);
    let examples = [ended(1, 5), ended(30, 17), ended(50, 1), ended(1, 5)];
    let together = model.scores(&executor, &examples).unwrap();
    let alone: Vec<f32> =
        examples.iter().flat_map(|example| model.scores(&executor, std::slice::from_ref(example)).unwrap()).collect();
    assert_near(&together, &alone, 1e-5);
    assert!((alone[0] - alone[1]).abs() > 1e-3, "{alone:?}");
    assert_eq!(model.scores(&executor, &[]).unwrap(), Vec::<f32>::new());
    let cut = Example { is_ended: false, ..ended(1, 5) };
    let error = model.scores(&executor, &[cut]).unwrap_err().to_string();
    assert!(error.contains("does not end with its end token"), "{error}");
}

#[test]
fn an_example_always_ends_with_its_end_token() {
    let (weights, _) = tiny(&TinyModel::default());
    let model = Model::new(Arc::new(CpuExecutor::new(&weights, CpuSettings::default()).unwrap()), &weights).unwrap();
    let character = "version = 1\nname = \"Meno\"\npersona = \"You are Meno.\"\nfallbacks = [\"Hm.\"]";
    let character = Character::parse(character, "test").unwrap();
    let context = vec![Turn { speaker: "Socrates".into(), text: "What is virtue?".into() }];
    let pair = Pair::new("w", context, "I do not know.");
    let of = |max| RewardModel::example(&pair, &character, &model, max).unwrap();
    let whole = of(1000).unwrap();
    let check = |max: usize, reply: Option<&str>| {
        let example = of(max);
        assert_eq!(
            example.as_ref().map(|it| model.tokenizer.decode(&it.tokens[it.reply_start..])).as_deref(),
            reply,
            "{max}"
        );
        if let Some(example) = example {
            assert!(example.tokens.len() <= max && example.is_ended);
            assert_eq!((example.tokens.last(), example.reply_start), (Some(&IM_END), whole.reply_start));
        }
    };
    check(1000, Some("I do not know."));
    check(whole.tokens.len(), Some("I do not know."));
    check(whole.tokens.len() - 5, Some("I do not "));
    check(whole.reply_start + 2, Some("I"));
    check(whole.reply_start + 1, None);
    check(0, None);
}

#[test]
fn scores_of_the_reference_have_mean_0_and_variance_1() {
    let (_, executor) = tiny(&TinyModel::default());
    let mut model = model(&executor);
    let reference: Vec<Example> = (0..9).map(|at| ended(at * 3, 4 + at)).collect();
    model.normalise(&executor, &reference).unwrap();
    let scores = model.scores(&executor, &reference).unwrap();
    let mean = scores.iter().sum::<f32>() / 9.0;
    let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f32>() / 9.0;
    assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-5, "{mean}, {variance}");
    let error = model.normalise(&executor, &reference[..1]).unwrap_err().to_string();
    assert!(error.contains("variance 0"), "{error}");
}

#[test]
fn a_saved_model_scores_as_it_did() {
    let (_, executor) = tiny(&TinyModel::default());
    let mut model = model(&executor);
    let examples = [ended(1, 5), ended(30, 17), ended(50, 1)];
    model.normalise(&executor, &examples).unwrap();
    let folder = tempfile::tempdir().unwrap();
    model.save(folder.path(), &card(&model)).unwrap();
    let (opened, known) = RewardModel::open(folder.path(), &executor, BASE).unwrap();
    assert_eq!(known, card(&model));
    let expected = model.scores(&executor, &examples).unwrap();
    assert_near(&opened.scores(&executor, &examples).unwrap(), &expected, 1e-6);
}

#[test]
fn folders_that_do_not_fit_are_refused_by_name() {
    let (_, executor) = tiny(&TinyModel::default());
    let model = model(&executor);
    let check = |spoil: &dyn Fn(&std::path::Path), base: &str, says: &str| {
        let folder = tempfile::tempdir().unwrap();
        model.save(folder.path(), &card(&model)).unwrap();
        spoil(folder.path());
        let Err(error) = RewardModel::open(folder.path(), &executor, base) else { panic!("{says}") };
        assert!(error.to_string().contains(says), "{error}");
    };
    let write = |name: &'static str, bytes: &'static [u8]| {
        move |folder: &std::path::Path| std::fs::write(folder.join(name), bytes).unwrap()
    };
    check(&|_| {}, "def", "was trained on tiny (abc), not on a base with hash def");
    check(&|folder| std::fs::remove_file(folder.join("reward.json")).unwrap(), BASE, "reward.json: No such file");
    check(&|folder| std::fs::remove_file(folder.join("head.safetensors")).unwrap(), BASE, "head.safetensors: No such");
    check(&write("head.safetensors", b"no"), BASE, "head.safetensors: ");
    check(&write("reward.json", b"{}"), BASE, "reward.json: missing field `kind`");
    check(&write("adapter_model.safetensors", b"no"), BASE, "adapter_model.safetensors");
    let narrow = |folder: &std::path::Path| {
        let head = Tensor::zeros((1, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        candle_core::safetensors::save(&[(HEAD, head)].into(), folder.join("head.safetensors")).unwrap();
    };
    check(&narrow, BASE, "`score.weight` has shape [1, 3], expected [1, 64]");
}

/// Head and one weight of the adapter, against finite differences of the score.
#[test]
fn gradients_reach_every_variable_and_are_finite_differences() {
    let (_, executor) = tiny(&TinyModel::default());
    let model = model(&executor);
    let examples = [ended(1, 5), ended(30, 9)];
    let sum = || {
        let scores = model.pass(&executor, &[&examples[0], &examples[1]], None, Activations::Keep).unwrap();
        scores.sum_all().unwrap()
    };
    let grads = sum().backward().unwrap();
    for (name, var) in model.vars() {
        let grad = grads.get(&var).unwrap_or_else(|| panic!("{name}")).flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let before = var.as_tensor().copy().unwrap();
        let (at, _) = grad.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).unwrap();
        let step = 1e-2;
        let moved = |by: f32| {
            let mut values = before.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            values[at] += by;
            var.set(&Tensor::from_vec(values, before.shape(), &Device::Cpu).unwrap()).unwrap();
            sum().to_scalar::<f32>().unwrap()
        };
        let difference = (moved(step) - moved(-step)) / (2.0 * step);
        var.set(&before).unwrap();
        assert!(
            grad[at] != 0.0 && (grad[at] - difference).abs() < 0.02 * grad[at].abs() + 2e-3,
            "{name}: {} {difference}",
            grad[at]
        );
    }
}
