//! The player's talk with one character: it begins near it, a line is said, and it ends with Esc or by walking away.

use bevy::prelude::*;
use bevy_elenchus::prelude::*;

use crate::{
    crowd::Character,
    player::{NAME, Player},
};

/// Characters closer than this can be talked to, in metres.
const NEAR: f32 = 2.4;
/// Farther away, a talk ends; a smaller distance would end it by a step.
const FAR: f32 = 3.4;

/// The character that the player talks with.
#[derive(Resource, Default)]
pub struct Talk {
    pub with: Option<Entity>,
}

/// The character that would be talked to.
#[derive(Resource, Default, PartialEq)]
pub struct Near(pub Option<Entity>);

/// The player begins a talk.
#[derive(EntityEvent, Clone, Copy, Debug)]
pub struct BeginTalk {
    pub entity: Entity,
}

/// The player ends the talk; a running reply is cancelled.
#[derive(Event, Clone, Copy, Debug)]
pub struct EndTalk;

/// The player's line to the partner.
#[derive(Event, Clone, Debug)]
pub struct PlayerLine(pub String);

pub fn talk_plugin(app: &mut App) {
    app.init_resource::<Talk>()
        .init_resource::<Near>()
        .add_systems(Update, (find_near, keys, walk_away).chain())
        .add_observer(begin)
        .add_observer(end)
        .add_observer(say);
}

fn find_near(
    mut commands: Commands,
    mut near: ResMut<Near>,
    player: Single<&Transform, With<Player>>,
    characters: Query<(Entity, &Transform), With<Character>>,
) {
    let close = characters.iter().map(|(entity, place)| (entity, place.translation.distance(player.translation)));
    let nearest = close.filter(|(_, distance)| *distance < NEAR).min_by(|a, b| a.1.total_cmp(&b.1));
    let found = Near(nearest.map(|(entity, _)| entity));
    if *near != found {
        // So that the first word comes sooner.
        if let Some(entity) = found.0 {
            commands.trigger(WarmUp { entity });
        }
        *near = found;
    }
}

fn keys(mut commands: Commands, keys: Res<ButtonInput<KeyCode>>, talk: Res<Talk>, near: Res<Near>) {
    match talk.with {
        None if keys.just_pressed(KeyCode::KeyE) => {
            if let Some(entity) = near.0 {
                commands.trigger(BeginTalk { entity });
            }
        }
        Some(_) if keys.just_pressed(KeyCode::Escape) => commands.trigger(EndTalk),
        _ => {}
    }
}

fn walk_away(
    mut commands: Commands,
    talk: Res<Talk>,
    player: Single<&Transform, With<Player>>,
    places: Query<&Transform>,
) {
    if let Some(with) = talk.with
        && places.get(with).is_ok_and(|place| place.translation.distance(player.translation) > FAR)
    {
        commands.trigger(EndTalk);
    }
}

/// A character that meets the player for the first time says a greeting: shown, and entered as its own words.
fn begin(
    begin: On<BeginTalk>,
    mut commands: Commands,
    mut talk: ResMut<Talk>,
    npcs: Query<(&Npc, &Conversation)>,
    characters: Res<Assets<CharacterAsset>>,
) {
    if talk.with == Some(begin.entity) {
        return;
    }
    if talk.with.is_some() {
        commands.trigger(EndTalk);
    }
    talk.with = Some(begin.entity);
    let Ok((npc, conversation)) = npcs.get(begin.entity) else { return };
    let met = conversation.turns.iter().any(|turn| turn.speaker == NAME);
    if let Some(character) = characters.get(&npc.character)
        && let Some(greeting) = character.character.greetings.first()
        && !met
    {
        commands.trigger(Hear::new(begin.entity, &character.character.name, greeting));
        commands.trigger(crate::bubbles::Utter { entity: begin.entity, text: greeting.clone() });
    }
}

fn end(_: On<EndTalk>, mut commands: Commands, mut talk: ResMut<Talk>, speaking: Query<&Speaking>) {
    if let Some(with) = talk.with.take()
        // Its talk with others is not the player's to cancel.
        && speaking.get(with).is_ok_and(|speaking| speaking.group().is_none())
    {
        commands.entity(with).remove::<Speaking>();
    }
}

fn say(line: On<PlayerLine>, mut commands: Commands, talk: Res<Talk>) {
    let text = line.0.trim();
    if let Some(entity) = talk.with
        && !text.is_empty()
    {
        commands.trigger(Say::new(entity, NAME, text));
    }
}
