//! Breathing, walking and talking hands. Every joint's angle is a function of the time, the distance walked, and how
//! much the figure walks or talks now; those two fade in and out, so that nothing jumps.

use std::f32::consts::TAU;

use bevy::prelude::*;

use super::{Carries, Figure, Garb, Look};

/// How fast walking and talking fade, per second.
const FADE: f32 = 6.0;

/// Two bones.
#[derive(Clone, Copy, Debug)]
pub struct Limb {
    pub root: Entity,
    pub bend: Entity,
}

/// The joints of a body, left before right.
#[derive(Component, Clone, Debug)]
pub struct Rig {
    hips: Entity,
    head: Entity,
    arms: [Limb; 2],
    legs: [Limb; 2],
    /// An offset, so that no two figures breathe in step.
    phase: f32,
    /// How far legs swing, in radians.
    step: f32,
    /// Relative to those of middle height.
    scale: f32,
    carries: Carries,
    /// The cloak lies over the left arm.
    drapes: bool,
    /// Around a circle of two steps, in radians.
    stride: f32,
    /// From 0 to 1.
    walks: f32,
    talks: f32,
}

impl Rig {
    pub fn new(look: &Look, entity: Entity, hips: Entity, head: Entity, arms: [Limb; 2], legs: [Limb; 2]) -> Self {
        Self {
            hips,
            head,
            arms,
            legs,
            phase: entity.index_u32() as f32 * 2.4,
            step: if look.garb.is_short() { 0.52 } else { 0.26 },
            scale: look.height,
            carries: look.carries,
            drapes: matches!(look.garb, Garb::Himation | Garb::Threadbare),
            stride: 0.0,
            walks: 0.0,
            talks: 0.0,
        }
    }
}

/// How an arm is held: forward and outward from the shoulder, bent at the elbow.
#[derive(Clone, Copy)]
struct Hold {
    forward: f32,
    outward: f32,
    bent: f32,
}

impl Hold {
    fn towards(self, other: Self, t: f32) -> Self {
        let mix = |from: f32, to: f32| from + (to - from) * t;
        Self {
            forward: mix(self.forward, other.forward),
            outward: mix(self.outward, other.outward),
            bent: mix(self.bent, other.bent),
        }
    }
}

pub fn animate(
    time: Res<Time>,
    mut figures: Query<(&Figure, &mut Rig)>,
    mut joints: Query<&mut Transform, (Without<Rig>, Without<Camera>)>,
) {
    let delta = time.delta_secs();
    let fade = 1.0 - (-FADE * delta).exp();
    for (figure, mut rig) in &mut figures {
        rig.walks += (f32::from(u8::from(figure.pace > 0.0)) - rig.walks) * fade;
        rig.talks += (f32::from(u8::from(figure.speaking)) - rig.talks) * fade;
        // Longer steps when in a hurry.
        rig.stride = (rig.stride + TAU * figure.pace * delta / (0.95 + 0.22 * figure.pace)) % TAU;
        pose(&rig, figure, time.elapsed_secs_wrapped() + rig.phase, &mut joints);
    }
}

fn pose(rig: &Rig, figure: &Figure, now: f32, joints: &mut Query<&mut Transform, (Without<Rig>, Without<Camera>)>) {
    let mut turn = |joint: Entity, rotation: Quat| {
        if let Ok(mut transform) = joints.get_mut(joint) {
            transform.rotation = rotation;
        }
    };
    let haste = 1.0 + 0.25 * (figure.pace - 1.1).max(0.0);
    let swing = rig.stride.sin() * rig.walks;
    let idle = 1.0 - rig.walks;
    let sway = 0.018 * (0.7 * now).sin() * idle + 0.025 * swing;
    let lean = -0.03 * rig.walks * haste + 0.02 * (0.9 * now).sin() * rig.talks;
    turn(rig.hips, Quat::from_euler(EulerRot::YXZ, 0.05 * (0.43 * now).sin() * idle + 0.06 * swing, lean, sway));
    let nod = 0.05 * (3.3 * now).sin() * rig.talks + 0.03 * (0.8 * now).sin() - 0.04 * rig.talks;
    let glance = 0.16 * (0.31 * now).sin() * (1.0 - rig.talks) * idle + 0.12 * (1.3 * now).sin() * rig.talks;
    turn(rig.head, Quat::from_euler(EulerRot::YXZ, glance, nod, 0.05 * (0.6 * now + 1.0).sin() - sway));
    for (side, limb) in [(-1.0, rig.legs[0]), (1.0, rig.legs[1])] {
        let forward = rig.step * haste * side * swing;
        // The leg that comes forward is lifted.
        let lifted = (side * rig.stride.cos()).max(0.0) * rig.walks;
        turn(limb.root, Quat::from_rotation_x(forward + 0.35 * rig.step * lifted));
        turn(limb.bend, Quat::from_rotation_x(-1.5 * rig.step * lifted - 0.1 * rig.walks));
    }
    for (side, limb) in [(-1.0, rig.arms[0]), (1.0, rig.arms[1])] {
        let hold = arm(rig, side, swing * haste, now);
        turn(limb.root, Quat::from_rotation_z(side * hold.outward) * Quat::from_rotation_x(hold.forward));
        turn(limb.bend, Quat::from_rotation_x(hold.bent));
    }
    if let Ok(mut hips) = joints.get_mut(rig.hips) {
        let bob = 0.022 * (2.0 * rig.stride).cos() * rig.walks;
        hips.translation.y = bob - 0.012 * rig.walks;
        // Breath widens the trunk.
        hips.scale = Vec3::splat(rig.scale) * (1.0 + Vec3::new(0.006, 0.001, 0.011) * (1.7 * now).sin());
    }
}

fn arm(rig: &Rig, side: f32, swing: f32, now: f32) -> Hold {
    let left = side < 0.0;
    let breath = 0.03 * (1.7 * now + side).sin();
    let holds = matches!(rig.carries, Carries::Kerykeion | Carries::Scroll | Carries::Basket);
    let rest = if left && (rig.drapes || holds) {
        Hold { forward: 0.12 + breath, outward: 0.13, bent: 1.22 + breath }
    } else if !left && rig.carries == Carries::Staff {
        return Hold { forward: 0.27, outward: 0.2, bent: 1.08 };
    } else {
        Hold { forward: -side * 0.55 * swing + breath, outward: 0.14, bent: 0.28 + 0.2 * swing.abs() }
    };
    // The right hand makes the point, the left joins it now and then.
    let beat = (2.3 * now + 0.4 * side).sin();
    let slow = (0.71 * now).sin();
    let speech = if left {
        let joins = 0.5 + 0.5 * (0.47 * now).sin();
        rest.towards(
            Hold { forward: 0.55 + 0.12 * beat, outward: 0.34, bent: 1.25 + 0.25 * beat },
            if rig.drapes { 0.45 * joins } else { joins },
        )
    } else {
        Hold {
            forward: 0.62 + 0.3 * slow + 0.12 * beat,
            outward: 0.26 + 0.2 * slow,
            bent: 1.2 - 0.35 * slow + 0.3 * beat,
        }
    };
    rest.towards(speech, rig.talks)
}
