//! Fonts, colours, and the pointer: what all UI over the scene shares.

use bevy::{ecs::system::SystemParam, picking::hover::HoverMap, prelude::*};

pub const PARCHMENT: Color = Color::srgb(0.965, 0.935, 0.865);
pub const INK: Color = Color::srgb(0.16, 0.11, 0.07);
pub const FADED_INK: Color = Color::srgb(0.45, 0.37, 0.29);
pub const TERRACOTTA: Color = Color::srgb(0.66, 0.25, 0.12);
pub const AEGEAN: Color = Color::srgb(0.10, 0.31, 0.45);
pub const SHADE: Color = Color::srgba(0.09, 0.07, 0.05, 0.93);
pub const CHALK: Color = Color::srgb(0.93, 0.90, 0.84);

/// An open font that has Greek: GFS Neohellenic (`assets/fonts/OFL.txt`).
#[derive(Resource)]
pub struct Fonts {
    text: Handle<Font>,
    bold: Handle<Font>,
}

impl Fonts {
    pub fn text(&self, size: f32) -> TextFont {
        TextFont { font_size: FontSize::Px(size), ..TextFont::from(self.text.clone()) }
    }

    pub fn bold(&self, size: f32) -> TextFont {
        TextFont { font_size: FontSize::Px(size), ..TextFont::from(self.bold.clone()) }
    }
}

/// The node under the pointer.
#[derive(SystemParam)]
pub struct Pointed<'w, 's> {
    hovered: Res<'w, HoverMap>,
    nodes: Query<'w, 's, (), With<Node>>,
}

impl Pointed<'_, '_> {
    /// Whether it is over UI.
    pub fn any(&self) -> bool {
        self.hovered.values().flat_map(|hovered| hovered.keys()).any(|&entity| self.nodes.contains(entity))
    }
}

/// The height, in logical pixels, that all sizes here are designed for; larger and smaller windows scale them.
const HEIGHT: f32 = 720.0;

pub fn view_plugin(app: &mut App) {
    app.add_systems(PreStartup, load_fonts).add_systems(Update, scale);
}

/// Within limits, because letters must stay legible.
fn scale(camera: Single<&Camera, With<Camera3d>>, mut scale: ResMut<UiScale>) {
    if let Some(size) = camera.logical_viewport_size() {
        let wanted = (size.y / HEIGHT).clamp(0.7, 3.0);
        if scale.0 != wanted {
            scale.0 = wanted;
        }
    }
}

fn load_fonts(mut commands: Commands, assets: Res<AssetServer>) {
    commands.insert_resource(Fonts {
        text: assets.load("fonts/GFSNeohellenic.otf"),
        bold: assets.load("fonts/GFSNeohellenicBold.otf"),
    });
}
