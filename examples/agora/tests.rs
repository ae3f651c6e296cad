//! Plays the game by scripts and keys, with no window, through its own systems and the real model.

use std::{env, fs, path::PathBuf, process::Command, sync::Arc, time::Duration};

use bevy::{
    input::{
        ButtonState,
        keyboard::{Key, KeyboardInput},
    },
    prelude::*,
    time::TimeUpdateStrategy,
    window::PrimaryWindow,
};
use bevy_elenchus::{ReplyReport, prelude::*};
use clap::Parser;

use crate::{
    args::Args,
    bubbles::{Bubble, Paper, Utter, Words},
    crowd::Character,
    dialogue::History,
    notice::Notice,
    player::{NAME, Player},
    script::{Running, Script},
    talk::{BeginTalk, Talk},
    votes::VoteLine,
};

/// The length of a frame in game time, however long it takes.
const FRAME: Duration = Duration::from_millis(33);
/// Frames until something must have happened; the engine works meanwhile.
const PATIENCE: usize = 60_000;

/// Finished replies, in order.
#[derive(Resource, Default)]
struct Heard(Vec<(Entity, ReplyReport)>);

fn game(arguments: &[&str]) -> App {
    let always = ["agora", "--headless", "--quiet", "--seed", "8"];
    let args = Args::parse_from(always.iter().chain(arguments).copied());
    let mut app = crate::agora(args);
    // Tests act between two words, so words are not held back until their sentence is whole.
    app.world_mut().resource_mut::<ElenchusSettings>().filter = None;
    app.insert_resource(TimeUpdateStrategy::ManualDuration(FRAME)).init_resource::<Heard>().add_observer(
        |finished: On<ReplyFinished>, mut heard: ResMut<Heard>| {
            heard.0.extend(finished.report.clone().map(|report| (finished.entity, report)));
        },
    );
    app.finish();
    app.cleanup();
    app.update();
    app
}

fn run_until(app: &mut App, what: &str, mut is: impl FnMut(&mut World) -> bool) {
    for _ in 0..PATIENCE {
        app.update();
        if is(app.world_mut()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{what} has not happened within {PATIENCE} frames");
}

fn play(app: &mut App, script: &str) {
    app.insert_resource(Running::new(Script::parse(script).unwrap()));
    run_until(app, script, |world| world.resource::<Running>().is_over());
}

fn frames(app: &mut App, count: usize) {
    for _ in 0..count {
        app.update();
    }
}

fn character(world: &mut World, folder: &str) -> Entity {
    let mut characters = world.query::<(Entity, &Character)>();
    characters.iter(world).find(|(_, character)| character.folder == folder).unwrap().0
}

fn last(app: &App) -> &ReplyReport {
    &app.world().resource::<Heard>().0.last().expect("a reply has finished").1
}

fn key(app: &mut App, key_code: KeyCode, logical_key: Key, state: ButtonState) {
    let mut windows = app.world_mut().query_filtered::<Entity, With<PrimaryWindow>>();
    let window = windows.single(app.world()).unwrap();
    let text = match &logical_key {
        Key::Character(text) if state == ButtonState::Pressed => Some(text.clone()),
        _ => None,
    };
    app.world_mut().write_message(KeyboardInput { key_code, logical_key, state, text, repeat: false, window });
}

/// Pressed in one frame and released in the next.
fn press(app: &mut App, key_code: KeyCode, logical_key: Key) {
    key(app, key_code, logical_key.clone(), ButtonState::Pressed);
    app.update();
    key(app, key_code, logical_key, ButtonState::Released);
    app.update();
}

fn type_text(app: &mut App, text: &str) {
    for letter in text.chars() {
        let logical = if letter == ' ' { Key::Space } else { Key::Character(letter.to_string().into()) };
        let window = app.world_mut().query_filtered::<Entity, With<PrimaryWindow>>().single(app.world()).unwrap();
        for state in [ButtonState::Pressed, ButtonState::Released] {
            app.world_mut().write_message(KeyboardInput {
                // The key's position on a Greek keyboard does not matter here.
                key_code: KeyCode::F24,
                logical_key: logical.clone(),
                state,
                text: Some(letter.to_string().into()),
                repeat: false,
                window,
            });
        }
    }
}

#[test]
fn a_walk_to_two_characters_hears_two_voices_of_the_real_model() {
    let mut app = game(&["--characters", "socrates,hermes"]);
    let ask = |app: &mut App, who: &str| {
        let npc = character(app.world_mut(), who);
        app.world_mut().entity_mut(npc).insert(Conversation::from_seed(8));
        play(app, &format!("wait model\nwalk {who}\nsay What is courage?\nwait reply\nleave"));
        let (entity, report) = app.world().resource::<Heard>().0.last().unwrap().clone();
        assert_eq!(entity, npc);
        assert!(!report.text.trim().is_empty());
        report
    };
    let socrates = ask(&mut app, "socrates");
    let hermes = ask(&mut app, "hermes");
    let socrates_again = ask(&mut app, "socrates");
    assert_ne!(socrates.text, hermes.text);
    assert!(socrates.adapter.is_some() && hermes.adapter.is_some());
    assert_ne!(socrates.adapter, hermes.adapter);
    assert_eq!((&socrates.reply_ids, socrates.adapter), (&socrates_again.reply_ids, socrates_again.adapter));

    // The same persona, prompt and seed; only the voice differs.
    let npc = character(app.world_mut(), "socrates");
    app.world_mut().get_mut::<Npc>(npc).unwrap().voice = Voice::Base;
    let base = ask(&mut app, "socrates");
    assert_eq!((base.adapter, base.prompt_tokens), (None, socrates.prompt_tokens));
    assert_ne!(base.reply_ids, socrates.reply_ids);
}

#[test]
fn a_retrained_voice_is_heard_without_a_restart_with_the_real_model() {
    let shipped = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../adapters");
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("socrates");
    fs::create_dir(&own).unwrap();
    for file in ["character.toml", "adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(shipped.join("socrates").join(file), own.join(file)).unwrap();
    }
    let mut app = game(&["--characters", "socrates", "--adapters", folder.path().to_str().unwrap()]);
    let npc = character(app.world_mut(), "socrates");
    let ask = |app: &mut App| {
        app.world_mut().entity_mut(npc).insert(Conversation::from_seed(8));
        play(app, "wait model\nwalk socrates\nsay What is courage?\nwait reply\nleave");
        last(app).clone()
    };
    // As a trainer saves: beside the file first, then renamed.
    let save = |app: &mut App, from: &str| {
        let loaded = |world: &World| {
            let voices = world.resource::<Assets<AdapterAsset>>();
            voices.iter().map(|(_, voice)| Arc::clone(&voice.lora)).next().expect("a voice is loaded")
        };
        let before = loaded(app.world());
        let new = own.join("new");
        fs::copy(shipped.join(from).join("adapter_model.safetensors"), &new).unwrap();
        fs::rename(new, own.join("adapter_model.safetensors")).unwrap();
        run_until(app, "another voice", |world| !Arc::ptr_eq(&loaded(world), &before));
        ask(app)
    };
    let socrates = ask(&mut app);
    let other = save(&mut app, "hermes");
    assert_ne!((other.adapter, &other.reply_ids), (socrates.adapter, &socrates.reply_ids));
    let restored = save(&mut app, "socrates");
    assert_eq!((restored.adapter, restored.reply_ids), (socrates.adapter, socrates.reply_ids));
}

const SECOND_LINE: &str = "And is a brave man also wise?";

/// Run by the test below, in a separate process.
#[test]
#[ignore = "another test runs it"]
fn load_in_another_process() {
    let file = env::var("AGORA_SAVE").expect("run by another test");
    let mut app = game(&["--characters", "socrates", "--save", &file]);
    play(&mut app, &format!("wait model\nload\nwalk socrates\nsay {SECOND_LINE}\nwait reply"));
    let report = last(&app);
    let ids = serde_json::to_string(&(&report.reply_ids, report.prompt_tokens)).unwrap();
    fs::write(env::var("AGORA_REPLY").unwrap(), ids).unwrap();
}

fn in_another_process(save: &str) -> (Vec<u32>, usize) {
    let reply = format!("{save}.reply");
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", "tests::load_in_another_process", "--ignored"])
        .env("AGORA_SAVE", save)
        .env("AGORA_REPLY", &reply)
        .status()
        .unwrap();
    assert!(status.success());
    serde_json::from_str(&fs::read_to_string(reply).unwrap()).unwrap()
}

#[test]
fn a_game_loaded_in_another_process_continues_as_its_unsaved_twin_with_the_real_model() {
    let folder = tempfile::tempdir().unwrap();
    let save = folder.path().join("save.json").to_str().unwrap().to_owned();
    let mut app = game(&["--characters", "socrates", "--save", &save]);
    play(&mut app, "wait model\nwalk socrates\nsay What is courage?\nwait reply\nsave");
    play(&mut app, &format!("say {SECOND_LINE}\nwait reply"));
    let twin = (last(&app).reply_ids.clone(), last(&app).prompt_tokens);
    assert_eq!(in_another_process(&save), twin);

    let mut forgetful: serde_json::Value = serde_json::from_str(&fs::read_to_string(&save).unwrap()).unwrap();
    let turns = &mut forgetful["characters"][0]["conversation"]["said"]["turns"];
    assert_eq!(turns.as_array().unwrap().len(), 3, "a greeting, a question, a reply");
    *turns = serde_json::json!([]);
    fs::write(&save, forgetful.to_string()).unwrap();
    let (_, prompt_tokens) = in_another_process(&save);
    assert_ne!(prompt_tokens, twin.1);
}

#[test]
fn a_game_saved_in_mid_reply_asks_again_with_the_real_model() {
    let folder = tempfile::tempdir().unwrap();
    let save = folder.path().join("save.json").to_str().unwrap().to_owned();
    let mut app = game(&["--characters", "socrates", "--save", &save]);
    play(&mut app, "wait model\nwalk socrates\nsay What is courage?\nwait words 2\nsave\nwait reply");
    let lost = last(&app).reply_ids.clone();
    play(&mut app, "load\nwalk socrates\nwait reply");
    let heard = app.world().resource::<Heard>();
    assert_eq!(heard.0.len(), 2);
    assert_eq!(last(&app).reply_ids, lost);
}

#[test]
fn a_save_that_cannot_be_read_changes_nothing_and_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let save = folder.path().join("save.json");
    let mut app = game(&["--characters", "socrates", "--save", save.to_str().unwrap()]);
    frames(&mut app, 5);
    let socrates = character(app.world_mut(), "socrates");
    let before = app.world().get::<Conversation>(socrates).unwrap().clone();
    for (text, says) in [
        (None, "hint: F5 saves a game"),
        (Some("{\"version\":1}"), "this is no save game: missing field `player`"),
        (Some(r#"{"version":9,"player":{"x":0,"z":0,"yaw":0},"characters":[],"groups":[]}"#), "it is of version 9"),
    ] {
        if let Some(text) = text {
            fs::write(&save, text).unwrap();
        }
        press(&mut app, KeyCode::F9, Key::F9);
        app.update();
        let mut notices = app.world_mut().query_filtered::<&Text, With<Notice>>();
        let notice = &notices.single(app.world()).unwrap().0;
        assert!(notice.contains("save.json") && notice.contains(says), "{notice}");
    }
    assert_eq!(app.world().get::<Conversation>(socrates).unwrap(), &before);
}

#[test]
fn keys_open_a_talk_say_a_line_in_greek_and_end_it_with_the_real_model() {
    let mut app = game(&["--characters", "socrates"]);
    play(&mut app, "wait model\nplace 0 0.4\nwait 0.2");
    let socrates = character(app.world_mut(), "socrates");
    press(&mut app, KeyCode::KeyE, Key::Character("e".into()));
    app.update();
    assert_eq!(app.world().resource::<Talk>().with, Some(socrates));
    type_text(&mut app, "Χαῖρε, what news?");
    press(&mut app, KeyCode::Enter, Key::Enter);
    let said = |app: &App| app.world().get::<Conversation>(socrates).unwrap().turns.last().cloned().unwrap();
    // The E that opened it is not part of the line.
    assert_eq!((said(&app).speaker.as_str(), said(&app).text.as_str()), (NAME, "Χαῖρε, what news?"));
    run_until(&mut app, "a word", |world| world.get::<Speaking>(socrates).is_some_and(|it| !it.text().is_empty()));
    press(&mut app, KeyCode::Escape, Key::Escape);
    assert_eq!(app.world().resource::<Talk>().with, None);
    assert!(app.world().get::<Speaking>(socrates).is_none());
    assert_eq!(said(&app).speaker, "Socrates", "what was said so far is remembered");

    // Letters are steps again, and the history is gone.
    let place = |app: &mut App| {
        app.world_mut().query_filtered::<&Transform, With<Player>>().single(app.world()).unwrap().translation
    };
    let before = place(&mut app);
    key(&mut app, KeyCode::KeyS, Key::Character("s".into()), ButtonState::Pressed);
    frames(&mut app, 5);
    assert!(place(&mut app).z > before.z + 0.3);
    let history = app.world_mut().query_filtered::<&Visibility, With<History>>().single(app.world()).unwrap();
    assert_eq!(history, Visibility::Hidden);
}

#[test]
fn who_walks_away_cuts_the_reply_short_with_the_real_model() {
    let mut app = game(&["--characters", "socrates"]);
    play(&mut app, "wait model\nwalk socrates");
    let socrates = character(app.world_mut(), "socrates");
    // One step from where the talk ends: on the whole way a reply of one sentence may come to its end.
    let from = app.world().get::<Transform>(socrates).unwrap().translation;
    let mut player = app.world_mut().query_filtered::<&mut Transform, With<Player>>();
    let mut player = player.single_mut(app.world_mut()).unwrap();
    player.translation = from + 3.39 * (player.translation - from).with_y(0.0).normalize();
    play(&mut app, "say What is courage?\nwait words 1");
    key(&mut app, KeyCode::ArrowDown, Key::ArrowDown, ButtonState::Pressed);
    run_until(&mut app, "the end of the talk", |world| world.resource::<Talk>().with.is_none());
    frames(&mut app, 2);
    assert!(app.world().get::<Speaking>(socrates).is_none());
    let mut bubbles = app.world_mut().query::<&Bubble>();
    let said = &bubbles.single(app.world()).unwrap().text;
    assert!(said.ends_with(" —"), "{said}");
}

#[test]
fn an_opinion_is_a_line_that_a_trainer_reads_with_the_real_model() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("votes.jsonl");
    let mut app = game(&["--characters", "socrates", "--votes", file.to_str().unwrap()]);
    // A greeting answers nothing.
    play(&mut app, "wait model\nwalk socrates\nvote up\nsay What is courage?\nwait reply\nvote up\nvote down");
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<VoteLine> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    let report = last(&app);
    let line = &lines[0];
    assert_eq!((line.character.as_str(), &line.reply), ("Socrates", &report.text));
    assert_eq!(line.context.last().unwrap().text, "What is courage?");
    assert_eq!(line.adapter, report.adapter.map(|id| id.to_string()));
    assert!(text.lines().next().unwrap().contains(r#""vote":"up""#) && text.contains(r#""vote":"down""#));
}

#[test]
fn two_talk_until_the_player_speaks_beside_them_with_the_real_model() {
    let mut app = game(&["--characters", "socrates,hermes,alcibiades"]);
    play(&mut app, "wait model\nmeet hermes socrates\nwait chat");
    let group = app.world_mut().query_filtered::<Entity, With<ConversationGroup>>().single(app.world()).unwrap();
    let turns = |app: &App| app.world().get::<ConversationGroup>(group).map(|group| group.turns);
    run_until(&mut app, "two turns", |world| world.get::<ConversationGroup>(group).is_some_and(|it| it.turns >= 2));
    let alcibiades = character(app.world_mut(), "alcibiades");
    app.world_mut().trigger(BeginTalk { entity: alcibiades });
    // Far from all characters no talk is possible: stand where the talk is.
    let beside = app.world().get::<Transform>(alcibiades).unwrap().translation;
    let mut player = app.world_mut().query_filtered::<&mut Transform, With<Player>>();
    player.single_mut(app.world_mut()).unwrap().translation = beside + Vec3::Z * 1.5;
    app.update();
    let before = turns(&app);
    frames(&mut app, 600);
    assert_eq!(turns(&app), before, "twenty seconds beside the player's talk");
    let speaking = app.world_mut().query::<&Speaking>().iter(app.world()).count();
    assert_eq!(speaking, 0);
    play(&mut app, "leave");
    run_until(&mut app, "another turn, or the end", |world| {
        world.get::<ConversationGroup>(group).is_none_or(|it| Some(it.turns) > before)
    });
}

#[test]
fn a_walk_to_a_meeting_continues_after_loading_with_the_real_model() {
    let folder = tempfile::tempdir().unwrap();
    let save = folder.path().join("save.json").to_str().unwrap().to_owned();
    let mut app = game(&["--characters", "socrates,hermes", "--save", &save]);
    // Before they stroll: after a wait for the model they may stand side by side.
    play(&mut app, "meet hermes socrates\nwait 0.3\nsave\nload");
    let mut groups = app.world_mut().query::<Option<&ConversationGroup>>();
    assert!(groups.iter(app.world()).all(|group| group.is_none()), "they are not there yet");
    play(&mut app, "wait model\nwait chat\nsave\nload\nwait 0.1");
    let turns = |world: &mut World| world.query::<&ConversationGroup>().single(world).unwrap().turns;
    let before = turns(app.world_mut());
    run_until(&mut app, "another turn", |world| turns(world) > before);
}

/// Corners of nodes, in physical pixels.
fn rect(node: &ComputedNode, transform: &UiGlobalTransform) -> Rect {
    Rect::from_center_size(transform.translation, node.size())
}

#[test]
fn a_bubble_holds_its_words_and_the_window_the_bubble() {
    for size in [(1280.0, 720.0), (640.0, 360.0), (2560.0, 1080.0)] {
        bubbles_hold_their_words(Vec2::from(size));
    }
}

fn bubbles_hold_their_words(size: Vec2) {
    let mut app = game(&["--characters", "socrates", "--size", &format!("{}x{}", size.x, size.y)]);
    run_until(&mut app, "a font", |world| {
        let assets = world.resource::<AssetServer>();
        assets.get_handle::<Font>("fonts/GFSNeohellenic.otf").is_some_and(|font| assets.is_loaded(&font))
    });
    frames(&mut app, 5);
    let socrates = character(app.world_mut(), "socrates");
    let mut seen = 0;
    let long = "Whoever says that courage is knowledge must say what it is knowledge of. ".repeat(14);
    let unbroken = "ἀνδρεία".repeat(60);
    for text in
        ["Yes.", "Οὐκ οἶδα, ὦ φίλε.", "I am going to the agora with you, my friend, and so are they.", &long, &unbroken]
    {
        for (x, z) in [(0.0, 7.5), (0.0, 1.0), (6.0, -1.5), (-9.0, 3.0)] {
            play(&mut app, &format!("place {x} {z}"));
            app.world_mut().trigger(Utter { entity: socrates, text: text.into() });
            frames(&mut app, 4);
            let mut papers = app
                .world_mut()
                .query_filtered::<(&ComputedNode, &UiGlobalTransform, &InheritedVisibility), With<Paper>>();
            let (node, transform, visible) = papers.single(app.world()).unwrap();
            let paper = rect(node, transform);
            if !visible.get() {
                continue;
            }
            seen += 1;
            let mut words = app.world_mut().query_filtered::<(&ComputedNode, &UiGlobalTransform), With<Words>>();
            let (node, transform) = words.single(app.world()).unwrap();
            let words = rect(node, transform);
            let shown = &text.chars().take(20).collect::<String>();
            assert!(words.width() > 8.0 && words.height() > 12.0, "{shown}: no text was laid out: {words:?}");
            assert!(
                words.min.x >= paper.min.x && words.max.x <= paper.max.x,
                "{shown}: {words:?} spills out of {paper:?}"
            );
            assert!(words.max.y <= paper.max.y, "{shown}: the newest words {words:?} are below {paper:?}");
            let window = Rect::from_corners(Vec2::ZERO, size);
            assert_eq!(paper.union(window), window, "{shown}: {paper:?}");
        }
    }
    assert!(seen >= 10, "{seen} bubbles were seen");
}

#[test]
fn without_a_model_characters_speak_fallback_lines_and_the_player_sees_what_to_do() {
    let mut app = game(&["--characters", "socrates", "--base", "there/is/none.gguf"]);
    let shown =
        |app: &mut App| app.world_mut().query_filtered::<&Text, With<Notice>>().single(app.world()).unwrap().0.clone();
    run_until(&mut app, "the failure", |world| matches!(world.resource::<EngineStatus>(), EngineStatus::Failed { .. }));
    frames(&mut app, 2);
    let notice = shown(&mut app);
    assert!(notice.contains("cargo run --release -- model fetch") && notice.contains("none.gguf"), "{notice}");
    play(&mut app, "walk socrates\nsay What is courage?\nwait 0.2");
    let socrates = character(app.world_mut(), "socrates");
    let characters = app.world().resource::<Assets<CharacterAsset>>();
    let fallbacks =
        characters.get(&app.world().get::<Npc>(socrates).unwrap().character).unwrap().character.fallbacks.clone();
    let bubble = app.world_mut().query::<&Bubble>().single(app.world()).unwrap().text.clone();
    assert!(fallbacks.contains(&bubble), "{bubble}");
}

#[test]
fn a_broken_voice_is_reported_briefly_and_never_used_with_the_real_model() {
    let shipped = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../adapters/socrates");
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("socrates");
    fs::create_dir(&own).unwrap();
    for file in ["character.toml", "adapter_config.json"] {
        fs::copy(shipped.join(file), own.join(file)).unwrap();
    }
    fs::write(own.join("adapter_model.safetensors"), "half of it").unwrap();
    let mut app = game(&["--characters", "socrates", "--adapters", folder.path().to_str().unwrap()]);
    play(&mut app, "wait model\nwalk socrates\nsay What is courage?\nwait 0.2");
    let notice = app.world_mut().query_filtered::<&Text, With<Notice>>().single(app.world()).unwrap().0.clone();
    assert!(notice.contains("socrates/adapter_model.safetensors") && notice.contains("adapter inspect"), "{notice}");
    assert!(notice.lines().count() <= 3, "{notice}");
    assert!(app.world().resource::<Heard>().0.is_empty());
    let bubble = app.world_mut().query::<&Bubble>().single(app.world()).unwrap().text.clone();
    assert!(!bubble.is_empty());

    let new = own.join("new");
    fs::copy(shipped.join("adapter_model.safetensors"), &new).unwrap();
    fs::rename(new, own.join("adapter_model.safetensors")).unwrap();
    run_until(&mut app, "the end of the notice", |world| {
        world.query_filtered::<&Text, With<Notice>>().single(world).unwrap().0.is_empty()
    });
    play(&mut app, "say What is courage?\nwait reply");
    assert!(last(&app).adapter.is_some());
}

#[test]
fn what_cannot_be_written_is_reported_and_ends_no_game_with_the_real_model() {
    let nowhere = ["--characters", "socrates", "--save", "/there/is/none.json", "--votes", "/there/is/none.jsonl"];
    let mut app = game(&nowhere);
    play(&mut app, "wait model\nwalk socrates\nsay What is courage?\nwait reply\nvote up\nsave\nwait 0.1");
    let notice = app.world_mut().query_filtered::<&Text, With<Notice>>().single(app.world()).unwrap().0.clone();
    assert!(notice.contains("none.jsonl") && notice.contains("Not saved: /there/is/none.json"), "{notice}");
}

#[test]
fn pictures_and_scripts_of_the_readme_are_scripts() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("agora/scripts");
    let scripts: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!scripts.is_empty());
    for script in scripts {
        Script::read(script.to_str().unwrap()).unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    }
}
