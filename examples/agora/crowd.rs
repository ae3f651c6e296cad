//! The characters as people on a square: where they go, whom they look at, when their hands move.

use std::f32::consts::TAU;

use bevy::prelude::*;
use bevy_elenchus::prelude::*;

use crate::{
    args::Args,
    cast::{CAST, Member},
    figure::{self, Figure},
    meetings::Meeting,
    player::{Player, SHOULDERS, clear},
    scene::Obstacle,
    talk::Talk,
};

/// Metres a second; a slow walk.
const STROLL: f32 = 1.1;
/// Around home, in metres.
const WANDER: f32 = 2.4;

/// A character of the agora.
#[derive(Component, Clone, Debug)]
pub struct Character {
    /// Its folder in `adapters/`: its identity in scripts and save games.
    pub folder: String,
    pub home: Vec3,
}

/// Where it is going, and how long it stays.
#[derive(Component, Clone, Copy, Debug)]
pub struct Stroll {
    pub to: Vec3,
    /// Seconds.
    pub rest: f32,
    /// Counts its walks, which determines where the next one leads.
    walks: u32,
}

/// The character or player it looks at, if any.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq)]
pub struct LooksAt(pub Option<Entity>);

pub fn crowd_plugin(app: &mut App) {
    app.add_systems(Startup, spawn).add_systems(Update, (look, stroll, gesture).chain());
}

fn spawn(
    mut commands: Commands,
    args: Res<Args>,
    assets: Res<AssetServer>,
    mut meshes: ResMut<Assets<Mesh>>,
    mut materials: ResMut<Assets<StandardMaterial>>,
) {
    for (number, member) in present(&args).enumerate() {
        let home = Vec3::new(member.home.x, 0.0, member.home.y);
        let conversation = match args.seed {
            Some(seed) => Conversation::from_seed(seed),
            None => Conversation::default(),
        };
        let entity = commands
            .spawn((
                Name::new(member.folder),
                Character { folder: member.folder.into(), home },
                Npc::new(assets.load(format!("adapters://{}/character.toml", member.folder))),
                conversation,
                Transform::from_translation(home).looking_to(facing(number), Vec3::Y),
                // They do not all set out at once.
                Stroll { to: home, rest: 6.0 + 5.0 * number as f32, walks: number as u32 },
                LooksAt::default(),
            ))
            .id();
        figure::dress(&mut commands, entity, &member.look, &mut meshes, &mut materials);
    }
}

/// The requested characters, in the order of the cast.
fn present(args: &Args) -> impl Iterator<Item = &'static Member> {
    CAST.iter().filter(|member| args.characters.is_empty() || args.characters.iter().any(|name| name == member.folder))
}

fn facing(number: usize) -> Vec3 {
    Quat::from_rotation_y(number as f32 * 2.4) * Vec3::Z
}

/// Looks at the partner: the player first, then the current or last speaker of the group.
fn look(
    talk: Res<Talk>,
    player: Single<Entity, With<Player>>,
    mut characters: Query<(Entity, &mut LooksAt, Option<&MemberOf>), With<Character>>,
    groups: Query<&GroupMembers>,
    speaking: Query<(), With<Speaking>>,
) {
    for (entity, mut looks_at, member) in &mut characters {
        let others = member.and_then(|member| groups.get(member.0).ok());
        let mut others = others.into_iter().flat_map(RelationshipTarget::iter).filter(|&other| other != entity);
        let whom = if talk.with == Some(entity) {
            Some(*player)
        } else {
            let first = others.next();
            others.find(|&other| speaking.contains(other)).or(first)
        };
        looks_at.set_if_neq(LooksAt(whom));
    }
}

/// A few steps around home, or to a meeting place; a talking character stands still.
fn stroll(
    time: Res<Time>,
    talk: Res<Talk>,
    mut characters: Query<
        (Entity, &Character, &mut Stroll, &mut Figure, &mut Transform, &LooksAt, Option<&Meeting>, Has<Speaking>),
        Without<Obstacle>,
    >,
    places: Query<&GlobalTransform>,
    obstacles: Query<(&Transform, &Obstacle), Without<Character>>,
) {
    let delta = time.delta_secs().min(0.25);
    let everybody: Vec<(Entity, Vec3)> =
        characters.iter().map(|(entity, .., place, _, _, _)| (entity, place.translation)).collect();
    for (entity, character, mut stroll, mut figure, mut transform, looks_at, meeting, speaking) in &mut characters {
        let place = transform.translation;
        let to = meeting.map_or(stroll.to, |meeting| meeting.place);
        let way = (to - place).with_y(0.0);
        let stands = talk.with == Some(entity) || speaking || way.length() < 0.1;
        figure.pace = if stands { 0.0 } else { STROLL };
        if stands {
            if let Some(whom) = looks_at.0.and_then(|whom| places.get(whom).ok()) {
                turn_towards(&mut transform, whom.translation(), 5.0 * delta);
            }
            if meeting.is_none() && looks_at.0.is_none() && !speaking {
                stroll.rest -= delta;
                if stroll.rest <= 0.0 {
                    stroll.set_out(character.home);
                }
            }
            continue;
        }
        let others = everybody.iter().filter(|(other, _)| *other != entity).map(|&(_, place)| (place, SHOULDERS));
        let things = obstacles.iter().map(|(thing, obstacle)| (thing.translation, obstacle.radius));
        let next = clear(place + way.clamp_length_max(STROLL * delta), others.chain(things));
        // Another character is in the way: this is far enough.
        if next.distance(place) < 0.2 * STROLL * delta {
            stroll.to = place;
        }
        transform.translation = next;
        turn_towards(&mut transform, to, 6.0 * delta);
    }
}

impl Stroll {
    fn set_out(&mut self, home: Vec3) {
        self.walks += 1;
        // Without a random generator, so that a scene is the same each time: the golden angle never repeats itself.
        let angle = self.walks as f32 * 0.618_034 * TAU;
        let far = WANDER * (0.4 + 0.6 * (self.walks as f32 * 0.414_214).fract());
        self.to = home + Vec3::new(angle.cos(), 0.0, angle.sin()) * far;
        self.rest = 7.0 + 9.0 * (self.walks as f32 * 0.732_05).fract();
    }
}

fn gesture(mut characters: Query<(&mut Figure, Option<&Speaking>), With<Character>>) {
    for (mut figure, speaking) in &mut characters {
        figure.speaking = speaking.is_some_and(|speaking| !speaking.text().is_empty());
    }
}

/// Turns the body, by `most` radians at most, to face a point on the ground.
pub fn turn_towards(transform: &mut Transform, point: Vec3, most: f32) {
    let way = (point - transform.translation).with_y(0.0);
    if way.length() > 0.01 {
        let wanted = Transform::IDENTITY.looking_to(way, Vec3::Y).rotation;
        let angle = transform.rotation.angle_between(wanted);
        transform.rotation = transform.rotation.slerp(wanted, (most / angle.max(1e-4)).min(1.0));
    }
}
