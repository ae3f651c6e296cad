//! The papers' further methods, one file each, its formulas first.

mod apa;
mod dvpo;
mod ipo;
mod p3o;
mod ppo_max;
mod rebel;
mod reinforce;
mod vine_ppo;

use elenchus_train::rl::Methods;

pub use apa::ApaSettings;
pub use dvpo::DvpoSettings;
pub use ipo::IpoSettings;
pub use p3o::{P3oSettings, PairClip};
pub use ppo_max::PpoMaxSettings;
pub use rebel::RebelSettings;
pub use reinforce::ReinforceSettings;
pub use vine_ppo::VinePpoSettings;

/// The trainer's methods and those of this crate: all that an `rl.toml` can name.
pub fn methods() -> Methods {
    Methods::default()
        .with::<ReinforceSettings>()
        .with::<PpoMaxSettings>()
        .with::<RebelSettings>()
        .with::<ApaSettings>()
        .with::<P3oSettings>()
        .with::<DvpoSettings>()
        .with::<VinePpoSettings>()
        .with::<IpoSettings>()
}

#[cfg(test)]
mod tests {
    use elenchus_train::rl::{MethodSettings, PpoSettings, RlConfig};
    use serde::Serialize;

    use super::*;

    const LEAST: &str = "character = \"c.toml\"\nstart = \".\"\nprompts = [\"p\"]\n";
    const JUDGE: &str = "\n[[judges]]\nkind = \"rules\"\n";

    fn parse(more: &str) -> elenchus_train::Result<RlConfig> {
        RlConfig::parse(&format!("{LEAST}{more}{JUDGE}"), "rl.toml", &methods())
    }

    fn table(name: &str) -> String {
        let value_model = if name == "dvpo" { ", value_model = \"v\"" } else { "" };
        format!("method = {{ name = \"{name}\"{value_model} }}")
    }

    #[test]
    fn every_method_can_be_named_and_a_written_configuration_reads_the_same() {
        for name in methods().names() {
            let config = parse(&table(name)).unwrap();
            let written = toml::to_string(&config).unwrap();
            assert_eq!(RlConfig::parse(&written, "it", &methods()).unwrap(), config, "{written}");
        }
        assert_eq!(methods().names().count(), 13);
    }

    #[test]
    fn every_paper_is_a_configuration() {
        let mut papers = 0;
        for name in methods().names() {
            match parse(&format!("preset = \"paper\"\n{}", table(name))) {
                Ok(config) => {
                    assert!(config.training.learning_rate < 2e-5, "{name}");
                    papers += 1;
                }
                Err(error) => {
                    let error = error.to_string();
                    assert!(error.contains("rl.toml:4") && error.contains("ppo, rloo"), "{error}");
                    assert!(["p3o", "ipo", "kto"].contains(&name), "{name}: {error}");
                }
            }
        }
        assert_eq!(papers, 10);
    }

    #[test]
    fn the_trainer_alone_does_not_know_them() {
        let text = format!("{LEAST}method = \"apa\"{JUDGE}");
        let error = RlConfig::parse(&text, "rl.toml", &Methods::default()).unwrap_err().to_string();
        assert!(error.contains("rl.toml:4: `method` cannot be read: unknown variant `apa`"), "{error}");
    }

    /// What earlier versions wrote: an internally tagged enum. Runs of a comparison are found again by this very text.
    #[test]
    fn settings_are_written_as_a_tagged_enum_writes_them() {
        #[derive(Serialize)]
        #[serde(tag = "name", rename_all = "kebab-case")]
        enum Tagged {
            PpoMax(PpoMaxSettings),
        }
        #[derive(Serialize)]
        struct Config<M> {
            before: f32,
            method: M,
            after: Vec<f32>,
        }
        let of =
            PpoMaxSettings { ppo: PpoSettings { epochs: 2, ..PpoSettings::default() }, ..PpoMaxSettings::default() };
        let ours = toml::to_string(&Config { before: 0.1, method: MethodSettings::of(of.clone()), after: vec![0.5] });
        let theirs = toml::to_string(&Config { before: 0.1, method: Tagged::PpoMax(of), after: vec![0.5] });
        assert_eq!(ours.unwrap(), theirs.unwrap());
    }
}
