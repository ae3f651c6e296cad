//! Arms, legs and what hands hold. A limb is modelled hanging down from its joint.

use bevy::prelude::*;

use super::{Carries, Garb, Look};
use crate::scene::mesh::{Clay, around, chance, on_sphere, tinted};

pub const UPPER_ARM: f32 = 0.27;
/// From the hip to the ground.
pub const LEG: f32 = 0.86;
pub const THIGH: f32 = 0.41;
const FOREARM: f32 = 0.24;
const SIDES: usize = 9;
const WOOD: Color = Color::srgb(0.36, 0.23, 0.13);
const LEATHER: Color = Color::srgb(0.30, 0.17, 0.09);
const WICKER: Color = Color::srgb(0.62, 0.45, 0.24);
const GOLD: Color = Color::srgb(0.84, 0.62, 0.22);

fn down(length: f32) -> Vec3 {
    Vec3::NEG_Y * length
}

fn slender(look: &Look) -> f32 {
    0.5 + 0.5 * look.girth
}

pub fn upper_arm(look: &Look, side: f32) -> Clay {
    let mut clay = Clay::default();
    let thick = slender(look);
    let path = [Vec3::Y * 0.04, down(0.06), down(0.16), down(UPPER_ARM)];
    clay.tube(&path, &[0.03, 0.056, 0.05, 0.041].map(|radius| radius * thick), SIDES, look.skin);
    clay.ball(down(0.012), Vec3::new(0.058, 0.062, 0.058) * thick, 7, look.skin);
    clay.ball(down(UPPER_ARM), Vec3::splat(0.041 * thick), 5, look.skin);
    let cloaked = side < 0.0 && matches!(look.garb, Garb::Himation | Garb::Threadbare);
    let bare = look.garb == Garb::Threadbare || (look.garb == Garb::Exomis && side > 0.0);
    if cloaked {
        sleeve(&mut clay, UPPER_ARM + 0.02, 0.069 * thick, look.cloak);
    } else if !bare {
        sleeve(&mut clay, 0.16, 0.066 * thick, look.tunic);
    }
    clay
}

fn sleeve(clay: &mut Clay, length: f32, radius: f32, color: Color) {
    clay.sheet(
        [20, 6],
        |u, v| {
            let fold = 1.0 + 0.09 * (1.0 - v) * (u * 5.0 * std::f32::consts::TAU + 5.0 * v).sin();
            let round = (1.0 - ((v - 0.72).max(0.0) / 0.28).powi(2)).max(0.0).sqrt();
            around(u) * radius * round * (1.22 - 0.22 * v) * fold + Vec3::Y * (0.048 - (length + 0.048) * (1.0 - v))
        },
        |u, v| tinted(color, 0.86 + 0.14 * (u * 5.0 * std::f32::consts::TAU + 5.0 * v).sin() * (1.0 - v)),
    );
}

pub fn forearm(look: &Look, side: f32) -> Clay {
    let mut clay = Clay::default();
    let thick = slender(look);
    let path = [Vec3::ZERO, down(0.07), down(0.16), down(FOREARM)];
    clay.tube(&path, &[0.041, 0.043, 0.034, 0.026].map(|radius| radius * thick), SIDES, look.skin);
    clay.ball(down(FOREARM + 0.045), Vec3::new(0.022, 0.055, 0.038), 6, look.skin);
    // The thumb, and fingers a little bent.
    clay.ball(
        down(FOREARM + 0.03) + Vec3::new(-side * 0.012, 0.0, -0.035),
        Vec3::new(0.013, 0.034, 0.014),
        4,
        look.skin,
    );
    clay.ball(
        down(FOREARM + 0.092) + Vec3::new(-side * 0.008, 0.0, -0.004),
        Vec3::new(0.015, 0.034, 0.032),
        5,
        look.skin,
    );
    if side < 0.0 {
        match look.carries {
            Carries::Kerykeion => kerykeion(&mut clay),
            Carries::Scroll => scroll(&mut clay),
            _ => {}
        }
        if matches!(look.garb, Garb::Himation | Garb::Threadbare) {
            hanging_end(&mut clay, look);
        }
    }
    clay
}

/// Cloth over the bent arm: the arm points forward then, so that local +z is down.
fn hanging_end(clay: &mut Clay, look: &Look) {
    let color = look.cloak;
    clay.sheet(
        [14, 8],
        |u, v| {
            let wave = (u * 3.0 * std::f32::consts::TAU).sin();
            let along = -0.015 - 0.15 * u;
            let drop = (1.0 - v) * (0.46 + 0.05 * wave);
            Vec3::new((0.016 + 0.012 * (1.0 - v)) * wave - 0.02, along, 0.03 + drop)
        },
        |u, _| tinted(color, 0.84 + 0.14 * (u * 3.0 * std::f32::consts::TAU).sin()),
    );
    clay.tube(&[down(-0.02), down(0.16)], &[0.062, 0.056], 12, color);
}

pub fn thigh(look: &Look) -> Clay {
    let mut clay = Clay::default();
    let thick = slender(look);
    let path = [Vec3::ZERO, down(0.15), down(0.3), down(THIGH)];
    clay.tube(&path, &[0.085, 0.078, 0.062, 0.052].map(|radius| radius * thick), SIDES, look.skin);
    clay.ball(down(THIGH), Vec3::splat(0.052 * thick), 5, look.skin);
    clay
}

pub fn shin(look: &Look) -> Clay {
    let mut clay = Clay::default();
    let thick = slender(look);
    let ankle = LEG - THIGH - 0.07;
    let path = [Vec3::ZERO, down(0.11) + Vec3::Z * 0.012, down(0.24) + Vec3::Z * 0.004, down(ankle)];
    clay.tube(&path, &[0.05, 0.057, 0.042, 0.032].map(|radius| radius * thick), SIDES, look.skin);
    let sole = LEG - THIGH;
    clay.ball(down(sole - 0.042) + Vec3::NEG_Z * 0.045, Vec3::new(0.046, 0.036, 0.115), 7, look.skin);
    clay.ball(down(sole - 0.026) + Vec3::NEG_Z * 0.115, Vec3::new(0.05, 0.022, 0.055), 6, look.skin);
    if look.garb != Garb::Threadbare {
        clay.cuboid(down(sole - 0.011) + Vec3::NEG_Z * 0.055, Vec3::new(0.1, 0.022, 0.26), LEATHER);
        for (forward, high) in [(0.1, 0.062), (0.045, 0.085)] {
            let at = down(sole - 0.5 * high) + Vec3::NEG_Z * forward;
            clay.cuboid(at, Vec3::new(0.098, high, 0.018), LEATHER);
        }
        clay.tube(&[down(ankle), down(ankle - 0.025)], &[0.04, 0.041], SIDES, LEATHER);
    }
    clay
}

/// Where the right hand holds it.
pub fn staff(clay: &mut Clay) {
    let foot = Vec3::new(0.33, 0.0, -0.37);
    let path = [foot, foot + Vec3::new(-0.008, 0.7, 0.012), foot + Vec3::new(0.0, 1.42, 0.0)];
    clay.tube(&path, &[0.014, 0.017, 0.021], 7, WOOD);
    clay.ball(foot + Vec3::Y * 1.43, Vec3::new(0.03, 0.034, 0.03), 5, WOOD);
}

/// Upright, in a raised hand.
pub fn spear(clay: &mut Clay, hand: Vec3) {
    let foot = hand.with_y(0.0);
    clay.tube(&[foot, foot + Vec3::Y * 2.35], &[0.017, 0.015], 6, WOOD);
    clay.tube(&[foot + Vec3::Y * 2.33, foot + Vec3::Y * 2.42, foot + Vec3::Y * 2.62], &[0.012, 0.038, 0.0], 6, GOLD);
}

fn kerykeion(clay: &mut Clay) {
    let at = |along: f32, aside: f32| Vec3::new(aside, -FOREARM - 0.055, 0.2 - along);
    clay.tube(&[at(0.0, 0.0), at(0.72, 0.0)], &[0.011, 0.011], 6, GOLD);
    for way in [-1.0, 1.0] {
        let snake: Vec<Vec3> = (0..=16)
            .map(|step| {
                let t = step as f32 / 16.0;
                let wide = 0.055 + 0.02 * t;
                at(0.42 + 0.3 * t, way * wide * (t * 2.0 * std::f32::consts::PI + 0.3).sin())
            })
            .collect();
        clay.tube(&snake, &[0.011; 17], 5, GOLD);
    }
    clay.ball(at(0.75, 0.0), Vec3::splat(0.026), 5, GOLD);
    for way in [-1.0, 1.0] {
        let wing = [at(0.66, 0.01 * way), at(0.78, 0.15 * way), at(0.70, 0.13 * way)];
        clay.triangle(wing, Color::srgb(0.88, 0.84, 0.74));
    }
}

fn scroll(clay: &mut Clay) {
    let at = |along: f32| Vec3::new(0.0, -FOREARM - 0.06, along);
    clay.tube(
        &[at(0.15), at(0.15), at(-0.17), at(-0.17)],
        &[0.0, 0.027, 0.027, 0.0],
        10,
        Color::srgb(0.84, 0.74, 0.52),
    );
    clay.tube(&[at(0.01), at(-0.03)], &[0.029, 0.029], 10, Color::srgb(0.56, 0.14, 0.10));
}

/// On the left hip.
pub fn basket(clay: &mut Clay, look: &Look) {
    let foot = Vec3::new(-0.30 * slender(look), 0.93, -0.24);
    let profile =
        [(0.0, 0.0), (0.12, 0.0), (0.16, 0.09), (0.185, 0.17), (0.17, 0.17), (0.15, 0.1)].map(|(r, y)| Vec2::new(r, y));
    clay.lathe(foot, &profile, 18, |y| tinted(WICKER, if (y * 40.0) as i32 % 2 == 0 { 0.8 } else { 1.0 }));
    for number in 0..14 {
        let at = on_sphere(0.382 * number as f32, 0.5) * 0.13 * chance(number).sqrt();
        let (color, radii) = if number.is_multiple_of(3) {
            (Color::srgb(0.72, 0.45, 0.19), Vec3::new(0.065, 0.045, 0.05))
        } else {
            (Color::srgb(0.32, 0.17, 0.27), Vec3::new(0.034, 0.038, 0.034))
        };
        clay.ball(foot + at + Vec3::Y * (0.15 + 0.03 * chance(number + 50)), radii, 5, color);
    }
}
