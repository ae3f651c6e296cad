//! The judges that every comparison has: they need no reward model and no server, and nothing is trained to please them.

use elenchus_candle::CandleExecutor;
use elenchus_dialogue::{Character, Model};

use super::{Information, Judge, NgramStyle, Rules};
use crate::{Result, data::Pair};

/// Style where it was trained, information about the context, and the rules of form.
pub struct FreeJudges<'a> {
    style: Option<NgramStyle>,
    information: Information<'a>,
    rules: Rules,
}

impl<'a> FreeJudges<'a> {
    /// Judges of this character's replies; the contexts of `train` are what [`Information`] compares with.
    ///
    /// # Errors
    /// Fewer than five different contexts.
    pub fn new(
        executor: &'a CandleExecutor,
        model: &'a Model,
        character: &'a Character,
        train: &[Pair],
        style: Option<NgramStyle>,
    ) -> Result<Self> {
        let contexts: Vec<_> = train.iter().map(|pair| pair.context.clone()).collect();
        let information = Information::new(executor, model, character, &contexts)?;
        Ok(Self { style, information, rules: Rules::new(Vec::new()) })
    }

    /// Each of them, in the order of tables.
    pub fn judges(&self) -> impl Iterator<Item = &dyn Judge> {
        let style = self.style.iter().map(|style| style as &dyn Judge);
        style.chain([&self.information as &dyn Judge, &self.rules])
    }
}
