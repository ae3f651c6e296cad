//! A body made of primitives, and how it moves. What it is doing is told in one component; joints follow.

use bevy::prelude::*;

/// From the ground to the crown of somebody of middle height, in metres.
pub const HEIGHT: f32 = 1.75;

/// How somebody looks.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Against [`HEIGHT`].
    pub height: f32,
    /// 1 is slender.
    pub girth: f32,
    pub skin: Color,
    /// The tunic beneath.
    pub tunic: Color,
    /// The cloak over it, from one shoulder.
    pub cloak: Color,
    pub hair: Hair,
    pub hair_color: Color,
    pub beard: Beard,
    pub hat: Hat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hair {
    /// A wreath of it around a bald head.
    Bald,
    Short,
    Long,
    /// Under a kerchief.
    Kerchief,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beard {
    None,
    Short,
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hat {
    None,
    /// The traveller's broad brim.
    Petasos,
    /// With the messenger's wings.
    WingedPetasos,
    /// The craftsman's cone of felt.
    Pilos,
    /// A wreath of olive.
    Wreath,
}

/// What a body is doing; it stands on its entity's origin and looks along -z.
#[derive(Component, Clone, Copy, Debug, Default)]
pub struct Figure {
    /// Metres a second over the ground.
    pub pace: f32,
    /// Gestures while it speaks.
    pub speaking: bool,
    /// Against [`HEIGHT`].
    pub height: f32,
}

impl Figure {
    /// Above its origin, where a bubble begins.
    pub fn crown(&self) -> Vec3 {
        Vec3::Y * HEIGHT * self.height
    }
}

pub fn figure_plugin(app: &mut App) {
    app.add_systems(Update, animate);
}

/// Gives an entity a body.
pub fn dress(
    commands: &mut Commands,
    entity: Entity,
    look: &Look,
    meshes: &mut Assets<Mesh>,
    materials: &mut Assets<StandardMaterial>,
) {
    let height = HEIGHT * look.height;
    let body = meshes.add(Capsule3d::new(0.25 * look.girth, height - 0.85));
    let head = meshes.add(Sphere::new(0.15));
    commands.entity(entity).insert((Figure { height: look.height, ..default() }, Visibility::default())).with_children(
        |parent| {
            parent.spawn((
                Mesh3d(body),
                MeshMaterial3d(materials.add(look.cloak)),
                Transform::from_xyz(0.0, 0.5 * (height - 0.35), 0.0),
            ));
            parent.spawn((
                Mesh3d(head),
                MeshMaterial3d(materials.add(look.skin)),
                Transform::from_xyz(0.0, height - 0.15, 0.0),
            ));
        },
    );
}

fn animate() {}
