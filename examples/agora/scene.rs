//! The place: colonnade, market, sun and sky. Nothing here moves or speaks.
//!
//! Everything is modelled at the start, from code alone. Static objects are merged into a few meshes, and shade that
//! one directional light cannot give (inside the colonnade, under a table, in a crown of leaves) is painted on.

mod acropolis;
mod goods;
mod land;
mod market;
pub mod mesh;
mod monuments;
mod paving;
mod plants;
pub mod sky;
mod stoa;
mod town;

use bevy::prelude::*;

use mesh::{Clay, MATT};

/// An obstacle: a circle on the ground, in metres.
#[derive(Component, Clone, Copy, Debug)]
pub struct Obstacle {
    pub radius: f32,
}

/// How far from the middle the player may walk, in metres: along x, along z.
pub const BOUNDS: Vec2 = Vec2::new(17.0, 11.0);

pub fn scene_plugin(app: &mut App) {
    app.add_plugins(sky::sky_plugin).add_systems(Startup, build);
}

fn build(mut commands: Commands, mut meshes: ResMut<Assets<Mesh>>, mut materials: ResMut<Assets<StandardMaterial>>) {
    mesh::prepare_matt(&mut materials);
    let mut site = Site::default();
    land::build(&mut site);
    paving::build(&mut site);
    acropolis::build(&mut site);
    stoa::build(&mut site);
    monuments::build(&mut site);
    market::build(&mut site);
    plants::build(&mut site);
    town::build(&mut site);
    debug!("the scene has {} triangles", site.triangles);
    for (clay, places) in site.pieces {
        let mesh = meshes.add(clay.mesh());
        commands.spawn_batch(places.into_iter().map(move |place| (Mesh3d(mesh.clone()), MeshMaterial3d(MATT), place)));
    }
    commands.spawn_batch(site.obstacles);
}

/// The objects built so far.
#[derive(Default)]
struct Site {
    /// Each shape and its places.
    pieces: Vec<(Clay, Vec<Transform>)>,
    obstacles: Vec<(Transform, Obstacle)>,
    triangles: usize,
}

impl Site {
    /// A single object, modelled in place.
    fn put(&mut self, clay: Clay) {
        self.put_all(clay, vec![Transform::IDENTITY]);
    }

    /// A repeated object.
    fn put_all(&mut self, clay: Clay, places: Vec<Transform>) {
        self.triangles += clay.triangles() * places.len();
        self.pieces.push((clay, places));
    }

    fn block(&mut self, x: f32, z: f32, radius: f32) {
        self.obstacles.push((Transform::from_xyz(x, 0.0, z), Obstacle { radius }));
    }
}
