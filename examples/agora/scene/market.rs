//! The market: stalls along the east and west of the square, each a table under a sagging cloth, open towards the middle.

use std::f32::consts::{FRAC_PI_2, PI};

use bevy::prelude::*;

use super::{
    Site,
    goods::{self, Heap},
    mesh::{Clay, chance, smoothstep, tinted},
};

const POLE: Color = Color::srgb(0.38, 0.26, 0.16);
const BOARD: Color = Color::srgb(0.52, 0.37, 0.22);
const LINEN: Color = Color::srgb(0.82, 0.74, 0.58);
/// Half of a stall, in metres: along its table, and front to back.
const HALF: Vec2 = Vec2::new(1.55, 1.15);
const TABLE: f32 = 0.82;

#[derive(Clone, Copy)]
enum Trade {
    Olives,
    Pottery,
    Fish,
    Bread,
    Cloth,
}

/// A stall looks along its -z.
struct Stall {
    place: Vec2,
    turn: f32,
    trade: Trade,
    stripes: Color,
}

const STALLS: [Stall; 6] = [
    Stall {
        place: Vec2::new(-10.3, 0.2),
        turn: -FRAC_PI_2 - 0.15,
        trade: Trade::Olives,
        stripes: Color::srgb(0.42, 0.46, 0.20),
    },
    Stall {
        place: Vec2::new(-12.9, -3.7),
        turn: -FRAC_PI_2 + 0.2,
        trade: Trade::Pottery,
        stripes: Color::srgb(0.62, 0.20, 0.12),
    },
    Stall {
        place: Vec2::new(-12.2, 4.9),
        turn: -FRAC_PI_2 - 0.35,
        trade: Trade::Cloth,
        stripes: Color::srgb(0.45, 0.20, 0.36),
    },
    Stall {
        place: Vec2::new(12.2, -3.6),
        turn: FRAC_PI_2 - 0.25,
        trade: Trade::Fish,
        stripes: Color::srgb(0.16, 0.35, 0.50),
    },
    Stall {
        place: Vec2::new(13.0, 1.2),
        turn: FRAC_PI_2 + 0.05,
        trade: Trade::Bread,
        stripes: Color::srgb(0.76, 0.47, 0.14),
    },
    Stall {
        place: Vec2::new(12.4, 6.0),
        turn: FRAC_PI_2 + 0.3,
        trade: Trade::Pottery,
        stripes: Color::srgb(0.20, 0.40, 0.38),
    },
];

pub fn build(site: &mut Site) {
    let mut market = Clay::default();
    for (number, stall) in STALLS.iter().enumerate() {
        let mut clay = Clay::default();
        frame(&mut clay);
        awning(&mut clay, stall.stripes, number as f32);
        table(&mut clay);
        wares(&mut clay, stall.trade, number as u32 * 97);
        // In the shade of the cloth; what stands in front of it is not.
        clay.repaint(|at, normal, color| {
            let under = smoothstep(-HALF.y, 0.3, at.z) * smoothstep(2.3, 1.6, at.y) * (0.6 - 0.4 * normal.y.max(0.0));
            tinted(color, 1.0 - 0.4 * under)
        });
        let place =
            Transform::from_xyz(stall.place.x, 0.0, stall.place.y).with_rotation(Quat::from_rotation_y(stall.turn));
        market.add(&clay, place);
        for along in [-1.05, 0.0, 1.05] {
            let at = place * Vec3::new(along, 0.0, -0.25);
            site.block(at.x, at.z, 0.8);
        }
    }
    loose_pots(&mut market, site);
    site.put(market);
}

fn frame(clay: &mut Clay) {
    for x in [-HALF.x, HALF.x] {
        for (z, tall) in [(-HALF.y, 2.25), (HALF.y, 2.65)] {
            let foot = Vec3::new(x, -0.05, z);
            clay.tube(&[foot, foot + Vec3::new(0.02, 1.2, 0.0), foot + Vec3::Y * tall], &[0.05, 0.045, 0.04], 7, POLE);
        }
    }
    for (z, y) in [(-HALF.y, 2.2), (HALF.y, 2.6)] {
        let end = |x: f32| Vec3::new(x * (HALF.x + 0.15), y, z);
        clay.tube(&[end(-1.0), end(1.0)], &[0.038, 0.038], 6, POLE);
    }
}

/// Striped cloth, hung between four poles; its front edge hangs down in scallops.
fn awning(clay: &mut Clay, stripes: Color, seed: f32) {
    const STRIPES: f32 = 9.0;
    let striped = |u: f32, light: f32| {
        let stripe = (u * STRIPES).floor() as i32 % 2 == 0;
        tinted(if stripe { stripes } else { LINEN }, light)
    };
    let cloth = |u: f32, v: f32| {
        let sag = 0.26 * (PI * u).sin().powf(0.8) * (PI * v).sin().powf(0.8) + 0.05 * (PI * u).sin();
        let wrinkle = 0.015 * (u * 31.0 + 5.0 * v + seed).sin() * (PI * v).sin();
        Vec3::new(
            (1.0 - 2.0 * u) * (HALF.x + 0.12),
            2.62 - 0.4 * (1.0 - v) - sag + wrinkle + 0.04,
            (2.0 * v - 1.0) * (HALF.y + 0.12),
        )
    };
    // Each stripe by itself, so that its colours do not run.
    for stripe in 0..STRIPES as usize {
        let within = |u: f32| (stripe as f32 + u) / STRIPES;
        let middle = within(0.5);
        clay.sheet([3, 10], |u, v| cloth(within(u), v), |_, v| striped(middle, 0.88 + 0.12 * v));
        clay.sheet(
            [4, 3],
            |u, v| {
                let scallop = 0.16 + 0.12 * (PI * u).sin();
                let sway = 0.04 * (within(u) * 17.0 + seed).sin() * (1.0 - v);
                cloth(within(u), 0.0) + Vec3::new(0.0, -scallop * (1.0 - v), -0.015 + sway)
            },
            |_, v| striped(middle, if v < 0.2 { 0.6 } else { 0.95 }),
        );
    }
}

fn table(clay: &mut Clay) {
    for board in 0..4 {
        let z = -0.75 + 0.24 * board as f32;
        clay.cuboid(
            Vec3::new(0.0, TABLE - 0.03, z),
            Vec3::new(2.75, 0.06, 0.225),
            tinted(BOARD, 0.85 + 0.25 * chance(board)),
        );
    }
    for x in [-1.2, 1.2] {
        for z in [-0.72, -0.08] {
            clay.cuboid(Vec3::new(x, 0.39, z), Vec3::new(0.09, 0.78, 0.09), tinted(BOARD, 0.75));
        }
    }
    clay.cuboid(Vec3::new(0.0, 0.3, -0.08), Vec3::new(2.4, 0.07, 0.06), tinted(BOARD, 0.7));
}

fn wares(clay: &mut Clay, trade: Trade, seed: u32) {
    let on_table = |x: f32, z: f32| Vec3::new(x, TABLE, z - 0.4);
    match trade {
        Trade::Olives => {
            let heaps = [Heap::GreenOlives, Heap::BlackOlives, Heap::GreenOlives, Heap::Figs, Heap::BlackOlives];
            for (number, heap) in heaps.into_iter().enumerate() {
                goods::basket(clay, on_table(-1.05 + 0.53 * number as f32, 0.02), 0.235, heap, seed + number as u32);
            }
            goods::basket(clay, Vec3::new(-0.6, 0.0, -1.25), 0.34, Heap::GreenOlives, seed + 7);
            goods::basket(clay, Vec3::new(0.15, 0.0, -1.3), 0.3, Heap::BlackOlives, seed + 8);
            goods::amphora(clay, Vec3::new(1.15, 0.0, -1.2), 0.85, 0.1, false);
            goods::amphora(clay, Vec3::new(1.5, 0.0, -0.75), 0.95, 0.3, true);
        }
        Trade::Pottery => {
            for number in 0..9 {
                goods::small_pot(
                    clay,
                    on_table(-1.15 + 0.29 * number as f32, 0.12 * (number % 2) as f32 - 0.1),
                    number + seed,
                );
            }
            goods::krater(clay, Vec3::new(-0.95, 0.0, -1.25), 0.85, 0.2);
            goods::amphora(clay, Vec3::new(-0.2, 0.0, -1.3), 0.9, 0.15, true);
            goods::amphora(clay, Vec3::new(0.5, 0.0, -1.2), 0.75, 0.4, true);
            goods::krater(clay, Vec3::new(1.2, 0.0, -1.25), 0.65, 0.6);
        }
        Trade::Fish => {
            for number in 0..11 {
                let at = on_table(-1.1 + 0.22 * number as f32, 0.16 * (number % 2) as f32 - 0.1);
                goods::fish(clay, at, 1.25 + 0.5 * chance(number + seed), number);
            }
            goods::basket(clay, Vec3::new(0.8, 0.0, -1.2), 0.34, Heap::Figs, seed);
            goods::amphora(clay, Vec3::new(-1.3, 0.0, -1.1), 0.8, 0.2, false);
        }
        Trade::Bread => {
            for number in 0..12 {
                let row = number / 8;
                let at =
                    on_table(-1.1 + 0.31 * (number % 8) as f32 + 0.5 * row as f32, 0.02) + Vec3::Y * 0.1 * row as f32;
                goods::loaf(clay, at, number + seed);
            }
            goods::basket(clay, Vec3::new(-0.7, 0.0, -1.2), 0.36, Heap::Bread, seed);
            goods::sack(clay, Vec3::new(0.3, 0.0, -1.2), 0.85, Color::srgb(0.78, 0.62, 0.34));
            goods::sack(clay, Vec3::new(0.95, 0.0, -1.15), 0.75, Color::srgb(0.70, 0.58, 0.40));
        }
        Trade::Cloth => {
            let dyes =
                [(0.45, 0.14, 0.30), (0.17, 0.32, 0.48), (0.74, 0.52, 0.18), (0.60, 0.19, 0.13), (0.78, 0.72, 0.58)];
            for (number, (red, green, blue)) in dyes.into_iter().enumerate() {
                goods::cloth(clay, on_table(-1.1 + 0.55 * number as f32, 0.0), Color::srgb(red, green, blue));
            }
            goods::basket(clay, Vec3::new(-0.9, 0.0, -1.2), 0.32, Heap::Figs, seed);
        }
    }
}

/// Jars that wait to be fetched, in groups.
fn loose_pots(clay: &mut Clay, site: &mut Site) {
    for (x, z, count) in [(-12.6, 2.4, 4), (10.7, -7.0, 3), (13.8, 3.6, 4), (-11.4, 8.3, 3)] {
        for number in 0..count {
            let seed = (10.0_f32 * x).abs() as u32 + number;
            let turn = number as f32 * 2.1 + x;
            let at = Vec3::new(x + 0.42 * turn.sin(), 0.0, z + 0.42 * turn.cos());
            goods::amphora(clay, at, 0.75 + 0.3 * chance(seed), turn, number % 3 == 1);
        }
        site.block(x, z, 0.65);
    }
}
