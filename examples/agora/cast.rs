//! The characters, their looks, and the places where they like to stand.

use bevy::prelude::*;

use crate::figure::{Beard, Carries, Garb, Hair, Hat, Look};

/// A character of the agora.
pub struct Member {
    /// Its folder in `adapters/`.
    pub folder: &'static str,
    /// Where it stands by default.
    pub home: Vec2,
    pub look: Look,
}

const SKIN: Color = Color::srgb(0.72, 0.52, 0.38);
const PALE: Color = Color::srgb(0.80, 0.61, 0.47);
const TANNED: Color = Color::srgb(0.58, 0.40, 0.28);
const WHITE: Color = Color::srgb(0.86, 0.83, 0.76);
const LINEN: Color = Color::srgb(0.80, 0.73, 0.60);
const GREY: Color = Color::srgb(0.55, 0.53, 0.50);
const DARK: Color = Color::srgb(0.12, 0.09, 0.07);
const BROWN: Color = Color::srgb(0.29, 0.19, 0.11);

/// Of middle height, in plain clothes: the default that the others modify.
pub const CITIZEN: Look = Look {
    height: 1.0,
    girth: 1.0,
    skin: SKIN,
    tunic: LINEN,
    cloak: WHITE,
    garb: Garb::Himation,
    hair: Hair::Short,
    hair_color: DARK,
    beard: Beard::Short,
    hat: Hat::None,
    carries: Carries::Nothing,
};

pub const CAST: [Member; 9] = [
    Member {
        folder: "socrates",
        home: Vec2::new(0.0, -1.5),
        look: Look {
            height: 0.97,
            girth: 1.25,
            cloak: Color::srgb(0.47, 0.38, 0.28),
            garb: Garb::Threadbare,
            hair: Hair::Bald,
            hair_color: Color::srgb(0.82, 0.80, 0.76),
            beard: Beard::Full,
            ..CITIZEN
        },
    },
    Member {
        folder: "alcibiades",
        home: Vec2::new(3.2, -3.0),
        look: Look {
            height: 1.05,
            skin: PALE,
            cloak: Color::srgb(0.42, 0.12, 0.32),
            hair: Hair::Long,
            hair_color: Color::srgb(0.55, 0.37, 0.16),
            beard: Beard::None,
            ..CITIZEN
        },
    },
    Member {
        folder: "callicles",
        home: Vec2::new(-4.0, -3.4),
        look: Look {
            girth: 1.1,
            cloak: Color::srgb(0.62, 0.16, 0.13),
            beard: Beard::Full,
            carries: Carries::Staff,
            ..CITIZEN
        },
    },
    Member {
        folder: "cario",
        home: Vec2::new(8.5, 2.6),
        look: Look {
            height: 0.95,
            skin: TANNED,
            tunic: Color::srgb(0.50, 0.40, 0.27),
            cloak: Color::srgb(0.45, 0.33, 0.20),
            garb: Garb::Exomis,
            hair_color: BROWN,
            beard: Beard::None,
            hat: Hat::Pilos,
            carries: Carries::Basket,
            ..CITIZEN
        },
    },
    Member {
        folder: "hermes",
        home: Vec2::new(-1.6, 3.6),
        look: Look {
            height: 1.08,
            skin: PALE,
            tunic: WHITE,
            cloak: Color::srgb(0.85, 0.65, 0.22),
            garb: Garb::Chlamys,
            hair_color: Color::srgb(0.60, 0.42, 0.18),
            beard: Beard::None,
            hat: Hat::WingedPetasos,
            carries: Carries::Kerykeion,
            ..CITIZEN
        },
    },
    Member {
        folder: "hippias",
        home: Vec2::new(-8.2, -3.0),
        look: Look {
            cloak: Color::srgb(0.16, 0.33, 0.50),
            tunic: Color::srgb(0.75, 0.62, 0.30),
            hair: Hair::Long,
            hair_color: GREY,
            beard: Beard::Full,
            hat: Hat::Wreath,
            carries: Carries::Scroll,
            ..CITIZEN
        },
    },
    Member {
        folder: "ischomachus",
        home: Vec2::new(7.4, -2.6),
        look: Look { height: 1.02, cloak: Color::srgb(0.30, 0.42, 0.24), hair_color: BROWN, ..CITIZEN },
    },
    Member {
        folder: "strepsiades",
        home: Vec2::new(4.6, 4.2),
        look: Look {
            height: 0.93,
            girth: 1.2,
            skin: TANNED,
            tunic: GREY,
            cloak: Color::srgb(0.52, 0.43, 0.33),
            hair: Hair::Bald,
            hair_color: GREY,
            beard: Beard::Short,
            carries: Carries::Staff,
            ..CITIZEN
        },
    },
    Member {
        folder: "olive_seller",
        home: Vec2::new(-7.6, 1.0),
        look: Look {
            height: 0.94,
            tunic: Color::srgb(0.66, 0.44, 0.28),
            cloak: Color::srgb(0.32, 0.36, 0.18),
            garb: Garb::Peplos,
            hair: Hair::Kerchief,
            hair_color: Color::srgb(0.62, 0.20, 0.14),
            beard: Beard::None,
            ..CITIZEN
        },
    },
];

/// The player: a stranger on a journey.
pub const STRANGER: Look = Look {
    tunic: Color::srgb(0.78, 0.70, 0.55),
    cloak: Color::srgb(0.24, 0.30, 0.40),
    garb: Garb::Chlamys,
    hair_color: BROWN,
    beard: Beard::None,
    hat: Hat::Petasos,
    ..CITIZEN
};
