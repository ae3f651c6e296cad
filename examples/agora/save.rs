//! The whole scene as a file: positions, conversations, meetings, and replies in progress.

use std::{fs, io, path::Path};

use bevy::prelude::*;
use bevy_elenchus::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    args::Args,
    crowd::Character,
    meetings::{Appointment, Meeting},
    notice::Tell,
    player::{NAME, Player},
    talk::{EndTalk, Talk},
    votes::Votes,
};

#[derive(Event, Clone, Copy, Debug)]
pub struct SaveGame;

#[derive(Event, Clone, Copy, Debug)]
pub struct LoadGame;

/// A save game.
#[derive(Serialize, Deserialize, Debug)]
struct Saved {
    version: u32,
    player: Stance,
    characters: Vec<SavedCharacter>,
    groups: Vec<SavedGroup>,
}

/// The place of a character.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
struct Stance {
    x: f32,
    z: f32,
    /// Around the vertical, in radians.
    yaw: f32,
}

#[derive(Serialize, Deserialize, Debug)]
struct SavedCharacter {
    folder: String,
    stance: Stance,
    facts: Vec<String>,
    conversation: Conversation,
}

/// Who talks to whom; members by folder, because entities belong to one run.
#[derive(Serialize, Deserialize, Debug)]
struct SavedGroup {
    members: Vec<SavedMember>,
    opener: String,
    opening: String,
    #[serde(default)]
    topic: String,
    /// Once they stand beside each other.
    group: Option<ConversationGroup>,
}

#[derive(Serialize, Deserialize, Debug)]
struct SavedMember {
    folder: String,
    /// Where it is going, or is already: x and z.
    place: [f32; 2],
}

const VERSION: u32 = 1;

pub fn save_plugin(app: &mut App) {
    app.add_systems(Update, keys).add_observer(save).add_observer(load);
}

fn keys(mut commands: Commands, keys: Res<ButtonInput<KeyCode>>) {
    if keys.just_pressed(KeyCode::F5) {
        commands.trigger(SaveGame);
    }
    if keys.just_pressed(KeyCode::F9) {
        commands.trigger(LoadGame);
    }
}

fn save(
    _: On<SaveGame>,
    mut commands: Commands,
    args: Res<Args>,
    player: Single<&Transform, With<Player>>,
    characters: Query<(&Character, &Transform, &GameFacts, &Conversation)>,
    groups: Query<(&Appointment, &GroupMembers, Option<&ConversationGroup>)>,
    meetings: Query<&Meeting>,
) -> Result {
    let folder = |entity| characters.get(entity).map(|(character, ..)| character.folder.clone());
    let saved = Saved {
        version: VERSION,
        player: Stance::of(&player),
        characters: characters
            .iter()
            .map(|(character, place, facts, conversation)| SavedCharacter {
                folder: character.folder.clone(),
                stance: Stance::of(place),
                facts: facts.0.clone(),
                conversation: conversation.clone(),
            })
            .collect(),
        groups: groups
            .iter()
            .map(|(appointment, members, group)| {
                Ok(SavedGroup {
                    members: members
                        .iter()
                        .map(|member| {
                            let place = meetings.get(member)?.place;
                            Ok(SavedMember { folder: folder(member)?, place: [place.x, place.z] })
                        })
                        .collect::<Result<_>>()?,
                    opener: folder(appointment.opener)?,
                    opening: appointment.line.clone(),
                    topic: appointment.topic.clone(),
                    group: group.cloned(),
                })
            })
            .collect::<Result<_>>()?,
    };
    commands.trigger(Tell(match write(&args.save, &saved) {
        Ok(()) => format!("Saved in {}", args.save.display()),
        Err(error) => format!("Not saved: {}: {error} (hint: --save FILE)", args.save.display()),
    }));
    Ok(())
}

/// A game that cannot be read changes nothing, and the player gets a message.
fn load(
    _: On<LoadGame>,
    mut commands: Commands,
    args: Res<Args>,
    talk: Res<Talk>,
    mut player: Single<(&mut Player, &mut Transform), Without<Character>>,
    mut characters: Query<(Entity, &Character, &mut Transform)>,
    groups: Query<Entity, With<Appointment>>,
    mut votes: ResMut<Votes>,
) {
    let saved = match read(&args.save) {
        Ok(saved) => saved,
        Err(error) => {
            let error = format!("{}: {error}", args.save.display());
            error!("{error}");
            return commands.trigger(Tell(error));
        }
    };
    if talk.with.is_some() {
        commands.trigger(EndTalk);
    }
    for group in &groups {
        commands.entity(group).despawn();
    }
    // Votes refer to turns of the old conversations.
    votes.0.clear();
    player.0.errand = None;
    *player.1 = saved.player.transform();
    let mut absent = Vec::new();
    for SavedCharacter { folder, stance, facts, mut conversation } in saved.characters {
        let Some((entity, _, mut place)) = characters.iter_mut().find(|(_, character, _)| character.folder == folder)
        else {
            absent.push(folder);
            continue;
        };
        *place = stance.transform();
        // A line whose answer was lost with the game is asked again.
        let unanswered = conversation.turns.last().is_some_and(|turn| turn.speaker == NAME);
        let line = if unanswered { conversation.take_unanswered() } else { None };
        commands.entity(entity).remove::<Meeting>().insert((conversation, GameFacts(facts)));
        if let Some(line) = line {
            commands.trigger(Say::new(entity, line.speaker, line.text));
        }
    }
    let find = |folder: &String| characters.iter().find(|(_, character, _)| character.folder == *folder);
    for saved in saved.groups {
        let Some((opener, ..)) = find(&saved.opener) else { continue };
        let group = commands.spawn(Appointment { opener, line: saved.opening, topic: saved.topic }).id();
        for SavedMember { folder, place: [x, z] } in saved.members {
            if let Some((member, ..)) = find(&folder) {
                commands.entity(member).insert((Meeting { place: Vec3::new(x, 0.0, z) }, MemberOf(group)));
            }
        }
        if let Some(conversation_group) = saved.group {
            commands.entity(group).insert(conversation_group);
        }
    }
    let mut news = format!("Loaded from {}", args.save.display());
    if !absent.is_empty() {
        news.push_str(&format!("; not here: {} (hint: leave out --characters)", absent.join(", ")));
    }
    commands.trigger(Tell(news));
}

impl Stance {
    fn of(transform: &Transform) -> Self {
        let (yaw, ..) = transform.rotation.to_euler(EulerRot::YXZ);
        Self { x: transform.translation.x, z: transform.translation.z, yaw }
    }

    fn transform(self) -> Transform {
        Transform::from_xyz(self.x, 0.0, self.z).with_rotation(Quat::from_rotation_y(self.yaw))
    }
}

/// Writes beside the old file first: if the game is killed while saving, the old file remains.
fn write(file: &Path, saved: &Saved) -> io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, serde_json::to_string_pretty(saved)?)?;
    fs::rename(&new, file)
}

fn read(file: &Path) -> Result<Saved, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{error} (hint: F5 saves a game)"))?;
    let saved: Saved = serde_json::from_str(&text).map_err(|error| format!("this is no save game: {error}"))?;
    if saved.version == VERSION {
        Ok(saved)
    } else {
        Err(format!("it is of version {}, and this game reads version {VERSION}", saved.version))
    }
}
