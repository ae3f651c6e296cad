//! Votes on replies, a line each: pairs as the trainer reads them (`data = ["agora_votes.jsonl"]` in a
//! `training.toml`), which learns from those that were liked.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
};

use bevy::prelude::*;
use bevy_elenchus::{Turn, prelude::*};
use serde::{Deserialize, Serialize};

use crate::{args::Args, notice::Tell, talk::Talk};

/// The player's vote on a reply of the partner.
#[derive(Event, Clone, Copy, Debug)]
pub struct Vote {
    pub opinion: Opinion,
    /// The reply's place in the conversation; the newest, if left out.
    pub turn: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opinion {
    Up,
    Down,
}

/// A vote, as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VoteLine {
    /// The character's name.
    pub character: String,
    /// The turns before, oldest first.
    pub context: Vec<Turn>,
    pub reply: String,
    pub vote: Opinion,
    /// SHA-256 of the model that generated it, and the hash of its adapter.
    pub base: Option<String>,
    pub adapter: Option<String>,
}

/// The votes, for the view: by conversation and place in it.
#[derive(Resource, Default)]
pub struct Votes(pub Vec<(Entity, usize, Opinion)>);

pub fn votes_plugin(app: &mut App) {
    app.init_resource::<Votes>().add_observer(vote);
}

fn vote(
    vote: On<Vote>,
    mut commands: Commands,
    args: Res<Args>,
    talk: Res<Talk>,
    mut votes: ResMut<Votes>,
    npcs: Query<(&Npc, &Conversation)>,
    characters: Res<Assets<CharacterAsset>>,
) {
    let Some(with) = talk.with else { return };
    let Ok((npc, conversation)) = npcs.get(with) else { return };
    let Some(character) = characters.get(&npc.character) else { return };
    let turns = &conversation.turns;
    let own = |turn: &Turn| turn.speaker == character.character.name;
    // A greeting answers nothing: there is nothing to learn from it.
    let Some(at) = vote.turn.or_else(|| turns.iter().rposition(own)) else { return };
    if turns.get(at).is_none_or(|turn| !own(turn)) || !turns[..at].iter().any(|turn| !own(turn)) {
        return;
    }
    let line = VoteLine {
        character: character.character.name.clone(),
        context: turns[..at].to_vec(),
        reply: turns[at].text.clone(),
        vote: vote.opinion,
        base: conversation.base.clone(),
        adapter: conversation.adapter.clone(),
    };
    if let Err(error) = append(&args.votes, &line) {
        return commands.trigger(Tell(format!("{}: {error} (hint: --votes FILE)", args.votes.display())));
    }
    votes.0.retain(|(entity, turn, _)| (*entity, *turn) != (with, at));
    votes.0.push((with, at, vote.opinion));
    info!("vote saved in {}", args.votes.display());
}

fn append(file: &Path, line: &VoteLine) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    // In one write, so that a line is complete or absent.
    file.write_all(format!("{}\n", serde_json::to_string(line)?).as_bytes())
}
