//! Settings as papers and their code have them: `preset = "paper"` in an `rl.toml`.
//!
//! Without a preset a method's defaults are what is sane for a LoRA on a small model: learning rates some hundred times those
//! for all weights of a large one, and iterations that two cores can afford. Where an original truncates or cools its samples,
//! nothing here does: a policy's gradient is an expectation under its own distribution.

use serde::{Deserialize, Serialize};
use toml::Table;

use crate::config_file::Misfit;

/// Whose settings are the defaults of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// The paper's, or its code's.
    Paper,
}

/// By a method's name: what its original was trained with.
const PAPERS: &[(&str, &str)] = &[
    // TRL 0.8.6, ppo_config.py.
    (
        "ppo",
        r"
        [sampling]
        prompts = 128
        group = 1
        [method]
        kl_coef = 0.2
        kl_target = 6.0
        kl_horizon = 10000.0
        epochs = 4
        mini_batch = 128
        [training]
        learning_rate = 1.41e-5
        warmup_steps = 0
        max_grad_norm = 1e9",
    ),
    // Ahmadian et al. 2024, of TL;DR.
    (
        "rloo",
        r"
        [sampling]
        prompts = 128
        group = 4
        [method]
        kl_coef = 0.03
        [training]
        learning_rate = 1e-6",
    ),
    (
        "reinforce",
        r"
        [sampling]
        prompts = 512
        group = 1
        [method]
        kl_coef = 0.03
        [training]
        learning_rate = 1e-6",
    ),
    // Shao et al. 2024, 4.2.
    (
        "grpo",
        r"
        [sampling]
        prompts = 16
        group = 64
        max_tokens = 1024
        [method]
        kl_coef = 0.04
        [training]
        learning_rate = 1e-6",
    ),
    // Gao et al. 2024, of TL;DR.
    (
        "rebel",
        r"
        [sampling]
        group = 2
        max_tokens = 53
        missing_end_penalty = 1.0
        [method]
        kl_coef = 0.05
        eta = 1.0
        epochs = 4
        [training]
        learning_rate = 3e-6
        [training.adamw]
        eps = 1e-5",
    ),
    // Zhu et al. 2023, examples/apa_hh.py.
    (
        "apa",
        r"
        [method]
        lambda = 0.1
        kl_coef = 0.05
        gamma = 1.0
        lam = 0.95
        vf_coef = 1.0
        epochs = 2
        [training]
        learning_rate = 1e-6
        [training.adamw]
        beta1 = 0.9
        beta2 = 0.95",
    ),
    // Zheng et al. 2023, train_ppo_en.sh.
    (
        "ppo-max",
        r"
        [sampling]
        prompts = 128
        group = 1
        [method]
        scale_rewards = true
        clip_reward = 10.0
        critic_rate = 3.0
        [method.ppo]
        kl_coef = 0.02
        kl_target = 0.0
        lam = 0.95
        cliprange = 0.2
        cliprange_value = 0.2
        mini_batch = 32
        epochs = 1
        [training]
        learning_rate = 5e-7
        warmup_steps = 500
        [training.adamw]
        beta1 = 0.9
        beta2 = 0.95
        eps = 1e-6",
    ),
    // Kazemnejad et al. 2024, polIter_rho1bSft2_vineppo_MATH.jsonnet.
    (
        "vine-ppo",
        r"
        [sampling]
        prompts = 64
        group = 8
        [method]
        rollouts = 9
        most_steps = 25
        kl_coef = 1e-4
        epochs = 2
        mini_batch = 64
        whiten = true
        [training]
        learning_rate = 1e-6
        max_grad_norm = 1.0",
    ),
    // Huang et al. 2025, dvpo/.
    (
        "dvpo",
        r"
        [sampling]
        max_tokens = 512
        [method]
        kl_coef = 0.2
        kl_target = 6.0
        gamma = 1.0
        lam = 0.95
        epochs = 4
        [training]
        learning_rate = 1.4e-6",
    ),
    // Rafailov et al. 2023, appendix B.
    (
        "dpo",
        r"
        [sampling]
        prompts = 64
        group = 2
        [method]
        beta = 0.1
        [training]
        learning_rate = 1e-6
        warmup_steps = 150",
    ),
];

impl Preset {
    /// What a configuration comes to with these defaults; its own keys stand.
    pub(super) fn under(self, mut config: Table) -> Result<Table, Misfit> {
        let Self::Paper = self;
        // A name alone is a table with a name, and so is the default.
        let word = match config.get("method") {
            None => Some("rloo".to_owned()),
            Some(method) => method.as_str().map(str::to_owned),
        };
        if let Some(word) = word {
            config.insert("method".to_owned(), Table::from_iter([("name".to_owned(), word.into())]).into());
        }
        let name = config.get("method").and_then(|method| method.get("name")).and_then(toml::Value::as_str);
        let name = name.unwrap_or_default();
        let Some((_, text)) = PAPERS.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = PAPERS.iter().map(|(name, _)| *name).collect();
            let reason = format!(
                "is \"paper\", but no settings of {name} were published that could be read (hint: there are those of {})",
                known.join(", ")
            );
            return Err(Misfit { field: "preset", reason });
        };
        let mut merged: Table = toml::from_str(text).unwrap_or_default();
        overlay(&mut merged, config);
        Ok(merged)
    }
}

/// Puts the keys of `over` in place of those of `under`, table by table.
fn overlay(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => overlay(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::RlConfig, *};

    const LEAST: &str = "character = \"c.toml\"\nstart = \".\"\nprompts = [\"p\"]\npreset = \"paper\"\n";
    const JUDGE: &str = "\n[[judges]]\nkind = \"rules\"\n";

    #[test]
    fn every_paper_is_a_configuration_and_what_is_written_stands() {
        for (name, _) in PAPERS {
            let method = match *name {
                "dvpo" => "{ name = \"dvpo\", value_model = \"v\" }".to_owned(),
                name => format!("\"{name}\""),
            };
            let config = RlConfig::parse(&format!("{LEAST}method = {method}{JUDGE}"), "it").unwrap();
            assert!(config.training.learning_rate < 2e-5, "{name}");
            let written = toml::to_string(&config).unwrap();
            assert_eq!(RlConfig::parse(&written, "it").unwrap(), config, "{written}");
        }
        let text = format!("{LEAST}{JUDGE}[sampling]\nprompts = 8\n[training]\nlearning_rate = 0.5\n");
        let config = RlConfig::parse(&text, "it").unwrap();
        let expected = (8, 4, 0.5, "RLOO");
        let RlConfig { sampling, training, method, .. } = config;
        assert_eq!((sampling.prompts, sampling.group, training.learning_rate, method.name()), expected);
    }

    #[test]
    fn there_is_no_paper_where_none_could_be_read() {
        let text = format!("{LEAST}method = \"p3o\"{JUDGE}");
        let error = RlConfig::parse(&text, "rl.toml").unwrap_err().to_string();
        assert!(error.contains("rl.toml:4") && error.contains("of p3o") && error.contains("ppo, rloo"), "{error}");
    }
}
