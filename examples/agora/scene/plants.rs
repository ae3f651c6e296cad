//! Trees, shrubs and grass. A crown is a few lumps wrapped in loose leaves that are lit as the whole crown is; of each kind
//! of tree there are two shapes, which stand about turned and stretched.

use std::f32::consts::TAU;

use bevy::prelude::*;

use super::{
    Site, land,
    mesh::{Clay, around, chance, noise, on_sphere, smoothstep, tinted},
};

const BARK: Color = Color::srgb(0.40, 0.31, 0.24);
const PALE_BARK: Color = Color::srgb(0.62, 0.55, 0.44);

/// On each lump of a crown.
const LEAVES: u32 = 62;

/// Of which tree a crown is.
struct Kind {
    bark: Color,
    dark: Color,
    light: Color,
    /// Half length and half width of a leaf, in metres.
    leaf: [f32; 2],
}

const OLIVE: Kind =
    Kind { bark: BARK, dark: Color::srgb(0.25, 0.29, 0.20), light: Color::srgb(0.58, 0.61, 0.44), leaf: [0.17, 0.05] };
const PLANE: Kind = Kind {
    bark: PALE_BARK,
    dark: Color::srgb(0.17, 0.26, 0.10),
    light: Color::srgb(0.52, 0.56, 0.20),
    leaf: [0.19, 0.14],
};

pub fn build(site: &mut Site) {
    let olives = [
        (-15.6, -5.6, 1.15),
        (16.6, -4.4, 1.0),
        (-15.2, 8.6, 1.0),
        (12.2, 9.8, 1.05),
        (21.5, -9.0, 1.0),
        (-22.0, 1.5, 1.2),
        (-9.5, 17.5, 1.1),
        (7.0, 19.5, 1.0),
        (24.0, 8.0, 1.2),
        (-25.0, 12.0, 1.1),
        (18.5, -19.0, 0.9),
        (-13.0, 27.0, 1.2),
        (15.0, 28.0, 1.2),
        (31.0, -6.0, 1.2),
        (-34.0, -6.0, 1.3),
    ];
    let planes = [(-19.5, -3.0, 1.1), (18.8, 4.6, 1.0), (-11.8, 13.4, 1.0), (10.5, 24.0, 1.1), (29.0, -14.5, 1.15)];
    grove(site, &olives, olive);
    grove(site, &planes, plane);
    let cypresses = [
        (10.6, -12.0, 0.62),
        (25.5, -14.2, 1.2),
        (24.0, -12.6, 0.9),
        (34.0, -27.0, 1.1),
        (9.9, -14.4, 0.8),
        (-21.0, -12.0, 1.1),
        (-23.0, -9.0, 0.9),
        (-11.8, 20.5, 1.0),
        (-13.4, 21.5, 1.2),
        (5.5, 31.0, 1.2),
        (-4.0, 33.0, 1.1),
        (27.0, 2.0, 1.1),
        (28.5, 3.5, 0.9),
        (-29.0, 5.0, 1.2),
        (34.0, -16.0, 1.2),
        (-58.0, 4.0, 1.2),
    ];
    grove(site, &cypresses, cypress);
    site.put(undergrowth());
}

/// Trees at x, z and of a size.
fn grove(site: &mut Site, places: &[(f32, f32, f32)], grow: impl Fn(u32) -> Clay) {
    for shape in 0..2 {
        let chosen = places.iter().enumerate().filter(|(number, _)| number % 2 == shape);
        let stand = |(number, &(x, z, size)): (usize, &(f32, f32, f32))| {
            let turn = Quat::from_rotation_y(number as f32 * 2.4);
            Transform::from_xyz(x, land::height(x, z), z).with_rotation(turn).with_scale(Vec3::splat(size))
        };
        site.put_all(grow(shape as u32), chosen.map(stand).collect());
    }
    for &(x, z, size) in places.iter().filter(|(x, z, _)| x.abs() < 18.5 && z.abs() < 13.0) {
        site.block(x, z, 0.45 * size);
    }
}

fn olive(seed: u32) -> Clay {
    let mut clay = Clay::default();
    let fork = Vec3::new(0.12, 1.15, 0.05);
    // Two stems that wind around each other.
    for way in [-1.0, 1.0] {
        let path = [
            Vec3::new(0.16 * way, -0.1, 0.05 * way),
            Vec3::new(-0.06 * way, 0.5, 0.12 * way),
            fork,
            fork + Vec3::new(0.55 * way, 0.75, 0.2 * way),
        ];
        clay.tube(&path, &[0.27, 0.17, 0.16, 0.06], 7, OLIVE.bark);
    }
    crown(&mut clay, &OLIVE, Vec3::new(0.05, 2.45, 0.0), Vec3::new(1.5, 0.95, 1.4), 10, seed + 3);
    clay
}

fn plane(seed: u32) -> Clay {
    let mut clay = Clay::default();
    clay.tube(
        &[Vec3::NEG_Y * 0.1, Vec3::Y * 0.5, Vec3::new(0.1, 1.9, 0.0), Vec3::new(0.0, 3.4, 0.1)],
        &[0.48, 0.34, 0.29, 0.2],
        9,
        PLANE.bark,
    );
    for branch in 0..5 {
        let way = around(branch as f32 / 5.0 + 0.1 * chance(seed + branch));
        let root = Vec3::Y * (2.0 + 0.25 * branch as f32);
        clay.tube(
            &[root, root + way * 0.8 + Vec3::Y * 0.7, root + way * 1.7 + Vec3::Y * 1.7],
            &[0.15, 0.11, 0.05],
            6,
            PLANE.bark,
        );
    }
    crown(&mut clay, &PLANE, Vec3::new(0.0, 4.75, 0.0), Vec3::new(2.7, 1.75, 2.6), 17, seed + 40);
    clay
}

/// Lumps around the middle, leaves around the lumps.
fn crown(clay: &mut Clay, kind: &Kind, middle: Vec3, radii: Vec3, lumps: u32, seed: u32) {
    let size = radii.min_element() * 0.56;
    for lump in 0..lumps {
        let luck = |number: u32| chance(seed * 977 + lump * 31 + number);
        let turn = lump as f32 * 0.618 + 0.1 * luck(0);
        let rise = 0.2 + 0.8 * ((lump as f32 + 0.5) / lumps as f32);
        let center = middle + on_sphere(turn, rise) * (radii - Vec3::splat(0.6 * size)) * (0.75 + 0.3 * luck(1));
        let wide = size * (0.75 + 0.5 * luck(2));
        let from = clay.vertices();
        clay.boulder(center, Vec3::new(wide, 0.8 * wide, wide) * 0.94, [5, (seed + lump) as usize], 0.25, kind.dark);
        for leaf in 0..LEAVES {
            let way = on_sphere(leaf as f32 * 0.618, 0.1 + 0.9 * (leaf as f32 + 0.5) / LEAVES as f32);
            let number = lump * 1_000 + leaf * 7 + seed;
            leaf_at(
                clay,
                kind,
                center + way * wide * Vec3::new(1.0, 0.8, 1.0) * (0.9 + 0.36 * chance(number)),
                way,
                number,
            );
        }
        // Half by the lump, half by the crown: soft, and yet of lumps.
        clay.relight(from, |at| (at - center) / wide + 0.8 * (at - middle) / radii + Vec3::Y * 0.25);
    }
    let low = middle.y - radii.y;
    let trunk_top = middle - Vec3::Y * radii.y;
    clay.repaint(|at, _, color| {
        if at.y < trunk_top.y || is_bark(color, kind.bark) {
            return tinted(color, 0.7 + 0.3 * smoothstep(0.0, 1.0, at.y));
        }
        // Dark inside and beneath.
        let out = ((at - middle) / radii).length();
        let open = smoothstep(0.35, 1.05, out) * (0.35 + 0.65 * smoothstep(low, middle.y + 0.6 * radii.y, at.y));
        tinted(kind.dark.mix(&kind.light, open), 0.8 + 0.4 * noise(at.x * 5.0 + at.y * 3.0, at.z * 5.0 - at.y * 2.0))
    });
}

fn is_bark(color: Color, bark: Color) -> bool {
    let [a, b] = [color, bark].map(|color| color.to_linear());
    (a.red - b.red).abs() + (a.blue - b.blue).abs() < 1e-4
}

fn leaf_at(clay: &mut Clay, kind: &Kind, at: Vec3, way: Vec3, number: u32) {
    let luck = |offset: u32| chance(number.wrapping_mul(17) + offset) - 0.5;
    let tip = (way + 1.7 * Vec3::new(luck(1), luck(2) - 0.2, luck(3))).normalize_or(Vec3::Y);
    let aside = tip.cross(Vec3::new(luck(4), 1.0, luck(5))).normalize_or(Vec3::X);
    let [long, wide] = kind.leaf;
    clay.quad([at - tip * long, at + aside * wide, at + tip * long, at - aside * wide], kind.light);
}

fn cypress(seed: u32) -> Clay {
    let mut clay = Clay::default();
    clay.tube(&[Vec3::NEG_Y * 0.1, Vec3::Y * 0.9], &[0.2, 0.15], 7, BARK);
    let green = [Color::srgb(0.10, 0.17, 0.10), Color::srgb(0.27, 0.33, 0.15)];
    let outline = |v: f32| (0.95 * (v * 1.08).min(1.0).powf(0.42) * (1.0 - v).powf(0.62) + 0.02) * 1.15;
    let from = clay.vertices();
    clay.facets(
        [14, 16],
        |u, v| {
            let tuft = 1.0 + 0.32 * (noise(u * 9.0 + 20.0 * seed as f32, v * 17.0) - 0.5);
            around(u) * outline(v) * if u == 0.0 || u == 1.0 { 1.0 } else { tuft } + Vec3::Y * (0.55 + 7.2 * v)
        },
        |u, v| tinted(green[0].mix(&green[1], noise(u * 12.0, v * 21.0)), 0.7 + 0.4 * v),
    );
    for leaf in 0..240 {
        let v = (leaf as f32 + 0.5) / 240.0;
        let way = around(leaf as f32 * 0.618);
        let root = way * outline(v) * 0.95 + Vec3::Y * (0.5 + 7.2 * v);
        let tip = root + way * 0.1 + Vec3::Y * (0.42 + 0.2 * chance(leaf + seed));
        let aside = way.cross(Vec3::Y) * 0.075;
        clay.quad([root - aside, root + aside, tip, tip], green[0].mix(&green[1], chance(leaf * 3 + seed)));
    }
    clay.relight(from, |at| Vec3::new(at.x, 0.2, at.z));
    clay
}

/// Tufts of dry grass, and low shrubs at the foot of things.
fn undergrowth() -> Clay {
    let mut clay = Clay::default();
    for number in 0..330 {
        let turn = chance(number * 5 + 1) * TAU;
        let far = 11.0 + 20.0 * chance(number * 5 + 2).powf(1.4);
        let at = Vec3::new(turn.sin() * far * 1.15, 0.0, turn.cos() * far);
        let on_road = (at.x - 1.5).abs() < 3.0 && at.z > 6.0;
        if !on_road && (at.z > -7.0 || at.x > 10.5) {
            tuft(&mut clay, at, 0.7 + 0.6 * chance(number), number);
        }
    }
    clay
}

fn tuft(clay: &mut Clay, at: Vec3, size: f32, seed: u32) {
    let green = Color::srgb(0.60, 0.55, 0.28).mix(&Color::srgb(0.36, 0.42, 0.18), chance(seed * 7));
    for blade in 0..9 {
        let way = around(blade as f32 / 9.0 + chance(seed));
        let root = at + way * 0.07 * size - Vec3::Y * 0.03;
        let tip = at
            + way * (0.12 + 0.14 * chance(seed * 11 + blade)) * size
            + Vec3::Y * size * (0.2 + 0.22 * chance(seed * 13 + blade));
        let aside = way.cross(Vec3::Y) * 0.022 * size;
        clay.triangle([root - aside, root + aside, tip], tinted(green, 0.8 + 0.4 * chance(blade + seed)));
    }
}
