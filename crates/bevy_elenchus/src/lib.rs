//! A Bevy plugin that lets NPCs speak.
//!
//! A game cannot wait for a language model, and a crowd cannot have a model each. So one engine thread owns one small
//! quantised model, every character is an adapter of a few megabytes worn per reply, and the frame only ever hands over
//! a line and picks up words: `Say` goes in, `ReplyDelta`s and exactly one `ReplyFinished` or `ReplyFailed` come out.
//! The plugin draws nothing, plays nothing and decides nothing: bubbles, voices and consequences are the game's.
//!
//! ```no_run
//! use bevy::prelude::*;
//! use bevy_elenchus::prelude::*;
//!
//! App::new()
//!     .add_plugins((AdaptersSourcePlugin::default(), MinimalPlugins, AssetPlugin::default(), ElenchusPlugins))
//!     .add_systems(Startup, |mut commands: Commands, assets: Res<AssetServer>| {
//!         let socrates = commands.spawn(Npc::new(assets.load("adapters://socrates/character.toml"))).id();
//!         commands.trigger(Say::new(socrates, "Plato", "What is courage?"));
//!     })
//!     .add_observer(|delta: On<ReplyDelta>| info!("{}", delta.text))
//!     .run();
//! ```
//!
//! | module            | job                                                                            |
//! |-------------------|--------------------------------------------------------------------------------|
//! | `plugin`          | [`ElenchusPlugins`] and the plugins in it                                       |
//! | `settings`        | what a game changes while it runs; system sets                                  |
//! | `adapters_source` | `adapters://`, an asset source of its own                                       |
//! | `folder_watcher`  | with `hot_reload`: notices a trainer's atomic save in that folder               |
//! | `assets`          | `character.toml` and the adapter beside it                                     |
//! | `npc`             | the components of an NPC: `Npc`, `GameFacts`, `Speaking`                        |
//! | `lookup`          | an NPC's character and name; how far an asset is loaded                         |
//! | `conversation`    | what was said, as a save game keeps it                                         |
//! | `events`          | commands to the plugin and events from it                                       |
//! | `requests`        | which replies are in progress                                                   |
//! | `say`             | from a line to a request that the engine has taken                             |
//! | `tell`            | lines that an author wrote                                                     |
//! | `filter`          | which filter judges an NPC's sentences                                         |
//! | `receive`         | from the engine's events to the game's                                         |
//! | `ending`          | how a reply ends: finished, cancelled or failed, each exactly once             |
//! | `group`           | the components of a conversation group                                          |
//! | `group_lines`     | what a member's line does to its group                                          |
//! | `interruption`    | turns that are cut short                                                        |
//! | `turn_taking`     | who of them speaks next, and when                                              |
//! | `hear`            | lines that are heard and not answered                                          |
//! | `engine_handle`   | the engine, and what it takes to start it again                                 |
//! | `control`         | starts, stops, reloads and pauses the engine                                    |
//! | `status`          | is the model there, and what is it doing                                       |

#![allow(clippy::too_many_arguments, reason = "a Bevy system names what it reads and writes")]

mod adapters_source;
mod assets;
mod control;
mod conversation;
mod ending;
mod engine_handle;
mod events;
mod filter;
#[cfg(feature = "hot_reload")]
mod folder_watcher;
mod group;
mod group_lines;
mod hear;
mod interruption;
mod lookup;
mod npc;
mod plugin;
mod receive;
mod requests;
mod say;
mod settings;
mod status;
mod tell;
mod turn_taking;

/// All of these crates, for what is named seldom: `elenchus_dialogue::EngineStats`, `elenchus_lm::Executor`.
pub use {elenchus_dialogue, elenchus_lm};

pub use adapters_source::AdaptersSourcePlugin;
pub use assets::{AdapterAsset, AdapterLoader, AssetError, CharacterAsset, CharacterLoader};
pub use conversation::Conversation;
/// A backend that answers from a script, for a game's own tests.
///
/// ```
/// use bevy::prelude::*;
/// use bevy_elenchus::{prelude::*, testing::{Answer, ScriptedBackend}};
///
/// let script = ScriptedBackend::starter(|request| Answer::Say(format!("I am {}.", request.character.name)));
/// let mut app = App::new();
/// app.add_plugins((MinimalPlugins, AssetPlugin::default()));
/// app.add_plugins(ElenchusPlugins.set(SpeechPlugin::with_backend(script)));
/// ```
pub use elenchus_dialogue::testing;
pub use elenchus_dialogue::{
    Backend, BackendStarter, BaseInfo, BaseRef, BigFive, Character, EngineSettings, Error, Model, ModelLoader, Refusal,
    ReplyFilter, ReplyReport, StopReason, StopRules, Turn, Turns, load_model,
};
pub use elenchus_lm::{
    Adapter, AdapterId, BlockType, ChatTemplate, ComputeDevice, Executor, KvPrecision, LoraAdapter, Numerics, Rng,
    SamplerSettings, Tokenizer,
};
pub use events::{
    GiveTurn, GroupSilent, Hear, Interrupt, Overheard, ReloadEngine, ReplyDelta, ReplyError, ReplyFailed,
    ReplyFinished, ReplyStarted, RetryLoad, Say, SilenceReason, StartEngine, StopEngine, Tell, WarmUp,
};
pub use filter::SpeechFilter;
pub use group::{ConversationGroup, GroupMembers, MemberOf};
pub use hear::{Earshot, Listener};
pub use npc::{GameFacts, Npc, Speaking, Voice};
pub use plugin::{CharactersPlugin, ElenchusPlugins, GroupsPlugin, HearingPlugin, SpeechPlugin};
pub use settings::{ElenchusSettings, ElenchusSystems, PauseWith, WhileSpeaking};
pub use status::{EngineStats, EngineStatus, engine_ready};

/// What a game needs: `use bevy_elenchus::prelude::*;`.
pub mod prelude {
    // `Error` stays outside: the name is everybody's.
    pub use crate::{
        AdapterAsset, AdaptersSourcePlugin, BigFive, BlockType, Character, CharacterAsset, CharactersPlugin,
        ComputeDevice, Conversation, ConversationGroup, Earshot, ElenchusPlugins, ElenchusSettings, ElenchusSystems,
        EngineSettings, EngineStats, EngineStatus, GameFacts, GiveTurn, GroupMembers, GroupSilent, GroupsPlugin, Hear,
        HearingPlugin, Interrupt, KvPrecision, Listener, MemberOf, ModelLoader, Npc, Numerics, Overheard, PauseWith,
        Refusal, ReloadEngine, ReplyDelta, ReplyError, ReplyFailed, ReplyFilter, ReplyFinished, ReplyReport,
        ReplyStarted, RetryLoad, SamplerSettings, Say, SilenceReason, Speaking, SpeechFilter, SpeechPlugin,
        StartEngine, StopEngine, StopReason, StopRules, Tell, Turn, Voice, WarmUp, WhileSpeaking, engine_ready,
    };
}
