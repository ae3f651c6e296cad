//! What a comparison is given: the base, who answers, and who judges.

use elenchus_candle::CandleExecutor;
use elenchus_dialogue::{Character, Model};

use crate::{
    data::Pair,
    judge::{Judge, Judges},
};

/// What voices are compared by.
#[derive(Clone, Copy)]
pub struct EvalSetup<'a> {
    /// The base as a game runs it: speaks.
    pub model: &'a Model,
    /// The base in exact numerics: measures.
    pub executor: &'a CandleExecutor,
    /// Who answers: persona, sampler and stop rules are the same for every voice.
    pub character: &'a Character,
    /// Who judges, and whether a voice was trained to please it.
    pub judges: &'a [EvalJudge<'a>],
    /// What chooses among several replies of a candidate that may say more than one.
    pub choice: Option<&'a Judges>,
    /// The character's real replies: what lengths, questions and variety are held to.
    pub own: &'a [Pair],
    /// Of those, what no voice was trained on: perplexity is measured on them.
    pub held_out: &'a [Pair],
    /// Tokens of an example at most where perplexity is measured.
    pub max_tokens: usize,
}

/// A judge of a comparison.
#[derive(Clone, Copy)]
pub struct EvalJudge<'a> {
    /// The judge.
    pub judge: &'a dyn Judge,
    /// Whether a voice was trained to please it: its scores then say how well that went, and no more.
    pub optimised: bool,
}

impl<'a> EvalJudge<'a> {
    /// Free judges, and those that a voice was trained to please. A judge that is among the latter by name is not free.
    pub fn all(free: impl IntoIterator<Item = &'a dyn Judge>, optimised: Option<&'a Judges>) -> Vec<Self> {
        let is_optimised = |name: &str| optimised.is_some_and(|judges| judges.names().any(|other| other == name));
        let free = free.into_iter().filter(|judge| !is_optimised(judge.name()));
        let free = free.map(|judge| Self { judge, optimised: false });
        let optimised = optimised.into_iter().flat_map(Judges::judges).map(|judge| Self { judge, optimised: true });
        free.chain(optimised).collect()
    }
}
