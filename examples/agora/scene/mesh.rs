//! Shapes are modelled like clay: pieces are added to one lump whose vertices carry the colours. A whole stall is then
//! one mesh, and everything matt shares one material.

use std::f32::consts::TAU;

use bevy::{
    asset::{RenderAssetUsages, uuid_handle},
    mesh::{Indices, PrimitiveTopology},
    prelude::*,
};

/// Cloth, stone, clay, leaves: all but sky and what is far away.
pub const MATT: Handle<StandardMaterial> = uuid_handle!("5a1f0c0e-93a5-4c5b-8a5b-6f6f0a0b7d11");

/// Makes sure that [`MATT`] is there.
pub fn prepare_matt(materials: &mut Assets<StandardMaterial>) {
    if materials.get(&MATT).is_none() {
        let matt = StandardMaterial {
            perceptual_roughness: 0.92,
            reflectance: 0.25,
            // Cloth and leaves are seen from both sides.
            double_sided: true,
            cull_mode: None,
            ..default()
        };
        materials.insert(&MATT, matt).expect("a handle of its own is free");
    }
}

/// A lump of triangles.
#[derive(Clone, Default)]
pub struct Clay {
    positions: Vec<Vec3>,
    normals: Vec<Vec3>,
    colors: Vec<LinearRgba>,
    indices: Vec<u32>,
}

impl Clay {
    pub fn triangles(&self) -> usize {
        self.indices.len() / 3
    }

    /// A flat triangle; its front is where it is seen counter-clockwise.
    pub fn triangle(&mut self, corners: [Vec3; 3], color: Color) {
        let normal = (corners[1] - corners[0]).cross(corners[2] - corners[0]).normalize_or(Vec3::Y);
        for corner in corners {
            self.vertex(corner, normal, color);
        }
    }

    pub fn quad(&mut self, [a, b, c, d]: [Vec3; 4], color: Color) {
        self.triangle([a, b, c], color);
        self.triangle([a, c, d], color);
    }

    /// A vertex of which each three make a triangle.
    fn vertex(&mut self, position: Vec3, normal: Vec3, color: Color) {
        self.indices.push(self.positions.len() as u32);
        self.positions.push(position);
        self.normals.push(normal);
        self.colors.push(color.to_linear());
    }

    /// A box.
    pub fn cuboid(&mut self, center: Vec3, size: Vec3, color: Color) {
        self.tapered(center, size, 1.0, color);
    }

    /// A box whose top is `taper` times as wide as its foot.
    pub fn tapered(&mut self, center: Vec3, size: Vec3, taper: f32, color: Color) {
        let half = 0.5 * size;
        let corner = |x: f32, y: f32, z: f32| {
            let wide = if y > 0.0 { taper } else { 1.0 };
            center + Vec3::new(x * half.x * wide, y * half.y, z * half.z * wide)
        };
        for side in 0..4 {
            let (sin, cos) = (side as f32 * 0.25 * TAU).sin_cos();
            let (sin, cos) = (sin.round(), cos.round());
            // Looking outwards along (sin, cos), the left hand is at (cos, -sin).
            let [left, right] = [Vec2::new(sin - cos, cos + sin), Vec2::new(sin + cos, cos - sin)];
            let face = [(left, -1.0), (right, -1.0), (right, 1.0), (left, 1.0)];
            self.quad(face.map(|(at, y)| corner(at.x, y, at.y)), color);
        }
        self.quad([(-1.0, 1.0), (1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)].map(|(x, z)| corner(x, 1.0, z)), color);
        self.quad([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)].map(|(x, z)| corner(x, -1.0, z)), color);
    }

    /// A smooth sheet over `u` and `v`, each from 0 to 1; it is seen from where `u` runs to the right and `v` up.
    pub fn sheet(
        &mut self,
        [columns, rows]: [usize; 2],
        at: impl Fn(f32, f32) -> Vec3,
        color: impl Fn(f32, f32) -> Color,
    ) {
        let grid = Grid::new(columns, rows, at, color);
        let first = self.positions.len() as u32;
        let normals = grid.normals();
        self.indices.extend(grid.indices().into_iter().map(|index| first + index));
        self.positions.extend(grid.positions);
        self.normals.extend(normals);
        self.colors.extend(grid.colors);
    }

    /// The same with facets.
    pub fn facets(
        &mut self,
        [columns, rows]: [usize; 2],
        at: impl Fn(f32, f32) -> Vec3,
        color: impl Fn(f32, f32) -> Color,
    ) {
        let grid = Grid::new(columns, rows, at, color);
        for corners in grid.indices().chunks_exact(3) {
            let [a, b, c] = [corners[0], corners[1], corners[2]].map(|index| grid.positions[index as usize]);
            let normal = (b - a).cross(c - a);
            if normal.length_squared() > 1e-12 {
                for &index in corners {
                    let color = grid.colors[index as usize];
                    self.vertex(grid.positions[index as usize], normal.normalize(), color.into());
                }
            }
        }
    }

    /// What a potter's wheel makes: radius and height from the foot up.
    pub fn lathe(&mut self, base: Vec3, profile: &[Vec2], sides: usize, color: impl Fn(f32) -> Color) {
        let at = |v: f32| along(profile, v, Vec2::lerp);
        self.sheet(
            [sides, profile.len() - 1],
            |u, v| {
                let Vec2 { x: radius, y } = at(v);
                base + around(u) * radius + Vec3::Y * y
            },
            |_, v| color(at(v).y),
        );
    }

    /// A limb, a pole, a branch: thick as `radii` say, along `path`.
    pub fn tube(&mut self, path: &[Vec3], radii: &[f32], sides: usize, color: Color) {
        let aside = (path[path.len() - 1] - path[0]).any_orthonormal_vector();
        let direction = |v: f32| {
            let [before, after] = [(v - 0.1).max(0.0), (v + 0.1).min(1.0)].map(|v| along(path, v, Vec3::lerp));
            (after - before).normalize_or(Vec3::Y)
        };
        self.sheet(
            [sides, path.len() - 1],
            |u, v| {
                let forward = direction(v);
                let right = aside.reject_from(forward).normalize_or(Vec3::X);
                let up = forward.cross(right);
                let (sin, cos) = (u * TAU).sin_cos();
                let radius = along(radii, v, |a: f32, b: f32, t: f32| a + (b - a) * t);
                along(path, v, Vec3::lerp) + (right * cos + up * sin) * radius
            },
            |_, _| color,
        );
    }

    /// An egg.
    pub fn ball(&mut self, center: Vec3, radii: Vec3, detail: usize, color: Color) {
        self.sheet([2 * detail, detail], |u, v| center + on_sphere(u, v) * radii, |_, _| color);
    }

    /// A lump with facets, dented by `rough` of its radius; lighter above than below.
    pub fn boulder(&mut self, center: Vec3, radii: Vec3, [detail, seed]: [usize; 2], rough: f32, color: Color) {
        let seed = seed as f32 * 7.31;
        self.facets(
            [2 * detail, detail],
            |u, v| {
                // At the poles and the seam all must agree, so the noise uses the place and not u and v.
                let way = on_sphere(u, v);
                let dent = noise(way.x * 1.7 + seed, way.z * 1.7 + way.y * 2.3 - seed) - 0.5;
                center + way * radii * (1.0 + 2.0 * rough * dent)
            },
            |_, v| tinted(color, 0.72 + 0.36 * v),
        );
    }

    /// Another lump, as it is after a transform.
    pub fn add(&mut self, other: &Self, transform: Transform) {
        let first = self.positions.len() as u32;
        // A mirrored lump would be inside out.
        let mirrored = transform.scale.x * transform.scale.y * transform.scale.z < 0.0;
        self.positions.extend(other.positions.iter().map(|&position| transform * position));
        self.normals.extend(
            other.normals.iter().map(|&normal| (transform.rotation * (normal / transform.scale)).normalize_or(Vec3::Y)),
        );
        self.colors.extend(&other.colors);
        for corners in other.indices.chunks_exact(3) {
            let [a, b, c] = [corners[0], corners[1], corners[2]].map(|index| first + index);
            self.indices.extend(if mirrored { [a, c, b] } else { [a, b, c] });
        }
    }

    /// Recolours what is made so far: by place, normal and colour.
    pub fn repaint(&mut self, paint: impl Fn(Vec3, Vec3, Color) -> Color) {
        for ((position, normal), color) in self.positions.iter().zip(&self.normals).zip(&mut self.colors) {
            *color = paint(*position, *normal, (*color).into()).to_linear();
        }
    }

    /// Changes the normals of what is made so far, by place: leaves are lit as the crown they belong to.
    pub fn relight(&mut self, from: usize, light: impl Fn(Vec3) -> Vec3) {
        for (position, normal) in self.positions.iter().zip(&mut self.normals).skip(from) {
            *normal = light(*position).normalize_or(Vec3::Y);
        }
    }

    pub fn vertices(&self) -> usize {
        self.positions.len()
    }

    pub fn mesh(self) -> Mesh {
        Mesh::new(PrimitiveTopology::TriangleList, RenderAssetUsages::default())
            .with_inserted_attribute(Mesh::ATTRIBUTE_POSITION, self.positions)
            .with_inserted_attribute(Mesh::ATTRIBUTE_NORMAL, self.normals)
            .with_inserted_attribute(
                Mesh::ATTRIBUTE_COLOR,
                self.colors.iter().map(|color| color.to_f32_array()).collect::<Vec<_>>(),
            )
            .with_inserted_indices(Indices::U32(self.indices))
    }
}

/// Points in columns and rows.
struct Grid {
    columns: usize,
    rows: usize,
    positions: Vec<Vec3>,
    colors: Vec<LinearRgba>,
}

impl Grid {
    fn new(columns: usize, rows: usize, at: impl Fn(f32, f32) -> Vec3, color: impl Fn(f32, f32) -> Color) -> Self {
        let mut grid = Self { columns, rows, positions: Vec::new(), colors: Vec::new() };
        for row in 0..=rows {
            for column in 0..=columns {
                let [u, v] = [column as f32 / columns as f32, row as f32 / rows as f32];
                grid.positions.push(at(u, v));
                grid.colors.push(color(u, v).to_linear());
            }
        }
        grid
    }

    fn indices(&self) -> Vec<u32> {
        let mut indices = Vec::with_capacity(6 * self.columns * self.rows);
        let wide = self.columns as u32 + 1;
        for row in 0..self.rows as u32 {
            for column in 0..self.columns as u32 {
                let [a, b] = [row * wide + column, row * wide + column + 1];
                indices.extend([a, b, b + wide, a, b + wide, a + wide]);
            }
        }
        indices
    }

    /// Smooth, also over the seam of a sheet that closes around.
    fn normals(&self) -> Vec<Vec3> {
        let mut normals = vec![Vec3::ZERO; self.positions.len()];
        for corners in self.indices().chunks_exact(3) {
            let [a, b, c] = [corners[0], corners[1], corners[2]].map(|index| self.positions[index as usize]);
            let normal = (b - a).cross(c - a);
            for &index in corners {
                normals[index as usize] += normal;
            }
        }
        for row in 0..=self.rows {
            let [first, last] = [row * (self.columns + 1), row * (self.columns + 1) + self.columns];
            if self.positions[first].distance_squared(self.positions[last]) < 1e-6 {
                let sum = normals[first] + normals[last];
                (normals[first], normals[last]) = (sum, sum);
            }
        }
        normals.into_iter().map(|normal| normal.normalize_or(Vec3::Y)).collect()
    }
}

/// Around the vertical, from 0 to 1: from the front (-z) over the left (-x).
pub fn around(u: f32) -> Vec3 {
    let (sin, cos) = (u * TAU).sin_cos();
    Vec3::new(-sin, 0.0, -cos)
}

/// On the unit sphere, from its lowest point up.
pub fn on_sphere(u: f32, v: f32) -> Vec3 {
    let (sin, cos) = ((v - 0.5) * 0.5 * TAU).sin_cos();
    around(u) * cos + Vec3::Y * sin
}

/// Between the values of a list, evenly spread from 0 to 1.
pub fn along<T: Copy>(values: &[T], v: f32, mix: impl Fn(T, T, f32) -> T) -> T {
    let place = v.clamp(0.0, 1.0) * (values.len() - 1) as f32;
    let before = (place.floor() as usize).min(values.len() - 2);
    mix(values[before], values[before + 1], place - before as f32)
}

/// 0 below `from`, 1 above `to`, and smooth between.
pub fn smoothstep(from: f32, to: f32, x: f32) -> f32 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Darker or lighter.
pub fn tinted(color: Color, factor: f32) -> Color {
    let LinearRgba { red, green, blue, alpha } = color.to_linear();
    LinearRgba::new(red * factor, green * factor, blue * factor, alpha).into()
}

/// Anything from 0 to 1, the same for the same number.
pub fn chance(number: u32) -> f32 {
    let mut bits = number.wrapping_mul(0x9E37_79B9) ^ 0x85EB_CA6B;
    bits = (bits ^ (bits >> 15)).wrapping_mul(0x2C1B_3C6D);
    bits = (bits ^ (bits >> 12)).wrapping_mul(0x297A_2D39);
    (bits ^ (bits >> 15)) as f32 / u32::MAX as f32
}

/// Hills and dales from 0 to 1, a metre or so wide.
pub fn noise(x: f32, y: f32) -> f32 {
    let at = |x: f32, y: f32| {
        chance((x as i32 as u32).wrapping_mul(73_856_093) ^ (y as i32 as u32).wrapping_mul(19_349_663))
    };
    let [left, low] = [x.floor(), y.floor()];
    let [s, t] = [x - left, y - low].map(|t| t * t * (3.0 - 2.0 * t));
    let low_mix = at(left, low) * (1.0 - s) + at(left + 1.0, low) * s;
    let high_mix = at(left, low + 1.0) * (1.0 - s) + at(left + 1.0, low + 1.0) * s;
    low_mix * (1.0 - t) + high_mix * t
}

/// The same with ever finer detail.
pub fn rough_noise(x: f32, y: f32) -> f32 {
    0.53 * noise(x, y) + 0.27 * noise(2.1 * x + 5.2, 2.1 * y - 1.7) + 0.2 * noise(4.3 * x - 9.1, 4.3 * y + 3.3)
}
