//! The colonnade along the north side: three steps, twelve Doric columns, a painted wall in deep shade, a tiled roof.

use bevy::prelude::*;

use super::{
    Site,
    mesh::{Clay, around, chance, noise, smoothstep, tinted},
};

pub const STONE: Color = Color::srgb(0.80, 0.72, 0.58);
const STUCCO: Color = Color::srgb(0.78, 0.67, 0.48);
const BLUE: Color = Color::srgb(0.14, 0.27, 0.47);
const RED: Color = Color::srgb(0.56, 0.17, 0.11);
const OXBLOOD: Color = Color::srgb(0.36, 0.11, 0.08);
const TIMBER: Color = Color::srgb(0.30, 0.19, 0.11);
const TILE: Color = Color::srgb(0.66, 0.33, 0.19);

const COLUMNS: usize = 12;
const SPACING: f32 = 2.3;
const FIRST_COLUMN: f32 = -16.8;
/// Ends of the platform.
const WEST: f32 = FIRST_COLUMN - 0.65;
pub const EAST: f32 = FIRST_COLUMN + (COLUMNS as f32 - 1.0) * SPACING + 0.65;
/// The edge of the platform, the axis of the columns, the wall behind them.
const FRONT: f32 = -7.6;
const AXIS: f32 = -8.15;
const WALL: f32 = -12.9;
/// Where columns stand, where they end, and where the roof begins.
const FLOOR: f32 = 0.6;
const CAPITALS: f32 = 4.65;
const EAVES: f32 = 5.92;
const RIDGE: f32 = 7.25;
/// How far the cornice juts out.
const OVERHANG: f32 = 0.62;

pub fn build(site: &mut Site) {
    let mut clay = Clay::default();
    platform(&mut clay);
    hall(&mut clay);
    entablature(&mut clay);
    gables(&mut clay);
    site.put(clay);
    site.put(roof());
    let columns = (0..COLUMNS).map(|number| {
        Transform::from_xyz(FIRST_COLUMN + number as f32 * SPACING, FLOOR, AXIS)
            // Drums were never turned alike.
            .with_rotation(Quat::from_rotation_y(0.157 * (number % 2) as f32))
    });
    site.put_all(column(CAPITALS - FLOOR, 0.36), columns.collect());
    // The steps cannot be climbed.
    for number in 0..24 {
        site.block(WEST + 0.5 + 1.13 * number as f32, FRONT - 0.75, 0.85);
    }
}

/// A fluted Doric column with its capital, on the origin.
pub fn column(height: f32, radius: f32) -> Clay {
    const FLUTES: usize = 20;
    let mut clay = Clay::default();
    let shaft = height - 1.1 * radius;
    clay.facets(
        [2 * FLUTES, 7],
        |u, v| {
            // Entasis: it swells a little before it tapers.
            let taper = 1.0 - 0.24 * v + 0.05 * (v * std::f32::consts::PI).sin();
            let corner = (u * 2.0 * FLUTES as f32).round() as usize % 2;
            around(u) * radius * taper * if corner == 0 { 1.0 } else { 0.915 } + Vec3::Y * v * shaft
        },
        |_, v| tinted(STONE, 0.84 + 0.16 * smoothstep(0.0, 0.2, v)),
    );
    let [neck, brim] = [0.78 * radius, 1.28 * radius];
    let echinus = [
        (neck, 0.0),
        (neck * 1.05, 0.03),
        (neck * 1.05, 0.06),
        (1.02 * radius, 0.14),
        (1.2 * radius, 0.24),
        (brim, 0.33),
        (1.2 * radius, 0.38),
    ];
    let echinus = echinus.map(|(r, y)| Vec2::new(r, y * radius * 1.6));
    clay.lathe(Vec3::Y * shaft, &echinus, 24, |_| STONE);
    let thick = 0.5 * radius;
    clay.cuboid(Vec3::Y * (height - 0.5 * thick), Vec3::new(2.66 * radius, thick, 2.66 * radius), STONE);
    clay
}

/// A box from west to east.
fn beam(clay: &mut Clay, [low, high]: [f32; 2], [back, front]: [f32; 2], longer: f32, color: Color) {
    let size = Vec3::new(EAST - WEST + 2.0 * longer, high - low, front - back);
    clay.cuboid(Vec3::new(0.5 * (EAST + WEST), 0.5 * (low + high), 0.5 * (back + front)), size, color);
}

fn platform(clay: &mut Clay) {
    for step in 0..3 {
        let out = 0.36 * (2 - step) as f32;
        let low = 0.2 * step as f32;
        // Blocks, so that the long edges are not ruled with one line.
        let blocks = 17;
        let wide = (EAST - WEST + 2.0 * out) / blocks as f32;
        for block in 0..blocks {
            let tint = 0.88 + 0.16 * chance(block * 3 + step * 101);
            let x = WEST - out + (block as f32 + 0.5) * wide;
            let deep = FRONT + out - WALL;
            clay.cuboid(
                Vec3::new(x, low + 0.1, FRONT + out - 0.5 * deep),
                Vec3::new(wide - 0.012, 0.2, deep),
                tinted(STONE, tint),
            );
        }
    }
    // The floor lies in shade.
    clay.repaint(|at, normal, color| {
        let inside = smoothstep(AXIS + 0.3, WALL + 1.5, at.z) * smoothstep(0.5, 0.9, normal.y);
        tinted(color, 1.0 - 0.5 * inside)
    });
}

/// Wall, dado, doors, pictures, ceiling.
fn hall(clay: &mut Clay) {
    let mut hall = Clay::default();
    let [back, front] = [WALL - 0.5, WALL];
    beam(&mut hall, [0.0, EAVES], [back, front], 0.0, STUCCO);
    beam(&mut hall, [FLOOR, 1.75], [front, front + 0.03], -0.4, OXBLOOD);
    beam(&mut hall, [1.75, 1.86], [front, front + 0.05], -0.4, STONE);
    beam(&mut hall, [4.3, 4.5], [front, front + 0.04], -0.4, BLUE);
    for bay in 0..COLUMNS - 1 {
        let x = FIRST_COLUMN + (bay as f32 + 0.5) * SPACING;
        if bay % 3 == 1 {
            door(&mut hall, x);
        } else {
            picture(&mut hall, x, bay as u32);
        }
    }
    for x in [WEST + 0.25, EAST - 0.25] {
        hall.cuboid(Vec3::new(x, 0.5 * EAVES, -11.4), Vec3::new(0.5, EAVES, 3.4), STUCCO);
    }
    // Light comes from the front and the ground, and little of it.
    hall.repaint(|at, _, color| {
        let inside = at.z > WALL - 0.1 && at.x > WEST + 0.3 && at.x < EAST - 0.3;
        let deep = 0.34 + 0.4 * smoothstep(4.6, 1.2, at.y);
        tinted(color, if inside { deep } else { 0.95 })
    });
    beam(&mut hall, [5.0, 5.3], [WALL, AXIS + 0.2], 0.0, tinted(TIMBER, 0.3));
    for number in 0..2 * COLUMNS - 1 {
        let x = FIRST_COLUMN + 0.5 * number as f32 * SPACING;
        hall.cuboid(Vec3::new(x, 4.88, 0.5 * (WALL + AXIS)), Vec3::new(0.2, 0.26, AXIS - WALL), tinted(TIMBER, 0.62));
    }
    clay.add(&hall, Transform::IDENTITY);
}

fn door(clay: &mut Clay, x: f32) {
    let middle = |y| Vec3::new(x, y, WALL);
    clay.cuboid(middle(1.95), Vec3::new(1.5, 2.75, 0.16), STONE);
    clay.cuboid(middle(1.85), Vec3::new(1.16, 2.5, 0.18), Color::srgb(0.10, 0.07, 0.05));
    clay.cuboid(middle(3.42), Vec3::new(1.8, 0.2, 0.3), STONE);
}

/// A painting of men with shields: the Painted Stoa is named for such paintings.
fn picture(clay: &mut Clay, x: f32, seed: u32) {
    let plate = |clay: &mut Clay, at: Vec2, size: Vec2, front: f32, color: Color| {
        clay.cuboid(Vec3::new(x + at.x, at.y, WALL + front), Vec3::new(size.x, size.y, 0.02), color);
    };
    plate(clay, Vec2::new(0.0, 3.05), Vec2::new(1.95, 1.7), 0.01, TIMBER);
    plate(clay, Vec2::new(0.0, 3.05), Vec2::new(1.8, 1.55), 0.02, Color::srgb(0.42, 0.56, 0.62));
    plate(clay, Vec2::new(0.0, 2.45), Vec2::new(1.8, 0.35), 0.03, Color::srgb(0.62, 0.48, 0.28));
    for man in 0..4 {
        let luck = |number: u32| chance(seed * 31 + man * 7 + number);
        let (at, tall) = (Vec2::new(-0.62 + 0.41 * man as f32, 2.45), 0.85 + 0.2 * luck(0));
        let skin = Color::srgb(0.55, 0.30, 0.18);
        plate(clay, at + Vec2::new(0.0, 0.4 * tall), Vec2::new(0.15, 0.7 * tall), 0.04, skin);
        plate(clay, at + Vec2::new(0.02, 0.84 * tall), Vec2::new(0.13, 0.15), 0.045, RED);
        plate(clay, at + Vec2::new(-0.17, 0.65 * tall), Vec2::new(0.025, 1.3 * tall), 0.04, TIMBER);
        let shield = [RED, STONE, BLUE, Color::srgb(0.80, 0.58, 0.22)][(4.0 * luck(1)) as usize % 4];
        let center = Vec3::new(x + at.x + 0.06, at.y + 0.46 * tall, WALL + 0.05);
        clay.sheet(
            [12, 1],
            |u, v| {
                let (sin, cos) = (u * std::f32::consts::TAU).sin_cos();
                center + Vec3::new(sin, cos, 0.0) * 0.17 * (1.0 - v) + Vec3::Z * 0.02
            },
            |_, _| shield,
        );
    }
}

/// The load of the columns: architrave, frieze of triglyphs and metopes, cornice.
fn entablature(clay: &mut Clay) {
    let face = AXIS + 0.42;
    beam(clay, [CAPITALS, 5.08], [AXIS - 0.4, face], 0.1, STONE);
    beam(clay, [5.08, 5.15], [AXIS - 0.4, face + 0.05], 0.14, RED);
    beam(clay, [5.15, 5.64], [AXIS - 0.4, face - 0.06], 0.08, Color::srgb(0.82, 0.75, 0.62));
    let bays = 2 * (COLUMNS - 1);
    for number in 0..=bays {
        let x = FIRST_COLUMN + 0.5 * number as f32 * SPACING;
        triglyph(clay, x, face);
        if number < bays {
            metope(clay, x + 0.25 * SPACING, face - 0.05, number);
        }
    }
    beam(clay, [5.64, 5.70], [AXIS - 0.4, face + 0.06], 0.2, BLUE);
    beam(clay, [5.70, 5.92], [AXIS - 0.4, AXIS + OVERHANG + 0.12], OVERHANG - 0.3, STONE);
}

fn triglyph(clay: &mut Clay, x: f32, face: f32) {
    let tall = 0.49;
    clay.cuboid(Vec3::new(x, 5.395, face - 0.03), Vec3::new(0.46, tall, 0.06), tinted(BLUE, 0.45));
    for bar in [-0.16, 0.0, 0.16] {
        clay.cuboid(Vec3::new(x + bar, 5.395, face), Vec3::new(0.11, tall, 0.08), BLUE);
    }
    // The drops beneath, and the tablet above.
    clay.cuboid(Vec3::new(x, 5.04, face + 0.02), Vec3::new(0.46, 0.06, 0.06), BLUE);
    clay.cuboid(Vec3::new(x, 5.685, AXIS + OVERHANG), Vec3::new(0.44, 0.05, 0.3), tinted(BLUE, 0.8));
}

/// A rosette or a shield between two triglyphs.
fn metope(clay: &mut Clay, x: f32, face: f32, number: usize) {
    let color = if number.is_multiple_of(2) { RED } else { Color::srgb(0.76, 0.55, 0.22) };
    let petals = if number.is_multiple_of(2) { 8.0 } else { 0.0 };
    clay.sheet(
        [32, 2],
        |u, v| {
            let angle = u * std::f32::consts::TAU;
            let radius = (1.0 - v) * 0.17 * (1.0 + 0.16 * (angle * petals).cos());
            Vec3::new(x + radius * angle.sin(), 5.395 + radius * angle.cos(), face + 0.01 + 0.03 * v)
        },
        |_, v| if v > 0.7 { STONE } else { color },
    );
}

fn slope(at: f32) -> Vec2 {
    // 0 at the front eaves, 1 on the ridge, 2 at the back.
    let front = AXIS + OVERHANG + 0.16;
    let back = WALL - 0.9;
    let middle = 0.5 * (front + back);
    let rise = 1.0 - (at - 1.0).abs();
    Vec2::new(
        if at < 1.0 { front + (middle - front) * at } else { middle + (back - middle) * (at - 1.0) },
        EAVES + (RIDGE - EAVES) * rise,
    )
}

fn gables(clay: &mut Clay) {
    let [front, top, back] = [slope(0.12), slope(1.0), slope(1.88)].map(|at| Vec2::new(at.x, at.y - 0.16));
    for (x, out) in [(WEST, -1.0), (EAST, 1.0)] {
        let corner = |at: Vec2| Vec3::new(x, at.y, at.x);
        let corners = if out > 0.0 { [front, back, top] } else { [back, front, top] };
        clay.triangle(corners.map(corner), BLUE.mix(&STONE, 0.35));
        clay.cuboid(Vec3::new(x, EAVES - 0.1, 0.5 * (front.x + back.x)), Vec3::new(0.4, 0.2, front.x - back.x), STONE);
    }
}

/// Rows of pan tiles with round covers over their joints; a row of palmettes along the eaves.
fn roof() -> Clay {
    let mut clay = Clay::default();
    let wide = EAST - WEST + 2.0 * OVERHANG;
    let joints = (wide / 0.46).round();
    let west = WEST - OVERHANG;
    // The back is hardly visible.
    for (side, rows) in [(0.0, 10.0), (1.0, 2.0)] {
        clay.facets(
            [4 * joints as usize, 2 * rows as usize],
            |u, v| {
                // Each row of tiles lies over the edge of the one below it.
                let row = (v * rows).floor().min(rows - 1.0);
                let within = v * rows - row;
                let climb = (row + if within > 0.2 { 0.96 } else { within }) / rows;
                let at = slope(if side == 0.0 { climb.min(1.0) } else { 2.0 - climb.min(1.0) });
                let cover = [0.1, 0.045, 0.0, 0.045][(u * 4.0 * joints).round() as usize % 4];
                let lap = 0.05 * (1.0 - within);
                let x = if side == 0.0 { west + u * wide } else { west + wide - u * wide };
                Vec3::new(x, at.y + 0.06 + cover + lap, at.x)
            },
            |u, v| {
                let [tile, row] = [(u * joints).floor(), (v * rows).floor()];
                let fired = chance(tile as u32 * 57 + row as u32 * 911 + side as u32);
                tinted(TILE.mix(&Color::srgb(0.72, 0.46, 0.28), 0.5 * fired), 0.78 + 0.3 * noise(tile * 0.4, row * 0.8))
            },
        );
    }
    let front = slope(0.0);
    clay.cuboid(
        Vec3::new(west + 0.5 * wide, front.y + 0.02, front.x - 0.02),
        Vec3::new(wide, 0.13, 0.08),
        Color::srgb(0.80, 0.66, 0.44),
    );
    for number in 0..(joints as usize / 2) {
        let x = west + (2.0 * number as f32 + 1.0) / joints * wide;
        let foot = Vec3::new(x, front.y + 0.08, front.x + 0.03);
        let leaf = |x: f32, y: f32| foot + Vec3::new(x, y, 0.0);
        clay.quad([leaf(-0.07, 0.0), leaf(0.07, 0.0), leaf(0.11, 0.14), leaf(-0.11, 0.14)], TILE);
        clay.triangle([leaf(-0.11, 0.14), leaf(0.11, 0.14), leaf(0.0, 0.3)], tinted(TILE, 1.15));
    }
    let ridge = slope(1.0);
    let path = [Vec3::new(west, ridge.y + 0.1, ridge.x), Vec3::new(west + wide, ridge.y + 0.1, ridge.x)];
    clay.tube(&path, &[0.14, 0.14], 8, tinted(TILE, 0.9));
    clay
}
