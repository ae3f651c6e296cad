//! Houses, walls and a cart: the view opposite the colonnade.

use bevy::prelude::*;

use super::{
    Site, land,
    mesh::{Clay, around, chance, smoothstep, tinted},
};

const PLASTER: [Color; 4] = [
    Color::srgb(0.80, 0.70, 0.54),
    Color::srgb(0.74, 0.58, 0.42),
    Color::srgb(0.83, 0.76, 0.64),
    Color::srgb(0.70, 0.50, 0.35),
];
const TILE: Color = Color::srgb(0.62, 0.33, 0.20);
const WOOD: Color = Color::srgb(0.30, 0.20, 0.13);
const SHUTTER: [Color; 3] =
    [Color::srgb(0.18, 0.32, 0.40), Color::srgb(0.44, 0.20, 0.13), Color::srgb(0.30, 0.34, 0.18)];
const FIELDSTONE: Color = Color::srgb(0.60, 0.52, 0.42);

pub fn build(site: &mut Site) {
    let mut clay = Clay::default();
    let houses = [
        // To the south, on both sides of the road.
        (-8.5, 24.5, 0.1),
        (-17.0, 23.0, -0.15),
        (9.5, 27.5, -0.1),
        (17.5, 22.0, 0.2),
        (-6.0, 35.0, 0.0),
        (8.0, 38.0, 0.1),
        (-25.0, 26.0, -0.3),
        (26.0, 26.0, 0.3),
        (-15.0, 36.0, 0.2),
        (19.0, 38.0, -0.2),
        (-1.0, 48.0, 0.1),
        (13.0, 51.0, 0.1),
        // To the east, at the foot of the hills.
        (25.0, -3.5, 1.5),
        (26.5, 8.5, 1.7),
        (33.0, 1.5, 1.5),
        (24.0, 16.5, 1.3),
        (36.0, 11.0, 1.6),
        (35.0, -10.0, 1.4),
        // To the west, beneath the temple.
        (-27.5, 7.0, -1.5),
        (-29.0, -9.5, -1.6),
        (-38.0, 3.0, -1.5),
        (-41.0, 13.0, -1.4),
        (-27.0, 17.5, -1.2),
        // Behind the colonnade and along the way up.
        (20.5, -27.0, 0.3),
        (29.0, -32.0, 0.5),
        (12.0, -33.0, 0.2),
        (40.0, -44.0, 0.4),
        (22.0, -46.0, 0.1),
        (-24.0, -24.0, 0.0),
    ];
    for (number, (x, z, turn)) in houses.into_iter().enumerate() {
        let place = Transform::from_xyz(x, land::height(x, z) - 0.2, z).with_rotation(Quat::from_rotation_y(turn));
        clay.add(&house(number as u32), place);
    }
    for (from, to) in [
        ((-24.0, 15.5), (-3.0, 17.5)),
        ((5.5, 17.2), (21.0, 14.0)),
        ((20.5, -5.0), (21.5, 11.0)),
        ((-22.5, -6.0), (-22.0, 9.5)),
    ] {
        wall(&mut clay, Vec2::from(from), Vec2::from(to));
    }
    let mut carts = Clay::default();
    cart(&mut carts);
    clay.add(&carts, Transform::from_xyz(8.6, 0.0, 13.6).with_rotation(Quat::from_rotation_y(0.7)));
    site.put(clay);
}

/// Plastered mud brick, few windows, a low roof of tiles; looks along its -z.
fn house(seed: u32) -> Clay {
    let mut clay = Clay::default();
    let luck = |number: u32| chance(seed * 41 + number);
    let size =
        Vec3::new(5.5 + 2.5 * luck(0), 2.9 + 2.3 * (luck(1) > 0.55) as u32 as f32 + 0.5 * luck(2), 4.6 + 1.4 * luck(3));
    let plaster = PLASTER[seed as usize % PLASTER.len()];
    clay.cuboid(Vec3::Y * 0.5 * size.y, size, plaster);
    clay.cuboid(Vec3::Y * 0.3, Vec3::new(size.x + 0.08, 0.6, size.z + 0.08), tinted(FIELDSTONE, 0.85));
    clay.repaint(|at, _, color| tinted(color, 0.82 + 0.18 * smoothstep(0.2, 2.0, at.y)));
    let shutter = SHUTTER[seed as usize % SHUTTER.len()];
    for side in [-1.0, 1.0] {
        let face = side * 0.5 * size.z;
        let door = (luck(5) - 0.5) * 0.5 * size.x;
        clay.cuboid(Vec3::new(door, 1.05, face), Vec3::new(1.3, 2.3, 0.12), tinted(WOOD, 1.3));
        clay.cuboid(
            Vec3::new(door, 1.0, face),
            Vec3::new(1.0, 2.0, 0.18),
            if side < 0.0 { shutter } else { tinted(WOOD, 0.8) },
        );
        let rows = if size.y > 4.5 { 2 } else { 1 };
        for row in 0..rows {
            for along in [-0.34, 0.34] {
                let at = Vec3::new(along * size.x, if row == 0 { 1.9 } else { size.y - 0.95 }, face);
                if (at.x - door).abs() > 1.1 || row == 1 {
                    clay.cuboid(at, Vec3::new(0.62, 0.72, 0.1), Color::srgb(0.12, 0.09, 0.08));
                    clay.cuboid(at + Vec3::new(0.44, 0.0, 0.02 * side), Vec3::new(0.3, 0.74, 0.12), shutter);
                    clay.cuboid(at - Vec3::Y * 0.41, Vec3::new(0.8, 0.09, 0.24), tinted(plaster, 0.85));
                }
            }
        }
    }
    roof(&mut clay, size);
    clay
}

fn roof(clay: &mut Clay, size: Vec3) {
    let [x, z, rise] = [0.5 * size.x + 0.4, 0.5 * size.z + 0.5, 0.24 * size.z];
    let tiles = (size.x / 0.42).round();
    for side in [-1.0, 1.0] {
        clay.facets(
            [2 * tiles as usize, 3],
            |u, v| {
                let ridge = if (u * 2.0 * tiles).round() as i32 % 2 == 0 { 0.07 } else { 0.0 };
                Vec3::new(side * (1.0 - 2.0 * u) * -x, size.y - 0.12 + rise * v + ridge, side * z * (1.0 - v))
            },
            |u, v| tinted(TILE, 0.8 + 0.4 * chance((u * tiles) as u32 * 13 + (v * 3.0) as u32 * 7)),
        );
        let gable = |z: f32, y: f32| Vec3::new(0.5 * side * size.x, y, z);
        let [front, back] = [gable(0.5 * side * size.z, size.y - 0.05), gable(-0.5 * side * size.z, size.y - 0.05)];
        clay.triangle([front, back, gable(0.0, size.y + rise - 0.1)], Color::srgb(0.70, 0.58, 0.43));
    }
}

/// Field stones, laid dry.
fn wall(clay: &mut Clay, from: Vec2, to: Vec2) {
    let count = (from.distance(to) / 0.62) as u32;
    for course in 0..2 {
        for number in 0..count {
            let seed = (from.x * 7.0).abs() as u32 + number * 5 + course * 977;
            let t = (number as f32 + 0.5 * course as f32 + 0.3 * chance(seed)) / count as f32;
            // Here and there it has fallen.
            if course == 1 && chance(seed + 3) < 0.2 {
                continue;
            }
            let at = from.lerp(to, t);
            let size = Vec3::new(0.42, 0.27, 0.33) * (0.85 + 0.35 * chance(seed + 1));
            let color = tinted(FIELDSTONE, 0.8 + 0.4 * chance(seed + 2));
            clay.boulder(
                Vec3::new(at.x, land::height(at.x, at.y) + 0.2 + 0.36 * course as f32, at.y),
                size,
                [3, seed as usize % 50],
                0.3,
                color,
            );
        }
    }
}

/// Two wheels, a load of straw.
fn cart(clay: &mut Clay) {
    clay.cuboid(Vec3::Y * 0.72, Vec3::new(1.3, 0.1, 2.2), WOOD);
    for side in [-1.0, 1.0] {
        clay.cuboid(Vec3::new(0.62 * side, 0.98, 0.0), Vec3::new(0.06, 0.3, 2.2), tinted(WOOD, 1.4));
        let hub = Vec3::new(0.8 * side, 0.58, 0.1);
        let rim: Vec<Vec3> = (0..=18)
            .map(|step| {
                let way = around(step as f32 / 18.0);
                hub + Vec3::new(0.0, way.x, way.z) * 0.56
            })
            .collect();
        clay.tube(&rim, &[0.055; 19], 6, tinted(WOOD, 1.2));
        for spoke in 0..4 {
            let way = around(spoke as f32 / 8.0);
            let way = Vec3::new(0.0, way.x, way.z) * 0.55;
            clay.tube(&[hub - way, hub + way], &[0.028, 0.028], 5, WOOD);
        }
        clay.ball(hub, Vec3::splat(0.1), 5, WOOD);
        clay.tube(
            &[Vec3::new(0.4 * side, 0.74, -1.0), Vec3::new(0.3 * side, 0.2, -2.6)],
            &[0.045, 0.04],
            6,
            tinted(WOOD, 1.2),
        );
    }
    for lump in 0..7 {
        let at = around(lump as f32 * 0.382) * 0.14 * lump as f32 * Vec3::new(0.45, 0.0, 1.0)
            + Vec3::Y * (1.12 + 0.1 * chance(lump));
        clay.boulder(at, Vec3::new(0.5, 0.33, 0.5), [5, lump as usize], 0.5, Color::srgb(0.80, 0.65, 0.33));
    }
}
