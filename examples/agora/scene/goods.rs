//! Goods for sale: thrown pots, and heaps in baskets and on tables.

use std::f32::consts::TAU;

use bevy::prelude::*;

use super::mesh::{Clay, around, chance, on_sphere, tinted};

pub const CLAY: Color = Color::srgb(0.70, 0.38, 0.21);
pub const GLAZE: Color = Color::srgb(0.11, 0.09, 0.085);
const WICKER: Color = Color::srgb(0.60, 0.44, 0.24);
const CRUST: Color = Color::srgb(0.72, 0.46, 0.20);
const GREEN_OLIVE: Color = Color::srgb(0.46, 0.49, 0.16);
const BLACK_OLIVE: Color = Color::srgb(0.17, 0.10, 0.15);
const FIG: Color = Color::srgb(0.36, 0.19, 0.30);
const SCALES: Color = Color::srgb(0.55, 0.62, 0.66);

fn turned(clay: &mut Clay, at: Vec3, size: f32, profile: &[(f32, f32)], color: impl Fn(f32) -> Color) {
    let profile: Vec<Vec2> = profile.iter().map(|&(radius, y)| Vec2::new(radius, y) * size).collect();
    clay.lathe(at, &profile, 15, |y| color(y / size));
}

/// Two handles, from the neck to the shoulder.
fn handles(clay: &mut Clay, at: Vec3, turn: f32, path: [(f32, f32); 4], thick: f32, color: Color) {
    for way in [0.0, 0.5] {
        let out = around(turn + way);
        clay.tube(&path.map(|(far, y)| at + out * far + Vec3::Y * y), &[thick; 4], 6, color);
    }
}

/// For wine and oil, a metre high when `size` is 1; painted with bands.
pub fn amphora(clay: &mut Clay, at: Vec3, size: f32, turn: f32, painted: bool) {
    let profile = [
        (0.0, 0.0),
        (0.1, 0.0),
        (0.085, 0.05),
        (0.17, 0.22),
        (0.25, 0.42),
        (0.275, 0.58),
        (0.24, 0.7),
        (0.12, 0.78),
        (0.095, 0.86),
        (0.1, 0.95),
        (0.135, 0.97),
        (0.13, 1.0),
        (0.085, 0.99),
        (0.07, 0.9),
    ];
    let bands = |y: f32| {
        if painted && ((0.1..0.3).contains(&y) || (0.62..0.68).contains(&y) || y > 0.8) { GLAZE } else { CLAY }
    };
    turned(clay, at, size, &profile, bands);
    let path = [(0.09, 0.94), (0.2, 0.95), (0.235, 0.85), (0.22, 0.71)].map(|(far, y)| (far * size, y * size));
    handles(clay, at, turn, path, 0.022 * size, if painted { GLAZE } else { CLAY });
}

/// A wide bowl on a foot, for mixing wine.
pub fn krater(clay: &mut Clay, at: Vec3, size: f32, turn: f32) {
    let profile = [
        (0.0, 0.0),
        (0.2, 0.0),
        (0.18, 0.06),
        (0.09, 0.12),
        (0.2, 0.22),
        (0.3, 0.38),
        (0.31, 0.55),
        (0.29, 0.72),
        (0.36, 0.82),
        (0.34, 0.82),
        (0.26, 0.7),
    ];
    turned(clay, at, size, &profile, |y| if (0.42..0.62).contains(&y) { CLAY } else { GLAZE });
    let path = [(0.3, 0.36), (0.42, 0.42), (0.41, 0.54), (0.3, 0.54)].map(|(far, y)| (far * size, y * size));
    handles(clay, at, turn, path, 0.025 * size, GLAZE);
}

/// A cup, a jug, a plate standing on edge: the next thing on a potter's table.
pub fn small_pot(clay: &mut Clay, at: Vec3, seed: u32) {
    let glazed = seed.is_multiple_of(2);
    let [body, band] = if glazed { [GLAZE, CLAY] } else { [CLAY, GLAZE] };
    let color = move |y: f32| if (0.45..0.6).contains(&y) { band } else { body };
    match seed % 3 {
        0 => turned(
            clay,
            at,
            0.26,
            &[(0.0, 0.0), (0.2, 0.0), (0.07, 0.12), (0.09, 0.22), (0.4, 0.45), (0.45, 0.62), (0.42, 0.6), (0.1, 0.3)],
            color,
        ),
        1 => turned(
            clay,
            at,
            0.3,
            &[(0.0, 0.0), (0.18, 0.0), (0.34, 0.28), (0.36, 0.5), (0.2, 0.72), (0.12, 0.85), (0.22, 1.0), (0.1, 0.9)],
            color,
        ),
        _ => turned(
            clay,
            at,
            0.24,
            &[(0.0, 0.0), (0.22, 0.0), (0.3, 0.2), (0.42, 0.5), (0.36, 0.8), (0.4, 0.92), (0.33, 0.9)],
            color,
        ),
    }
}

#[derive(Clone, Copy, PartialEq)]
pub enum Heap {
    GreenOlives,
    BlackOlives,
    Figs,
    Bread,
}

/// A basket with a heap in it.
pub fn basket(clay: &mut Clay, at: Vec3, wide: f32, heap: Heap, seed: u32) {
    let profile = [(0.0, 0.0), (0.74, 0.0), (0.9, 0.3), (1.0, 0.62), (1.04, 0.66), (0.97, 0.66), (0.9, 0.5)];
    turned(clay, at, wide, &profile, |y| tinted(WICKER, if (y * 14.0) as i32 % 2 == 0 { 0.78 } else { 1.0 }));
    let (count, size, color) = match heap {
        Heap::GreenOlives => (46, Vec3::new(0.12, 0.1, 0.1), GREEN_OLIVE),
        Heap::BlackOlives => (46, Vec3::new(0.12, 0.1, 0.1), BLACK_OLIVE),
        Heap::Figs => (26, Vec3::new(0.165, 0.18, 0.165), FIG),
        Heap::Bread => (9, Vec3::new(0.36, 0.2, 0.28), CRUST),
    };
    clay.ball(at + Vec3::Y * 0.42 * wide, Vec3::new(0.9, 0.3, 0.9) * wide, 6, tinted(color, 0.6));
    for number in 0..count {
        let far = ((number as f32 + 0.5) / count as f32).sqrt();
        let place = around(number as f32 * 0.618) * far * 0.82 + Vec3::Y * (0.62 + 0.16 * (1.0 - far * far));
        let tint = 0.8 + 0.45 * chance(number + seed * 131);
        let mut piece = Clay::default();
        piece.ball(Vec3::ZERO, size * wide, if heap == Heap::Bread { 6 } else { 3 }, tinted(color, tint));
        let turn = Quat::from_rotation_y(number as f32 * 1.9);
        clay.add(&piece, Transform::from_translation(at + place * wide).with_rotation(turn));
    }
}

/// Round loaves, scored crosswise.
pub fn loaf(clay: &mut Clay, at: Vec3, seed: u32) {
    clay.ball(at + Vec3::Y * 0.045, Vec3::new(0.15, 0.075, 0.15), 7, tinted(CRUST, 0.85 + 0.3 * chance(seed)));
    for turn in [0.2, 1.77] {
        let way = Vec3::new(f32::sin(turn), 0.0, f32::cos(turn)) * 0.09;
        let top = at + Vec3::Y * 0.112;
        clay.tube(
            &[top - way, top + Vec3::Y * 0.01, top + way],
            &[0.012, 0.014, 0.012],
            5,
            Color::srgb(0.86, 0.70, 0.45),
        );
    }
}

/// It lies on its side.
pub fn fish(clay: &mut Clay, at: Vec3, turn: f32, seed: u32) {
    let mut fish = Clay::default();
    let color =
        SCALES.mix(&Color::srgb(0.72, 0.50, 0.44), if seed.is_multiple_of(3) { 0.8 } else { 0.1 * chance(seed) });
    fish.sheet(
        [10, 8],
        |u, v| {
            let (sin, cos) = (u * TAU).sin_cos();
            let thick = (v * 0.92 + 0.02).powf(0.6) * (1.0 - v).powf(0.75) * 1.7;
            Vec3::new(-0.24 + 0.44 * v, 0.028 + 0.034 * thick * sin, 0.078 * thick * cos)
        },
        |u, _| if (u * TAU).cos() > 0.3 { tinted(color, 0.62) } else { tinted(color, 1.1) },
    );
    let tail = |x: f32, z: f32| Vec3::new(x, 0.028, z);
    fish.quad([tail(0.16, 0.012), tail(0.28, 0.09), tail(0.245, 0.0), tail(0.16, -0.012)], tinted(color, 0.7));
    fish.quad([tail(0.16, 0.012), tail(0.245, 0.0), tail(0.28, -0.09), tail(0.16, -0.012)], tinted(color, 0.7));
    fish.ball(Vec3::new(-0.19, 0.052, 0.02), Vec3::splat(0.011), 4, GLAZE);
    clay.add(&fish, Transform::from_translation(at).with_rotation(Quat::from_rotation_y(turn)));
}

/// A folded cloth.
pub fn cloth(clay: &mut Clay, at: Vec3, color: Color) {
    for layer in 0..4 {
        let size = Vec3::new(0.46 - 0.015 * layer as f32, 0.035, 0.32);
        clay.cuboid(at + Vec3::Y * (0.02 + 0.038 * layer as f32), size, tinted(color, 0.85 + 0.1 * (layer % 2) as f32));
    }
}

/// An open sack, rolled back at its mouth.
pub fn sack(clay: &mut Clay, at: Vec3, size: f32, filling: Color) {
    let linen = Color::srgb(0.66, 0.56, 0.40);
    turned(
        clay,
        at,
        size,
        &[(0.0, 0.0), (0.3, 0.0), (0.36, 0.15), (0.33, 0.4), (0.28, 0.6), (0.33, 0.66), (0.35, 0.6), (0.31, 0.57)],
        |y| tinted(linen, 0.7 + 0.4 * y),
    );
    clay.ball(at + Vec3::Y * 0.58 * size, Vec3::new(0.27, 0.09, 0.27) * size, 6, filling);
    clay.ball(
        at + on_sphere(0.3, 0.5) * 0.05 + Vec3::Y * 0.62 * size,
        Vec3::new(0.15, 0.07, 0.15) * size,
        5,
        tinted(filling, 1.1),
    );
}
