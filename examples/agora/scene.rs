//! The place: colonnade, market, sun and sky. Nothing here moves or speaks.

use bevy::prelude::*;

/// Nobody walks through it: a circle on the ground, in metres.
#[derive(Component, Clone, Copy, Debug)]
pub struct Obstacle {
    pub radius: f32,
}

/// How far one may walk from the middle, in metres: along x, along z.
pub const BOUNDS: Vec2 = Vec2::new(17.0, 11.0);

pub fn scene_plugin(app: &mut App) {
    app.add_systems(Startup, build);
}

fn build(mut commands: Commands, mut meshes: ResMut<Assets<Mesh>>, mut materials: ResMut<Assets<StandardMaterial>>) {
    commands.spawn((
        DirectionalLight { illuminance: 9_000.0, shadow_maps_enabled: true, ..default() },
        Transform::from_xyz(6.0, 9.0, 7.0).looking_at(Vec3::ZERO, Vec3::Y),
    ));
    commands.spawn((
        Mesh3d(meshes.add(Plane3d::default().mesh().size(60.0, 60.0))),
        MeshMaterial3d(materials.add(Color::srgb(0.66, 0.58, 0.44))),
    ));
}
