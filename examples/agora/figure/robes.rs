//! Cloth: sheets laid around the trunk, deeper folded the further down they hang.

use std::f32::consts::TAU;

use bevy::prelude::*;

use super::{Garb, Look, body::on_trunk};
use crate::scene::mesh::{Clay, smoothstep, tinted};

/// Around the body, up and down.
const WEAVE: [usize; 2] = [46, 15];

/// Upright folds, from -1 to 1.
fn folds(u: f32, seed: f32) -> f32 {
    let angle = u * TAU;
    0.62 * (9.0 * angle + 1.3 * (2.0 * angle + seed).sin()).sin()
        + 0.38 * (15.0 * angle + seed + 0.9 * (3.0 * angle).sin()).sin()
}

/// Darker in a fold.
fn folded(color: Color, depth: f32) -> Color {
    tinted(color, 0.86 + 0.16 * depth)
}

pub fn tunic(clay: &mut Clay, look: &Look) {
    let hem = match look.garb {
        Garb::Himation => 0.13,
        Garb::Threadbare => 0.45,
        Garb::Chlamys => 0.56,
        Garb::Exomis => 0.60,
        Garb::Peplos => 0.07,
    };
    let belted = !matches!(look.garb, Garb::Himation | Garb::Threadbare);
    let neckline = 1.475;
    let height = |v: f32| hem + (1.53 - hem) * v;
    // Beneath a cloak it has no room for folds.
    let deep = if belted { 0.026 } else { 0.012 };
    let belt = |y: f32| if belted { (-((y - 1.06) / 0.05).powi(2)).exp() } else { 0.0 };
    clay.sheet(
        WEAVE,
        |u, v| {
            let y = height(v);
            let hanging = 1.0 - smoothstep(0.1, 1.0, (y - hem) / (1.1 - hem));
            // A short skirt stands out from the thighs.
            let flare = if look.garb.is_short() { 0.035 * hanging } else { 0.0 };
            on_trunk(
                look,
                u,
                y,
                flare + 0.005 - 0.018 * belt(y) + (0.006 + deep * hanging) * folds(u, 0.7) * smoothstep(1.44, 1.3, y),
            )
        },
        |u, v| {
            let y = height(v);
            let right = -(u * TAU).sin();
            let bare =
                look.garb == Garb::Threadbare || (look.garb == Garb::Exomis && y > 1.33 - 0.12 * right && y > 1.1);
            if y > neckline || bare {
                look.skin
            } else if y < hem + 0.07 && look.garb != Garb::Exomis {
                // A woven border.
                look.cloak.mix(&look.tunic, 0.25)
            } else {
                folded(look.tunic, folds(u, 0.7))
            }
        },
    );
    if belted {
        let leather = Color::srgb(0.27, 0.15, 0.08);
        clay.sheet([28, 1], |u, v| on_trunk(look, u, 1.04 + 0.045 * v, 0.006), |_, _| leather);
    }
    if look.garb == Garb::Peplos {
        clay.sheet(
            [WEAVE[0], 6],
            |u, v| {
                let y = 0.86 + 0.05 * folds(u, 2.1) * (1.0 - v) + 0.34 * v;
                on_trunk(look, u, y, 0.02 + (1.0 - v) * (0.025 + 0.018 * folds(u, 2.1)))
            },
            |u, v| if v < 0.15 { tinted(look.cloak, 1.1) } else { folded(look.tunic, folds(u, 2.1)) },
        );
    }
}

/// How high the cloak reaches: up to the left shoulder, under the right arm.
fn upper_edge(u: f32) -> f32 {
    let left = (u * TAU).sin();
    1.0 + 0.475 * smoothstep(-0.72, 0.62, left)
}

pub fn himation(clay: &mut Clay, look: &Look) {
    let lower = |u: f32| {
        let long = if look.garb == Garb::Threadbare { 0.2 } else { 0.27 };
        long + 0.07 * (u * TAU + 0.9).cos() + 0.012 * folds(u, 4.0)
    };
    let height = |u: f32, v: f32| lower(u) + (upper_edge(u) - lower(u)) * v;
    // Folds run along the upper edge, and turn upright towards the hem.
    let drape = |u: f32, v: f32| {
        let below = upper_edge(u) - height(u, v);
        let slanting = (34.0 * below + 2.0 * (u * TAU + 0.5).sin()).sin();
        let upright = folds(u, 4.0);
        let t = smoothstep(0.25, 0.8, below);
        slanting * (1.0 - t) + upright * t
    };
    clay.sheet(
        WEAVE,
        |u, v| {
            let roll = 0.026 * (-((v - 0.955) / 0.05).powi(2)).exp();
            on_trunk(
                look,
                u,
                height(u, v),
                0.026 + 0.024 * smoothstep(0.75, 0.2, v) + roll + (0.011 + 0.013 * (1.0 - v)) * drape(u, v),
            )
        },
        |u, v| if v < 0.06 { tinted(look.cloak, 0.6) } else { folded(look.cloak, drape(u, v)) },
    );
    // Its end falls from the shoulder, in front and behind.
    for (middle, length) in [(0.115, 0.62), (0.385, 0.8)] {
        clay.sheet(
            [10, 12],
            |u, v| {
                let y = 1.475 - length * (1.0 - v) + 0.04 * (u * 3.0 * TAU).sin() * (1.0 - v);
                let wide = 0.05 + 0.025 * (1.0 - v);
                let ripple = 0.016 * (u * 2.5 * TAU).sin();
                on_trunk(look, middle + (u - 0.5) * 2.0 * wide, y, 0.055 + ripple)
            },
            |u, v| {
                let color = if v < 0.1 { tinted(look.cloak, 0.6) } else { look.cloak };
                folded(color, (u * 2.5 * TAU).sin())
            },
        );
    }
}

/// Pinned at the neck, open in front.
pub fn cape(clay: &mut Clay, look: &Look) {
    clay.sheet(
        WEAVE,
        |u, v| {
            // From the right side of the chest around the back to the left.
            let around = 0.90 - 0.80 * u;
            let around = 0.5 - (0.5 - around) * (0.72 + 0.28 * v);
            let y = 0.42 + 1.06 * v + 0.03 * folds(u * 0.8, 1.0) * (1.0 - v);
            let hanging = 1.0 - v;
            on_trunk(look, around, y, 0.03 + 0.075 * hanging.powf(0.7) + (0.012 + 0.03 * hanging) * folds(u * 0.8, 1.0))
        },
        |u, v| if v < 0.05 { tinted(look.cloak, 0.62) } else { folded(look.cloak, folds(u * 0.8, 1.0)) },
    );
    clay.sheet(
        WEAVE,
        |u, v| on_trunk(look, u, 1.40 + 0.075 * v - 0.05 * (u * TAU).cos() * (1.0 - v), 0.028 + 0.014 * (1.0 - v)),
        |u, v| folded(look.cloak, folds(u, 3.0) * (1.0 - v)),
    );
    clay.ball(on_trunk(look, 0.93, 1.42, 0.045), Vec3::splat(0.026), 5, Color::srgb(0.80, 0.58, 0.22));
}

/// Over both shoulders, its ends in front.
pub fn shawl(clay: &mut Clay, look: &Look) {
    clay.sheet(
        WEAVE,
        |u, v| {
            let around = 0.06 + 0.88 * u;
            let back = (0.5 - 0.5 * (around * TAU).cos()).powf(0.6);
            let y = 1.0 + 0.16 * back + (0.47 - 0.16 * back) * v;
            on_trunk(look, around, y, 0.035 + 0.025 * (1.0 - v) + 0.012 * folds(u, 5.0) * (1.0 - v))
        },
        |u, v| if v < 0.12 { tinted(look.cloak, 1.5) } else { folded(look.cloak, folds(u, 5.0)) },
    );
}
