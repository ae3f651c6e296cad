//! The conversation as a game would hold it: NPCs are spawned, lines are `Say`, replies are observed.
#![allow(clippy::too_many_arguments, reason = "a Bevy system names what it reads and writes")]

use anyhow::anyhow;
use bevy::{asset::LoadState, prelude::*};
use bevy_elenchus::prelude::*;
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use elenchus_dialogue::Error;

use super::{
    input::{HELP, Input},
    saved::{Saved, SavedCharacter},
    screen::{JsonReply, Screen, show_json},
};
use crate::{characters::Characters, model::size};

/// What the characters call the person at the keyboard; Plato's word for a guest without a name.
const PLAYER: &str = "Stranger";

/// The person at the keyboard: their input, the screen, and the character they talk to.
#[derive(Resource)]
pub struct Session {
    pub inputs: Receiver<Input>,
    pub interrupts: Receiver<()>,
    /// Takes the error that ends the app.
    pub failed: Sender<anyhow::Error>,
    pub screen: Screen,
    pub characters: Characters,
    pub voice: Voice,
    /// What every character knows of the game.
    pub facts: Vec<String>,
    pub seed: Option<u64>,
    pub max_tokens: Option<usize>,
    /// A person types: failures are reported and the conversation continues.
    pub typed: bool,
    /// The folder of the character talked to.
    pub partner: String,
    /// A line was said and its reply has not ended.
    pub waiting: bool,
    pub last: Option<ReplyReport>,
}

/// Which character an NPC is, by its folder.
#[derive(Component)]
struct Person(String);

/// Its character is still being read; then it becomes the partner.
#[derive(Component)]
struct Entering;

pub fn session_plugin(app: &mut App) {
    app.add_systems(Startup, |mut commands: Commands, session: Res<Session>| {
        commands.run_system_cached_with(call, session.partner.clone());
    })
    .add_systems(Update, (watch_engine, hear_interrupts, enter, take_input).chain())
    .add_observer(on_started)
    .add_observer(on_delta)
    .add_observer(on_finished)
    .add_observer(on_failed);
}

impl Session {
    fn conversation(&self) -> Conversation {
        self.seed.map_or_else(Conversation::default, Conversation::from_seed)
    }

    fn fail(&self, error: anyhow::Error, exit: &mut MessageWriter<AppExit>) {
        // The first error is the one to report.
        let _ = self.failed.try_send(error);
        exit.write(AppExit::error());
    }
}

/// Without a model there is no conversation: a game would continue with fallback lines, here nothing else is left to
/// do.
fn watch_engine(status: Res<EngineStatus>, session: Res<Session>, mut exit: MessageWriter<AppExit>) {
    if let EngineStatus::Failed { error } = &*status {
        session.fail(anyhow!("{error}"), &mut exit);
    }
}

/// Ctrl-C stops a reply, and quits when no reply is running.
fn hear_interrupts(
    session: Res<Session>,
    speaking: Query<Entity, With<Speaking>>,
    mut commands: Commands,
    mut exit: MessageWriter<AppExit>,
) {
    if session.interrupts.try_iter().count() == 0 {
        return;
    }
    if speaking.is_empty() {
        session.screen.leave();
        exit.write(AppExit::Success);
    }
    for entity in &speaking {
        commands.entity(entity).remove::<Speaking>();
    }
}

/// A character whose file has been read becomes the partner; the first one greets.
fn enter(
    mut commands: Commands,
    mut session: ResMut<Session>,
    assets: Res<AssetServer>,
    characters: Res<Assets<CharacterAsset>>,
    mut newcomers: Query<(Entity, &Person, &Npc, &mut Conversation), With<Entering>>,
    others: Query<(), (With<Person>, Without<Entering>)>,
    mut exit: MessageWriter<AppExit>,
) {
    for (entity, person, npc, mut conversation) in &mut newcomers {
        if let Some(asset) = characters.get(&npc.character) {
            let character = &asset.character;
            session.partner.clone_from(&person.0);
            commands.entity(entity).remove::<Entering>();
            if !session.typed {
                continue;
            }
            commands.trigger(WarmUp { entity });
            match character.greetings.first() {
                Some(greeting) if conversation.turns.is_empty() => {
                    session.screen.note("Ctrl-C stops a reply, /help lists the commands.");
                    session.screen.line(&character.name, greeting);
                    conversation.push(&character.name, greeting);
                }
                _ => session.screen.note(&format!("{} is here and has heard what was said.", character.name)),
            }
        } else if let LoadState::Failed(error) = assets.load_state(&npc.character) {
            if others.is_empty() {
                session.fail(anyhow!("character {}: {error}", person.0), &mut exit);
            }
            session.screen.note(&format!("{} cannot be loaded: {error}", person.0));
            commands.entity(entity).despawn();
        }
    }
}

/// One thing at a time: input waits while a reply runs or a character is loading.
fn take_input(
    mut commands: Commands,
    mut session: ResMut<Session>,
    partner: Query<(Entity, &Person)>,
    entering: Query<(), With<Entering>>,
    mut asked: Local<bool>,
    mut exit: MessageWriter<AppExit>,
) {
    if session.waiting || !entering.is_empty() {
        return;
    }
    if !*asked {
        session.screen.prompt();
        *asked = true;
    }
    let input = match session.inputs.try_recv() {
        Ok(input) => input,
        Err(TryRecvError::Empty) => return,
        Err(TryRecvError::Disconnected) => {
            session.screen.leave();
            exit.write(AppExit::Success);
            return;
        }
    };
    *asked = false;
    match input {
        Input::Say(text) => {
            let Some((entity, _)) = partner.iter().find(|(_, person)| person.0 == session.partner) else { return };
            session.screen.said(&text);
            session.waiting = true;
            commands.trigger(Say { max_tokens: session.max_tokens, ..Say::new(entity, PLAYER, text) });
        }
        Input::Who => commands.run_system_cached(who),
        Input::As(name) => match session.characters.id(&name).map(str::to_owned) {
            Ok(id) => commands.run_system_cached_with(call, id),
            Err(error) => session.screen.note(&error.to_string()),
        },
        Input::Reset => commands.run_system_cached(reset),
        Input::Save(path) => commands.run_system_cached_with(save, path),
        Input::Load(path) => match Saved::read(&path) {
            Ok(saved) => commands.run_system_cached_with(load, saved),
            Err(error) => session.screen.note(&format!("{error:#}")),
        },
        Input::Stats => commands.run_system_cached(stats),
        Input::Help => session.screen.note(HELP),
        Input::Unclear(hint) if hint.is_empty() => {}
        Input::Unclear(hint) => session.screen.note(&hint),
        Input::Quit => {
            exit.write(AppExit::Success);
        }
    }
}

/// Makes a character the partner. A new partner has heard what the last partner heard.
fn call(
    In(id): In<String>,
    mut commands: Commands,
    session: Res<Session>,
    assets: Res<AssetServer>,
    mut present: Query<(Entity, &Person, &mut Conversation)>,
) {
    let heard = present.iter().find(|(_, person, _)| person.0 == session.partner);
    let heard = heard.map(|(_, _, conversation)| conversation.turns.clone()).unwrap_or_default();
    if let Some((entity, _, mut conversation)) = present.iter_mut().find(|(_, person, _)| person.0 == id) {
        conversation.turns = heard;
        commands.entity(entity).insert(Entering);
    } else {
        let mut conversation = session.conversation();
        conversation.turns = heard;
        commands.spawn((npc(&id, &session, &assets), conversation, Entering));
    }
}

fn npc(id: &str, session: &Session, assets: &AssetServer) -> (Person, Npc, GameFacts) {
    let character = assets.load(format!("adapters://{id}/character.toml"));
    let npc = Npc::new(character).with_voice(session.voice.clone());
    (Person(id.to_owned()), npc, GameFacts::new(session.facts.clone()))
}

fn who(session: Res<Session>, present: Query<&Person>) {
    for id in &session.characters.ids {
        let state = if *id == session.partner {
            "talks with you".to_owned()
        } else if present.iter().any(|person| person.0 == *id) {
            format!("is here; /as {id}")
        } else {
            format!("can join; /as {id}")
        };
        session.screen.note(&format!("{id:<16}{state}"));
    }
}

/// Clears all conversations, and the partner greets as at the beginning: a greeting is part of the prompt.
fn reset(
    mut session: ResMut<Session>,
    mut present: Query<(&Person, &Npc, &mut Conversation)>,
    characters: Res<Assets<CharacterAsset>>,
) {
    session.screen.note("The conversation starts over.");
    for (person, npc, mut conversation) in &mut present {
        *conversation = session.conversation();
        let character = characters.get(&npc.character).filter(|_| person.0 == session.partner && session.typed);
        if let Some((name, greeting)) =
            character.and_then(|asset| Some((&asset.character.name, asset.character.greetings.first()?)))
        {
            session.screen.line(name, greeting);
            conversation.push(name, greeting);
        }
    }
}

fn save(In(path): In<std::path::PathBuf>, session: Res<Session>, present: Query<(&Person, &Conversation)>) {
    let present = present.iter();
    let present = present
        .map(|(person, conversation)| SavedCharacter { id: person.0.clone(), conversation: conversation.clone() });
    match Saved::new(session.partner.clone(), present.collect()).write(&path) {
        Ok(()) => session.screen.note(&format!("Saved to {}.", path.display())),
        Err(error) => session.screen.note(&format!("{error:#}")),
    }
}

fn load(
    In(saved): In<Saved>,
    mut commands: Commands,
    mut session: ResMut<Session>,
    assets: Res<AssetServer>,
    present: Query<Entity, With<Person>>,
) {
    if let Some(stranger) = saved.present.iter().find(|character| !session.characters.ids.contains(&character.id)) {
        return session.screen.note(&format!(
            "{} took part and is not in {}.",
            stranger.id,
            session.characters.folder.display()
        ));
    }
    for entity in &present {
        commands.entity(entity).despawn();
    }
    for SavedCharacter { id, conversation } in saved.present {
        let is_partner = id == saved.partner;
        if is_partner {
            for turn in conversation.turns.iter().rev().take(2).rev() {
                session.screen.line(&turn.speaker, &turn.text);
            }
        }
        let mut entity = commands.spawn((npc(&id, &session, &assets), conversation));
        if is_partner {
            entity.insert(Entering);
        }
    }
}

fn stats(session: Res<Session>, engine: Res<EngineStats>, status: Res<EngineStatus>) {
    let note = |text: String| session.screen.note(&text);
    note(match &*status {
        EngineStatus::Ready { base } => format!("model         {}, context {} tokens", base.name, base.context),
        EngineStatus::Loading { progress } => format!("model         loading, {:.0}% so far", progress * 100.0),
        EngineStatus::Stopped => "model         none: the engine is stopped".into(),
        EngineStatus::Failed { error, .. } => format!("model         {error}"),
    });
    if let Some(report) = &session.last {
        note(format!(
            "last reply    {} tokens after a prompt of {} ({} cached); first word after {} ms, then {:.0} tokens/s",
            report.reply_ids.len(),
            report.prompt_tokens,
            report.cached_tokens,
            report.first_token.as_millis(),
            report.tokens_per_second
        ));
    }
    note(format!(
        "since start   {} steps: {} prompt tokens read, {} cached, {} generated; KV cache {}",
        engine.steps,
        engine.prompt_tokens,
        engine.cached_tokens,
        engine.reply_tokens,
        size(engine.kv_bytes)
    ));
}

/// The name a character's file gives it.
fn name(entity: Entity, npcs: &Query<(&Npc, &Person)>, characters: &Assets<CharacterAsset>) -> String {
    let Ok((npc, person)) = npcs.get(entity) else { return String::new() };
    characters.get(&npc.character).map_or_else(|| person.0.clone(), |asset| asset.character.name.clone())
}

fn on_started(
    started: On<ReplyStarted>,
    mut session: ResMut<Session>,
    npcs: Query<(&Npc, &Person)>,
    characters: Res<Assets<CharacterAsset>>,
) {
    session.screen.begin(&name(started.entity, &npcs, &characters));
}

fn on_delta(delta: On<ReplyDelta>, mut session: ResMut<Session>) {
    session.screen.words(&delta.text);
}

fn on_finished(
    finished: On<ReplyFinished>,
    mut session: ResMut<Session>,
    npcs: Query<(&Npc, &Person)>,
    characters: Res<Assets<CharacterAsset>>,
    mut exit: MessageWriter<AppExit>,
) {
    session.waiting = false;
    session.screen.end(if finished.stop == StopReason::Cancelled { "[stopped]" } else { "" });
    let Some(report) = &finished.report else { return };
    session.last = Some(report.clone());
    if let Screen::Json = session.screen {
        let reply = JsonReply {
            character: name(finished.entity, &npcs, &characters),
            adapter: report.adapter.map(|id| id.to_string()),
            text: finished.text.clone(),
            stop: finished.stop,
            refused: report.refused.iter().map(|refusal| refusal.rule.clone()).collect(),
            prompt_tokens: report.prompt_tokens,
            reply_tokens: report.reply_ids.len(),
            cached_tokens: report.cached_tokens,
            first_token_ms: report.first_token.as_secs_f64() * 1000.0,
            tokens_per_s: report.tokens_per_second,
        };
        if let Err(error) = show_json(&reply) {
            session.fail(error, &mut exit);
        }
    }
}

fn on_failed(
    failed: On<ReplyFailed>,
    mut session: ResMut<Session>,
    npcs: Query<(&Npc, &Person)>,
    characters: Res<Assets<CharacterAsset>>,
    mut exit: MessageWriter<AppExit>,
) {
    let name = name(failed.entity, &npcs, &characters);
    if let ReplyError::Engine(Error::Refused { rule, .. }) = &failed.error {
        // Every attempt was refused: what a game shows then.
        session.waiting = false;
        session.screen.words(&failed.fallback);
        session.screen.end("");
        if let Screen::Json = session.screen {
            let reply = JsonReply::refused(name, failed.fallback.clone(), rule.clone());
            if let Err(error) = show_json(&reply) {
                session.fail(error, &mut exit);
            }
        }
        return;
    }
    let without = match &failed.error {
        ReplyError::Engine(Error::Adapter(_)) => "; `--adapter none` answers with the persona alone",
        _ => "",
    };
    if !session.typed {
        // Still waiting, so that the next line is not said before the app exits.
        return session.fail(anyhow!("no reply: {}{without}", failed.error), &mut exit);
    }
    session.waiting = false;
    session.screen.end("");
    session.screen.line(&name, &failed.fallback);
    session.screen.note(&format!("(no reply: {}{without})", failed.error));
}
