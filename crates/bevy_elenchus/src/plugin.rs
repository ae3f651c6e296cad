//! The plugin: one engine thread, a handful of observers, and four systems that never wait.

use bevy::prelude::*;
use elenchus_dialogue::{BackendStarter, EngineSettings, ModelLoader};

use crate::{
    EngineStatus, SpeechFilter, assets,
    control::{self, EngineHandle},
    conversation, ending, filter, group, hear, npc, receive, say, status, tell, turn_taking,
};

/// Gives NPCs a voice. Add it after `AssetPlugin` (part of `DefaultPlugins`), and
/// [`AdaptersSourcePlugin`](crate::AdaptersSourcePlugin) before that if characters live in `adapters/`.
///
/// The model starts loading on the engine's own thread at once, unless `autostart` says otherwise; see [`EngineStatus`]. The
/// thread is joined when the app is dropped, and each app has one of its own.
///
/// # Panics
/// When it is added before `AssetPlugin`.
#[derive(Clone)]
pub struct ElenchusPlugin {
    /// Which model, on how many threads, with how much memory.
    pub engine: EngineSettings,
    /// Loads the model in place of [`EngineSettings::base`], also after [`ReloadEngine`](crate::ReloadEngine): an executor of your own, or a
    /// test's tiny model.
    pub loader: Option<ModelLoader>,
    /// Answers in place of the engine on this machine: a script in a game's own tests ([`testing`](crate::testing)), or a
    /// server. Each [`StartEngine`](crate::StartEngine) and [`ReloadEngine`](crate::ReloadEngine) makes one.
    pub backend: Option<BackendStarter>,
    /// What may be changed while the game runs; becomes the resource of that name.
    pub settings: ElenchusSettings,
    /// Whether the engine starts with the app. Without it, the game triggers [`StartEngine`](crate::StartEngine), and a title screen has no
    /// model in memory.
    pub autostart: bool,
}

/// How NPCs behave; a resource, so that a game can change its mind while it runs.
#[derive(Resource, Clone, Debug, PartialEq, Reflect)]
#[reflect(Resource)]
pub struct ElenchusSettings {
    /// What becomes of a line said to an NPC that is still speaking.
    pub while_speaking: WhileSpeaking,
    /// Spoken when a reply fails and the character's own fallback lines could not be read either.
    pub fallback: String,
    /// Most engine events looked at in one frame; what remains waits for the next.
    pub events_per_frame: usize,
    /// Judges the sentences of NPCs that have no [`SpeechFilter`] of their own. With a filter, [`ReplyDelta`](crate::ReplyDelta)s are whole
    /// sentences; `None` releases every word at once and lets everything pass.
    #[reflect(ignore)]
    pub filter: Option<SpeechFilter>,
    /// Whether NPCs fall silent when the game is paused.
    pub pause_with: PauseWith,
}

/// What stops NPCs in mid-word, until it is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Reflect)]
pub enum PauseWith {
    /// Nothing: the engine knows no pause.
    #[default]
    Never,
    /// A paused `Time<Virtual>`, or one of speed 0. The engine samples no more tokens after the step it is in, replies and
    /// authors' lines tell no events, and lines said meanwhile are answered afterwards. Models are loaded all the same,
    /// and cancelling works at once. A pause does not count for [`StopRules::max_seconds`](crate::StopRules::max_seconds).
    VirtualTime,
}

/// What becomes of a line said to an NPC that is still speaking, or still waiting to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Reflect)]
pub enum WhileSpeaking {
    /// It waits its turn; the conversation hears it when the lines before it are answered.
    #[default]
    Queue,
    /// The running reply is cancelled with the text so far, and this line is answered.
    Replace,
    /// It is not heard and fails as [`ReplyError::Busy`](crate::ReplyError::Busy).
    Refuse,
}

/// The plugin's systems in order, all in `PreUpdate`, so that `Update` sees the same frame's words.
#[derive(SystemSet, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElenchusSystems {
    /// The engine's events become [`EngineStatus`], [`EngineStats`](crate::EngineStats) and reply events.
    Receive,
    /// Groups in which nobody speaks give the next turn.
    TakeTurns,
    /// Lines that had to wait for a character, the model or room in the channel go out.
    Send,
}

impl ElenchusPlugin {
    /// A plugin whose engine gets its model from `loader`.
    pub fn with_loader(loader: ModelLoader) -> Self {
        Self { loader: Some(loader), ..default() }
    }

    /// A plugin whose requests another than the engine on this machine answers.
    pub fn with_backend(backend: BackendStarter) -> Self {
        Self { backend: Some(backend), ..default() }
    }
}

impl Default for ElenchusSettings {
    fn default() -> Self {
        Self {
            while_speaking: WhileSpeaking::default(),
            fallback: "...".into(),
            events_per_frame: 256,
            filter: Some(SpeechFilter::default()),
            pause_with: PauseWith::default(),
        }
    }
}

impl Default for ElenchusPlugin {
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

impl Plugin for ElenchusPlugin {
    fn build(&self, app: &mut App) {
        assert!(
            app.world().contains_resource::<AssetServer>(),
            "`ElenchusPlugin` was added before `AssetPlugin`, but loads its characters through it (hint: add it after \
             `DefaultPlugins`, or after `AssetPlugin` where there are none)"
        );
        let mut handle = EngineHandle::new(self.engine.clone(), self.loader.clone(), self.backend.clone());
        let mut status = EngineStatus::Stopped;
        if self.autostart {
            handle.start();
            status = EngineStatus::LOADING;
        }
        app.insert_resource(handle)
            .insert_resource(self.settings.clone())
            .insert_resource(status)
            // `TimePlugin` moves it on; without that plugin groups never speak.
            .init_resource::<Time>()
            .configure_sets(
                PreUpdate,
                (ElenchusSystems::Receive, ElenchusSystems::TakeTurns, ElenchusSystems::Send).chain(),
            )
            .add_systems(
                PreUpdate,
                (control::pause, receive::receive, tell::go_on, status::update_stats)
                    .chain()
                    .in_set(ElenchusSystems::Receive),
            )
            .register_type::<ElenchusSettings>()
            .register_type::<WhileSpeaking>()
            .register_type::<PauseWith>();
        // Each file brings what is its own. Observers of one event run in this order.
        app.add_plugins((assets::plugin, npc::plugin, conversation::plugin, filter::plugin))
            .add_plugins((say::plugin, ending::plugin, tell::plugin, control::plugin, status::plugin))
            .add_plugins((hear::plugin, group::plugin, turn_taking::plugin));
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
        app.add_plugins((MinimalPlugins, AssetPlugin::default(), ElenchusPlugin::with_loader(loader)));
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
        App::new().add_plugins(ElenchusPlugin { autostart: false, ..ElenchusPlugin::default() });
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
