//! Which filter judges an NPC's sentences.

use std::sync::Arc;

use bevy::prelude::*;
use elenchus_dialogue::ReplyFilter;

use crate::{CharacterAsset, ElenchusSettings};

/// Judges what this NPC says, sentence by sentence, before it is released: in place of [`ElenchusSettings::filter`].
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

/// The filter for an NPC's next reply. It knows the names of all characters that are loaded.
pub(crate) fn filter(world: &World, entity: Entity) -> Option<Arc<ReplyFilter>> {
    let own = world.get::<SpeechFilter>(entity);
    let filter = own.or(world.resource::<ElenchusSettings>().filter.as_ref())?;
    if !filter.other_names {
        return Some(filter.0.clone());
    }
    let mut filter = ReplyFilter::clone(filter);
    let characters = world.resource::<Assets<CharacterAsset>>();
    filter.names.extend(characters.iter().map(|(_, asset)| asset.character.name.clone()));
    Some(Arc::new(filter))
}

pub(crate) fn plugin(app: &mut App) {
    app.register_type::<SpeechFilter>();
}
