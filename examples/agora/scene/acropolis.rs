//! The landmarks of Athens: the rock above the roofs, and the temple upon it. Far away, and so of few triangles.

use std::f32::consts::TAU;

use bevy::prelude::*;

use super::{
    Site,
    mesh::{Clay, noise, rough_noise, smoothstep, tinted},
};

const CLIFF: Color = Color::srgb(0.68, 0.54, 0.41);
const CLIFF_SHADE: Color = Color::srgb(0.47, 0.40, 0.36);
const SLOPE: Color = Color::srgb(0.44, 0.43, 0.23);
const MARBLE: Color = Color::srgb(0.92, 0.82, 0.64);
const WALL: Color = Color::srgb(0.74, 0.62, 0.47);
const ROOF: Color = Color::srgb(0.66, 0.40, 0.25);
const SHADE: Color = Color::srgb(0.38, 0.32, 0.34);
const PINE: Color = Color::srgb(0.19, 0.25, 0.14);
/// The middle of the rock; from the starting point it stands above the end of the colonnade.
const PLACE: Vec3 = Vec3::new(84.0, 0.0, -172.0);
const TOP: f32 = 33.0;
/// Half of the top, in metres.
const HALF: Vec2 = Vec2::new(49.0, 25.0);

pub fn build(site: &mut Site) {
    let mut clay = Clay::default();
    rock(&mut clay);
    walls(&mut clay);
    temple(&mut clay, Vec3::new(9.0, TOP - 0.3, 3.0), Vec2::new(34.0, 15.5), 1.0, -0.16);
    temple(&mut clay, Vec3::new(-14.0, TOP - 0.3, -8.0), Vec2::new(13.0, 8.0), 0.55, -0.1);
    temple(&mut clay, Vec3::new(-36.0, TOP - 3.0, 2.0), Vec2::new(11.0, 9.0), 0.6, 1.35);
    for (x, z, size) in [
        (-25.0, 8.0, 1.0),
        (-22.0, 11.0, 0.8),
        (33.0, 10.0, 1.1),
        (37.0, 5.0, 0.9),
        (-6.0, 13.0, 0.7),
        (-47.0, 10.0, 1.0),
    ] {
        let tall = 3.6 * size;
        clay.boulder(Vec3::new(x, TOP + 0.5 * tall, z), Vec3::new(1.7 * size, tall, 1.7 * size), [5, 3], 0.3, PINE);
    }
    // Shrubs on the slope break its outline.
    for number in 0..60 {
        let turn = number as f32 * 0.618 * TAU;
        let down = 0.16 + 0.3 * noise(number as f32 * 3.7, 1.0);
        let at = side(turn / TAU, 1.0 - down - 0.45);
        clay.boulder(
            at,
            Vec3::new(2.4, 1.9, 2.4),
            [4, number],
            0.35,
            tinted(PINE.mix(&SLOPE, 0.4 * noise(number as f32, 4.0)), 1.1),
        );
    }
    let mut placed = Clay::default();
    placed.add(&clay, Transform::from_translation(PLACE));
    // On the hill in the west: the temple of Hephaestus.
    temple(&mut placed, Vec3::new(-80.0, 9.0, -6.0), Vec2::new(17.0, 8.5), 0.62, 0.25);
    site.put(placed);
}

/// From the foot of the slope, over the cliff, to the edge of the top.
fn side(u: f32, v: f32) -> Vec3 {
    let (sin, cos) = (u * TAU).sin_cos();
    let cliff = smoothstep(0.42, 0.80, v);
    let high = TOP * (0.5 * (v / 0.5).min(1.0).powf(1.5) + 0.5 * cliff);
    let crag = (rough_noise(sin * 5.0 + 9.0, cos * 5.0 + v * 4.0) - 0.5) * (5.0 + 13.0 * (1.0 - cliff));
    let buttress = 3.2 * (noise(u * 46.0, 7.0) - 0.5) * (1.0 - smoothstep(0.9, 1.0, v)) * smoothstep(0.3, 0.5, v);
    // A squarish oval; the west end, where the gates are, is lower.
    let oval = (sin.abs().powf(2.6) + cos.abs().powf(2.6)).powf(-1.0 / 2.6);
    let half = HALF + Vec2::splat(crag + buttress + 46.0 * (1.0 - v / 0.55).max(0.0) + 3.0 * (1.0 - cliff));
    let gates = 3.4 * smoothstep(0.65, 1.0, sin) * v;
    Vec3::new(-sin * half.x * oval, high - gates - 1.0, -cos * half.y * oval)
}

fn rock(clay: &mut Clay) {
    clay.facets([96, 14], side, |u, v| {
        let strata = noise(u * 30.0, v * 26.0);
        let cliff = CLIFF_SHADE.mix(&CLIFF, smoothstep(0.2, 0.7, strata));
        SLOPE.mix(&cliff, smoothstep(0.36, 0.52, v + 0.16 * (noise(u * 60.0, 3.0) - 0.5)))
    });
    clay.facets(
        [96, 3],
        |u, v| side(u, 1.0) * Vec3::new(1.0 - v, 1.0, 1.0 - v) + Vec3::Y * 0.8 * v,
        |_, _| SLOPE.mix(&CLIFF, 0.6),
    );
}

/// Around the edge of the top.
fn walls(clay: &mut Clay) {
    clay.facets(
        [64, 1],
        |u, v| side(u, 1.0) * Vec3::new(0.97, 1.0, 0.97) + Vec3::Y * (3.4 * v - 0.6),
        |u, v| tinted(WALL, 0.82 + 0.12 * v + 0.14 * noise(u * 90.0, 2.0)),
    );
}

/// Columns all around, seen from a distance; `high` is measured against the Parthenon.
fn temple(clay: &mut Clay, foot: Vec3, size: Vec2, high: f32, turn: f32) {
    let mut temple = Clay::default();
    let [steps, columns, beam, gable] = [1.1, 7.4, 2.2, 2.9].map(|part| part * high);
    let slab = |clay: &mut Clay, y: f32, tall: f32, out: f32, color: Color| {
        clay.cuboid(Vec3::Y * (y + 0.5 * tall), Vec3::new(size.x + out, tall, size.y + out), color);
    };
    slab(&mut temple, -1.0, 1.0 + 0.5 * steps, 2.4 * high, MARBLE);
    slab(&mut temple, 0.5 * steps, 0.5 * steps, 1.2 * high, MARBLE);
    slab(&mut temple, steps, columns, -4.6 * high, SHADE);
    let column = |clay: &mut Clay, x: f32, z: f32| {
        let path = [Vec3::new(x, steps, z), Vec3::new(x, steps + columns, z)];
        clay.tube(&path, &[0.72 * high, 0.56 * high], 8, MARBLE);
    };
    let half = 0.5 * size - Vec2::splat(0.9 * high);
    for (count, along) in [(13, true), (7, false)] {
        for number in 0..=count {
            let t = 2.0 * number as f32 / count as f32 - 1.0;
            for way in [-1.0, 1.0] {
                let at = if along { Vec2::new(t, way) } else { Vec2::new(way, t) } * half;
                column(&mut temple, at.x, at.y);
            }
        }
    }
    let top = steps + columns;
    slab(&mut temple, top, 0.5 * beam, 0.0, MARBLE);
    slab(&mut temple, top + 0.5 * beam, 0.35 * beam, -0.2 * high, Color::srgb(0.48, 0.46, 0.50));
    slab(&mut temple, top + 0.85 * beam, 0.15 * beam, 1.3 * high, MARBLE);
    let eaves = top + beam;
    let [x, z] = [0.5 * size.x + 0.5 * high, 0.5 * size.y + 0.6 * high];
    let ridge = |x: f32| Vec3::new(x, eaves + gable, 0.0);
    let corner = |x: f32, z: f32| Vec3::new(x, eaves, z);
    temple.quad([corner(-x, z), corner(x, z), ridge(x), ridge(-x)], ROOF);
    temple.quad([corner(x, -z), corner(-x, -z), ridge(-x), ridge(x)], ROOF);
    temple.triangle([corner(x, z), corner(x, -z), ridge(x)], MARBLE);
    temple.triangle([corner(-x, -z), corner(-x, z), ridge(-x)], MARBLE);
    clay.add(&temple, Transform::from_translation(foot).with_rotation(Quat::from_rotation_y(turn)));
}
