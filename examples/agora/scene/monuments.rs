//! Monuments on the square: an altar with its fire, a herm, the statue of a hero, a tripod, benches.

use std::f32::consts::TAU;

use bevy::prelude::*;

use super::{
    Site,
    mesh::{Clay, around, noise, smoothstep, tinted},
    stoa::STONE,
};
use crate::figure;

const MARBLE: Color = Color::srgb(0.84, 0.78, 0.67);
const BRONZE: Color = Color::srgb(0.37, 0.31, 0.18);
const PATINA: Color = Color::srgb(0.27, 0.42, 0.36);
const EMBER: Color = Color::srgb(0.95, 0.42, 0.10);
const ASH: Color = Color::srgb(0.25, 0.22, 0.20);

pub fn build(site: &mut Site) {
    let mut clay = Clay::default();
    let mut place = |part: Clay, x: f32, z: f32, turn: f32, radius: f32| {
        clay.add(&part, Transform::from_xyz(x, 0.0, z).with_rotation(Quat::from_rotation_y(turn)));
        site.block(x, z, radius);
    };
    place(altar(), 6.1, 0.6, 0.12, 1.05);
    place(herm(), 2.3, -6.1, TAU * 0.5, 0.4);
    place(hero(), -6.2, -6.0, TAU * 0.5 + 0.15, 0.85);
    place(tripod(), 9.9, -6.3, 0.3, 0.7);
    for (x, z, turn) in [(-14.6, -6.4, 0.4), (15.4, -1.2, 1.45), (6.5, -6.2, 0.0)] {
        place(bench(), x, z, turn, 0.7);
    }
    site.put(clay);
}

/// A block as old stones are: a little darker at its foot.
fn block(clay: &mut Clay, y: f32, size: Vec3, color: Color) {
    clay.cuboid(Vec3::Y * (y + 0.5 * size.y), size, color);
}

fn altar() -> Clay {
    let mut clay = Clay::default();
    block(&mut clay, 0.0, Vec3::new(2.1, 0.16, 1.5), tinted(STONE, 0.9));
    block(&mut clay, 0.16, Vec3::new(1.8, 0.16, 1.2), STONE);
    block(&mut clay, 0.32, Vec3::new(1.5, 0.1, 0.95), MARBLE);
    block(&mut clay, 0.42, Vec3::new(1.36, 0.6, 0.82), MARBLE);
    block(&mut clay, 0.98, Vec3::new(1.42, 0.05, 0.88), Color::srgb(0.54, 0.17, 0.12));
    block(&mut clay, 1.03, Vec3::new(1.56, 0.12, 1.0), MARBLE);
    // Scrolls at both ends, which keep off the wind.
    for side in [-1.0, 1.0] {
        let end = |z: f32| Vec3::new(0.7 * side, 1.2, z);
        clay.tube(&[end(-0.48), end(-0.48), end(0.48), end(0.48)], &[0.0, 0.1, 0.1, 0.0], 12, MARBLE);
    }
    // A garland on each long side.
    for side in [-1.0, 1.0] {
        for loop_ in [-0.34, 0.34] {
            let path: Vec<Vec3> = (0..=8)
                .map(|step| {
                    let t = step as f32 / 4.0 - 1.0;
                    Vec3::new(loop_ + 0.3 * t, 0.72 + 0.18 * t * t, side * 0.43)
                })
                .collect();
            clay.tube(
                &path,
                &[0.02, 0.035, 0.045, 0.05, 0.055, 0.05, 0.045, 0.035, 0.02],
                7,
                Color::srgb(0.34, 0.42, 0.18),
            );
        }
    }
    clay.ball(Vec3::Y * 1.15, Vec3::new(0.52, 0.07, 0.36), 6, ASH);
    for log in 0..5 {
        let way = around(log as f32 / 5.0 + 0.05) * 0.3;
        clay.tube(&[way * 1.1 + Vec3::Y * 1.2, Vec3::Y * 1.32 - way * 0.2], &[0.04, 0.032], 6, tinted(ASH, 0.7));
    }
    for flame in 0..5 {
        let root = around(flame as f32 * 0.382) * (0.05 * flame as f32) + Vec3::Y * 1.18;
        let tall = 0.34 - 0.04 * flame as f32;
        let path = [
            root,
            root + Vec3::new(0.02, 0.4 * tall, 0.0),
            root + Vec3::new(-0.03, 0.75 * tall, 0.02),
            root + Vec3::Y * tall,
        ];
        clay.tube(&path, &[0.03, 0.06, 0.03, 0.0], 5, EMBER.mix(&Color::srgb(1.0, 0.78, 0.25), flame as f32 / 5.0));
    }
    clay
}

/// A pillar with the head of Hermes, god of roads, who stands ten steps away and is amused.
fn herm() -> Clay {
    let mut clay = Clay::default();
    block(&mut clay, 0.0, Vec3::new(0.62, 0.14, 0.62), STONE);
    clay.tapered(Vec3::Y * 0.76, Vec3::new(0.34, 1.24, 0.3), 0.88, MARBLE);
    block(&mut clay, 1.2, Vec3::new(0.62, 0.1, 0.14), MARBLE);
    clay.tapered(Vec3::Y * 1.44, Vec3::new(0.34, 0.14, 0.26), 0.55, MARBLE);
    let mut head = figure::bust();
    head.repaint(|_, _, color| painted(color, MARBLE, 0.45));
    clay.add(&head, Transform::from_xyz(0.0, 1.44, 0.0).with_scale(Vec3::splat(1.15)));
    clay
}

/// In bronze, gone green where rain runs.
fn hero() -> Clay {
    let mut clay = Clay::default();
    block(&mut clay, 0.0, Vec3::new(1.5, 0.2, 1.5), tinted(STONE, 0.92));
    block(&mut clay, 0.2, Vec3::new(1.2, 0.18, 1.2), MARBLE);
    clay.tapered(Vec3::Y * 0.94, Vec3::new(0.98, 1.12, 0.98), 0.94, MARBLE);
    block(&mut clay, 1.5, Vec3::new(1.12, 0.16, 1.12), MARBLE);
    // The inscription, from here.
    for line in 0..4 {
        let wide = [0.6, 0.66, 0.5, 0.62][line];
        clay.cuboid(
            Vec3::new(0.0, 1.18 - 0.1 * line as f32, -0.478),
            Vec3::new(wide, 0.03, 0.012),
            Color::srgb(0.48, 0.20, 0.15),
        );
    }
    let mut hero = figure::statue();
    hero.repaint(|at, normal, color| {
        let green = smoothstep(0.45, 0.7, noise(at.x * 9.0 + at.y * 2.0, at.y * 4.0 + at.z * 9.0))
            * (0.5 + 0.5 * normal.y.abs());
        painted(color, BRONZE.mix(&PATINA, 0.25 + 0.6 * green), 0.12)
    });
    clay.add(&hero, Transform::from_xyz(0.0, 1.66, 0.0).with_scale(Vec3::splat(1.18)));
    clay
}

/// Stone or metal with a trace of other colours.
fn painted(color: Color, matter: Color, trace: f32) -> Color {
    let light = color.to_linear();
    let grey = (0.3 * light.red + 0.6 * light.green + 0.1 * light.blue).sqrt();
    tinted(matter, 0.68 + 0.42 * grey).mix(&color, trace * (1.0 - grey))
}

/// Won by a chorus.
fn tripod() -> Clay {
    let mut clay = Clay::default();
    let base = [(0.75, 0.0), (0.75, 0.22), (0.6, 0.24), (0.6, 0.95), (0.68, 1.0), (0.68, 1.08), (0.0, 1.08)]
        .map(|(r, y)| Vec2::new(r, y));
    clay.lathe(Vec3::ZERO, &base, 20, |_| MARBLE);
    for leg in 0..3 {
        let out = around(leg as f32 / 3.0);
        let path = [out * 0.42 + Vec3::Y * 1.08, out * 0.36 + Vec3::Y * 1.7, out * 0.4 + Vec3::Y * 2.35];
        clay.tube(&path, &[0.045, 0.03, 0.03], 6, BRONZE);
        let ring: Vec<Vec3> = (0..=10)
            .map(|step| {
                let (sin, cos) = (TAU * step as f32 / 10.0).sin_cos();
                out.cross(Vec3::Y) * sin * 0.13 + out * 0.41 + Vec3::Y * (2.5 + 0.13 * cos)
            })
            .collect();
        clay.tube(&ring, &[0.022; 11], 6, BRONZE.mix(&PATINA, 0.3));
    }
    let bowl = [(0.0, 1.95), (0.2, 1.98), (0.36, 2.12), (0.42, 2.32), (0.46, 2.36), (0.4, 2.34), (0.3, 2.15)]
        .map(|(r, y)| Vec2::new(r, y));
    clay.lathe(Vec3::ZERO, &bowl, 20, |y| BRONZE.mix(&PATINA, smoothstep(2.3, 1.95, y)));
    clay
}

fn bench() -> Clay {
    let mut clay = Clay::default();
    for x in [-0.62, 0.62] {
        clay.tapered(Vec3::new(x, 0.2, 0.0), Vec3::new(0.22, 0.4, 0.42), 0.85, tinted(STONE, 0.85));
    }
    block(&mut clay, 0.4, Vec3::new(1.7, 0.1, 0.5), STONE);
    clay
}
