//! Settings as papers and their code have them: `preset = "paper"` in an `rl.toml`.
//!
//! Without a preset a method's defaults are what is sane for a LoRA on a small model: learning rates some hundred times those
//! for all weights of a large one, and iterations that two cores can afford. Where an original truncates or cools its samples,
//! nothing here does: a policy's gradient is an expectation under its own distribution.

use serde::{Deserialize, Serialize};
use toml::Table;

use super::Methods;
use crate::config_file::Misfit;

/// Whose settings are the defaults of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// The paper's, or its code's.
    Paper,
}

impl Preset {
    /// A configuration over these defaults; its own keys win.
    pub(super) fn under(self, mut config: Table, methods: &Methods) -> Result<Table, Misfit> {
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
        let Some(text) = methods.paper(name) else {
            let known: Vec<&str> = methods.papers().collect();
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

    fn parse(text: &str) -> crate::Result<RlConfig> {
        RlConfig::parse(text, "rl.toml", &Methods::default())
    }

    #[test]
    fn every_paper_is_a_configuration_and_what_is_written_stands() {
        for name in Methods::default().papers() {
            let config = parse(&format!("{LEAST}method = \"{name}\"{JUDGE}")).unwrap();
            assert!(config.training.learning_rate < 2e-5, "{name}");
            let written = toml::to_string(&config).unwrap();
            assert_eq!(parse(&written).unwrap(), config, "{written}");
        }
        let text = format!("{LEAST}{JUDGE}[sampling]\nprompts = 8\n[training]\nlearning_rate = 0.5\n");
        let config = parse(&text).unwrap();
        let expected = (8, 4, 0.5, "RLOO");
        let RlConfig { sampling, training, method, .. } = config;
        assert_eq!((sampling.prompts, sampling.group, training.learning_rate, method.name()), expected);
    }

    #[test]
    fn there_is_no_paper_where_none_could_be_read() {
        let text = format!("{LEAST}method = \"kto\"{JUDGE}");
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains("rl.toml:4") && error.contains("of kto") && error.contains("ppo, rloo"), "{error}");
    }
}
