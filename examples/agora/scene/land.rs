//! The ground: flat where one walks, trodden where many do, hills around it and mountains beyond.

use std::f32::consts::TAU;

use bevy::prelude::*;

use super::{
    Site,
    mesh::{Clay, noise, rough_noise, smoothstep, tinted},
};

const DUST: Color = Color::srgb(0.66, 0.53, 0.37);
const WORN: Color = Color::srgb(0.76, 0.64, 0.47);
const EARTH: Color = Color::srgb(0.52, 0.39, 0.26);
const DRY_GRASS: Color = Color::srgb(0.56, 0.50, 0.27);
const SCRUB: Color = Color::srgb(0.34, 0.38, 0.20);
const ROCK: Color = Color::srgb(0.58, 0.52, 0.46);
/// Half of what is flat, in metres: along x, along z.
const FLAT: Vec2 = Vec2::new(27.0, 32.0);

pub fn build(site: &mut Site) {
    let mut clay = Clay::default();
    let place = |u: f32, v: f32| {
        let (sin, cos) = (u * TAU).sin_cos();
        let far = 2.0 + 460.0 * v.powf(2.3);
        Vec2::new(sin, cos) * if v == 0.0 { 0.0 } else { far }
    };
    clay.sheet(
        [100, 62],
        |u, v| {
            let Vec2 { x, y: z } = place(u, v);
            Vec3::new(x, height(x, z), z)
        },
        |u, v| ground(place(u, v)),
    );
    mountains(&mut clay, 470.0, 62.0, 3.0);
    mountains(&mut clay, 640.0, 118.0, 17.0);
    site.put(clay);
}

/// Above the level of the agora.
pub fn height(x: f32, z: f32) -> f32 {
    let beyond = Vec2::new((x.abs() - FLAT.x).max(0.0), (z.abs() - FLAT.y).max(0.0)).length();
    let swell = rough_noise(x * 0.017 + 3.0, z * 0.017 - 8.0) - 0.35;
    // The temple of Hephaestus looks down from the west.
    let kolonos = 10.0 * (-Vec2::new(x + 82.0, z + 6.0).length_squared() / 900.0).exp();
    smoothstep(0.0, 60.0, beyond) * 17.0 * swell.max(-0.05) + kolonos * smoothstep(0.0, 12.0, beyond) - 0.015
}

fn ground(at: Vec2) -> Color {
    let far = at.length();
    let patch = rough_noise(at.x * 0.32 + 7.0, at.y * 0.32);
    let grain = noise(at.x * 1.9, at.y * 1.9);
    let near = EARTH.mix(&DUST, 0.35 + 0.65 * patch).mix(&WORN, 0.7 * road(at));
    let grass = smoothstep(0.44, 0.62, rough_noise(at.x * 0.11, at.y * 0.11 + 31.0)) * smoothstep(13.0, 26.0, far);
    let hill = DRY_GRASS.mix(&SCRUB, smoothstep(0.35, 0.65, rough_noise(at.x * 0.045, at.y * 0.045)));
    let outside = smoothstep(34.0, 70.0, far);
    tinted(near.mix(&DRY_GRASS, 0.75 * grass * (1.0 - road(at))).mix(&hill, outside), 0.9 + 0.2 * grain)
}

/// How trodden it is, from 0 to 1: the road from the south, and the way to the Acropolis.
fn road(at: Vec2) -> f32 {
    let south = (at.x - 1.5 - 2.0 * (at.y * 0.09).sin()).abs();
    let way = at.x - 13.2 - 0.16 * (-at.y - 6.0).max(0.0);
    let south = if at.y > 6.0 { 1.0 - smoothstep(1.2, 3.4, south) } else { 0.0 };
    let north = if at.y < 2.0 { 1.0 - smoothstep(1.4, 3.4, way.abs()) } else { 0.0 };
    south.max(north)
}

/// A ridge all around.
fn mountains(clay: &mut Clay, far: f32, high: f32, seed: f32) {
    let ridge = |u: f32| {
        let (x, z) = (u * TAU).sin_cos();
        let top = rough_noise(x * 2.6 + seed, z * 2.6 - seed);
        high * (0.18 + 1.25 * (top - 0.25).max(0.0))
    };
    clay.facets(
        [120, 4],
        |u, v| {
            let (sin, cos) = (u * TAU).sin_cos();
            // Seen from inside, u runs to the right when it turns from north to east.
            let crag = 1.0 + 0.05 * (noise(u * 90.0 + seed, v * 5.0) - 0.5);
            let distance = far * (0.86 + 0.14 * v) * crag;
            Vec3::new(sin * distance, ridge(u) * v - 2.0, -cos * distance)
        },
        |u, v| SCRUB.mix(&ROCK, smoothstep(0.35, 0.8, v + 0.4 * noise(u * 140.0, v * 7.0) - 0.2)),
    );
}
