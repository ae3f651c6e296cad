//! The gate every method passes: a bandit of five arms whose best policy under a price of divergence is known in closed
//! form, `pi* ∝ reference * exp(reward / kl_coef)`.
//!
//! A response is the arm and a token that ends it, which the policy cannot change: a method that credits the wrong token
//! learns nothing here.

use candle_core::{DType, Device, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::*;
use crate::{AdamW, AdamWSettings, Result};

const REFERENCE: [f64; 5] = [0.4, 0.3, 0.15, 0.1, 0.05];
const REWARDS: [f64; 5] = [0.0, 0.2, 0.5, 1.0, 0.8];
const KL_COEF: f64 = 0.3;
const STEPS: u64 = 300;
const GROUPS: usize = 8;
const GROUP: usize = 4;

/// What a method is given, changed on the way: nothing, or what a mutant does.
struct World {
    /// What each arm is said to be worth.
    rewards: [f64; 5],
    /// Added to every reward: nothing a method may care about.
    shift: f64,
    /// Whether each token's log-probability stands at the place of the one before.
    mask_off_by_one: bool,
}

const FAIR: World = World { rewards: REWARDS, shift: 0.0, mask_off_by_one: false };

fn softmax(logits: &[f64]) -> Vec<f64> {
    let exps: Vec<f64> = logits.iter().map(|logit| logit.exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.into_iter().map(|exp| exp / sum).collect()
}

/// The best policy under a price of divergence.
fn optimum(rewards: &[f64; 5], kl_coef: f64) -> Vec<f64> {
    softmax(&REFERENCE.iter().zip(rewards).map(|(p, reward)| p.ln() + reward / kl_coef).collect::<Vec<_>>())
}

fn best() -> Vec<f64> {
    optimum(&REWARDS, KL_COEF)
}

fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
}

/// `KL(pi || pi*)` after a run.
fn distance_from_best(method: &mut dyn Method, world: &World, seed: u64) -> Result<f64> {
    Ok(kl(&learned(method, world, seed)?, &best()))
}

/// The policy after a run.
fn learned(method: &mut dyn Method, world: &World, seed: u64) -> Result<Vec<f64>> {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let start: Vec<f32> = REFERENCE.iter().map(|p| p.ln() as f32).collect();
    let logits = Var::from_tensor(&Tensor::new(start, &Device::Cpu)?)?;
    // The values before an arm is pulled and before the end.
    let head = Var::zeros(2, DType::F32, &Device::Cpu)?;
    let plan = method.plan();
    let mut vars = vec![("logits".to_owned(), logits.clone())];
    if plan.values {
        vars.push(("head".to_owned(), head.clone()));
    }
    let mut optimiser = AdamW::new(vars, AdamWSettings::default())?;
    let probabilities = || Ok::<_, crate::Error>(softmax(&logits.to_dtype(DType::F64)?.to_vec1::<f64>()?));
    for step in 0..STEPS {
        let now = probabilities()?;
        let values = head.to_vec1::<f32>()?;
        let arms: Vec<usize> = (0..GROUPS * GROUP)
            .map(|_| {
                let mut left: f64 = rng.random();
                now.iter()
                    .position(|p| {
                        left -= p;
                        left < 0.0
                    })
                    .unwrap_or(4)
            })
            .collect();
        let rollouts = arms.iter().enumerate().map(|(at, &arm)| Rollout {
            query: at / GROUP,
            score: (world.rewards[arm] + world.shift) as f32,
            logprobs: vec![now[arm].ln() as f32, 0.0],
            ref_logprobs: vec![REFERENCE[arm].ln() as f32, 0.0],
            values: if plan.values { values.clone() } else { Vec::new() },
        });
        let experience = Experience { rollouts: rollouts.collect() };
        let (objective, _) = method.objective(&experience)?;
        for epoch in 0..plan.epochs {
            let mini_batch = if plan.mini_batch == 0 { arms.len() } else { plan.mini_batch };
            let order: Vec<usize> = (0..arms.len()).map(|at| (at + epoch) % arms.len()).collect();
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
                let policy = PolicyOutput { logprobs, values: plan.values.then_some(values) };
                let loss = objective.loss(responses, of, &policy)?;
                let rate = 0.05 * (1.0 - step as f64 / STEPS as f64);
                optimiser.step(&loss.total.backward()?, 1.0, rate)?;
            }
        }
    }
    probabilities()
}

/// The worst of ten seeds.
fn worst(method: impl Fn() -> Box<dyn Method>, world: &World) -> f64 {
    (0..10).map(|seed| distance_from_best(&mut *method(), world, seed).unwrap()).fold(0.0, f64::max)
}

/// KL(pi || pi*) that a method has to come below.
const GATE: f64 = 0.01;

const PPO: PpoSettings = PpoSettings {
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

fn rloo(kl_coef: f64) -> Box<dyn Method> {
    Box::new(RlooSettings { kl_coef: kl_coef as f32, ..RlooSettings::default() }.method())
}

fn reinforce(kl_coef: f64) -> Box<dyn Method> {
    Box::new(ReinforceSettings { kl_coef: kl_coef as f32 }.method())
}

fn ppo(kl_coef: f64) -> Box<dyn Method> {
    Box::new(PpoSettings { kl_coef, ..PPO }.method())
}

/// By name, so that mutants of each can be made.
const METHODS: [(&str, fn(f64) -> Box<dyn Method>); 3] = [("reinforce", reinforce), ("rloo", rloo), ("ppo", ppo)];

#[test]
fn the_optimum_is_the_known_one() {
    // numpy: ref * np.exp(R / .3) / sum
    let expected = [0.075_453_87, 0.110_223_06, 0.149_808_67, 0.528_773_67, 0.135_740_73];
    assert!(best().iter().zip(expected).all(|(ours, expected)| (ours - expected).abs() < 1e-6), "{:?}", best());
}

#[test]
fn every_method_finds_the_optimum() {
    for (name, method) in METHODS {
        let worst = worst(|| method(KL_COEF), &FAIR);
        println!("{name}: KL to the optimum {worst:.2e}, worst of ten seeds");
        assert!(worst < GATE, "{name}: {worst}");
    }
}

#[test]
fn what_is_added_to_all_rewards_changes_nothing() {
    for (name, method) in METHODS {
        let worst = worst(|| method(KL_COEF), &World { shift: 10.0, ..FAIR });
        println!("{name}: KL to the optimum {worst:.2e}, worst of ten seeds, rewards shifted by 10");
        assert!(worst < GATE, "{name}: {worst}");
    }
}

#[test]
fn mutants_fail() {
    for (name, method) in METHODS {
        for (mutant, worst) in [
            ("flipped KL sign", worst(|| method(-KL_COEF), &FAIR)),
            ("mask off by one", worst(|| method(KL_COEF), &World { mask_off_by_one: true, ..FAIR })),
        ] {
            println!("{name}, {mutant}: {worst:.2e}");
            assert!(worst > GATE, "{name}, {mutant}: {worst}");
        }
    }
    let uncentred = worst(|| Box::new(Uncentred), &World { shift: 10.0, ..FAIR });
    println!("advantages not centred: {uncentred:.2e}");
    assert!(uncentred > GATE, "{uncentred}");
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

/// REINFORCE whose rewards are compared with nothing.
struct Uncentred;

impl Method for Uncentred {
    fn plan(&self) -> Plan {
        Plan::ON_POLICY
    }

    fn objective(&mut self, experience: &Experience) -> Result<(Box<dyn Objective>, Stats)> {
        let mut method = ReinforceSettings { kl_coef: KL_COEF as f32 }.method();
        method.restore(serde_json::json!({ "sum": 0.0, "count": 1 }))?;
        method.objective(experience)
    }
}

/// A response's reward moves every method's policy alike when ratios are 1: along the gradient of its log-probability.
#[test]
fn methods_agree_on_the_first_step() {
    // softmax([1, 2, 1, 1]); onehot(1) - p
    let expected = [-0.174_877_7, 0.524_633_11, -0.174_877_7, -0.174_877_7];
    let logits = Var::new(&[1f32, 2.0, 1.0, 1.0], &Device::Cpu).unwrap();
    let gradient = |method: &mut dyn Method, rollouts: Vec<Rollout>, arms: &[u32]| {
        let (objective, _) = method.objective(&Experience { rollouts }).unwrap();
        let all = candle_nn::ops::log_softmax(logits.as_tensor(), 0).unwrap();
        let logprobs = all.index_select(&Tensor::new(arms, &Device::Cpu).unwrap(), 0).unwrap();
        let values = Some(logprobs.zeros_like().unwrap());
        let responses: Vec<usize> = (0..arms.len()).collect();
        let of = MiniBatch { responses: arms.len(), tokens: arms.len() };
        let loss = objective.loss(&responses, of, &PolicyOutput { logprobs, values }).unwrap();
        let grads = loss.total.backward().unwrap();
        grads.get(&logits).unwrap().to_vec1::<f32>().unwrap()
    };
    let logprobs = candle_nn::ops::log_softmax(logits.as_tensor(), 0).unwrap().to_vec1::<f32>().unwrap();
    let rollout = |arm: usize, score: f32| Rollout {
        score,
        logprobs: vec![logprobs[arm]],
        ref_logprobs: vec![logprobs[arm]],
        values: vec![0.0],
        ..Rollout::default()
    };
    let near = |ours: &[f32], expected: &[f64], scale: f64, name: &str| {
        let distance = ours.iter().zip(expected).map(|(a, b)| (f64::from(*a) + scale * b).abs()).fold(0.0, f64::max);
        assert!(distance < 1e-5, "{name}: {ours:?}");
    };
    // Advantage 1 for arm 1, alone: the reward of a single response is not whitened, and its value is 0.
    let mut reinforce = reinforce(0.0);
    reinforce.restore(serde_json::json!({ "sum": 0.0, "count": 1 })).unwrap();
    near(&gradient(&mut *reinforce, vec![rollout(1, 1.0)], &[1]), &expected, 1.0, "reinforce");
    near(&gradient(&mut *ppo(0.0), vec![rollout(1, 1.0)], &[1]), &expected, 1.0, "ppo");
    // Two responses to one query: RLOO gives them +d and -d, twice their distances from the mean.
    let two = || vec![rollout(1, 3.0), rollout(0, 1.0)];
    let of_arm_0 = [1.0 - 0.174_877_7, -0.475_366_89, -0.174_877_7, -0.174_877_7];
    let pair: Vec<f64> = expected.iter().zip(of_arm_0).map(|(one, zero)| (2.0 * one - 2.0 * zero) / 2.0).collect();
    near(&gradient(&mut *rloo(0.0), two(), &[1, 0]), &pair, 1.0, "rloo");
    // A running mean of 2, the two rewards' own, gives half of that.
    let mut reinforce = self::reinforce(0.0);
    near(&gradient(&mut *reinforce, two(), &[1, 0]), &pair, 0.5, "reinforce of two");
}
