//! Which filter judges an NPC's sentences.

use std::sync::Arc;

use bevy::prelude::*;
use elenchus_dialogue::ReplyFilter;

/// Judges what this NPC says, sentence by sentence, before it is released: in place of
/// [`ElenchusSettings::filter`](crate::ElenchusSettings::filter).
///
/// ```
/// # use bevy_elenchus::prelude::*;
/// let filter = SpeechFilter::new(ReplyFilter::default().refuse_words(["Rosebud"]));
/// ```
#[derive(Component, Clone, Debug, Deref, Reflect)]
#[reflect(opaque)]
pub struct SpeechFilter(pub Arc<ReplyFilter>);

impl SpeechFilter {
    /// A filter to insert on an NPC, or to share among many.
    pub fn new(filter: ReplyFilter) -> Self {
        Self(Arc::new(filter))
    }
}

impl Default for SpeechFilter {
    fn default() -> Self {
        Self::new(ReplyFilter::default())
    }
}

impl PartialEq for SpeechFilter {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

pub(crate) fn plugin(app: &mut App) {
    app.register_type::<SpeechFilter>();
}
