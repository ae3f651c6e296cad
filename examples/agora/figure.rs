//! A body modelled from a few numbers, and its motion. One component says what it is doing; joints follow.

mod body;
mod head;
mod limbs;
mod motion;
mod robes;

use bevy::prelude::*;

use crate::scene::mesh::{Clay, MATT, prepare_matt};
use motion::{Limb, Rig};

/// From the ground to the crown of a person of middle height, in metres.
pub const HEIGHT: f32 = 1.75;

/// The look of a figure.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Relative to [`HEIGHT`].
    pub height: f32,
    /// 1 is slender.
    pub girth: f32,
    pub skin: Color,
    /// The tunic beneath.
    pub tunic: Color,
    /// The cloak over it.
    pub cloak: Color,
    pub garb: Garb,
    pub hair: Hair,
    pub hair_color: Color,
    pub beard: Beard,
    pub hat: Hat,
    pub carries: Carries,
}

/// The style of tunic and cloak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garb {
    /// A long tunic, the cloak around it from the left shoulder.
    Himation,
    /// The same cloak and nothing beneath, no sandals either.
    Threadbare,
    /// A short tunic, the cape pinned at the neck: a traveller.
    Chlamys,
    /// A short tunic from one shoulder: a worker.
    Exomis,
    /// A woman's long dress, folded over at the waist; the cloak is a shawl.
    Peplos,
}

impl Garb {
    /// Legs are visible.
    fn is_short(self) -> bool {
        matches!(self, Self::Chlamys | Self::Exomis)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    Nothing,
    /// In the right hand, on the ground.
    Staff,
    /// The herald's staff with two snakes.
    Kerykeion,
    /// Bread and figs, on the left arm.
    Basket,
    Scroll,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hair {
    /// A wreath of it around a bald head.
    Bald,
    Short,
    Long,
    /// Under a kerchief.
    Kerchief,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beard {
    None,
    Short,
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hat {
    None,
    /// The traveller's broad brim.
    Petasos,
    /// With the messenger's wings.
    WingedPetasos,
    /// The craftsman's cone of felt.
    Pilos,
    /// A wreath of olive.
    Wreath,
}

/// What a body is doing; it stands on its entity's origin and looks along -z.
#[derive(Component, Clone, Copy, Debug, Default)]
pub struct Figure {
    /// Metres a second over the ground.
    pub pace: f32,
    /// Gestures while it speaks.
    pub speaking: bool,
    /// Relative to [`HEIGHT`].
    pub height: f32,
}

impl Figure {
    /// The height above its origin where a bubble begins.
    pub fn crown(&self) -> Vec3 {
        Vec3::Y * HEIGHT * self.height
    }
}

pub fn figure_plugin(app: &mut App) {
    app.add_systems(Update, motion::animate);
}

/// Gives an entity a body.
pub fn dress(
    commands: &mut Commands,
    entity: Entity,
    look: &Look,
    meshes: &mut Assets<Mesh>,
    materials: &mut Assets<StandardMaterial>,
) {
    prepare_matt(materials);
    let mut joint = |parent: Entity, place: Vec3, clay: Clay| {
        let piece = (Mesh3d(meshes.add(clay.mesh())), MeshMaterial3d(MATT), Transform::from_translation(place));
        commands.spawn((piece, ChildOf(parent))).id()
    };
    let hips = joint(entity, Vec3::ZERO, body::body(look));
    let head = joint(hips, Vec3::Y * body::NECK, head::head(look));
    let [left, right] = [-1.0, 1.0];
    let arms = [left, right].map(|side| {
        let root = joint(hips, body::shoulder(look, side), limbs::upper_arm(look, side));
        Limb { root, bend: joint(root, Vec3::NEG_Y * limbs::UPPER_ARM, limbs::forearm(look, side)) }
    });
    let legs = [left, right].map(|side| {
        let root = joint(hips, Vec3::new(0.095 * side, limbs::LEG, 0.0), limbs::thigh(look));
        Limb { root, bend: joint(root, Vec3::NEG_Y * limbs::THIGH, limbs::shin(look)) }
    });
    commands.entity(hips).insert(Transform::from_scale(Vec3::splat(look.height)));
    commands.entity(entity).insert((
        Figure { height: look.height, ..default() },
        Rig::new(look, entity, hips, head, arms, legs),
        Visibility::default(),
    ));
}

/// A hero on a pedestal: all of a body in one piece, one arm raised, a spear in it.
pub fn statue() -> Clay {
    let look = Look { garb: Garb::Threadbare, beard: Beard::Short, ..crate::cast::CITIZEN };
    let mut clay = body::body(&look);
    clay.add(&head::head(&look), Transform::from_xyz(0.0, body::NECK, 0.0).with_rotation(Quat::from_rotation_y(-0.3)));
    for (side, raised, bent) in [(-1.0, 0.15, 1.2), (1.0, 1.75, 0.75)] {
        let root = Transform::from_translation(body::shoulder(&look, side))
            .with_rotation(Quat::from_rotation_z(0.45 * side) * Quat::from_rotation_x(raised));
        let bend = Transform::from_xyz(0.0, -limbs::UPPER_ARM, 0.0).with_rotation(Quat::from_rotation_x(bent));
        clay.add(&limbs::upper_arm(&look, side), root);
        clay.add(&limbs::forearm(&look, side), root * bend);
        if side > 0.0 {
            let hand = root * bend * Vec3::new(0.0, -0.28, 0.0);
            limbs::spear(&mut clay, hand);
        }
    }
    for (side, forward) in [(-1.0, 0.14), (1.0, -0.06)] {
        let root = Transform::from_xyz(0.095 * side, limbs::LEG, 0.0).with_rotation(Quat::from_rotation_x(forward));
        clay.add(&limbs::thigh(&look), root);
        clay.add(&limbs::shin(&look), root * Transform::from_xyz(0.0, -limbs::THIGH, 0.0));
    }
    clay
}

/// The head alone, as it stands on a pillar by the road.
pub fn bust() -> Clay {
    head::head(&Look { hair: Hair::Long, beard: Beard::Full, hat: Hat::Wreath, ..crate::cast::CITIZEN })
}
