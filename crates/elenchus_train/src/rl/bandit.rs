//! The gate that every method passes: a bandit of five arms whose best policy under a price of divergence is known in closed
//! form, `pi* ∝ reference * exp(reward / kl_coef)`.
//!
//! A response is the arm and a token that ends it, which the policy cannot change: a method that credits the wrong token
//! learns nothing here.

use candle_core::{DType, Device, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::{
    Experience, Method, MiniBatch, PolicyOutput, PpoSettings, Rerolls, Rollout, Source, ValuedStep, Values,
    kl::Estimator,
};
use crate::{AdamW, AdamWSettings, Result};

/// What the reference pulls each arm with.
pub const REFERENCE: [f64; 5] = [0.4, 0.3, 0.15, 0.1, 0.05];
/// What each arm is worth.
pub const REWARDS: [f64; 5] = [0.0, 0.2, 0.5, 1.0, 0.8];
/// The price of a nat of divergence.
pub const KL_COEF: f64 = 0.3;
/// Iterations of a run.
pub const STEPS: u64 = 300;
/// Responses to a query.
const GROUP: usize = 4;

/// What a method is given, changed on the way: nothing, or what a mutant does.
#[derive(Clone, Copy)]
pub struct World {
    /// What each arm is said to be worth.
    pub rewards: [f64; 5],
    /// Added to every reward: nothing a method may care about.
    pub shift: f64,
    /// Whether each token's log-probability stands at the place of the one before.
    pub mask_off_by_one: bool,
    /// How much chance there is in a comparison: the probability that one arm is preferred to another is the logistic of
    /// their rewards' difference in these units.
    pub noise: Option<f64>,
    /// Queries of an iteration.
    pub groups: usize,
}

/// Nothing is changed.
pub const FAIR: World = World { rewards: REWARDS, shift: 0.0, mask_off_by_one: false, noise: None, groups: 8 };

/// Probabilities of logits.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let exps: Vec<f64> = logits.iter().map(|logit| logit.exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.into_iter().map(|exp| exp / sum).collect()
}

/// The best policy under a price of divergence.
pub fn optimum(rewards: &[f64; 5], kl_coef: f64) -> Vec<f64> {
    softmax(&REFERENCE.iter().zip(rewards).map(|(p, reward)| p.ln() + reward / kl_coef).collect::<Vec<_>>())
}

/// The best policy at [`KL_COEF`].
pub fn best() -> Vec<f64> {
    optimum(&REWARDS, KL_COEF)
}

/// `KL(p || q)` in nats.
pub fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
}

/// `KL(pi || pi*)` after a run.
fn distance_from_best(method: &mut dyn Method, world: &World, seed: u64) -> Result<f64> {
    Ok(kl(&learned(method, world, seed)?, &best()))
}

/// The policy after a run.
pub fn learned(method: &mut dyn Method, world: &World, seed: u64) -> Result<Vec<f64>> {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let start: Vec<f32> = REFERENCE.iter().map(|p| p.ln() as f32).collect();
    let logits = Var::from_tensor(&Tensor::new(start, &Device::Cpu)?)?;
    // The values before an arm is pulled and before the end.
    let head = Var::zeros(2, DType::F32, &Device::Cpu)?;
    let plan = method.plan();
    let mut vars = vec![("logits".to_owned(), logits.clone())];
    if plan.values == Values::Head {
        vars.push(("head".to_owned(), head.clone()));
    }
    let mut optimiser = AdamW::new(vars, AdamWSettings::default())?;
    let probabilities = || Ok::<_, crate::Error>(softmax(&logits.to_dtype(DType::F64)?.to_vec1::<f64>()?));
    for step in 0..STEPS {
        let now = probabilities()?;
        let heads = head.to_vec1::<f32>()?;
        let said = if plan.source == Source::Policy { now.clone() } else { REFERENCE.to_vec() };
        let arms: Vec<usize> = (0..world.groups * GROUP)
            .map(|_| {
                let mut left: f64 = rng.random();
                said.iter()
                    .position(|p| {
                        left -= p;
                        left < 0.0
                    })
                    .unwrap_or(4)
            })
            .collect();
        let mut rollouts = Vec::new();
        for (at, &arm) in arms.iter().enumerate() {
            let score = match world.noise {
                _ if !plan.scores => 0.0,
                // The better of two has more of reward and noise: by Gumbel's, as Bradley and Terry say.
                Some(scale) => world.rewards[arm] / scale - (-rng.random::<f64>().ln()).ln(),
                None => world.rewards[arm] + world.shift,
            };
            let values = match plan.values {
                Values::None => Vec::new(),
                Values::Head => heads.clone(),
                // What is known of the start is a matter of taste; of an arm it is what the arm is worth.
                Values::Model { .. } => vec![0.5, world.rewards[arm] as f32],
            };
            // The value of an arm is known when it is pulled, that of the start from draws of the policy.
            let mut steps = Vec::new();
            if let Some(Rerolls { count, .. }) = plan.steps {
                let draw = |rng: &mut Pcg64Mcg| {
                    let mut left: f64 = rng.random();
                    let at = now.iter().position(|p| {
                        left -= p;
                        left < 0.0
                    });
                    world.rewards[at.unwrap_or(4)]
                };
                let start = (0..count).map(|_| draw(&mut rng)).sum::<f64>() / count as f64;
                let values = [start + world.shift, world.rewards[arm] + world.shift];
                steps
                    .extend(values.iter().enumerate().map(|(start, &value)| ValuedStep { start, value: value as f32 }));
            }
            rollouts.push(Rollout {
                query: at / GROUP,
                score: score as f32,
                logprobs: vec![now[arm].ln() as f32, 0.0],
                ref_logprobs: vec![REFERENCE[arm].ln() as f32, 0.0],
                values,
                steps,
            });
        }
        let experience = Experience { rollouts, ..Experience::default() };
        let (objective, _) = method.objective(&experience)?;
        for epoch in 0..plan.epochs {
            let mini_batch = if plan.mini_batch == 0 { arms.len() } else { plan.mini_batch };
            // Whole groups, other ones each time.
            let order: Vec<usize> = (0..arms.len()).map(|at| (at + epoch * GROUP) % arms.len()).collect();
            for responses in order.chunks(mini_batch) {
                let of = MiniBatch { responses: responses.len(), tokens: 2 * responses.len() };
                let ids: Vec<u32> = responses.iter().map(|&at| arms[at] as u32).collect();
                let all = candle_nn::ops::log_softmax(logits.as_tensor(), 0)?;
                let of_arms = all.index_select(&Tensor::new(ids, &Device::Cpu)?, 0)?.unsqueeze(1)?;
                let of_ends = of_arms.zeros_like()?;
                let mut logprobs = Tensor::cat(&[of_arms, of_ends], 1)?.flatten_all()?;
                if world.mask_off_by_one {
                    let rest = logprobs.narrow(0, 1, of.tokens - 1)?;
                    logprobs = Tensor::cat(&[rest, logprobs.narrow(0, 0, 1)?], 0)?;
                }
                let values = head.as_tensor().unsqueeze(0)?.repeat((responses.len(), 1))?.flatten_all()?;
                let policy = PolicyOutput { logprobs, values: (plan.values == Values::Head).then_some(values) };
                let loss = objective.loss(responses, of, &policy)?;
                let rate = 0.05 * (1.0 - step as f64 / STEPS as f64);
                optimiser.step(&loss.total.backward()?, 1.0, rate)?;
            }
        }
    }
    probabilities()
}

/// The worst of ten seeds.
pub fn worst(method: impl Fn() -> Box<dyn Method>, world: &World) -> f64 {
    (0..10).map(|seed| distance_from_best(&mut *method(), world, seed).unwrap()).fold(0.0, f64::max)
}

/// KL(pi || pi*) that a method has to come below.
pub const GATE: f64 = 0.01;

/// PPO as the bandit is held to it.
pub const PPO: PpoSettings = PpoSettings {
    kl_coef: KL_COEF,
    kl_target: 0.0,
    kl_horizon: 1.0,
    kl_estimator: Estimator::K1,
    gamma: 1.0,
    lam: 0.95,
    cliprange: 0.2,
    cliprange_value: 0.2,
    vf_coef: 0.1,
    epochs: 4,
    mini_batch: 0,
    whiten_rewards: false,
    ratio_threshold: 10.0,
    early_stop_kl: 0.0,
};

/// Holds methods, by name and by their price of divergence, to the known optimum; it moves with no shift of all rewards.
///
/// # Panics
/// A method that misses it.
pub fn finds_the_optimum(methods: &[(&str, fn(f64) -> Box<dyn Method>)]) {
    for (name, method) in methods {
        for world in [FAIR, World { shift: 10.0, ..FAIR }] {
            let worst = worst(|| method(KL_COEF), &world);
            println!("{name}: KL to the optimum {worst:.2e}, worst of ten seeds, rewards shifted by {}", world.shift);
            assert!(worst < GATE, "{name}: {worst}");
        }
    }
}

/// Holds that methods whose price has the other sign, or whose log-probabilities are of the wrong tokens, miss the optimum.
///
/// # Panics
/// A mutant that finds it.
pub fn mutants_fail(methods: &[(&str, fn(f64) -> Box<dyn Method>)]) {
    for (name, method) in methods {
        for (mutant, worst) in [
            ("flipped sign", worst(|| method(-KL_COEF), &FAIR)),
            ("mask off by one", worst(|| method(KL_COEF), &World { mask_off_by_one: true, ..FAIR })),
        ] {
            println!("{name}, {mutant}: {worst:.2e}");
            assert!(worst > GATE, "{name}, {mutant}: {worst}");
        }
    }
}

/// `x` where an increasing function is 0.
pub fn root(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if f(middle) < 0.0 { low = middle } else { high = middle }
    }
    low
}

/// The policy that stays where it is: `pi = step(pi)`, gone to in small steps.
pub fn fixed_point(step: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let mut policy = REFERENCE.to_vec();
    for _ in 0..4000 {
        let next = step(&policy);
        policy.iter_mut().zip(next).for_each(|(p, next)| *p += 0.05 * (next - *p));
    }
    policy
}

/// The standard deviation of some numbers under a policy.
pub fn deviation(policy: &[f64], of: &[f64]) -> f64 {
    let mean: f64 = policy.iter().zip(of).map(|(p, x)| p * x).sum();
    policy.iter().zip(of).map(|(p, x)| p * (x - mean).powi(2)).sum::<f64>().sqrt()
}

/// Where divergence is a k3 in the loss, its expected gradient on the policy's own samples is that of `KL(reference || pi)`,
/// `-reference / pi` by `log pi`. So at rest `gain(a) + kl_coef reference(a) / pi(a)` is the same for all arms:
/// `pi = kl_coef reference / (c - gain)`, with the `c` at which it adds up to 1.
pub fn at_rest_with_k3(gain: &[f64], kl_coef: f64) -> Vec<f64> {
    let most = gain.iter().copied().fold(f64::MIN, f64::max);
    let of = |c: f64| -> Vec<f64> { REFERENCE.iter().zip(gain).map(|(p, gain)| kl_coef * p / (c - gain)).collect() };
    of(root(most + 1e-12, most + 100.0, |c| 1.0 - of(c).iter().sum::<f64>()))
}

/// Ten seeds reach their optimum, and what is credited to the wrong tokens does not.
pub fn check(name: &str, method: &dyn Fn() -> Box<dyn Method>, world: &World, optimum: &[f64]) {
    let far = |world: &World, seed: u64| kl(&learned(&mut *method(), world, seed).unwrap(), optimum);
    let worst = (0..10).map(|seed| far(world, seed)).fold(0.0, f64::max);
    let from_best = kl(optimum, &best());
    println!("{name}: KL to its own optimum {worst:.2e}, worst of ten seeds; that is {from_best:.2e} from pi*");
    assert!(worst < GATE, "{name}: {worst}, {optimum:?}");
    let mutant = far(&World { mask_off_by_one: true, ..*world }, 0);
    println!("{name}, mask off by one: {mutant:.2e}");
    assert!(mutant > GATE, "{name}, mask off by one: {mutant}");
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            DpoSettings, GrpoSettings, KtoSettings, RlooSettings, Settings, baseline::standardised, clipped::TokenMean,
        },
        *,
    };

    /// The expected advantage of each arm in a group of [`GROUP`] that the policy draws, standardised within the group.
    fn expected_standardised(policy: &[f64]) -> Vec<f64> {
        let of = |arm: usize| {
            let mut sum = 0.0;
            for others in 0..125 {
                let group = [arm, others / 25, others / 5 % 5, others % 5];
                let chance: f64 = group[1..].iter().map(|&other| policy[other]).product();
                let scores = group.map(|arm| REWARDS[arm] as f32);
                sum += chance * f64::from(standardised(&scores, &[0; 4], true)[0]);
            }
            sum
        };
        (0..5).map(of).collect()
    }

    fn rloo(kl_coef: f64) -> Box<dyn Method> {
        Settings::method(&RlooSettings { kl_coef: kl_coef as f32, ..RlooSettings::default() })
    }

    fn ppo(kl_coef: f64) -> Box<dyn Method> {
        Settings::method(&PpoSettings { kl_coef, ..PPO })
    }

    const METHODS: [(&str, fn(f64) -> Box<dyn Method>); 2] = [("rloo", rloo), ("ppo", ppo)];

    #[test]
    fn the_optimum_is_the_known_one() {
        // numpy: ref * np.exp(R / .3) / sum
        let expected = [0.075_453_87, 0.110_223_06, 0.149_808_67, 0.528_773_67, 0.135_740_73];
        assert!(best().iter().zip(expected).all(|(ours, expected)| (ours - expected).abs() < 1e-6), "{:?}", best());
    }

    #[test]
    fn every_method_finds_the_optimum() {
        finds_the_optimum(&METHODS);
    }

    #[test]
    fn every_mutant_fails() {
        mutants_fail(&METHODS);
    }

    /// Five reward models that know what arms are worth, but for small errors, and one of them can be fooled: it takes the worst
    /// arm for the best by far. Each combination is given the price of divergence at which its optimum lies as far from the
    /// reference as the others', so that nothing but the combination decides what the policy is worth there.
    #[test]
    fn an_ensemble_is_fooled_by_its_mean_and_not_by_its_spread_or_its_worst_case() {
        use crate::judge::{Combination, Spread, Uwo};
        const NATS: f64 = 0.4;
        // Arm 0 is worth nothing, and is what the reference says most often.
        const ERRORS: [[f64; 5]; 5] = [
            [6.0, 0.0, 0.0, 0.0, 0.0],
            [0.05, -0.05, 0.1, 0.0, -0.1],
            [-0.05, 0.1, -0.1, 0.05, 0.0],
            [0.0, 0.05, 0.0, -0.1, 0.1],
            [0.1, -0.1, 0.05, 0.0, -0.05],
        ];
        let worth = |policy: &[f64]| policy.iter().zip(REWARDS).map(|(p, reward)| p * reward).sum::<f64>();
        let of = |combination: Combination| {
            let combined = |arm: usize| {
                let scores: Vec<f32> = ERRORS.iter().map(|errors| (REWARDS[arm] + errors[arm]) as f32).collect();
                f64::from(combination.of(&scores).unwrap().score)
            };
            let rewards: [f64; 5] = std::array::from_fn(combined);
            // A higher price keeps nearer to the reference.
            let (mut low, mut high) = (1e-3f64, 1e3f64);
            for _ in 0..100 {
                let price = (low * high).sqrt();
                if kl(&optimum(&rewards, price), &REFERENCE) > NATS { low = price } else { high = price }
            }
            let world = World { rewards, ..FAIR };
            let policies: Vec<Vec<f64>> = (0..5).map(|seed| learned(&mut *rloo(high), &world, seed).unwrap()).collect();
            let mean = |number: &dyn Fn(&[f64]) -> f64| policies.iter().map(|of| number(of)).sum::<f64>() / 5.0;
            let (gold, distance) = (mean(&worth), mean(&|policy| kl(policy, &REFERENCE)));
            println!("{combination:?}: worth {gold:.3} at {distance:.3} nats");
            assert!((distance - NATS).abs() < 0.03, "{combination:?}: {distance}");
            gold
        };
        let start = worth(&REFERENCE);
        let uwo = |lambda, spread| Combination::Uwo(Uwo { lambda, spread, ddof: 0 });
        // A standard deviation grows as the mean's error does: at a tenth of it the worst arm still looks best.
        for combination in [Combination::Mean, uwo(0.1, Spread::Std)] {
            let gold = of(combination);
            assert!(gold < start, "{combination:?} was not fooled: {gold}, {start} at first");
        }
        for combination in [uwo(0.5, Spread::Var), uwo(0.5, Spread::Std), Combination::Wco] {
            let gold = of(combination);
            assert!(gold > start + 0.2, "{combination:?}: {gold}, {start} at first");
        }
    }

    /// GRPO is at rest where standardised advantages and the k3 of its loss balance each other, which is not pi*.
    #[test]
    fn grpo_finds_its_own_optimum() {
        let settings = GrpoSettings { kl_coef: KL_COEF, ..GrpoSettings::default() };
        let optimum = fixed_point(|policy| at_rest_with_k3(&expected_standardised(policy), KL_COEF));
        check("grpo", &|| Settings::method(&settings), &FAIR, &optimum);
        // Without the deviation the gain is the reward, less a mean that is no matter, for what is compared with it is in it:
        // the group's mean takes a quarter of the arm's own reward away.
        let settings = GrpoSettings { scale_rewards: false, mean: TokenMean::Tokens, ..settings };
        let optimum = at_rest_with_k3(&REWARDS.map(|reward| 0.75 * reward), KL_COEF);
        check("dr. grpo", &|| Settings::method(&settings), &FAIR, &optimum);
    }

    /// Where one arm is preferred to another with the logistic of their rewards' difference, DPO's optimum is pi* at beta. Ties are
    /// no matter: an arm is never compared with itself. Comparisons by chance are noisy, so there are more of them.
    #[test]
    fn dpo_finds_the_optimum_of_bradley_and_terry() {
        let world = World { noise: Some(1.0), groups: 32, ..FAIR };
        let settings = DpoSettings { beta: KL_COEF, ..DpoSettings::default() };
        check("dpo", &|| Settings::method(&settings), &world, &best());
    }

    /// KTO's loss has no rest: whatever is above its group's mean more often than below, among what the reference draws, goes up
    /// until the sigmoid is flat, and the rest goes down. Here those are the arms 2, 3 and 4; how they share what they win, the
    /// loss does not say.
    #[test]
    fn kto_moves_to_what_is_desirable() {
        let settings = KtoSettings { beta: 0.3, ..KtoSettings::default() };
        for seed in 0..10 {
            let policy = learned(&mut *Settings::method(&settings), &FAIR, seed).unwrap();
            println!("kto, seed {seed}: {policy:.3?}");
            assert!(policy[0] + policy[1] < 0.01, "{policy:?}");
        }
    }
}
