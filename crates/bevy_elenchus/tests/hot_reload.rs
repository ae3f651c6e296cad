//! A trainer saves, the game goes on, and the next reply is the new voice's.

mod common;

use std::{fs, path::Path};

use bevy::prelude::*;
use bevy_elenchus::prelude::*;
use common::{Game, Heard, SOCRATES, Setup, finished};
use elenchus_lm::testing::TinyModel;

/// Saves an adapter as a trainer does: each file under another name first, then renamed into place.
fn save_adapter(folder: &Path, seed: u64) {
    let trained = tempfile::tempdir().unwrap();
    TinyModel::default().write_adapter(trained.path(), seed);
    for file in ["adapter_model.safetensors", "adapter_config.json"] {
        let unfinished = folder.join(format!(".{file}.tmp"));
        fs::copy(trained.path().join(file), &unfinished).unwrap();
        fs::rename(unfinished, folder.join(file)).unwrap();
    }
}

fn reply_of(game: &mut Game, npc: Entity) -> Vec<u32> {
    let said = game.outcomes(npc).len();
    game.say(npc, "What is courage?");
    match &game.run_until_outcomes(npc, said + 1)[said] {
        Heard::Finished { reply_ids: Some(ids), .. } => ids.clone(),
        other => panic!("no reply: {other:?}"),
    }
}

/// What a game says that has only ever known this adapter.
fn fresh_reply(seed: u64) -> Vec<u32> {
    let mut game = Setup::default().start();
    save_adapter(&game.folder.path().join("adapters/socrates"), seed);
    let npc = game.spawn(SOCRATES);
    reply_of(&mut game, npc)
}

/// The adapter that the game's Socrates would wear now.
fn worn(game: &Game, npc: Entity) -> Option<[u8; 32]> {
    let world = game.app.world();
    let character = world.resource::<Assets<CharacterAsset>>().get(&world.get::<Npc>(npc)?.character)?;
    Some(world.resource::<Assets<AdapterAsset>>().get(character.adapter.as_ref()?)?.lora.hash())
}

/// A new conversation from the same seed, so that replies can be compared.
fn begin_anew(game: &mut Game, npc: Entity) {
    game.app.world_mut().entity_mut(npc).insert(Conversation::from_seed(7));
}

/// A game whose Socrates wears adapter 1, in mid-reply, and the reply that adapter gives.
fn speaking_game() -> (Game, Entity, Vec<u32>) {
    let mut game = Setup::default().start();
    save_adapter(&game.folder.path().join("adapters/socrates"), 1);
    let npc = game.spawn(SOCRATES);
    let first = reply_of(&mut game, npc);
    begin_anew(&mut game, npc);
    game.app.world_mut().resource_mut::<common::Log>().0.clear();
    game.say_and_stop_midway(npc, "What is courage?");
    (game, npc, first)
}

/// The running reply is the old voice's, the next is the new one's.
fn check_swap(mut game: Game, npc: Entity, old: Vec<u32>, reload: impl FnOnce(&mut Game)) {
    let before = worn(&game, npc);
    save_adapter(&game.folder.path().join("adapters/socrates"), 2);
    reload(&mut game);
    game.run_until("the new adapter is there", |game| worn(game, npc) != before);
    game.valve.open();
    let outcomes = game.run_until_outcomes(npc, 1);
    finished(&outcomes[0]);
    let Heard::Finished { reply_ids: Some(running), .. } = &outcomes[0] else { unreachable!() };
    assert_eq!(*running, old, "a running reply finishes in the voice it began in");
    begin_anew(&mut game, npc);
    let new = reply_of(&mut game, npc);
    assert_eq!(new, fresh_reply(2), "the next reply equals a fresh game's");
    assert_ne!(new, old);
}

fn check_broken(mut game: Game, npc: Entity, old: Vec<u32>, reload: impl FnOnce(&mut Game)) {
    game.valve.open();
    game.run_until_outcomes(npc, 1);
    let before = worn(&game, npc);
    let model = game.folder.path().join("adapters/socrates/adapter_model.safetensors");
    let whole = fs::read(&model).unwrap();
    fs::write(&model, &whole[..whole.len() / 2]).unwrap();
    reload(&mut game);
    let failed = |game: &Game| {
        let world = game.app.world();
        let character = &world.get::<Npc>(npc).unwrap().character;
        let adapter = world.resource::<Assets<CharacterAsset>>().get(character).unwrap().adapter.clone().unwrap();
        world.resource::<AssetServer>().load_state(&adapter).is_failed()
    };
    game.run_until("the broken adapter is seen", failed);
    assert_eq!(worn(&game, npc), before, "the old one stays");
    begin_anew(&mut game, npc);
    assert_eq!(reply_of(&mut game, npc), old);
}

#[test]
fn reload_swaps_the_adapter_between_replies() {
    let (game, npc, old) = speaking_game();
    check_swap(game, npc, old, |game| {
        game.app.world().resource::<AssetServer>().reload("adapters://socrates/adapter_model.safetensors");
    });
}

#[test]
fn a_reload_of_a_broken_adapter_keeps_the_old_one() {
    let (game, npc, old) = speaking_game();
    check_broken(game, npc, old, |game| {
        game.app.world().resource::<AssetServer>().reload("adapters://socrates/adapter_model.safetensors");
    });
}

#[cfg(feature = "hot_reload")]
mod watched {
    use super::*;
    use common::{character, failed, write};

    #[test]
    fn an_atomic_save_swaps_the_adapter_between_replies() {
        let (game, npc, old) = speaking_game();
        check_swap(game, npc, old, |_| {});
    }

    #[test]
    fn a_half_written_adapter_keeps_the_old_one() {
        let (game, npc, old) = speaking_game();
        check_broken(game, npc, old, |_| {});
    }

    #[test]
    fn a_slow_atomic_save_is_seen() {
        // Longer between the file and its rename than the watcher gathers events for.
        let (mut game, npc, _) = speaking_game();
        game.valve.open();
        game.run_until_outcomes(npc, 1);
        let before = worn(&game, npc);
        let folder = game.folder.path().join("adapters/socrates");
        let trained = tempfile::tempdir().unwrap();
        TinyModel::default().write_adapter(trained.path(), 2);
        fs::copy(trained.path().join("adapter_model.safetensors"), folder.join("unfinished")).unwrap();
        game.update(1000);
        fs::rename(folder.join("unfinished"), folder.join("adapter_model.safetensors")).unwrap();
        game.run_until("the new adapter is there", |game| worn(game, npc) != before);
    }

    #[test]
    fn a_characters_first_adapter_is_seen() {
        let mut game = Setup::default().start();
        let npc = game.spawn(SOCRATES);
        let base = reply_of(&mut game, npc);
        assert_eq!(worn(&game, npc), None);
        save_adapter(&game.folder.path().join("adapters/socrates"), 1);
        game.run_until("the adapter is there", |game| worn(game, npc).is_some());
        begin_anew(&mut game, npc);
        assert_ne!(reply_of(&mut game, npc), base);
    }

    /// Tokens that a reply without a sentence takes beyond its limit to finish one.
    const FINISH: usize = 24;

    #[test]
    fn a_character_is_edited_while_the_game_runs() {
        let mut game = Setup::default().start();
        let file = game.folder.path().join("adapters/socrates/character.toml");
        let npc = game.spawn(SOCRATES);
        assert_eq!(reply_of(&mut game, npc).len(), 24 + FINISH);
        write(&file, character("Socrates", 5));
        let limit = |game: &Game| {
            let world = game.app.world();
            let asset = world.resource::<Assets<CharacterAsset>>().get(&world.get::<Npc>(npc).unwrap().character);
            asset.unwrap().character.stop.max_tokens
        };
        game.run_until("the edit is seen", |game| limit(game) == 5);
        assert_eq!(reply_of(&mut game, npc).len(), 5 + FINISH);
        write(&file, "version = 1\nname = \"\"");
        game.update(1000);
        assert_eq!(reply_of(&mut game, npc).len(), 5 + FINISH, "what cannot be read changes nothing");
    }

    #[test]
    fn a_repaired_character_speaks() {
        let mut game = Setup::default().start();
        let file = game.folder.path().join("adapters/socrates/character.toml");
        write(&file, "version = 1\nname = \"\"");
        game.run_until_ready();
        let npc = game.spawn(SOCRATES);
        game.say(npc, "one");
        failed(&game.run_until_outcomes(npc, 1)[0]);
        write(&file, character("Socrates", 5));
        let loaded = |game: &Game| {
            let world = game.app.world();
            world.resource::<Assets<CharacterAsset>>().contains(&world.get::<Npc>(npc).unwrap().character)
        };
        game.run_until("the repair is seen", loaded);
        assert_eq!(reply_of(&mut game, npc).len(), 5 + FINISH);
    }
}
