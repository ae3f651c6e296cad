//! Old paving in the middle of the square: each stone a little different, fewer of them towards the edges; pebbles around.

use std::f32::consts::TAU;

use bevy::prelude::*;

use super::{
    Site,
    mesh::{Clay, chance, rough_noise, smoothstep, tinted},
};

const LIMESTONE: Color = Color::srgb(0.74, 0.65, 0.52);
const SANDSTONE: Color = Color::srgb(0.66, 0.53, 0.40);
const PEBBLE: Color = Color::srgb(0.60, 0.53, 0.44);
/// Half of what is paved, in metres: along x, along z.
const PAVED: Vec2 = Vec2::new(11.5, 9.0);
const STONE: f32 = 1.02;

pub fn build(site: &mut Site) {
    let mut clay = Clay::default();
    let rows = (2.0 * PAVED.y / STONE) as u32;
    for row in 0..rows {
        let z = -PAVED.y + 1.8 + row as f32 * STONE;
        let mut x = -PAVED.x + chance(row * 17) * STONE;
        let mut number = 0;
        while x < PAVED.x {
            number += 1;
            let seed = row * 631 + number;
            let wide = STONE * (0.75 + 0.9 * chance(seed));
            let middle = Vec2::new(x + 0.5 * wide, z + 0.5 * STONE);
            // Trodden into the dust: first at the edges, where few walk.
            let edge = ((middle - Vec2::Y * 0.6) / PAVED).length();
            let kept = smoothstep(1.08, 0.45, edge) * (0.6 + 0.8 * rough_noise(middle.x * 0.3, middle.y * 0.3 + 9.0));
            if chance(seed + 70_000) < kept {
                slab(&mut clay, middle, Vec2::new(wide, STONE), seed);
            }
            x += wide;
        }
    }
    pebbles(&mut clay);
    site.put(clay);
}

/// Worn corners, edges that catch the light.
fn slab(clay: &mut Clay, middle: Vec2, size: Vec2, seed: u32) {
    let luck = |number: u32| chance(seed * 13 + number);
    let color = tinted(LIMESTONE.mix(&SANDSTONE, luck(0)), 0.86 + 0.24 * luck(1));
    let high = 0.006 + 0.012 * luck(2);
    let half = 0.5 * size - Vec2::splat(0.02);
    let corner = |way: Vec2, number: u32, inset: f32, y: f32| {
        let wear = Vec2::new(luck(number), luck(number + 1)) * 0.06;
        let at = middle + way * (half - wear - Vec2::splat(inset));
        Vec3::new(at.x, y, at.y)
    };
    let ways = [Vec2::new(-1.0, 1.0), Vec2::ONE, Vec2::new(1.0, -1.0), Vec2::NEG_ONE];
    let top: Vec<Vec3> = ways.iter().zip(1..).map(|(way, number)| corner(*way, 3 * number, 0.025, high)).collect();
    let foot: Vec<Vec3> = ways.iter().zip(1..).map(|(way, number)| corner(*way, 3 * number, 0.0, -0.02)).collect();
    clay.quad([top[0], top[1], top[2], top[3]], color);
    let from = clay.vertices();
    for side in 0..4 {
        let next = (side + 1) % 4;
        clay.quad([foot[side], foot[next], top[next], top[side]], tinted(color, 0.74));
    }
    // A joint is a line of dust, and not a ruled edge that shines on one side and is black on the other.
    clay.relight(from, |_| Vec3::Y);
}

fn pebbles(clay: &mut Clay) {
    for number in 0..170 {
        let turn = chance(number * 3) * TAU;
        let far = 5.0 + 21.0 * chance(number * 3 + 1);
        let at = Vec3::new(turn.sin() * far * 1.1, 0.0, turn.cos() * far * 0.9);
        if at.z < -6.4 && at.x < 10.0 {
            continue;
        }
        let size = 0.03 + 0.09 * chance(number * 3 + 2).powi(3);
        let color = tinted(PEBBLE, 0.8 + 0.4 * chance(number + 900));
        clay.boulder(at + Vec3::Y * 0.3 * size, Vec3::new(1.3, 0.75, 1.0) * size, [3, number as usize], 0.3, color);
    }
}
