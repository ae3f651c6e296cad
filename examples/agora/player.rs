//! Walking about, and the camera.

use bevy::{
    core_pipeline::tonemapping::Tonemapping,
    input::mouse::{AccumulatedMouseMotion, AccumulatedMouseScroll},
    prelude::*,
};

use crate::{
    args::Args,
    cast::STRANGER,
    crowd::{Character, turn_towards},
    figure::{self, Figure},
    scene::{BOUNDS, Obstacle, sky::mood},
    screen::{Canvas, has_window},
    talk::{BeginTalk, Near, Talk},
    view::Pointed,
};

/// The player's name for the characters.
pub const NAME: &str = "Stranger";

/// Metres a second.
const WALK: f32 = 3.2;
/// The distance at which a walk to a character ends, in metres.
const BESIDE: f32 = 1.5;
/// Around anybody, in metres.
pub const SHOULDERS: f32 = 0.38;
/// Where a new game begins.
const START: Vec3 = Vec3::new(0.6, 0.0, 7.5);

/// The player's figure.
#[derive(Component, Default)]
pub struct Player {
    /// Where it is walking by itself: a click on the ground, or a step of a script.
    pub errand: Option<Errand>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Errand {
    To(Vec3),
    /// And to talk, once there.
    Meet(Entity),
}

/// The camera's direction: around the player, set with the mouse.
#[derive(Resource)]
pub struct Gaze {
    /// Around the vertical; at 0 it looks along -z.
    pub yaw: f32,
    /// Up is positive.
    pub pitch: f32,
    pub distance: f32,
}

impl Default for Gaze {
    fn default() -> Self {
        Self { yaw: 0.0, pitch: -0.16, distance: 4.6 }
    }
}

pub fn player_plugin(app: &mut App) {
    app.init_resource::<Gaze>()
        .add_systems(Startup, spawn)
        .add_systems(Update, (look_around.run_if(has_window), walk, follow).chain());
}

fn spawn(
    mut commands: Commands,
    canvas: Res<Canvas>,
    mut meshes: ResMut<Assets<Mesh>>,
    mut materials: ResMut<Assets<StandardMaterial>>,
) {
    let player = commands.spawn((Name::new(NAME), Player::default(), Transform::from_translation(START))).id();
    figure::dress(&mut commands, player, &STRANGER, &mut meshes, &mut materials);
    commands.spawn((
        Camera3d::default(),
        canvas.0.clone(),
        IsDefaultUiCamera,
        Tonemapping::AgX,
        mood(),
        Projection::from(PerspectiveProjection { fov: 0.9, far: 900.0, ..default() }),
        // Close to where `follow` will put it.
        Transform::from_translation(START + Vec3::new(0.0, 2.4, 4.6)).looking_to(Vec3::NEG_Z, Vec3::Y),
    ));
}

/// The right button turns the camera, the wheel zooms, the left sends the player somewhere.
fn look_around(
    mut gaze: ResMut<Gaze>,
    buttons: Res<ButtonInput<MouseButton>>,
    motion: Res<AccumulatedMouseMotion>,
    scroll: Res<AccumulatedMouseScroll>,
    windows: Query<&Window>,
    camera: Single<(&Camera, &GlobalTransform), With<Camera3d>>,
    mut player: Single<&mut Player>,
    characters: Query<(Entity, &GlobalTransform), With<Character>>,
    pointed: Pointed,
) {
    if buttons.pressed(MouseButton::Right) {
        gaze.yaw -= motion.delta.x * 0.005;
        gaze.pitch = (gaze.pitch - motion.delta.y * 0.004).clamp(-0.9, 0.35);
    }
    // UI over the scene gets the wheel and the clicks on it.
    if pointed.any() {
        return;
    }
    gaze.distance = (gaze.distance - scroll.delta.y * 0.4).clamp(2.5, 9.0);
    let (camera, eye) = *camera;
    if buttons.just_pressed(MouseButton::Left)
        && let Some(cursor) = windows.iter().find_map(Window::cursor_position)
        && let Ok(ray) = camera.viewport_to_world(eye, cursor)
    {
        let hit = characters.iter().find(|(_, place)| distance_to_ray(ray, place.translation() + Vec3::Y) < 0.6);
        let ground = ray.plane_intersection_point(Vec3::ZERO, InfinitePlane3d::new(Vec3::Y));
        player.errand = hit.map(|(entity, _)| Errand::Meet(entity)).or(ground.map(Errand::To));
    }
}

fn distance_to_ray(ray: Ray3d, point: Vec3) -> f32 {
    let along = (point - ray.origin).dot(*ray.direction).max(0.0);
    ray.get_point(along).distance(point)
}

fn walk(
    mut commands: Commands,
    time: Res<Time>,
    keys: Res<ButtonInput<KeyCode>>,
    gaze: Res<Gaze>,
    talk: Res<Talk>,
    near: Res<Near>,
    player: Single<(&mut Player, &mut Figure, &mut Transform), Without<Character>>,
    characters: Query<(Entity, &Transform), With<Character>>,
    obstacles: Query<(&Transform, &Obstacle), (Without<Character>, Without<Player>)>,
) {
    let (mut player, mut figure, mut transform) = player.into_inner();
    // While a line is typed, letters go to it; arrows up and down always walk.
    let held = |letter, arrow| keys.pressed(arrow) || (talk.with.is_none() && keys.pressed(letter));
    let axis = |plus, minus| f32::from(u8::from(plus)) - f32::from(u8::from(minus));
    let forward = axis(held(KeyCode::KeyW, KeyCode::ArrowUp), held(KeyCode::KeyS, KeyCode::ArrowDown));
    let typing = talk.with.is_some();
    let right =
        axis(!typing && held(KeyCode::KeyD, KeyCode::ArrowRight), !typing && held(KeyCode::KeyA, KeyCode::ArrowLeft));
    let mut wish = Quat::from_rotation_y(gaze.yaw) * Vec3::new(right, 0.0, -forward);
    if wish != Vec3::ZERO {
        player.errand = None;
    }
    let place = transform.translation;
    if let Some(errand) = player.errand {
        let (to, enough) = match errand {
            Errand::To(point) => (point, 0.15),
            Errand::Meet(entity) => match characters.get(entity) {
                Ok((_, character)) => (character.translation, BESIDE),
                Err(_) => (place, 1.0),
            },
        };
        let way = (to - place).with_y(0.0);
        if way.length() > enough {
            wish = way;
        } else {
            player.errand = None;
            if let Errand::Meet(entity) = errand
                && near.0 == Some(entity)
            {
                commands.trigger(BeginTalk { entity });
            }
        }
    }
    let step = wish.normalize_or_zero() * WALK * time.delta_secs().min(0.25);
    let others = characters.iter().map(|(_, other)| (other.translation, SHOULDERS));
    let things = obstacles.iter().map(|(thing, obstacle)| (thing.translation, obstacle.radius));
    transform.translation = clear(place + step, others.chain(things));
    figure.pace = if step == Vec3::ZERO { 0.0 } else { WALK };
    if step != Vec3::ZERO {
        turn_towards(&mut transform, place + step, 10.0 * time.delta_secs());
    } else if let Some((_, other)) = talk.with.and_then(|entity| characters.get(entity).ok()) {
        turn_towards(&mut transform, other.translation, 6.0 * time.delta_secs());
    }
}

/// The nearest place within bounds that no other figure occupies.
pub fn clear(mut place: Vec3, circles: impl Iterator<Item = (Vec3, f32)>) -> Vec3 {
    for (center, radius) in circles {
        let away = (place - center).with_y(0.0);
        let least = radius + SHOULDERS;
        if away.length() < least {
            place = center.with_y(0.0) + away.try_normalize().unwrap_or(Vec3::X) * least;
        }
    }
    Vec3::new(place.x.clamp(-BOUNDS.x, BOUNDS.x), 0.0, place.z.clamp(-BOUNDS.y, BOUNDS.y))
}

/// Behind the player's shoulder; in a talk it moves around, so that both are visible.
fn follow(
    time: Res<Time>,
    gaze: Res<Gaze>,
    talk: Res<Talk>,
    args: Res<Args>,
    player: Single<&Transform, (With<Player>, Without<Camera3d>)>,
    characters: Query<&Transform, (With<Character>, Without<Camera3d>)>,
    mut camera: Single<&mut Transform, With<Camera3d>>,
    mut placed: Local<bool>,
) {
    let head = player.translation + Vec3::Y * 1.6;
    let wanted = match talk.with.and_then(|entity| characters.get(entity).ok()) {
        Some(other) => {
            let between = other.translation - player.translation;
            let aside = between.cross(Vec3::Y).normalize_or(Vec3::X);
            let back = -between.normalize_or(Vec3::NEG_Z);
            let eye = head + back * 1.5 + aside * 1.6 + Vec3::Y * 0.2;
            let look = player.translation + between * 0.8 + aside * 0.15 + Vec3::Y * 1.55;
            Transform::from_translation(eye).looking_at(look, Vec3::Y)
        }
        None => {
            let turn = Quat::from_euler(EulerRot::YXZ, gaze.yaw, gaze.pitch, 0.0);
            let mut eye = head + Vec3::Y * 0.3 + turn * Vec3::Z * gaze.distance;
            eye.y = eye.y.max(0.3);
            Transform::from_translation(eye).with_rotation(turn)
        }
    };
    // A photograph is not taken while the camera moves.
    let ease = if *placed && !args.headless { 1.0 - (-5.0 * time.delta_secs()).exp() } else { 1.0 };
    *placed = true;
    camera.translation = camera.translation.lerp(wanted.translation, ease);
    camera.rotation = camera.rotation.slerp(wanted.rotation, ease);
}
