//! A game's own tests: a script answers in place of a model, through the same events.

use std::sync::Arc;

use bevy::{app::PluginGroupBuilder, prelude::*};
use bevy_elenchus::{
    Error,
    prelude::*,
    testing::{Answer, ScriptedBackend},
};

#[derive(Resource, Default)]
struct Heard(Vec<String>);

/// A fig seller in a game whose replies a script writes.
fn game() -> (App, Entity) {
    game_with(|plugins| plugins)
}

/// The same with some plugins left out.
fn game_with(change: impl FnOnce(PluginGroupBuilder) -> PluginGroupBuilder) -> (App, Entity) {
    let script = ScriptedBackend::starter(|request| match request.turns.last().map(|turn| turn.text.as_str()) {
        Some("Who are you?") => Answer::Say(format!("I am {}. Figs?", request.character.name)),
        Some("Think.") => Answer::Think,
        _ => Answer::Fail(Error::EmptyLine),
    });
    let mut app = App::new();
    let plugins = ElenchusPlugins.set(SpeechPlugin::with_backend(script));
    app.add_plugins((MinimalPlugins, AssetPlugin::default(), change(plugins)))
        .init_resource::<Heard>()
        .add_observer(|finished: On<ReplyFinished>, mut heard: ResMut<Heard>| {
            heard.0.push(format!("{:?}: {}", finished.stop, finished.text));
        })
        .add_observer(|failed: On<ReplyFailed>, mut heard: ResMut<Heard>| heard.0.push(failed.fallback.clone()));
    let toml = "version = 1\nname = \"Myrto\"\npersona = \"You are a fig seller named Myrto.\"\nfallbacks = [\"Hm.\"]";
    let character = Arc::new(Character::parse(toml, "myrto.toml").unwrap());
    let character =
        app.world_mut().resource_mut::<Assets<CharacterAsset>>().add(CharacterAsset { character, adapter: None });
    let npc = app.world_mut().spawn(Npc::new(character)).id();
    (app, npc)
}

fn say(app: &mut App, npc: Entity, line: &str) {
    app.world_mut().trigger(Say::new(npc, "Stranger", line));
    (0..4).for_each(|_| app.update());
}

#[test]
fn a_script_answers_through_the_plugins_events() {
    let (mut app, npc) = game();
    app.update();
    assert!(matches!(app.world().resource::<EngineStatus>(), EngineStatus::Ready { base } if base.name == "script"));
    say(&mut app, npc, "Who are you?");
    say(&mut app, npc, "Something else.");
    assert_eq!(app.world().resource::<Heard>().0, ["EndToken: I am Myrto. Figs?", "Hm."]);
    let turns: Vec<String> =
        app.world().get::<Conversation>(npc).unwrap().turns.iter().map(|turn| turn.text.clone()).collect();
    assert_eq!(turns[..2], ["Who are you?", "I am Myrto. Figs?"]);
}

#[test]
fn a_game_may_leave_groups_and_hearing_out() {
    let (mut app, npc) = game_with(|plugins| plugins.disable::<GroupsPlugin>().disable::<HearingPlugin>());
    let group = app.world_mut().spawn(ConversationGroup::new("A herald", "What is a fig?")).id();
    app.world_mut().entity_mut(npc).insert(MemberOf(group));
    say(&mut app, npc, "Who are you?");
    assert_eq!(app.world().resource::<Heard>().0, ["EndToken: I am Myrto. Figs?"]);
    // A line said to the group has no listeners and no answer.
    app.world_mut().trigger(Tell::new(npc, "Figs!").to_group());
    (0..4).for_each(|_| app.update());
    assert_eq!(app.world().resource::<Heard>().0[1..], ["Told: Figs!"]);
}

#[test]
#[should_panic(expected = "`SpeechPlugin` needs `CharactersPlugin`")]
fn speech_without_characters_is_explained() {
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, AssetPlugin::default(), SpeechPlugin { autostart: false, ..default() }));
    app.finish();
}

#[test]
fn a_reply_that_does_not_come_can_be_cancelled() {
    let (mut app, npc) = game();
    say(&mut app, npc, "Think.");
    assert!(app.world().get::<Speaking>(npc).is_some() && app.world().resource::<Heard>().0.is_empty());
    app.world_mut().entity_mut(npc).remove::<Speaking>();
    app.update();
    assert_eq!(app.world().resource::<Heard>().0, ["Cancelled: "]);
}

#[test]
fn a_started_and_a_reloaded_engine_is_the_script_again() {
    let (mut app, npc) = game();
    app.world_mut().trigger(StopEngine);
    app.update();
    assert!(matches!(app.world().resource::<EngineStatus>(), EngineStatus::Stopped));
    app.world_mut().trigger(StartEngine);
    say(&mut app, npc, "Who are you?");
    app.world_mut().trigger(ReloadEngine { settings: EngineSettings::default() });
    say(&mut app, npc, "Who are you?");
    assert_eq!(app.world().resource::<Heard>().0.len(), 2);
}
