//! An outcome for everything: one test per row of the table in `docs/plugin-guide.md`, in its order.

mod common;

use std::{
    fs,
    sync::{Arc, atomic::Ordering},
    thread::sleep,
    time::Duration,
};

use bevy::prelude::*;
use bevy_elenchus::prelude::*;
use common::{Game, Heard, SOCRATES, Setup, character, failed, finished, settings, write};
use elenchus_lm::testing::TinyModel;

/// A game whose Socrates is loaded and whose model is ready.
fn ready(setup: Setup) -> (Game, Entity) {
    let mut game = setup.start();
    game.run_until_ready();
    let npc = game.spawn(SOCRATES);
    (game, npc)
}

fn with_settings(while_speaking: WhileSpeaking) -> Setup {
    Setup { settings: ElenchusSettings { while_speaking, ..settings() }, ..default() }
}

fn turn(speaker: &str, text: impl Into<String>) -> (String, String) {
    (speaker.into(), text.into())
}

#[test]
fn a_line_is_answered() {
    let (mut game, npc) = ready(Setup::default());
    game.say(npc, "What is courage?");
    assert!(game.is_speaking(npc), "from the `Say` on");
    assert_eq!(game.turns(npc), [turn("Plato", "What is courage?")]);
    let outcomes = game.run_until_outcomes(npc, 1);
    let (text, stop) = finished(&outcomes[0]);
    assert_eq!(stop, StopReason::MaxTokens);
    assert!(!text.is_empty() && text == game.spoken(npc), "the deltas joined are the text");
    assert_eq!(game.turns(npc)[1..], [turn("Socrates", text)]);
    assert!(!game.is_speaking(npc));
    let log = game.log(npc);
    assert_eq!(log[0], Heard::Started);
    assert_eq!(log.iter().filter(|heard| **heard == Heard::Started).count(), 1);
    assert!(matches!(log.last(), Some(Heard::Finished { .. })), "nothing follows the end");
    game.update(50);
    assert_eq!(game.outcomes(npc).len(), 1);
}

#[test]
fn there_is_one_delta_per_npc_and_frame() {
    let (mut game, npc) = ready(Setup::default());
    game.say(npc, "What is courage?");
    let deltas = |game: &Game| game.log(npc).iter().filter(|heard| matches!(heard, Heard::Delta(_))).count();
    while game.outcomes(npc).is_empty() {
        // Time for the tiny model to say several letters.
        sleep(Duration::from_millis(30));
        let before = deltas(&game);
        game.app.update();
        assert!(deltas(&game) <= before + 1);
    }
    assert!((1..48).contains(&deltas(&game)), "48 tokens of a letter each, several a frame");
}

#[test]
fn events_in_a_frame_are_bounded() {
    let mut setup = Setup::default();
    setup.settings.events_per_frame = 1;
    let (mut game, npc) = ready(setup);
    game.say(npc, "What is courage?");
    assert_eq!(finished(&game.run_until_outcomes(npc, 1)[0]).0, game.spoken(npc));
}

#[test]
fn a_second_line_is_queued() {
    let (mut game, npc) = ready(with_settings(WhileSpeaking::Queue));
    game.say(npc, "one");
    game.say(npc, "two");
    game.say(npc, "three");
    let outcomes = game.run_until_outcomes(npc, 3);
    let text = |i: usize| finished(&outcomes[i]).0;
    assert_eq!(
        game.turns(npc),
        [
            turn("Plato", "one"),
            turn("Socrates", text(0)),
            turn("Plato", "two"),
            turn("Socrates", text(1)),
            turn("Plato", "three"),
            turn("Socrates", text(2)),
        ]
    );
}

#[test]
fn a_second_line_replaces() {
    let (mut game, npc) = ready(with_settings(WhileSpeaking::Replace));
    let so_far = game.say_and_stop_midway(npc, "one");
    game.say(npc, "two");
    game.valve.open();
    let outcomes = game.run_until_outcomes(npc, 2);
    assert_eq!(finished(&outcomes[0]), (so_far.as_str(), StopReason::Cancelled));
    let second = finished(&outcomes[1]);
    assert_eq!(second.1, StopReason::MaxTokens);
    assert_eq!(
        game.turns(npc),
        [turn("Plato", "one"), turn("Socrates", so_far), turn("Plato", "two"), turn("Socrates", second.0)]
    );
}

#[test]
fn a_line_that_replaces_comes_after_those_that_wait() {
    let (mut game, npc) = ready(with_settings(WhileSpeaking::Queue));
    game.say_and_stop_midway(npc, "one");
    game.say(npc, "two");
    game.app.world_mut().resource_mut::<ElenchusSettings>().while_speaking = WhileSpeaking::Replace;
    game.say(npc, "three");
    game.valve.open();
    let outcomes = game.run_until_outcomes(npc, 3);
    assert_eq!(finished(&outcomes[0]).1, StopReason::Cancelled);
    assert_eq!(game.turns(npc)[2..4], [turn("Plato", "two"), turn("Socrates", finished(&outcomes[1]).0)]);
    assert_eq!(game.turns(npc)[4..], [turn("Plato", "three"), turn("Socrates", finished(&outcomes[2]).0)]);
}

#[test]
fn a_second_line_is_refused() {
    let (mut game, npc) = ready(with_settings(WhileSpeaking::Refuse));
    game.say(npc, "one");
    game.say(npc, "two");
    let outcomes = game.run_until_outcomes(npc, 2);
    assert!(failed(&outcomes[0]).0.contains("still speaking"));
    assert_eq!(game.turns(npc), [turn("Plato", "one"), turn("Socrates", finished(&outcomes[1]).0)]);
}

#[test]
fn a_line_before_the_character_is_there_waits() {
    let mut game = Setup::default().start();
    game.run_until_ready();
    let npc = game.spawn(SOCRATES);
    // No frame has run since the load began.
    game.say(npc, "What is courage?");
    finished(&game.run_until_outcomes(npc, 1)[0]);
    assert_eq!(game.turns(npc)[1].0, "Socrates");
}

#[test]
fn a_line_before_the_model_is_there_waits() {
    let mut game = Setup { closed: true, ..default() }.start();
    let npc = game.spawn(SOCRATES);
    game.say(npc, "What is courage?");
    game.update(100);
    assert!(matches!(game.app.world().resource::<EngineStatus>(), EngineStatus::Loading { .. }));
    assert!(game.log(npc).is_empty() && game.is_speaking(npc));
    game.valve.open();
    finished(&game.run_until_outcomes(npc, 1)[0]);
}

#[test]
fn without_a_character_the_games_own_fallback_is_spoken() {
    let mut setup = Setup::default();
    setup.settings.fallback = "(silence)".into();
    let (mut game, _) = ready(setup);
    let npc = game.spawn("adapters://nobody/character.toml");
    game.say(npc, "Who are you?");
    let outcomes = game.run_until_outcomes(npc, 1);
    let (error, fallback) = failed(&outcomes[0]);
    assert!(error.contains("nobody/character.toml"), "{error}");
    assert_eq!(fallback, "(silence)");

    let dangling = game.app.world_mut().spawn(Npc::new(Handle::default())).id();
    game.say(dangling, "Who are you?");
    let outcomes = game.run_until_outcomes(dangling, 1);
    assert!(failed(&outcomes[0]).0.contains("AssetServer::load"), "says what to do");
}

#[test]
fn a_broken_adapter_leaves_the_character_its_fallbacks() {
    let mut game = Setup::default().start();
    write(game.folder.path().join("adapters/socrates/adapter_config.json"), "{ \"r\": ");
    write(game.folder.path().join("adapters/socrates/adapter_model.safetensors"), "half of it");
    game.run_until_ready();
    let npc = game.spawn(SOCRATES);
    game.say(npc, "What is courage?");
    let outcomes = game.run_until_outcomes(npc, 1);
    let (error, fallback) = failed(&outcomes[0]);
    assert!(error.contains("socrates/adapter_model.safetensors"), "{error}");
    assert_eq!(fallback, "Let me think.");
    assert_eq!(game.turns(npc), [turn("Plato", "What is courage?")], "the fallback is not part of the conversation");

    // Whole, but made for a wider model.
    let wide = game.folder.path().join("adapters/hippias");
    TinyModel { hidden: 128, ..default() }.write_adapter(&wide, 1);
    write(wide.join("character.toml"), character("Hippias", 8));
    let npc = game.spawn("adapters://hippias/character.toml");
    game.say(npc, "What is courage?");
    let outcomes = game.run_until_outcomes(npc, 1);
    let (error, fallback) = failed(&outcomes[0]);
    assert!(error.contains("128") && error.contains("64"), "names both widths: {error}");
    assert_eq!(fallback, "Let me think.");
}

#[test]
fn without_a_model_fallbacks_are_spoken_until_a_retry_works() {
    let mut game = Setup { failing_loads: 1, ..default() }.start();
    let npc = game.spawn(SOCRATES);
    game.say(npc, "one");
    let outcomes = game.run_until_outcomes(npc, 1);
    let (error, fallback) = failed(&outcomes[0]);
    assert!(error.contains("the disk is out"), "{error}");
    assert_eq!(fallback, "Let me think.");
    game.say(npc, "two");
    let outcomes = game.run_until_outcomes(npc, 2);
    assert_eq!(failed(&outcomes[1]).1, "By the dog!", "they take turns");

    game.trigger(RetryLoad);
    game.say(npc, "three");
    finished(&game.run_until_outcomes(npc, 3)[2]);
}

#[test]
fn while_the_engine_runs_there_is_nothing_to_retry_or_start() {
    let (mut game, npc) = ready(Setup::default());
    game.say_and_stop_midway(npc, "one");
    game.trigger(RetryLoad);
    game.trigger(StartEngine);
    assert!(matches!(game.status(), EngineStatus::Ready { .. }));
    game.valve.open();
    assert_eq!(finished(&game.run_until_outcomes(npc, 1)[0]).1, StopReason::MaxTokens);
}

#[test]
fn without_autostart_fallbacks_are_spoken_until_the_engine_is_started() {
    let mut game = Setup { autostart: false, ..default() }.start();
    let npc = game.spawn(SOCRATES);
    game.update(30);
    assert!(matches!(game.status(), EngineStatus::Stopped));
    assert_eq!(Arc::strong_count(&game.loader), 3, "the game, its plugin and the handle: no thread holds it");
    game.say(npc, "one");
    let outcomes = game.run_until_outcomes(npc, 1);
    let (error, fallback) = failed(&outcomes[0]);
    assert_eq!((error.contains("stopped"), fallback), (true, "Let me think."));
    game.trigger(RetryLoad);
    assert!(matches!(game.status(), EngineStatus::Stopped), "it has not failed");
    game.trigger(StartEngine);
    assert!(matches!(game.status(), EngineStatus::Loading { .. }));
    game.say(npc, "two");
    finished(&game.run_until_outcomes(npc, 2)[1]);
}

#[test]
fn a_stopped_engine_ends_what_it_said_and_frees_the_model_without_a_wait() {
    let (mut game, npc) = ready(Setup::default());
    let idle = Arc::strong_count(&game.loader);
    let so_far = game.say_and_stop_midway(npc, "one");
    game.say(npc, "two");
    let silent = game.spawn(SOCRATES);
    game.update(20);
    game.say(silent, "one");
    // In mid-step: the thread cannot end yet.
    game.trigger(StopEngine);
    assert!(matches!(game.status(), EngineStatus::Stopped));
    assert_eq!(finished(&game.outcomes(npc)[0]), (so_far.as_str(), StopReason::Cancelled), "at once");
    assert_eq!(finished(&game.outcomes(silent)[0]), ("", StopReason::Cancelled));
    let outcomes = game.run_until_outcomes(npc, 2);
    assert!(failed(&outcomes[1]).0.contains("stopped"), "what waited is a line like any other");
    assert_eq!(game.turns(npc)[1], turn("Socrates", so_far));
    assert_eq!(**game.app.world().resource::<EngineStats>(), default());
    game.trigger(StopEngine);
    game.valve.open();
    game.run_until("the thread has ended", |game| Arc::strong_count(&game.loader) < idle);
    game.trigger(StartEngine);
    game.say(npc, "three");
    finished(&game.run_until_outcomes(npc, 3)[2]);
}

#[test]
fn an_engine_started_again_with_other_settings_answers_what_nobody_has_heard() {
    let (mut game, npc) = ready(Setup::default());
    let so_far = game.say_and_stop_midway(npc, "one");
    game.say(npc, "two");
    let silent = game.spawn(SOCRATES);
    game.update(20);
    game.say(silent, "one");
    game.app.world_mut().resource_mut::<common::Progress>().0.clear();
    let settings = EngineSettings { context: 256, threads: 2, ..default() };
    game.trigger(ReloadEngine { settings });
    assert!(matches!(game.status(), EngineStatus::Loading { .. }));
    assert_eq!(finished(&game.outcomes(npc)[0]), (so_far.as_str(), StopReason::Cancelled), "it was heard in part");
    assert!(game.outcomes(silent).is_empty() && game.is_speaking(silent), "nothing of this one");
    game.valve.open();
    game.run_until_ready();
    let EngineStatus::Ready { base } = game.status() else { panic!() };
    assert_eq!(base.context, 256);
    let progress = &game.app.world().resource::<common::Progress>().0;
    // A load that is quicker than a frame shows fewer steps.
    assert!(progress.is_sorted(), "{progress:?}");
    finished(&game.run_until_outcomes(silent, 1)[0]);
    assert_eq!(game.log(silent).iter().filter(|heard| **heard == Heard::Started).count(), 1);
    finished(&game.run_until_outcomes(npc, 2)[1]);
    assert_eq!(game.turns(npc)[2], turn("Plato", "two"));
}

#[test]
fn in_a_paused_game_nobody_speaks() {
    let mut setup = Setup::default();
    setup.settings.pause_with = PauseWith::VirtualTime;
    let (mut game, npc) = ready(setup);
    let other = game.spawn(SOCRATES);
    game.update(20);
    game.say_and_stop_midway(npc, "one");
    let pause = |game: &mut Game| game.app.world_mut().resource_mut::<Time<Virtual>>().pause();
    pause(&mut game);
    game.update(1);
    game.valve.open();
    let before = game.spoken(npc);
    game.trigger(Tell::new(other, "Know thyself."));
    let waiting = game.spawn(SOCRATES);
    game.update(20);
    game.say(waiting, "one");
    game.say(waiting, "");
    game.update(200);
    assert_eq!(game.spoken(npc), before);
    assert!(game.log(other).is_empty() && game.log(waiting).is_empty());
    assert_eq!(game.app.world().resource::<EngineStats>().queued, 1);
    game.app.world_mut().entity_mut(npc).remove::<Speaking>();
    assert_eq!(finished(&game.outcomes(npc)[0]), (before.as_str(), StopReason::Cancelled), "the game may still cancel");
    game.app.world_mut().resource_mut::<Time<Virtual>>().unpause();
    game.run_until_outcomes(other, 1);
    game.run_until_outcomes(waiting, 2);
    // Otherwise a pause is none of the NPCs' business.
    game.app.world_mut().resource_mut::<ElenchusSettings>().pause_with = PauseWith::Never;
    pause(&mut game);
    game.say(npc, "two");
    game.run_until_outcomes(npc, 2);
}

#[test]
fn a_cancelled_reply_ends_with_the_text_so_far() {
    let (mut game, npc) = ready(Setup::default());
    let so_far = game.say_and_stop_midway(npc, "one");
    let steps = game.app.world().resource::<EngineStats>().steps;
    game.app.world_mut().entity_mut(npc).remove::<Speaking>();
    assert_eq!(finished(&game.outcomes(npc)[0]), (so_far.as_str(), StopReason::Cancelled), "at once");
    game.valve.open();
    game.update(100);
    assert_eq!(game.spoken(npc), so_far, "no delta follows");
    assert_eq!(game.outcomes(npc).len(), 1);
    assert_eq!(game.turns(npc), [turn("Plato", "one"), turn("Socrates", so_far)]);
    assert!(game.app.world().resource::<EngineStats>().steps <= steps + 1);
    assert_eq!(game.app.world().resource::<EngineStats>().active, 0);
}

#[test]
fn cancelling_ends_the_lines_that_wait_too() {
    let mut game = Setup { closed: true, ..default() }.start();
    let npc = game.spawn(SOCRATES);
    game.say(npc, "one");
    game.say(npc, "two");
    game.app.world_mut().entity_mut(npc).remove::<Speaking>();
    for outcome in game.run_until_outcomes(npc, 2) {
        assert_eq!(finished(&outcome), ("", StopReason::Cancelled));
    }
    assert_eq!(game.turns(npc), [turn("Plato", "one")], "the second was never heard");
}

#[test]
fn an_observer_may_cancel_despawn_and_speak() {
    let (mut game, npc) = ready(Setup::default());
    write(game.folder.path().join("adapters/hippias/character.toml"), character("Hippias", 8));
    let other = game.spawn("adapters://hippias/character.toml");
    let app = &mut game.app;
    app.world_mut().entity_mut(npc).observe(|e: On<ReplyDelta>, mut commands: Commands| {
        commands.entity(e.entity).remove::<Speaking>();
    });
    app.world_mut().entity_mut(npc).observe(move |e: On<ReplyFinished>, mut commands: Commands| {
        commands.trigger(Say::new(other, "Socrates", format!("I said: {}", e.text)).ambient());
    });
    app.world_mut().entity_mut(other).observe(|e: On<ReplyStarted>, mut commands: Commands| {
        commands.entity(e.entity).despawn();
    });
    game.say(npc, "one");
    let outcomes = game.run_until_outcomes(npc, 1);
    let (text, stop) = finished(&outcomes[0]);
    assert_eq!(stop, StopReason::Cancelled);
    assert!(!text.is_empty());
    game.run_until("the other one is gone", |game| game.app.world().get_entity(other).is_err());
    game.update(50);
    assert_eq!(game.log(other), [Heard::Started]);
}

#[test]
fn answering_every_failure_is_no_loop() {
    let mut game =
        Setup { failing_loads: usize::MAX, settings: with_settings(WhileSpeaking::Refuse).settings, ..default() }
            .start();
    let npc = game.spawn(SOCRATES);
    game.app.add_observer(|e: On<ReplyFailed>, mut commands: Commands| {
        commands.trigger(Say::new(e.entity, "Plato", "Do speak!"));
        commands.trigger(Say::new(e.entity, "Plato", ""));
    });
    game.say(npc, "one");
    game.run_until_outcomes(npc, 3);
    // Each failure leads to two lines, so more and more fail, but only with the next frame.
    let before = game.outcomes(npc).len();
    game.app.update();
    let after = game.outcomes(npc).len();
    assert!(after > before && after <= 3 * before, "{before} failures, then {after}");
}

#[test]
fn a_despawned_npc_is_silent() {
    let (mut game, npc) = ready(Setup::default());
    game.say_and_stop_midway(npc, "one");
    game.say(npc, "two");
    let before = game.log(npc);
    game.app.world_mut().despawn(npc);
    game.valve.open();
    game.run_until("the engine is idle", |game| game.app.world().resource::<EngineStats>().active == 0);
    game.update(50);
    assert_eq!(game.log(npc), before);
}

#[test]
fn what_is_no_npc_any_more_is_silent() {
    let (mut game, npc) = ready(Setup::default());
    game.say_and_stop_midway(npc, "one");
    let before = game.log(npc);
    game.app.world_mut().entity_mut(npc).remove::<Npc>();
    game.valve.open();
    game.update(100);
    assert_eq!(game.log(npc), before);
    assert!(!game.is_speaking(npc));
}

#[test]
fn a_line_to_what_is_no_npc_is_ignored() {
    let (mut game, npc) = ready(Setup::default());
    let stone = game.app.world_mut().spawn_empty().id();
    game.say(stone, "Speak!");
    game.app.world_mut().despawn(stone);
    game.say(stone, "Speak!");
    game.say(npc, "And you?");
    finished(&game.run_until_outcomes(npc, 1)[0]);
    assert!(game.log(stone).is_empty());
}

#[test]
fn an_empty_line_fails_unheard() {
    let (mut game, npc) = ready(Setup::default());
    game.update(20);
    let nothing = [" \n\t", "\0", "\u{202e}\u{200b}"];
    for text in nothing {
        game.say(npc, text);
        game.trigger(Tell::new(npc, text));
        game.trigger(Hear::new(npc, "Hermes", text));
    }
    for outcome in game.run_until_outcomes(npc, 2 * nothing.len()) {
        assert!(failed(&outcome).0.contains("empty"));
    }
    assert!(game.turns(npc).is_empty());
}

#[test]
fn a_line_by_the_npcs_own_name_fails() {
    let (mut game, npc) = ready(Setup::default());
    game.trigger(Say::new(npc, "Socrates", "What is courage?"));
    let outcomes = game.run_until_outcomes(npc, 1);
    assert!(failed(&outcomes[0]).0.contains("another name"), "{outcomes:?}");
}

#[test]
fn a_line_that_is_too_long_fails_and_the_next_is_answered() {
    let mut setup = Setup::default();
    setup.engine.context = 512;
    let (mut game, npc) = ready(setup);
    game.say(npc, &"why? ".repeat(20_000));
    let outcomes = game.run_until_outcomes(npc, 1);
    assert!(failed(&outcomes[0]).0.contains("512"), "{outcomes:?}");
    game.say(npc, "Why?");
    finished(&game.run_until_outcomes(npc, 2)[1]);
}

/// What a save game keeps, through JSON and back.
fn save(game: &Game, npc: Entity) -> Conversation {
    let json = serde_json::to_string(game.app.world().get::<Conversation>(npc).unwrap()).unwrap();
    assert!(!json.contains("Handle") && !json.contains("entity"), "{json}");
    serde_json::from_str(&json).unwrap()
}

/// Another run of the game, on the same files, with the saved conversation.
fn load(game: &Game, setup: Setup, saved: Conversation) -> (Game, Entity) {
    let mut game = setup.start_in(game.folder.clone());
    let path = saved.character.clone().expect("the save names its character");
    let npc = game.spawn(&path);
    game.app.world_mut().entity_mut(npc).insert(saved);
    (game, npc)
}

fn ids(outcome: &Heard) -> Vec<u32> {
    match outcome {
        Heard::Finished { reply_ids: Some(ids), .. } => ids.clone(),
        other => panic!("no ids: {other:?}"),
    }
}

#[test]
fn a_loaded_game_goes_on_as_its_unsaved_twin() {
    let (mut game, npc) = ready(Setup::default());
    game.say(npc, "one");
    game.run_until_outcomes(npc, 1);
    let (mut loaded, loaded_npc) = load(&game, Setup::default(), save(&game, npc));
    game.say(npc, "two");
    loaded.say(loaded_npc, "two");
    let twin = game.run_until_outcomes(npc, 2);
    let again = loaded.run_until_outcomes(loaded_npc, 1);
    assert_eq!(ids(&again[0]), ids(&twin[1]));
    assert_ne!(ids(&twin[0]), ids(&twin[1]));
    assert_eq!(loaded.turns(loaded_npc), game.turns(npc));
}

#[test]
fn saved_in_mid_reply_the_line_can_be_said_again() {
    let (mut game, npc) = ready(Setup::default());
    game.say_and_stop_midway(npc, "one");
    let saved = save(&game, npc);
    assert_eq!(saved.turns.len(), 1, "the line is in, the reply is not");
    game.valve.open();
    let twin = game.run_until_outcomes(npc, 1);

    let (mut loaded, loaded_npc) = load(&game, Setup::default(), saved);
    loaded.update(10);
    assert!(!loaded.is_speaking(loaded_npc), "nothing is asked again by itself");
    let mut conversation = loaded.app.world_mut().get_mut::<Conversation>(loaded_npc).unwrap();
    let line = conversation.take_unanswered().expect("a line without a reply");
    assert_eq!(conversation.take_unanswered(), None);
    loaded.say(loaded_npc, &line.text);
    let again = loaded.run_until_outcomes(loaded_npc, 1);
    assert_eq!(ids(&again[0]), ids(&twin[0]));
    assert_eq!(loaded.turns(loaded_npc), game.turns(npc));
}

#[test]
fn under_another_base_or_adapter_the_conversation_goes_on() {
    let (mut game, npc) = ready(Setup::default());
    game.say(npc, "one");
    game.run_until_outcomes(npc, 1);
    let saved = save(&game, npc);
    assert!(saved.base.is_some() && saved.adapter.is_none());

    TinyModel::default().write_adapter(&game.folder.path().join("adapters/socrates"), 1);
    let other = Setup { model: TinyModel { seed: 9, ..default() }, ..default() };
    let (mut loaded, loaded_npc) = load(&game, other, saved.clone());
    loaded.say(loaded_npc, "two");
    let outcomes = loaded.run_until_outcomes(loaded_npc, 1);
    finished(&outcomes[0]);
    assert_eq!(loaded.turns(loaded_npc)[..2], game.turns(npc)[..], "what was said stays said");
    let now = save(&loaded, loaded_npc);
    assert!(now.base.is_some() && now.base != saved.base, "the hashes follow the reply");
    assert!(now.adapter.is_some());
}

#[test]
fn a_game_loaded_over_a_speaking_npc_is_left_as_it_was_saved() {
    let (mut game, npc) = ready(Setup::default());
    let saved = save(&game, npc);
    game.say_and_stop_midway(npc, "one");
    game.trigger(Hear::new(npc, "Hermes", "Make way!"));
    game.app.world_mut().entity_mut(npc).insert(saved.clone());
    let outcomes = game.run_until_outcomes(npc, 1);
    assert_eq!(finished(&outcomes[0]).1, StopReason::Cancelled);
    game.valve.open();
    game.update(100);
    assert_eq!(*game.app.world().get::<Conversation>(npc).unwrap(), saved);
    assert!(!game.is_speaking(npc));
    game.say(npc, "two");
    let outcomes = game.run_until_outcomes(npc, 2);
    assert_eq!(game.turns(npc), [turn("Plato", "two"), turn("Socrates", finished(&outcomes[1]).0)]);
}

#[test]
fn with_the_engine_stalled_and_the_channel_full_nothing_is_lost() {
    let mut setup = Setup::default();
    setup.engine.request_capacity = 4;
    setup.engine.event_capacity = 4;
    let (mut game, first) = ready(setup);
    game.say_and_stop_midway(first, "one");
    let npcs: Vec<Entity> = (0..40).map(|_| game.spawn(SOCRATES)).collect();
    for &npc in &npcs {
        game.say(npc, "one");
        game.say(npc, "two");
    }
    game.update(300);
    assert!(npcs.iter().all(|&npc| game.outcomes(npc).is_empty()));
    // One that waits outside the channel is cancelled, one is gone.
    game.app.world_mut().entity_mut(npcs[38]).remove::<Speaking>();
    game.app.world_mut().despawn(npcs[39]);
    game.valve.open();
    game.run_until("every line has its outcome", |game| npcs[..39].iter().all(|&npc| game.outcomes(npc).len() == 2));
    game.update(100);
    for &npc in &npcs[..38] {
        let outcomes = game.outcomes(npc);
        assert_eq!(outcomes.len(), 2);
        outcomes.iter().for_each(|outcome| assert_eq!(finished(outcome).1, StopReason::MaxTokens));
    }
    game.outcomes(npcs[38]).iter().for_each(|outcome| assert_eq!(finished(outcome).1, StopReason::Cancelled));
    assert!(game.log(npcs[39]).is_empty());
    assert_eq!(game.outcomes(first).len(), 1);
}

#[test]
fn when_a_back_end_panics_lines_fail_and_the_game_goes_on() {
    let (mut game, npc) = ready(Setup::default());
    game.valve.burst.store(true, Ordering::SeqCst);
    game.say(npc, "one");
    game.say(npc, "two");
    let outcomes = game.run_until_outcomes(npc, 2);
    assert!(failed(&outcomes[0]).0.contains("a bug in the back-end"), "{outcomes:?}");
    finished(&outcomes[1]);
}

#[test]
fn two_apps_live_in_one_process_and_leaving_joins_the_thread() {
    let mut one = Setup::default().start();
    let mut two = Setup::default().start_in(one.folder.clone());
    let (a, b) = (one.spawn(SOCRATES), two.spawn(SOCRATES));
    one.say(a, "one");
    two.say(b, "one");
    let first = one.run_until_outcomes(a, 1);
    two.say(b, "two");
    let loader = one.loader.clone();
    one.valve.open();
    drop(one);
    assert_eq!(Arc::strong_count(&loader), 1, "the thread that held the loader is gone");
    let second = two.run_until_outcomes(b, 2);
    assert_eq!(ids(&first[0]), ids(&second[0]), "the same seed says the same in both");
}

#[test]
fn a_warm_up_is_remembered_by_the_first_reply() {
    let (mut game, npc) = ready(Setup::default());
    write(game.folder.path().join("adapters/hippias/character.toml"), character("Hippias", 8));
    let cold = game.spawn("adapters://hippias/character.toml");
    game.trigger(WarmUp { entity: npc });
    let steps = |game: &Game| game.app.world().resource::<EngineStats>().steps;
    game.run_until("the persona is read", |game| steps(game) > 0);
    game.update(100);
    let cached = |outcome: &Heard| match outcome {
        Heard::Finished { cached_tokens, .. } => *cached_tokens,
        other => panic!("not finished: {other:?}"),
    };
    game.say(npc, "What is courage?");
    assert!(cached(&game.run_until_outcomes(npc, 1)[0]) > "You are Socrates.".len());
    game.say(cold, "What is courage?");
    let cold = cached(&game.run_until_outcomes(cold, 1)[0]);
    assert!(cold < "You are Socrates.".len(), "only the template's own opening was known: {cold}");
}

#[test]
fn facts_limits_and_voices_reach_the_reply() {
    let (mut game, npc) = ready(Setup::default());
    let prompt_tokens = |outcome: &Heard| match outcome {
        Heard::Finished { prompt_tokens, .. } => *prompt_tokens,
        other => panic!("not finished: {other:?}"),
    };
    game.trigger(Say::new(npc, "Plato", "one").max_tokens(3));
    let plain = game.run_until_outcomes(npc, 1);
    assert_eq!(ids(&plain[0]).len(), 3 + 24, "and what a sentence may take to end");

    let informed = game.spawn(SOCRATES);
    game.app.world_mut().entity_mut(informed).insert(GameFacts::new(["The player stole the olives."]));
    game.trigger(Say::new(informed, "Plato", "one").max_tokens(3));
    let facts = game.run_until_outcomes(informed, 1);
    assert!(prompt_tokens(&facts[0]) >= prompt_tokens(&plain[0]) + "The player stole the olives.".len());

    let folder = game.folder.path().join("voices/other");
    fs::create_dir_all(&folder).unwrap();
    TinyModel::default().write_adapter(&folder, 5);
    let lora = Arc::new(elenchus_lm::LoraAdapter::open(&folder).unwrap());
    let adapter = game.app.world_mut().resource_mut::<Assets<AdapterAsset>>().add(AdapterAsset { lora });
    let worn = game.spawn(SOCRATES);
    let mut entity = game.app.world_mut().entity_mut(worn);
    entity.get_mut::<Npc>().unwrap().voice = Voice::Adapter { adapter, scale: 8.0 };
    game.say(worn, "one");
    let other = game.run_until_outcomes(worn, 1);
    assert_ne!(ids(&other[0])[..3], ids(&plain[0])[..], "another voice says other words");
    assert!(save(&game, worn).adapter.is_some());
}

/// A game in which sentences are judged, and Socrates says what the test wrote.
fn scripted(script: &'static [u8]) -> (Game, Entity) {
    ready(Setup { script: Some(script), settings: ElenchusSettings::default(), ..default() })
}

fn refused(outcome: &Heard) -> &[String] {
    match outcome {
        Heard::Finished { refused, .. } => refused,
        other => panic!("not finished: {other:?}"),
    }
}

fn deltas(game: &Game, npc: Entity) -> Vec<String> {
    let delta = |heard| if let Heard::Delta(text) = heard { Some(text) } else { None };
    game.log(npc).into_iter().filter_map(delta).collect()
}

#[test]
fn with_a_filter_whole_sentences_are_told() {
    let (mut game, npc) = scripted(b"I know nothing. Do you?\0");
    game.valve.allow(0);
    game.say(npc, "one");
    // Pass by pass, so that every frame sees what is new.
    while game.outcomes(npc).is_empty() {
        game.valve.allow(1);
        game.update(2);
    }
    assert_eq!(deltas(&game, npc), ["I know nothing.", " Do you?"]);
    assert!(refused(&game.outcomes(npc)[0]).is_empty());
}

#[test]
fn a_refused_reply_is_sampled_again_and_nobody_hears_of_it() {
    let (mut game, npc) = scripted(b"I am an AI. My name is Bob. I know nothing.\0");
    game.say(npc, "one");
    let outcomes = game.run_until_outcomes(npc, 1);
    assert_eq!(finished(&outcomes[0]), ("I know nothing.", StopReason::EndToken));
    assert_eq!(refused(&outcomes[0]), ["ai_claims", "other_names"]);
    assert_eq!(deltas(&game, npc).concat(), "I know nothing.");
    assert_eq!(game.turns(npc)[1..], [turn("Socrates", "I know nothing.")]);
}

#[test]
fn a_reply_that_is_refused_every_time_fails_with_a_fallback() {
    let (mut game, npc) = scripted(b"Rosebud. Rosebud. Rosebud. Well.\0");
    let filter = SpeechFilter::new(ReplyFilter::none().refuse_words(["rosebud"]));
    game.app.world_mut().entity_mut(npc).insert(filter);
    game.app.add_observer(|e: On<ReplyFailed>| {
        assert!(matches!(e.error, ReplyError::Engine(bevy_elenchus::Error::Refused { tries: 3, .. })), "{:?}", e.error);
    });
    game.say(npc, "one");
    let outcomes = game.run_until_outcomes(npc, 1);
    let (error, fallback) = failed(&outcomes[0]);
    assert!(error.contains("refused 3 times") && error.contains("words"), "{error}");
    assert_eq!(fallback, "Let me think.");
    assert!(deltas(&game, npc).is_empty());
    assert_eq!(game.turns(npc), [turn("Plato", "one")]);
}

#[test]
fn a_refused_later_sentence_ends_the_reply_before_it() {
    let (mut game, npc) = scripted(b"I know nothing. I am an AI. Ask me.\0");
    game.say(npc, "one");
    let outcomes = game.run_until_outcomes(npc, 1);
    assert_eq!(finished(&outcomes[0]), ("I know nothing.", StopReason::Refused));
    assert_eq!(refused(&outcomes[0]), ["ai_claims"]);
    assert_eq!(game.turns(npc)[1..], [turn("Socrates", "I know nothing.")]);
}

#[test]
fn a_told_line_streams_over_frames_and_enters_the_conversation() {
    let (mut game, npc) = ready(Setup::default());
    game.update(20);
    game.trigger(Tell::new(npc, " The key is  lost. Find it! "));
    assert!(game.is_speaking(npc) && game.log(npc).is_empty());
    game.app.update();
    assert_eq!(game.log(npc), [Heard::Started, Heard::Delta("The".into())]);
    let outcomes = game.run_until_outcomes(npc, 1);
    assert_eq!(finished(&outcomes[0]), ("The key is  lost. Find it!", StopReason::Told));
    assert_eq!(deltas(&game, npc), ["The", " key", " is", "  lost.", " Find", " it!"], "one a frame");
    assert_eq!(game.turns(npc), [turn("Socrates", "The key is  lost. Find it!")]);
    game.app.world_mut().resource_mut::<ElenchusSettings>().filter = Some(SpeechFilter::default());
    game.trigger(Tell::new(npc, "I am an AI. So be it."));
    game.run_until_outcomes(npc, 2);
    assert_eq!(deltas(&game, npc)[6..], ["I am an AI.", " So be it."], "by sentences with a filter, which judges none");
    game.say(npc, "Where?");
    finished(&game.run_until_outcomes(npc, 3)[2]);
}

#[test]
fn a_told_line_needs_the_character_and_no_model() {
    let mut game = Setup { failing_loads: usize::MAX, ..default() }.start();
    let npc = game.spawn(SOCRATES);
    game.trigger(Tell::new(npc, "Know thyself."));
    assert_eq!(finished(&game.run_until_outcomes(npc, 1)[0]).1, StopReason::Told);
    game.run_until("no model", |game| matches!(game.status(), EngineStatus::Failed { .. }));
    game.trigger(StopEngine);
    game.trigger(Tell::new(npc, "Know thyself."));
    assert_eq!(finished(&game.run_until_outcomes(npc, 2)[1]).1, StopReason::Told);
    let nobody = game.spawn("adapters://nobody/character.toml");
    game.trigger(Tell::new(nobody, "Know thyself."));
    let outcomes = game.run_until_outcomes(nobody, 1);
    assert!(failed(&outcomes[0]).0.contains("nobody/character.toml"));
}

#[test]
fn a_told_line_waits_replaces_or_is_refused_as_others_are() {
    let (mut game, npc) = ready(with_settings(WhileSpeaking::Queue));
    game.say_and_stop_midway(npc, "one");
    game.trigger(Tell::new(npc, "Wait."));
    game.say(npc, "two");
    game.valve.open();
    let outcomes = game.run_until_outcomes(npc, 3);
    assert_eq!(finished(&outcomes[1]), ("Wait.", StopReason::Told));
    assert_eq!(game.turns(npc)[2..4], [turn("Socrates", "Wait."), turn("Plato", "two")]);

    game.app.world_mut().resource_mut::<ElenchusSettings>().while_speaking = WhileSpeaking::Refuse;
    game.trigger(Tell::new(npc, "One two three."));
    game.trigger(Tell::new(npc, "Four."));
    game.say(npc, "five");
    let outcomes = game.run_until_outcomes(npc, 6);
    assert_eq!(outcomes[3..].iter().filter(|outcome| matches!(outcome, Heard::Failed { .. })).count(), 2);

    game.app.world_mut().resource_mut::<ElenchusSettings>().while_speaking = WhileSpeaking::Replace;
    game.trigger(Tell::new(npc, "One two three."));
    game.app.update();
    game.trigger(Tell::new(npc, "Four."));
    let outcomes = game.run_until_outcomes(npc, 8);
    assert_eq!(finished(&outcomes[6]), ("One", StopReason::Cancelled));
    assert_eq!(finished(&outcomes[7]), ("Four.", StopReason::Told));
}

#[test]
fn a_told_line_can_be_cancelled_and_its_speaker_despawned() {
    let (mut game, npc) = ready(Setup::default());
    game.update(20);
    game.trigger(Tell::new(npc, "One two three."));
    game.say(npc, "waits");
    game.app.update();
    game.app.world_mut().entity_mut(npc).remove::<Speaking>();
    for (outcome, expected) in game.run_until_outcomes(npc, 2).iter().zip(["One", ""]) {
        assert_eq!(finished(outcome), (expected, StopReason::Cancelled));
    }
    game.update(10);
    assert_eq!(game.turns(npc), [turn("Socrates", "One")]);
    game.app.world_mut().entity_mut(npc).observe(|e: On<ReplyDelta>, mut commands: Commands| {
        commands.entity(e.entity).despawn();
    });
    game.trigger(Tell::new(npc, "One two three."));
    game.run_until("it is gone", |game| game.app.world().get_entity(npc).is_err());
    game.update(10);
    assert_eq!(game.outcomes(npc).len(), 2);
    game.trigger(Tell::new(npc, "One two three."));
    game.update(10);
}

#[test]
fn a_told_line_is_saved_and_draws_nothing() {
    let (mut game, npc) = ready(Setup::default());
    game.trigger(Tell::new(npc, "One two three."));
    let midway = save(&game, npc);
    assert!(midway.turns.is_empty() && !midway.awaiting_reply, "in mid-line nothing of it is saved");
    game.run_until_outcomes(npc, 1);
    let (mut loaded, loaded_npc) = load(&game, Setup::default(), save(&game, npc));
    assert_eq!(loaded.turns(loaded_npc), [turn("Socrates", "One two three.")]);
    let heard = game.spawn(SOCRATES);
    game.trigger(Hear::new(heard, "Socrates", "One two three."));
    game.say(npc, "And four?");
    game.say(heard, "And four?");
    loaded.say(loaded_npc, "And four?");
    let expected = ids(&game.run_until_outcomes(npc, 2)[1]);
    assert_eq!(ids(&game.run_until_outcomes(heard, 1)[0]), expected, "as if it had been heard");
    assert_eq!(ids(&loaded.run_until_outcomes(loaded_npc, 1)[0]), expected);
}

#[test]
fn weights_without_their_configuration_and_a_missing_source_are_explained() {
    let mut game = Setup::default().start();
    write(game.folder.path().join("adapters/socrates/adapter_model.safetensors"), "weights");
    game.run_until_ready();
    let npc = game.spawn(SOCRATES);
    game.say(npc, "one");
    let outcomes = game.run_until_outcomes(npc, 1);
    let (error, fallback) = failed(&outcomes[0]);
    assert!(error.contains("socrates/adapter_config.json is missing beside"), "{error}");
    assert!(error.contains("hint: copy both files"), "{error}");
    assert_eq!(fallback, "...");
    let elsewhere = game.spawn("voices://socrates/character.toml");
    game.say(elsewhere, "one");
    let outcomes = game.run_until_outcomes(elsewhere, 1);
    let (error, _) = failed(&outcomes[0]);
    assert!(
        error.contains("voices") && error.contains("add `AdaptersSourcePlugin` before `DefaultPlugins`"),
        "{error}"
    );
}

#[test]
fn every_row_of_the_guide_is_a_test_and_every_test_a_row() {
    common::check_rows("## An outcome for everything", include_str!("outcomes.rs"));
}
