//! The plugin group: one engine thread, a handful of observers, and a few systems that never wait.

use bevy::{app::PluginGroupBuilder, prelude::*};
use elenchus_dialogue::{BackendStarter, EngineSettings, ModelLoader};

use crate::{
    ElenchusSettings, EngineStatus, assets, control, conversation, ending, engine_handle::EngineHandle, filter, group,
    hear, interruption, npc, receive, say, settings, status, tell, turn_taking,
};

/// Everything an NPC needs to speak. Add it after `AssetPlugin` (part of `DefaultPlugins`), and
/// [`AdaptersSourcePlugin`](crate::AdaptersSourcePlugin) before that if characters live in `adapters/`.
///
/// | plugin               | job                                                                               |
/// |----------------------|-----------------------------------------------------------------------------------|
/// | [`CharactersPlugin`] | `character.toml` and the adapter beside it as assets                              |
/// | [`SpeechPlugin`]     | the engine, and replies of NPCs: [`Say`](crate::Say), [`Tell`](crate::Tell)       |
/// | [`HearingPlugin`]    | lines that are heard and not answered: [`Hear`](crate::Hear), [`Listener`](crate::Listener) |
/// | [`GroupsPlugin`]     | NPCs that talk to each other: [`ConversationGroup`](crate::ConversationGroup)     |
///
/// Settings belong to [`SpeechPlugin`]; a game that wants no groups disables theirs:
///
/// ```no_run
/// # use bevy::prelude::*; use bevy_elenchus::prelude::*;
/// let engine = EngineSettings { threads: 1, ..default() };
/// App::new()
///     .add_plugins(DefaultPlugins)
///     .add_plugins(ElenchusPlugins.set(SpeechPlugin { engine, ..default() }).disable::<GroupsPlugin>());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ElenchusPlugins;

impl PluginGroup for ElenchusPlugins {
    fn build(self) -> PluginGroupBuilder {
        PluginGroupBuilder::start::<Self>()
            .add(CharactersPlugin)
            .add(SpeechPlugin::default())
            .add(HearingPlugin)
            .add(GroupsPlugin)
    }
}

/// Characters and adapters as assets. Part of [`ElenchusPlugins`]; [`SpeechPlugin`] needs it.
#[derive(Clone, Copy, Debug, Default)]
pub struct CharactersPlugin;

/// NPCs that remember what they hear, and listeners within earshot of groups. Part of [`ElenchusPlugins`]; without it, members of a
/// group still hear each other.
#[derive(Clone, Copy, Debug, Default)]
pub struct HearingPlugin;

/// NPCs that talk to each other. Part of [`ElenchusPlugins`]; needs [`SpeechPlugin`].
#[derive(Clone, Copy, Debug, Default)]
pub struct GroupsPlugin;

/// The engine, and the replies of NPCs. Part of [`ElenchusPlugins`].
///
/// The model starts loading on the engine's own thread at once, unless `autostart` says otherwise; see [`EngineStatus`].
/// The thread is joined when the app is dropped, and each app has one of its own.
///
/// # Panics
/// When it is added before `AssetPlugin`, or without [`CharactersPlugin`].
#[derive(Clone)]
pub struct SpeechPlugin {
    /// Which model, on how many threads, with how much memory.
    pub engine: EngineSettings,
    /// Loads the model in place of [`EngineSettings::base`], also after [`ReloadEngine`](crate::ReloadEngine): an executor
    /// of your own, or a test's tiny model.
    pub loader: Option<ModelLoader>,
    /// Answers in place of the engine on this machine: a script in a game's own tests ([`testing`](crate::testing)), or a
    /// server. Each [`StartEngine`](crate::StartEngine) and [`ReloadEngine`](crate::ReloadEngine) makes one.
    pub backend: Option<BackendStarter>,
    /// What may be changed while the game runs; becomes the resource of that name.
    pub settings: ElenchusSettings,
    /// Whether the engine starts with the app. Without it, the game triggers [`StartEngine`](crate::StartEngine), and a
    /// title screen has no model in memory.
    pub autostart: bool,
}

impl SpeechPlugin {
    /// A plugin whose engine gets its model from `loader`.
    pub fn with_loader(loader: ModelLoader) -> Self {
        Self { loader: Some(loader), ..default() }
    }

    /// A plugin whose requests are answered by `backend` instead of the engine on this machine.
    pub fn with_backend(backend: BackendStarter) -> Self {
        Self { backend: Some(backend), ..default() }
    }
}

impl Default for SpeechPlugin {
    fn default() -> Self {
        Self {
            engine: EngineSettings::default(),
            loader: None,
            backend: None,
            settings: ElenchusSettings::default(),
            autostart: true,
        }
    }
}

impl Plugin for SpeechPlugin {
    fn build(&self, app: &mut App) {
        let mut handle = EngineHandle::new(self.engine.clone(), self.loader.clone(), self.backend.clone());
        let mut status = EngineStatus::Stopped;
        if self.autostart {
            handle.start();
            status = EngineStatus::LOADING;
        }
        app.insert_resource(handle)
            .insert_resource(self.settings.clone())
            .insert_resource(status)
            .add_plugins((settings::plugin, npc::plugin, conversation::plugin, filter::plugin))
            .add_plugins((control::plugin, receive::plugin, tell::plugin, status::plugin))
            .add_plugins((say::plugin, ending::plugin));
    }

    fn finish(&self, app: &mut App) {
        assert!(
            app.is_plugin_added::<CharactersPlugin>(),
            "`SpeechPlugin` needs `CharactersPlugin` (hint: add `ElenchusPlugins`, which has both)"
        );
    }
}

impl Plugin for CharactersPlugin {
    fn build(&self, app: &mut App) {
        assert!(
            app.world().contains_resource::<AssetServer>(),
            "`ElenchusPlugins` was added before `AssetPlugin`, but loads its characters through it (hint: add it after \
             `DefaultPlugins`, or after `AssetPlugin` where there are none)"
        );
        assets::plugin(app);
    }
}

impl Plugin for HearingPlugin {
    fn build(&self, app: &mut App) {
        hear::plugin(app);
    }
}

impl Plugin for GroupsPlugin {
    fn build(&self, app: &mut App) {
        app.add_plugins((group::plugin, interruption::plugin, turn_taking::plugin));
    }

    fn finish(&self, app: &mut App) {
        assert!(
            app.is_plugin_added::<SpeechPlugin>(),
            "`GroupsPlugin` needs `SpeechPlugin` (hint: add `ElenchusPlugins`, which has both)"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bevy::reflect::{
        TypeRegistry,
        serde::{ReflectDeserializer, ReflectSerializer},
    };
    use elenchus_dialogue::Error;
    use serde::de::DeserializeSeed;

    use super::*;
    use crate::prelude::*;

    fn app() -> App {
        let mut app = App::new();
        let loader: ModelLoader = Arc::new(|_| Err(Error::NoModel("none is wanted here".into())));
        app.add_plugins((
            MinimalPlugins,
            AssetPlugin::default(),
            ElenchusPlugins.set(SpeechPlugin::with_loader(loader)),
        ));
        app
    }

    #[test]
    fn scenes_save_what_an_npc_is_and_not_that_it_speaks() {
        let app = app();
        let registry = app.world().resource::<AppTypeRegistry>().read();
        fn check<T: 'static>(registry: &TypeRegistry, is_component: bool) {
            let of = registry.get(std::any::TypeId::of::<T>()).expect("registered");
            assert_eq!(of.data::<ReflectComponent>().is_some(), is_component, "{}", of.type_info().type_path());
        }
        check::<Npc>(&registry, true);
        check::<GameFacts>(&registry, true);
        check::<Conversation>(&registry, true);
        check::<ConversationGroup>(&registry, true);
        check::<MemberOf>(&registry, true);
        check::<Listener>(&registry, true);
        check::<Speaking>(&registry, false);
        check::<Say>(&registry, false);

        fn there_and_back<T: Reflect + PartialEq + std::fmt::Debug>(registry: &TypeRegistry, saved: &T) {
            let text = serde_json::to_string(&ReflectSerializer::new(saved.as_partial_reflect(), registry)).unwrap();
            let mut json = serde_json::Deserializer::from_str(&text);
            let back = ReflectDeserializer::new(registry).deserialize(&mut json).unwrap();
            assert_eq!(back.try_downcast_ref::<T>(), Some(saved));
        }
        let mut conversation = Conversation::from_seed(7);
        conversation.push("Plato", "What is courage?");
        there_and_back(&registry, &conversation);
        there_and_back(&registry, &ConversationGroup { turns: 2, ..ConversationGroup::new("Hermes", "And you?") });
    }

    #[test]
    #[should_panic(expected = "hint: add it after `DefaultPlugins`")]
    fn a_wrong_order_of_plugins_is_explained() {
        App::new().add_plugins(ElenchusPlugins.set(SpeechPlugin { autostart: false, ..default() }));
    }

    #[test]
    fn what_a_system_asks_for_is_there_from_the_start() {
        let mut app = app();
        app.add_systems(Update, |_: Res<EngineStatus>, _: Res<EngineStats>, _: Res<ElenchusSettings>| {})
            .add_systems(Update, (|mut exit: MessageWriter<AppExit>| _ = exit.write_default()).run_if(engine_ready));
        app.update();
        assert!(app.should_exit().is_none(), "the engine is not ready");
    }
}
