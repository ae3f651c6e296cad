//! The plugin on the real model, with the characters that come with it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::Duration,
};

use bevy::prelude::*;
use bevy_elenchus::{ReplyReport, prelude::*};
use elenchus_fetch::fetch_default;

const SOCRATES: &str = "adapters://socrates/character.toml";

/// The result of one reply.
#[derive(Resource, Default)]
struct Heard {
    deltas: String,
    finished: Vec<(String, StopReason, ReplyReport)>,
    failed: Vec<String>,
}

fn game() -> App {
    let base = fetch_default(&mut |_| {}).expect("the default model can be fetched");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut app = App::new();
    app.add_plugins((
        AdaptersSourcePlugin { folder: root.join("adapters").display().to_string() },
        MinimalPlugins,
        AssetPlugin::default(),
        ElenchusPlugins.set(SpeechPlugin { engine: EngineSettings { base: Some(base), ..default() }, ..default() }),
    ))
    .init_resource::<Heard>()
    .add_observer(|e: On<ReplyDelta>, mut heard: ResMut<Heard>| heard.deltas.push_str(&e.text))
    .add_observer(|e: On<ReplyFinished>, mut heard: ResMut<Heard>| {
        let report = e.report.clone().expect("nothing is cancelled here");
        heard.finished.push((e.text.clone(), e.stop, report));
    })
    .add_observer(|e: On<ReplyFailed>, mut heard: ResMut<Heard>| heard.failed.push(e.error.to_string()));
    app.finish();
    app.cleanup();
    app
}

fn spawn(app: &mut App, conversation: Conversation) -> Entity {
    let character = app.world().resource::<AssetServer>().load(SOCRATES);
    app.world_mut().spawn((Npc::new(character), conversation)).id()
}

/// Says a line and runs frames until it is answered.
fn reply(app: &mut App, npc: Entity, line: &str, max_tokens: usize) -> (String, StopReason, ReplyReport) {
    app.world_mut().resource_mut::<Heard>().deltas.clear();
    app.world_mut().commands().trigger(Say::new(npc, "Plato", line).max_tokens(max_tokens));
    app.world_mut().flush();
    for _ in 0..60_000 {
        app.update();
        let heard = app.world().resource::<Heard>();
        assert_eq!(heard.failed, Vec::<String>::new());
        if app.world().get::<Speaking>(npc).is_none() {
            return heard.finished.last().cloned().expect("a reply that is over has finished");
        }
        sleep(Duration::from_millis(5));
    }
    panic!("no reply in five minutes: {:?}", app.world().resource::<EngineStatus>());
}

#[test]
fn real_model_socrates_answers() {
    let mut app = game();
    let npc = spawn(&mut app, Conversation::from_seed(1));
    let (text, stop, first) = reply(&mut app, npc, "Socrates, what is courage?", 24);
    assert!(text.split_whitespace().count() >= 3, "{text:?} is no answer");
    assert_eq!(text, app.world().resource::<Heard>().deltas);
    assert!(matches!(stop, StopReason::EndToken | StopReason::MaxTokens | StopReason::MaxSentences), "{stop:?}");
    assert!(first.prompt_tokens > 100, "the persona is in the prompt: {first:?}");
    let (_, _, second) = reply(&mut app, npc, "And what is virtue?", 8);
    assert!(second.cached_tokens >= first.prompt_tokens, "what was read and said is not read again: {second:?}");
    let turns = &app.world().get::<Conversation>(npc).expect("an NPC").turns;
    assert_eq!(turns.iter().map(|turn| &*turn.speaker).collect::<Vec<_>>(), ["Plato", "Socrates", "Plato", "Socrates"]);
}

/// The file where the parent of this process saved the game, and the one for the ids of the next reply.
const SAVED_GAME: &str = "ELENCHUS_TEST_SAVED_GAME";

#[test]
fn real_model_a_saved_game_goes_on_in_a_new_process() {
    if let Some(folder) = env::var_os(SAVED_GAME) {
        return go_on(&PathBuf::from(folder));
    }
    let mut app = game();
    let npc = spawn(&mut app, Conversation::from_seed(1));
    reply(&mut app, npc, "Socrates, what is courage?", 12);
    let folder = tempfile::tempdir().expect("a folder");
    let saved = serde_json::to_string(app.world().get::<Conversation>(npc).expect("an NPC")).expect("JSON");
    fs::write(folder.path().join("save.json"), saved).expect("a save game");
    let (_, _, twin) = reply(&mut app, npc, "And what is virtue?", 12);

    let output = Command::new(env::current_exe().expect("this test"))
        .args(["--exact", "real_model_a_saved_game_goes_on_in_a_new_process", "--nocapture"])
        .env(SAVED_GAME, folder.path())
        .output()
        .expect("a new process");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ids = fs::read_to_string(folder.path().join("ids.json")).expect("ids of the new process");
    assert_eq!(serde_json::from_str::<Vec<u32>>(&ids).expect("JSON"), twin.reply_ids);
}

/// The new process: loads the save, says the same next line, and writes the ids of its reply.
fn go_on(folder: &Path) {
    let saved = fs::read_to_string(folder.join("save.json")).expect("a save game");
    let mut app = game();
    let npc = spawn(&mut app, serde_json::from_str(&saved).expect("JSON"));
    let (_, _, report) = reply(&mut app, npc, "And what is virtue?", 12);
    fs::write(folder.join("ids.json"), serde_json::to_string(&report.reply_ids).expect("JSON")).expect("ids");
}
