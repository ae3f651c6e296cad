//! The trunk: an egg-shaped outline around the spine, which skin, tunic and cloak follow.

use std::f32::consts::TAU;

use bevy::prelude::*;

use super::{Carries, Garb, Look, limbs, robes};
use crate::scene::mesh::{Clay, around, smoothstep, tinted};

/// Where the head begins, in metres above the ground.
pub const NECK: f32 = 1.47;

/// Height, half width, half depth.
const OUTLINE: [[f32; 3]; 8] = [
    [0.06, 0.265, 0.245],
    [0.45, 0.225, 0.205],
    [0.90, 0.195, 0.165],
    [1.06, 0.178, 0.142],
    [1.25, 0.205, 0.148],
    [1.37, 0.215, 0.130],
    [1.455, 0.125, 0.088],
    [1.53, 0.058, 0.060],
];

pub fn body(look: &Look) -> Clay {
    let mut clay = Clay::default();
    robes::tunic(&mut clay, look);
    match look.garb {
        Garb::Himation | Garb::Threadbare => robes::himation(&mut clay, look),
        Garb::Chlamys => robes::cape(&mut clay, look),
        Garb::Exomis => {}
        Garb::Peplos => robes::shawl(&mut clay, look),
    }
    match look.carries {
        Carries::Staff => limbs::staff(&mut clay),
        Carries::Basket => limbs::basket(&mut clay, look),
        _ => {}
    }
    // Less of the sky is seen from near the ground.
    clay.repaint(|at, _, color| tinted(color, 0.72 + 0.28 * smoothstep(0.0, 0.75, at.y)));
    clay
}

pub fn shoulder(look: &Look, side: f32) -> Vec3 {
    Vec3::new(side * (0.155 + 0.045 * look.girth), 1.385, 0.0)
}

/// On the trunk, `u` around from the front over the left, `off` metres off the skin.
pub fn on_trunk(look: &Look, u: f32, y: f32, off: f32) -> Vec3 {
    let after = OUTLINE.iter().position(|row| row[0] > y).unwrap_or(OUTLINE.len() - 1).max(1);
    let [low, high] = [OUTLINE[after - 1], OUTLINE[after]];
    let t = ((y - low[0]) / (high[0] - low[0])).clamp(0.0, 1.0);
    let t = t * (0.5 + t * (1.5 - t));
    let stout = 1.0 + (look.girth - 1.0) * (1.0 - smoothstep(1.25, 1.42, y));
    let [wide, deep] = [1, 2].map(|axis| (low[axis] + (high[axis] - low[axis]) * t) * stout + off);
    let way = around(u);
    let belly = (look.girth - 1.0).max(0.0) * 0.42 * (-((y - 1.03) / 0.17).powi(2)).exp() * (u * TAU).cos().max(0.0);
    let chest = if look.garb == Garb::Peplos {
        0.035 * (-((y - 1.27) / 0.07).powi(2)).exp() * (u * TAU).cos().max(0.0)
    } else {
        0.0
    };
    Vec3::new(way.x * wide, y, way.z * (deep + belly + chest))
}
