//! What benches of the engine share: their arguments, the default model, Socrates' persona.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use elenchus_dialogue::{Character, Engine, EngineSettings, load_model};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

#[derive(Debug, Args)]
pub struct EngineArgs {
    /// Threads of the engine; 0 takes half of the cores
    #[arg(long, value_name = "N", default_value = "0")]
    threads: usize,
    /// Passed by cargo to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

impl EngineArgs {
    /// An engine with the default model, and who speaks.
    pub fn start(&self) -> Result<(Engine, Character)> {
        let base = elenchus_fetch::fetch_default(&mut |_| {})?;
        let settings = EngineSettings { base: Some(base), threads: self.threads, ..EngineSettings::default() };
        let file = Path::new(ROOT).join("adapters/socrates/character.toml");
        let character = Character::parse(&std::fs::read_to_string(&file)?, &file.display().to_string())?;
        Ok((Engine::start(settings.clone(), load_model(&settings)), character))
    }
}
