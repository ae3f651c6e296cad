//! Face, hair, beard and hat, which make a character recognisable. All measures are from the middle of the skull.

use std::f32::consts::{PI, TAU};

use bevy::prelude::*;

use super::{Beard, Garb, Hair, Hat, Look};
use crate::scene::mesh::{Clay, around, smoothstep, tinted};

const MIDDLE: Vec3 = Vec3::new(0.0, 0.15, -0.012);
const SKULL: Vec3 = Vec3::new(0.099, 0.132, 0.116);
const FELT: Color = Color::srgb(0.52, 0.39, 0.25);
const LEAF: Color = Color::srgb(0.36, 0.44, 0.20);

pub fn head(look: &Look) -> Clay {
    let mut clay = Clay::default();
    face(&mut clay, look);
    match look.hair {
        Hair::Bald => fringe(&mut clay, look.hair_color),
        Hair::Short => cap(&mut clay, 0.014, look.hair_color),
        Hair::Long => {
            cap(&mut clay, 0.018, look.hair_color);
            locks(&mut clay, look.hair_color);
        }
        Hair::Kerchief => kerchief(&mut clay, look.hair_color),
    }
    if look.beard != Beard::None {
        beard(&mut clay, look);
    }
    match look.hat {
        Hat::None => {}
        Hat::Petasos => petasos(&mut clay, FELT),
        Hat::WingedPetasos => {
            petasos(&mut clay, Color::srgb(0.80, 0.60, 0.26));
            wings(&mut clay);
        }
        Hat::Pilos => pilos(&mut clay),
        Hat::Wreath => wreath(&mut clay),
    }
    let mut placed = Clay::default();
    placed.add(&clay, Transform::from_translation(MIDDLE));
    placed.tube(
        &[Vec3::NEG_Y * 0.03, Vec3::new(0.0, 0.05, 0.0), Vec3::new(0.0, 0.12, 0.0)],
        &[0.062, 0.052, 0.054],
        10,
        look.skin,
    );
    placed
}

/// On the skull: `turn` from the front to the left, `rise` from its equator, both in radians.
fn on_skull(turn: f32, rise: f32, off: f32) -> Vec3 {
    let (sin, cos) = rise.sin_cos();
    (around(turn / TAU) * cos + Vec3::Y * sin) * (SKULL + off)
}

fn face(clay: &mut Clay, look: &Look) {
    let skin = look.skin;
    clay.ball(Vec3::ZERO, SKULL, 11, skin);
    clay.ball(Vec3::new(0.0, -0.062, -0.022), Vec3::new(0.076, 0.074, 0.086), 8, skin);
    let woman = look.garb == Garb::Peplos;
    let brow = if look.hair == Hair::Kerchief { Color::srgb(0.20, 0.13, 0.08) } else { tinted(look.hair_color, 0.75) };
    for side in [-1.0, 1.0] {
        let eye = Vec3::new(0.037 * side, 0.012, -0.1);
        clay.ball(eye, Vec3::new(0.0195, 0.0135, 0.014), 7, Color::srgb(0.85, 0.82, 0.77));
        clay.ball(
            eye + Vec3::new(0.0, -0.0005, -0.0085),
            Vec3::new(0.0095, 0.0105, 0.0075),
            6,
            Color::srgb(0.13, 0.08, 0.05),
        );
        // The lid, so that the eyes do not stare.
        clay.ball(eye + Vec3::new(0.0, 0.0075, -0.0005), Vec3::new(0.0215, 0.0095, 0.0165), 6, tinted(skin, 0.82));
        let inner = Vec3::new(0.014 * side, 0.038, -0.113);
        let middle = Vec3::new(0.038 * side, 0.047, -0.108);
        let outer = Vec3::new(0.064 * side, 0.036, -0.09);
        let thick = if woman { 0.0045 } else { 0.008 };
        clay.tube(&[inner, middle, outer], &[thick, thick * 1.1, thick * 0.5], 6, brow);
        clay.ball(Vec3::new(0.099 * side, 0.0, 0.008), Vec3::new(0.013, 0.03, 0.02), 6, tinted(skin, 0.93));
        clay.ball(Vec3::new(0.048 * side, -0.035, -0.083), Vec3::new(0.026, 0.024, 0.02), 6, tinted(skin, 1.02));
    }
    nose(clay, look);
    let lips = Color::srgb(0.55, 0.27, 0.21);
    clay.ball(Vec3::new(0.0, -0.064, -0.1045), Vec3::new(0.023, 0.0055, 0.008), 6, lips);
    clay.ball(Vec3::new(0.0, -0.0725, -0.1035), Vec3::new(0.018, 0.0055, 0.008), 6, lips);
}

/// Straight from the brow; the nose of Socrates is snub.
fn nose(clay: &mut Clay, look: &Look) {
    let shade = tinted(look.skin, 0.97);
    if look.garb == Garb::Threadbare {
        clay.ball(Vec3::new(0.0, -0.02, -0.122), Vec3::new(0.025, 0.021, 0.022), 7, tinted(look.skin, 0.95));
        clay.ball(Vec3::new(0.0, 0.012, -0.112), Vec3::new(0.014, 0.026, 0.012), 6, shade);
        return;
    }
    let top = Vec3::new(0.0, 0.036, -0.113);
    let tip = Vec3::new(0.0, -0.024, -0.138);
    clay.tube(&[top, top.lerp(tip, 0.5), tip], &[0.009, 0.0115, 0.014], 7, shade);
    clay.ball(tip + Vec3::new(0.0, -0.002, 0.003), Vec3::new(0.0165, 0.0125, 0.015), 6, shade);
}

/// How low the hair comes, above the equator of the skull.
fn hairline(turn: f32) -> f32 {
    let front = turn.cos();
    0.66 * smoothstep(0.25, 0.85, front) - 0.85 * smoothstep(-0.05, -0.8, front) + 0.05
}

fn curl(turn: f32, rise: f32) -> f32 {
    0.5 + 0.5 * (11.0 * turn + 3.0 * (5.0 * rise).sin()).sin() * (9.0 * rise + 2.0 * turn.cos()).cos()
}

fn cap(clay: &mut Clay, thick: f32, color: Color) {
    let rise = |turn: f32, v: f32| hairline(turn) + (0.5 * PI - hairline(turn)) * v;
    clay.sheet(
        [34, 9],
        |u, v| {
            let turn = u * TAU;
            let rise = rise(turn, v);
            let edge = smoothstep(0.0, 0.16, v);
            on_skull(turn, rise, -0.004 + edge * (thick + 0.011 * curl(turn, rise) * (1.0 - v)))
        },
        |u, v| tinted(color, 0.75 + 0.45 * curl(u * TAU, rise(u * TAU, v))),
    );
}

/// The hair left around a bald head.
fn fringe(clay: &mut Clay, color: Color) {
    clay.sheet(
        [30, 5],
        |u, v| {
            let turn = TAU * (0.19 + 0.62 * u);
            let low = hairline(turn).min(0.0) - 0.1;
            let rise = low + (0.42 - low) * v;
            let edge = (PI * v).sin().max(0.0).sqrt() * (PI * u).sin().max(0.0).powf(0.35);
            on_skull(turn, rise, -0.006 + 0.03 * edge + 0.008 * curl(1.5 * turn, rise) * edge)
        },
        |u, v| tinted(color, 0.8 + 0.35 * curl(1.5 * TAU * u, v)),
    );
}

/// Down to the shoulders.
fn locks(clay: &mut Clay, color: Color) {
    clay.sheet(
        [30, 9],
        |u, v| {
            let turn = TAU * (0.2 + 0.6 * u);
            let wave = (u * 9.0 * TAU).sin();
            let low = 1.0 - v;
            let top = on_skull(turn, 0.15, 0.02);
            let out = 1.0 + 0.14 * (low * 2.6).sin() + 0.05 * wave * low;
            Vec3::new(top.x * out, top.y - 0.215 * low + 0.018 * wave * low, top.z * out)
        },
        |u, v| tinted(color, 0.82 + 0.25 * (u * 9.0 * TAU).sin() * (1.0 - 0.4 * v)),
    );
}

fn kerchief(clay: &mut Clay, color: Color) {
    clay.sheet(
        [30, 8],
        |u, v| {
            let turn = u * TAU;
            let low = hairline(turn).min(0.52) - 0.08;
            let bun = 0.04 * smoothstep(0.3, 0.95, -turn.cos()) * (PI * v).sin();
            on_skull(turn, low + (0.5 * PI - low) * v, 0.014 + bun + 0.004 * (13.0 * turn).sin() * (1.0 - v))
        },
        |_, v| if v < 0.13 { Color::srgb(0.80, 0.66, 0.40) } else { color },
    );
    // A lock that came loose, and the knot.
    let dark = Color::srgb(0.20, 0.13, 0.08);
    for side in [-1.0, 1.0] {
        let lock = [
            Vec3::new(0.07 * side, 0.062, -0.092),
            Vec3::new(0.096 * side, 0.01, -0.055),
            Vec3::new(0.1 * side, -0.06, -0.035),
        ];
        clay.tube(&lock, &[0.014, 0.017, 0.005], 6, dark);
    }
    clay.ball(Vec3::new(0.0, -0.06, 0.118), Vec3::new(0.035, 0.026, 0.028), 6, color);
    for side in [-1.0, 1.0] {
        let end =
            [Vec3::new(0.0, -0.06, 0.13), Vec3::new(0.03 * side, -0.2, 0.15), Vec3::new(0.065 * side, -0.18, 0.14)];
        clay.triangle(end, tinted(color, 0.9));
    }
}

fn beard(clay: &mut Clay, look: &Look) {
    let color = look.hair_color;
    let (long, thick) = if look.beard == Beard::Full { (0.115, 0.026) } else { (0.042, 0.012) };
    clay.sheet(
        [26, 9],
        |u, v| {
            let turn = (u - 0.5) * 1.02 * PI;
            let front = turn.cos().max(0.0);
            // From the ears down to beneath the lips, and from there to a point.
            let top = 0.05 - 0.145 * smoothstep(0.35, 0.92, front);
            let lock = 1.0 + 0.16 * (u * 7.0 * TAU + 9.0 * v).sin() * (1.0 - v);
            let y = top + (-0.105 - long * front.powi(2) - top) * (1.0 - v);
            let round = (1.0 - (1.0 - v).powi(3)).max(0.0).sqrt();
            let reach = Vec2::new(0.094 + thick * 0.5, 0.108 + thick) * (0.22 + 0.78 * round) * (0.97 + 0.03 * lock);
            Vec3::new(-turn.sin() * reach.x, y, -front * reach.y + 0.012 - 0.02 * (1.0 - v))
        },
        |u, v| tinted(color, 0.85 + 0.3 * (u * 7.0 * TAU + 9.0 * v).sin()),
    );
    for side in [-1.0, 1.0] {
        let path = [
            Vec3::new(0.002 * side, -0.05, -0.119),
            Vec3::new(0.03 * side, -0.056, -0.112),
            Vec3::new(0.05 * side, -0.085, -0.095),
        ];
        clay.tube(&path, &[0.0075, 0.0115, 0.006], 6, color);
    }
}

fn petasos(clay: &mut Clay, color: Color) {
    let mut hat = Clay::default();
    let profile = [
        (0.0, 0.012),
        (0.15, 0.006),
        (0.262, -0.022),
        (0.268, -0.012),
        (0.15, 0.024),
        (0.118, 0.032),
        (0.106, 0.085),
        (0.075, 0.118),
        (0.0, 0.126),
    ];
    hat.lathe(Vec3::ZERO, &profile.map(|(r, y)| Vec2::new(r, y)), 26, |y| {
        tinted(color, if (0.03..0.05).contains(&y) { 0.55 } else { 1.0 })
    });
    clay.add(
        &hat,
        Transform::from_xyz(0.0, 0.066, 0.022)
            .with_rotation(Quat::from_rotation_x(0.2))
            .with_scale(Vec3::new(1.04, 1.0, 1.12)),
    );
}

fn wings(clay: &mut Clay) {
    let white = Color::srgb(0.90, 0.86, 0.76);
    for side in [-1.0, 1.0] {
        for feather in 0..4 {
            let t = feather as f32;
            let root = Vec3::new(0.118 * side, 0.105, -0.01 + 0.018 * t);
            let tip = root + Vec3::new((0.11 + 0.012 * t) * side, 0.19 - 0.045 * t, 0.10 + 0.035 * t);
            let wide = Vec3::new(0.0, 0.018, -0.03);
            let middle = root.lerp(tip, 0.55);
            clay.quad([root - wide * 0.5, middle - wide, tip, middle + wide], tinted(white, 1.0 - 0.06 * t));
        }
    }
}

fn pilos(clay: &mut Clay) {
    let profile = [(0.128, 0.0), (0.135, 0.012), (0.12, 0.05), (0.095, 0.11), (0.05, 0.165), (0.0, 0.185)];
    let mut hat = Clay::default();
    hat.lathe(Vec3::ZERO, &profile.map(|(r, y)| Vec2::new(r, y)), 18, |y| {
        tinted(Color::srgb(0.58, 0.42, 0.27), if y < 0.02 { 0.7 } else { 1.0 })
    });
    clay.add(&hat, Transform::from_xyz(0.0, 0.055, 0.012).with_rotation(Quat::from_rotation_x(0.14)));
}

fn wreath(clay: &mut Clay) {
    let leaves = 22;
    for number in 0..leaves {
        let turn = TAU * number as f32 / leaves as f32;
        for up in [-1.0, 1.0] {
            let root = on_skull(turn, 0.52 + 0.1 * turn.cos(), 0.026);
            let along = Vec3::Y.cross(root).normalize();
            let tip = root * 1.1 + along * 0.05 + Vec3::Y * 0.03 * up;
            let middle = root.lerp(tip, 0.5);
            let wide = Vec3::Y * 0.014 + root.normalize() * 0.008;
            clay.quad([root, middle - wide, tip, middle + wide], tinted(LEAF, 1.0 + 0.2 * up));
        }
    }
}
