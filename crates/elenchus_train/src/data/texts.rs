//! What files of dialogue hold, whatever their format.

use elenchus_dialogue::Turn;

use crate::BrokenLine;

/// What files hold, speakers normalised.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Texts {
    /// Whole conversations.
    pub dialogues: Vec<Dialogue>,
    /// Pairs that somebody has made before.
    pub pairs: Vec<WrittenPair>,
    /// Pairs left out because players did not like the reply.
    pub disliked: usize,
    /// Lines left out because they do not hold what they should.
    pub broken: Vec<BrokenLine>,
}

/// One conversation in the order it was spoken.
#[derive(Debug, Clone, PartialEq)]
pub struct Dialogue {
    /// The work it is from; works are the unit of splitting.
    pub work: String,
    /// Who says what.
    pub turns: Vec<Spoken>,
}

/// A turn and how sure it is who speaks it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spoken {
    /// Who says what.
    pub turn: Turn,
    /// From 0 to 1; 1 where the text says who speaks.
    pub confidence: f64,
}

/// A reply and what was said before it, as a file of pairs has it.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenPair {
    /// The work it is from.
    pub work: String,
    /// Who replies, if the file says so.
    pub character: Option<String>,
    /// What was said before, oldest first; never empty.
    pub context: Vec<Spoken>,
    /// The reply.
    pub reply: String,
}

/// What to do about a line that does not hold what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBroken {
    /// Fail with it.
    Stop,
    /// Leave it out and list it in [`Texts::broken`].
    Skip,
}
