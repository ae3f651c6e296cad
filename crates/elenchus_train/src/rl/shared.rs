//! TRL's own numbers, where they are at hand.

use std::{collections::HashMap, path::PathBuf};

use candle_core::{Device, Tensor, Var};

use super::{kl::Estimator, *};
use crate::numeric::{Variance, gae, whiten};

/// Tensors of a file of references.
fn reference(name: &str) -> HashMap<String, Tensor> {
    let file = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/ppo")).join(name);
    candle_core::safetensors::load(&file, &Device::Cpu).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The numbers of each row whose mask is 1, as responses without padding.
fn rows(numbers: &Tensor, mask: &Tensor) -> Vec<Vec<f32>> {
    let mask = mask.to_dtype(candle_core::DType::F32).unwrap().to_vec2::<f32>().unwrap();
    let numbers = numbers.to_vec2::<f32>().unwrap();
    let row = |(numbers, mask): (&Vec<f32>, &Vec<f32>)| {
        numbers.iter().zip(mask).filter(|(_, mask)| **mask != 0.0).map(|(number, _)| *number).collect()
    };
    numbers.iter().zip(&mask).map(row).collect()
}

fn near(name: &str, ours: &[f32], expected: &[f32]) {
    let distance = ours.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{name}: {distance:.1e}");
    assert!(distance < 1e-5 && ours.len() == expected.len(), "{name}: {ours:?} instead of {expected:?}");
}

// TRL 0.11.4, PPOTrainer: rewards with KL 0.05, GAE (0.99, 0.95), whitening, both losses and their gradients.
#[test]
#[ignore = "needs ../shared"]
fn shared_ppo_equals_trl() {
    let of = reference("classic_trl_0_11_4.safetensors");
    let mask = &of["mask"];
    let flat = |name: &str| rows(&of[name], mask).concat();
    let (logprobs, ref_logprobs) = (rows(&of["old_logprobs"], mask), rows(&of["ref_logprobs"], mask));
    let values = rows(&of["values"], mask);
    let scores = of["scores"].to_vec1::<f32>().unwrap();
    let rollouts = (0..scores.len()).map(|at| Rollout {
        query: at,
        score: scores[at],
        logprobs: logprobs[at].clone(),
        ref_logprobs: ref_logprobs[at].clone(),
        values: values[at].clone(),
        ..Rollout::default()
    });
    let experience = Experience { rollouts: rollouts.collect(), ..Experience::default() };
    let settings = PpoSettings { kl_coef: 0.05, kl_target: 0.0, gamma: 0.99, ..PpoSettings::default() };
    let (objective, _) = MethodSettings::of(settings).method().objective(&experience).unwrap();

    let var = |name: &str| Var::from_vec(flat(name), experience.tokens(), &Device::Cpu).unwrap();
    let (new_logprobs, vpred) = (var("new_logprobs"), var("vpred"));
    let policy = PolicyOutput { logprobs: new_logprobs.as_tensor().clone(), values: Some(vpred.as_tensor().clone()) };
    let responses: Vec<usize> = (0..scores.len()).collect();
    let of_all = MiniBatch { responses: responses.len(), tokens: experience.tokens() };
    let loss = objective.loss(&responses, of_all, &policy).unwrap();
    // reference.json
    for (name, expected) in [
        ("pg_loss", 0.008_254_504),
        ("vf_loss", 0.745_115_2),
        ("approxkl", 0.011_871_371),
        ("policykl", 0.001_079_714_5),
        ("clipfrac", 0.087_5),
        ("vf_clipfrac", 0.2),
    ] {
        near(name, &[stat(&loss.stats, name).unwrap() as f32], &[expected]);
    }
    near("loss", &[loss.total.to_scalar().unwrap()], &[0.082_766_026]);
    let grads = loss.total.backward().unwrap();
    for (name, var) in [("d_new_logprobs", &new_logprobs), ("d_vpred", &vpred)] {
        near(name, &grads.get(var).unwrap().to_vec1::<f32>().unwrap(), &flat(name));
    }

    // In two parts the loss and its statistics are the same.
    let mut sum = 0.0;
    let (one, other) = responses.split_at(3);
    for part in [one, other] {
        let (skipped, count) = (if part[0] == 0 { 0 } else { 3 }, part.len());
        let tokens = |responses: &[Rollout]| responses.iter().map(|rollout| rollout.logprobs.len()).sum::<usize>();
        let (start, length) =
            (tokens(&experience.rollouts[..skipped]), tokens(&experience.rollouts[skipped..skipped + count]));
        let policy = PolicyOutput {
            logprobs: new_logprobs.narrow(0, start, length).unwrap(),
            values: Some(vpred.narrow(0, start, length).unwrap()),
        };
        sum += objective.loss(part, of_all, &policy).unwrap().total.to_scalar::<f32>().unwrap();
    }
    near("loss of two parts", &[sum], &[0.082_766_026]);
}

// The same inputs with gamma 1 and rewards whitened first. TRL whitens the padding as well and lets it leak into the returns
// of the tokens before it, so only rows without padding can be the same.
#[test]
#[ignore = "needs ../shared"]
fn shared_whitened_rewards_equal_trl() {
    let (of, expected) =
        (reference("classic_trl_0_11_4.safetensors"), reference("classic_whiten_rewards_gamma1.safetensors"));
    let mask = &of["mask"];
    let (rewards, values) = (rows(&of["rewards"], mask), rows(&of["values"], mask));
    let expected = rows(&expected["returns"], mask);
    let mut white = rewards.concat();
    whiten(&mut white, false, Variance::Unbiased);
    let (mut start, mut whole) = (0, 0);
    for (at, rewards) in rewards.iter().enumerate() {
        let (_, returns) = gae(&white[start..start + rewards.len()], &values[at], 1.0, 0.95);
        start += rewards.len();
        if rewards.len() == mask.dim(1).unwrap() {
            near("returns of a whole row", &returns, &expected[at]);
            whole += 1;
        }
    }
    assert!(whole >= 2, "{whole} rows without padding");
}

// TRL 1.8's experimental PPO, k1 and k3. Its score stands after the last token, where there is one more value; what is the
// same are the price of a token, the advantages and the whitening.
#[test]
#[ignore = "needs ../shared"]
fn shared_last_ppo_equals_trl() {
    let (classic, of) = (reference("classic_trl_0_11_4.safetensors"), reference("experimental_trl_1_8.safetensors"));
    let (padding, padding_p1) = (&of["padding_mask"], &of["padding_mask_p1"]);
    let not = |mask: &Tensor| (mask.to_dtype(candle_core::DType::F32).unwrap() * -1.0).unwrap() + 1.0;
    let (real, real_p1) = (not(padding).unwrap(), not(padding_p1).unwrap());
    for (name, estimator) in [("k1", Estimator::K1), ("k3", Estimator::K3)] {
        let rewards = rows(&of[&format!("{name}/rewards")], &real_p1);
        let values = rows(&classic["values"], &real_p1);
        let scores = classic["scores"].to_vec1::<f32>().unwrap();
        let (logprobs, reference) = (rows(&classic["old_logprobs"], &real), rows(&classic["ref_logprobs"], &real));
        let (mut ours, mut advantages) = (Vec::new(), Vec::new());
        for at in 0..rewards.len() {
            let kl = logprobs[at].iter().zip(&reference[at]).map(|(&p, &q)| -0.05 * estimator.of(p, q));
            let mut of_row: Vec<f32> = kl.collect();
            of_row.resize(rewards[at].len(), 0.0);
            *of_row.last_mut().unwrap() += scores[at];
            ours.extend(of_row);
            advantages.extend(gae(&rewards[at], &values[at], 1.0, 0.95).0.into_iter().take(logprobs[at].len()));
        }
        near(&format!("{name} rewards"), &ours, &rewards.concat());
        near(&format!("{name} advantages"), &advantages, &rows(&of[&format!("{name}/advantages_raw")], &real).concat());
        whiten(&mut advantages, true, Variance::Unbiased);
        let expected = rows(&of[&format!("{name}/advantages_whitened")], &real).concat();
        near(&format!("{name} whitened"), &advantages, &expected);
    }
}
