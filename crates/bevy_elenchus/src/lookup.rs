//! What the world knows of an NPC: its character, its name, and how far an asset is loaded.

use std::sync::Arc;

use bevy::{
    asset::{AssetLoadError, AssetPath, LoadState},
    prelude::*,
};
use elenchus_dialogue::ReplyFilter;

use crate::{CharacterAsset, Conversation, ElenchusSettings, Npc, SpeechFilter};

/// The asset if there is one, also an old one whose reload failed; `None` while it is being loaded; path and reason if it
/// never will be.
pub(crate) fn loaded<'w, A: Asset>(world: &'w World, handle: &Handle<A>) -> Result<Option<&'w A>, (String, String)> {
    if let Some(asset) = world.resource::<Assets<A>>().get(handle) {
        return Ok(Some(asset));
    }
    let reason = match world.resource::<AssetServer>().load_state(handle) {
        LoadState::Loading => return Ok(None),
        LoadState::Failed(error) => explained(&error),
        LoadState::NotLoaded => "no such asset is loaded or being loaded (hint: the handle must come from \
                                 `AssetServer::load` or `Assets::add`)"
            .into(),
        LoadState::Loaded => "it was loaded, and then removed from `Assets` (hint: `AssetServer::reload`)".into(),
    };
    Err((asset_path(world, handle).unwrap_or_else(|| format!("{:?}", handle.id())), reason))
}

/// What the asset server says, and what to do where it does not say so itself.
fn explained(error: &AssetLoadError) -> String {
    match error {
        AssetLoadError::MissingAssetSourceError(missing) => format!(
            "{missing} (hint: for `adapters://`, add `AdaptersSourcePlugin` before `DefaultPlugins`, or before \
             `AssetPlugin` where there are none)"
        ),
        error => error.to_string(),
    }
}

/// Where an NPC's character came from, as its save game says.
pub(crate) fn character_path(world: &World, entity: Entity) -> Option<String> {
    world.get::<Npc>(entity).and_then(|npc| asset_path(world, &npc.character))
}

/// The folder that an asset came from: the name of its voice.
pub(crate) fn folder_name<A: Asset>(world: &World, handle: &Handle<A>) -> Option<String> {
    let path = asset_path(world, handle)?;
    let folder = AssetPath::parse(&path).parent()?;
    Some(folder.path().file_name()?.to_string_lossy().into_owned())
}

fn asset_path<A: Asset>(world: &World, handle: &Handle<A>) -> Option<String> {
    let from_server = world.resource::<AssetServer>().get_path(handle).map(AssetPath::into_owned);
    from_server.or_else(|| handle.path().cloned()).map(|path| path.to_string())
}

/// Whether the name is this NPC's; false while its character is not loaded.
pub(crate) fn is_named(world: &World, entity: Entity, name: &str) -> bool {
    character(world, entity).is_some_and(|asset| asset.character.is_named(name))
}

/// The filter for an NPC's next reply. It knows the names of all characters that are loaded.
pub(crate) fn filter_of(world: &World, entity: Entity) -> Option<Arc<ReplyFilter>> {
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

/// One of the character's fallback lines, another one each time; the game's own where there is no character.
pub(crate) fn fallback_line(world: &World, entity: Entity) -> String {
    let turns = world.get::<Conversation>(entity).map_or(0, |conversation| conversation.turns.len());
    let line = character(world, entity).and_then(|asset| {
        let lines = &asset.character.fallbacks;
        lines.get(turns % lines.len().max(1)).cloned()
    });
    line.unwrap_or_else(|| world.resource::<ElenchusSettings>().fallback.clone())
}

/// The NPC's name; empty while its character is not loaded.
pub(crate) fn name(world: &World, entity: Entity) -> String {
    character(world, entity).map(|asset| asset.character.name.clone()).unwrap_or_default()
}

fn character(world: &World, entity: Entity) -> Option<&CharacterAsset> {
    world.resource::<Assets<CharacterAsset>>().get(&world.get::<Npc>(entity)?.character)
}
