//! The lab's methods on the bandit: each finds the best policy, or the optimum that is its own, and its mutants do not.

use candle_core::{Device, Tensor, Var};
use elenchus_lab::methods::{
    ApaSettings, DvpoSettings, IpoSettings, P3oSettings, PairClip, PpoMaxSettings, RebelSettings, ReinforceSettings,
    VinePpoSettings,
};
use elenchus_train::{
    Result,
    rl::{
        Experience, Method, MiniBatch, Objective, Plan, PolicyOutput, PpoSettings, RlooSettings, Rollout, Settings,
        Stats,
        bandit::{
            FAIR, GATE, KL_COEF, PPO, REFERENCE, REWARDS, World, at_rest_with_k3, check, deviation, finds_the_optimum,
            fixed_point, kl, learned, mutants_fail, optimum, worst,
        },
    },
};

fn rloo(kl_coef: f64) -> Box<dyn Method> {
    Settings::method(&RlooSettings { kl_coef: kl_coef as f32, ..RlooSettings::default() })
}

fn reinforce(kl_coef: f64) -> Box<dyn Method> {
    Settings::method(&ReinforceSettings { kl_coef: kl_coef as f32 })
}

fn ppo(kl_coef: f64) -> Box<dyn Method> {
    Settings::method(&PpoSettings { kl_coef, ..PPO })
}

fn rebel(kl_coef: f64) -> Box<dyn Method> {
    Settings::method(&RebelSettings { kl_coef: kl_coef as f32, ..RebelSettings::default() })
}

fn p3o_joint(kl_coef: f64) -> Box<dyn Method> {
    Settings::method(&P3oSettings { kl_coef: kl_coef as f32, ..P3oSettings::default() })
}

fn p3o_separate(kl_coef: f64) -> Box<dyn Method> {
    let clip = PairClip::Separate;
    Settings::method(&P3oSettings { kl_coef: kl_coef as f32, clip, ..P3oSettings::default() })
}

/// The target has the price of divergence in it.
fn apa_shifted(kl_coef: f64) -> Box<dyn Method> {
    Settings::method(&ApaSettings { lambda: kl_coef, log_partition: true, mini_batch: 0, ..ApaSettings::default() })
}

/// With true values of arms and no look beyond them: `A = V(arm) - V(start) - kl_coef * log-ratio`.
fn dvpo(kl_coef: f64) -> Box<dyn Method> {
    Settings::method(&DvpoSettings { kl_coef, lam: 0.0, mini_batch: 0, ..DvpoSettings::default() })
}

/// Methods whose optimum is that of reward less divergence, by name, so that mutants of each can be made.
const METHODS: [(&str, fn(f64) -> Box<dyn Method>); 6] = [
    ("reinforce", reinforce),
    ("rebel", rebel),
    ("p3o, joint clip", p3o_joint),
    ("p3o, separate clips", p3o_separate),
    ("apa, shifted", apa_shifted),
    ("dvpo", dvpo),
];

#[test]
fn every_method_finds_the_optimum() {
    finds_the_optimum(&METHODS);
}

#[test]
fn every_mutant_fails() {
    mutants_fail(&METHODS);
    let uncentred = worst(|| Box::new(Uncentred), &World { shift: 10.0, ..FAIR });
    println!("advantages not centred: {uncentred:.2e}");
    assert!(uncentred > GATE, "{uncentred}");
}

/// `VinePPO` is at rest as GRPO is; its gain is the arm's value over the start's, in deviations where it whitens. The end of a response is
/// worth nothing more, so half of all advantages are 0.
#[test]
fn vine_ppo_finds_its_own_optimum() {
    let settings = VinePpoSettings { kl_coef: KL_COEF, mini_batch: 0, whiten: false, ..VinePpoSettings::default() };
    check("vine-ppo", &|| Settings::method(&settings), &FAIR, &at_rest_with_k3(&REWARDS, KL_COEF));
    let settings = VinePpoSettings { whiten: true, rollouts: 64, ..settings };
    let optimum = fixed_point(|policy| {
        let scale = deviation(policy, &REWARDS) / 2f64.sqrt();
        at_rest_with_k3(&REWARDS.map(|reward| reward / scale), KL_COEF)
    });
    check("vine-ppo, whitened", &|| Settings::method(&settings), &FAIR, &optimum);
}

/// PPO-max is PPO at the price of divergence times the deviation of all scores so far; it is still running, so the optimum is
/// the one of the deviation that the run ends with.
#[test]
fn ppo_max_finds_its_own_optimum() {
    for seed in 0..10 {
        let mut method =
            Settings::method(&PpoMaxSettings { ppo: PpoSettings { kl_coef: 1.0, ..PPO }, ..PpoMaxSettings::default() });
        let policy = learned(&mut *method, &FAIR, seed).unwrap();
        let scores = &method.state()["scores"];
        let number = |name: &str| scores[name].as_f64().unwrap();
        let deviation = (number("squares") / (number("count") - 1.0)).sqrt();
        let optimum = optimum(&REWARDS, deviation);
        println!("ppo-max, seed {seed}: {:.2e} at a deviation of {deviation:.3}", kl(&policy, &optimum));
        assert!(kl(&policy, &optimum) < GATE, "{policy:?} instead of {optimum:?}");
    }
}

/// Without the shift, on the policy's own samples, squares are least where log-ratio less advantage is the same for all arms:
/// `pi = reference * exp(A / lambda) / c`. Advantages are in deviations of the policy's own, so that is a fixed point. With
/// GAE's lambda 1 both tokens have the arm's advantage.
#[test]
fn apa_without_the_shift_finds_its_own_optimum() {
    let settings =
        ApaSettings { lambda: 1.0, kl_coef: 0.0, lam: 1.0, mini_batch: 0, epochs: 1, ..ApaSettings::default() };
    let optimum = fixed_point(|policy| optimum(&REWARDS, deviation(policy, &REWARDS)));
    check("apa", &|| Settings::method(&settings), &FAIR, &optimum);
}

/// IPO's is `reference * exp(p(a) / beta)`, `p(a)` how likely the arm is preferred to one that the reference draws (Azar et al.
/// 2023, eq. 8): here always where its reward is higher, and half of the times to itself.
#[test]
fn ipo_finds_its_own_optimum() {
    let settings = IpoSettings { beta: 0.5, ..IpoSettings::default() };
    let preferred: [f64; 5] = std::array::from_fn(|arm| {
        let over = |other: usize| match REWARDS[arm].total_cmp(&REWARDS[other]) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        };
        (0..5).map(|other| REFERENCE[other] * over(other)).sum()
    });
    check("ipo", &|| Settings::method(&settings), &FAIR, &optimum(&preferred, 0.5));
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
        let (objective, _) = method.objective(&Experience { rollouts, ..Experience::default() }).unwrap();
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
