//! `compare.toml`: which methods run from one `rl.toml`, with which seeds and how far.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use elenchus_train::{
    Error, Result,
    config_file::{self, Misfit, read_text},
    rl::{BudgetSettings, MethodSettings, Methods, RlConfig, WrittenMethod},
};

/// Methods to be compared; paths are relative to the configuration's folder. `M` is a method: as it is written until
/// [`MethodComparisonConfig::open`] has read it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodComparisonConfig<M = MethodSettings> {
    /// The `rl.toml` that all runs share but for method, seed, learning rate and budget.
    pub rl: PathBuf,
    /// A run of each method for each of them.
    pub seeds: Vec<u64>,
    /// What every run may spend.
    pub budget: BudgetSettings,
    /// The method that others are held against, by its label; the first if left out.
    pub baseline: Option<String>,
    /// Nats a reply at which methods are compared.
    #[serde(default = "nats")]
    pub kl: Vec<f64>,
    /// Who runs.
    pub methods: Vec<Entrant<M>>,
}

fn nats() -> Vec<f64> {
    vec![0.5, 1.0, 2.0]
}

/// A method in the comparison.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entrant<M = MethodSettings> {
    /// What it is called; its name if left out. Two entrants may be one method with other settings.
    pub label: Option<String>,
    /// As in an `rl.toml`.
    pub method: M,
    /// Its learning rate, if not the shared one.
    pub learning_rate: Option<f64>,
}

impl Entrant {
    /// What it is called.
    pub fn label(&self) -> &str {
        self.label.as_deref().unwrap_or(self.method.name())
    }
}

/// One run of the comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodRun {
    /// Of which entrant.
    pub label: String,
    /// With which seed.
    pub seed: u64,
    /// The run's folder within the comparison's.
    pub folder: PathBuf,
    /// The text of its `rl.toml`; its paths are relative to the shared one's folder.
    pub text: String,
}

impl MethodComparisonConfig<WrittenMethod> {
    fn read(self, methods: &Methods) -> Result<MethodComparisonConfig, Misfit> {
        let Self { rl, seeds, budget, baseline, kl, methods: entrants } = self;
        let read = |Entrant { label, method, learning_rate }| {
            let unread = |reason| Misfit { field: "methods", reason: format!("cannot be read: {reason}") };
            Ok(Entrant { label, method: methods.read(method).map_err(unread)?, learning_rate })
        };
        let methods = entrants.into_iter().map(read).collect::<Result<_, Misfit>>()?;
        Ok(MethodComparisonConfig { rl, seeds, budget, baseline, kl, methods })
    }
}

impl MethodComparisonConfig {
    /// Reads a `compare.toml`. `methods` are those it can name.
    pub fn open(file: &Path, methods: &Methods) -> Result<Self> {
        let (text, name) = (read_text(file)?, file.display().to_string());
        let config: MethodComparisonConfig<WrittenMethod> = config_file::parse(&text, &name)?;
        let config = config.read(methods).map_err(|misfit| misfit.at(&text, &name))?;
        config.check().map_err(|misfit| misfit.at(&text, &name))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Misfit> {
        let misfit = |field, reason: String| Err(Misfit { field, reason });
        if self.seeds.is_empty() {
            return misfit("seeds", "names none (hint: seeds = [1, 2])".to_owned());
        }
        if self.methods.is_empty() {
            return misfit("methods", "names no method (hint: [[methods]] with a `method`)".to_owned());
        }
        if self.budget == BudgetSettings::default() {
            return misfit("budget", "has no limit (hint: tokens = 50000, or updates or seconds)".to_owned());
        }
        for (at, entrant) in self.methods.iter().enumerate() {
            if self.methods[..at].iter().any(|other| folder_name(other.label()) == folder_name(entrant.label())) {
                let label = entrant.label();
                return misfit("methods", format!("has two that are called `{label}` (hint: give one a `label`)"));
            }
            let named = |Misfit { field, reason }| Misfit {
                field: "methods",
                reason: format!("has a `{field}` of {} that {reason}", entrant.label()),
            };
            entrant.method.check().map_err(named)?;
        }
        if let Some(baseline) = &self.baseline
            && !self.methods.iter().any(|entrant| entrant.label() == baseline)
        {
            return misfit("baseline", format!("is `{baseline}`, which no method is called"));
        }
        if self.kl.iter().any(|kl| !kl.is_finite() || *kl <= 0.0) {
            return misfit("kl", format!("is {:?}, expected numbers above 0", self.kl));
        }
        Ok(())
    }

    /// What all others are compared with.
    pub fn baseline(&self) -> &str {
        self.baseline.as_deref().unwrap_or_else(|| self.methods.first().map_or("", Entrant::label))
    }

    /// All runs, seed by seed, so that a comparison that was stopped has as much of every method as it can. `file` is where
    /// this was read from.
    ///
    /// # Errors
    /// A shared `rl.toml` that cannot be read, or that does not fit a method.
    pub fn runs(&self, file: &Path, methods: &Methods) -> Result<Vec<MethodRun>> {
        let shared = self.shared(file);
        let (text, name) = (read_text(&shared)?, shared.display().to_string());
        // Errors of the shared file have its lines; those of what is made of it below cannot.
        let mut config = RlConfig::parse(&text, &name, methods)?;
        let learning_rate = config.training.learning_rate;
        let mut runs = Vec::new();
        for &seed in &self.seeds {
            for entrant in &self.methods {
                config.method = entrant.method.clone();
                config.budget = self.budget;
                config.training.seed = seed;
                config.training.learning_rate = entrant.learning_rate.unwrap_or(learning_rate);
                let text = toml::to_string(&config).map_err(|error| Error::Config {
                    file: name.clone(),
                    reason: format!("with {}: {error}", entrant.label()),
                })?;
                RlConfig::parse(&text, &format!("{name} with {}", entrant.label()), methods)?;
                let folder = Path::new(&folder_name(entrant.label())).join(format!("seed-{seed}"));
                runs.push(MethodRun { label: entrant.label().to_owned(), seed, folder, text });
            }
        }
        Ok(runs)
    }

    /// The `rl.toml` that runs share.
    pub fn shared(&self, file: &Path) -> PathBuf {
        file.parent().unwrap_or(Path::new(".")).join(&self.rl)
    }
}

fn folder_name(label: &str) -> String {
    let plain = label.to_lowercase().chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect::<String>();
    plain.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::methods;

    const SHARED: &str =
        "character = \"c.toml\"\nstart = \".\"\nprompts = [\"p.jsonl\"]\n[[judges]]\nkind = \"rules\"\n";
    const LEAST: &str = "rl = \"rl.toml\"\nseeds = [1, 2]\nbudget = { tokens = 100 }\n";

    fn open(text: &str) -> Result<(MethodComparisonConfig, Vec<MethodRun>)> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("compare.toml");
        std::fs::write(&file, text).unwrap();
        std::fs::write(folder.path().join("rl.toml"), SHARED).unwrap();
        let config = MethodComparisonConfig::open(&file, &methods())?;
        let runs = config.runs(&file, &methods())?;
        Ok((config, runs))
    }

    #[test]
    fn every_method_runs_with_every_seed_from_one_file() {
        let text = format!(
            "{LEAST}[[methods]]\nmethod = \"ppo\"\n[[methods]]\nlabel = \"RLOO, slow\"\nmethod = {{ name = \"rloo\", kl_coef = 0.1 }}\nlearning_rate = 1e-5\n"
        );
        let (config, runs) = open(&text).unwrap();
        assert_eq!(config.baseline(), "PPO");
        let folders: Vec<String> = runs.iter().map(|run| run.folder.display().to_string()).collect();
        assert_eq!(folders, ["ppo/seed-1", "rloo-slow/seed-1", "ppo/seed-2", "rloo-slow/seed-2"]);
        let last = RlConfig::parse(&runs[3].text, "it", &methods()).unwrap();
        assert_eq!((last.training.seed, last.training.learning_rate, last.budget.tokens), (2, 1e-5, 100));
        assert_eq!(last.method.name(), "RLOO");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let check = |text: &str, says: &str| {
            let error = open(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        const PPO: &str = "[[methods]]\nmethod = \"ppo\"\n";
        check(LEAST, "methods");
        check(&format!("{LEAST}methods = []"), "`methods` names no method");
        check(&format!("{LEAST}{PPO}{PPO}"), "two that are called `PPO`");
        check(&format!("{}{PPO}", LEAST.replace("tokens = 100", "")), "`budget` has no limit");
        check(&format!("baseline = \"RLOO\"\n{LEAST}{PPO}"), "`baseline` is `RLOO`");
        check(&format!("kl = [0.0]\n{LEAST}{PPO}"), "`kl` is [0.0]");
        check(&format!("{}{PPO}", LEAST.replace("[1, 2]", "[]")), "`seeds` names none");
        check(&format!("{LEAST}[[methods]]\nmethod = {{ name = \"ppo\", lam = 2.0 }}"), "a `lam` of PPO");
        check(&format!("{LEAST}[[methods]]\nmethod = \"pppo\""), "pppo");
    }
}
