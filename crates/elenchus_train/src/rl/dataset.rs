//! What an `rl.toml` names, read: who learns, from which prompts, beginning as whom.

use std::path::{Path, PathBuf};

use elenchus_dialogue::Character;
use elenchus_lm::LoraAdapter;

use super::{Methods, RlConfig, RlPrompt};
use crate::{
    Error, Lesson, Preference, Result, RewardCard,
    config_file::read_text,
    data::{OnBroken, Pair, Shown, add_facts, facts_to_notes, read_prompts, read_written},
    read_character, read_preferences,
};

/// A configuration with all that it names.
#[derive(Debug)]
pub struct RlLesson {
    /// The configuration.
    pub config: RlConfig,
    /// The same as it is written.
    pub text: String,
    /// Where the character is described.
    pub character_file: PathBuf,
    /// Who learns.
    pub character: Character,
    /// What the policy begins as.
    pub start: LoraAdapter,
    /// What is said to the character.
    pub prompts: Vec<RlPrompt>,
    /// Pairs that were written beforehand.
    pub offline: Vec<Pair>,
    /// Preferences of files, for methods that learn from them.
    pub preferences: Vec<Preference>,
    /// The folder of the model that the method reads values from.
    pub value_model: Option<PathBuf>,
}

impl RlLesson {
    /// Reads an `rl.toml` and what it names; its paths are relative to its folder. `methods` are those it can name.
    pub fn open(file: &Path, methods: &Methods) -> Result<Self> {
        Self::with_text(file, read_text(file)?, methods)
    }

    /// The same with another text in that file's place.
    pub fn with_text(file: &Path, text: String, methods: &Methods) -> Result<Self> {
        let config = RlConfig::parse(&text, &file.display().to_string(), methods)?;
        let beside = |path: &PathBuf| file.parent().unwrap_or(Path::new(".")).join(path);
        for reward in config.judges.iter().flat_map(|judge| judge.judge.rewards()) {
            let folder = beside(reward);
            check_reward(RewardCard::open(&folder)?, folder, config.guards.reward_accuracy)?;
        }
        let character_file = beside(&config.character);
        let character = read_character(&character_file)?;
        let start = LoraAdapter::open(&beside(&config.start))?;
        let mut prompts = Vec::new();
        if let Some(lesson) = &config.lesson {
            let lesson = Lesson::open(&beside(lesson))?;
            prompts.extend(lesson.trained_on().map(|pair| RlPrompt {
                turns: pair.context.clone(),
                facts: pair.facts.clone(),
                notes: pair.notes.clone(),
            }));
        }
        for file in &config.prompts {
            let read = read_prompts(&beside(file), &character, config.context)?;
            prompts.extend(read.into_iter().map(RlPrompt::from));
        }
        let (sampling, seed) = (&config.sampling, config.training.seed);
        add_facts(prompts.iter_mut().map(RlPrompt::shown), sampling.facts, seed);
        facts_to_notes(prompts.iter_mut().map(RlPrompt::shown), sampling.notes, seed);
        let offline = match &config.offline {
            Some(offline) => read_written(&beside(&offline.pairs), &character, config.context)?,
            None => Vec::new(),
        };
        let files: Vec<PathBuf> = config.preferences.iter().map(beside).collect();
        let (preferences, _) = read_preferences(&files, &character, config.context, OnBroken::Stop)?;
        let value_model = config.method.value_model().map(|folder| beside(&folder.to_owned()));
        if let Some(folder) = &value_model {
            check_reward(RewardCard::open(folder)?, folder.clone(), config.guards.reward_accuracy)?;
        }
        Ok(Self { config, text, character_file, character, start, prompts, offline, preferences, value_model })
    }
}

impl RlPrompt {
    fn shown(&mut self) -> Shown<'_> {
        Shown { turns: &self.turns, facts: &mut self.facts, notes: &mut self.notes }
    }
}

/// What a model of which nobody knows that it beats a coin likes is not to be learned.
fn check_reward(card: RewardCard, folder: PathBuf, above: f64) -> Result<()> {
    if above == 0.0 || card.held_out.low > above {
        return Ok(());
    }
    let reason = format!(
        "its held-out accuracy, {}, is not clear of {:.0}%, so there is nothing to learn from it (hint: more preferences; or set `guards.reward_accuracy` lower, 0 for any)",
        card.held_out,
        above * 100.0
    );
    Err(Error::RewardModel { folder, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Accuracy, RewardKind, RewardLoss};

    #[test]
    fn a_reward_model_that_may_be_a_coin_is_not_learned_from() {
        let check = |right: usize, of: usize, above: f64| {
            let card = RewardCard {
                kind: RewardKind::Preferences,
                loss: RewardLoss::BradleyTerry,
                aspect: None,
                character: String::new(),
                base_name: String::new(),
                base_sha256: String::new(),
                max_tokens: 9,
                steps: 1,
                pairs: 9,
                held_out: Accuracy::of((0..of).map(|at| if at < right { (1, 0) } else { (0, 1) })),
                calibration: None,
                length_only_accuracy: 0.5,
                token_count_only_accuracy: 0.5,
                shuffled_labels: false,
                gain: 1.0,
                bias: 0.0,
            };
            check_reward(card, PathBuf::from("runs/r/reward"), above).map_err(|error| error.to_string())
        };
        assert_eq!(check(90, 100, 0.5), Ok(()));
        let error = check(55, 100, 0.5).unwrap_err();
        for part in ["runs/r/reward", "55.0% [45.2, 64.4] of 100", "guards.reward_accuracy"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(check(60, 100, 0.55).is_err() && check(60, 100, 0.5).is_ok());
        assert_eq!(check(5, 100, 0.0), Ok(()));
    }
}
