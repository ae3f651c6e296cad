//! Late afternoon: a low warm sun from behind the player's left shoulder, so that faces are lit and shadows are long; cool
//! shade; haze where it is far. No map of the surroundings: on a software renderer it costs more than all else together.

use std::f32::consts::TAU;

use bevy::{
    anti_alias::fxaa::Fxaa,
    core_pipeline::prepass::DepthPrepass,
    light::{CascadeShadowConfigBuilder, DirectionalLightShadowMap, NotShadowCaster, NotShadowReceiver},
    pbr::{DistanceFog, FogFalloff},
    prelude::*,
    render::view::{ColorGrading, ColorGradingGlobal, ColorGradingSection},
};

use super::mesh::{Clay, rough_noise, smoothstep, tinted};

/// Towards the sun.
const SUN: Vec3 = Vec3::new(-0.72, 0.46, 0.52);
const SUNLIGHT: Color = Color::srgb(1.0, 0.81, 0.56);
/// In the shade.
const SKYLIGHT: Color = Color::srgb(0.80, 0.80, 0.90);
const ZENITH: Color = Color::srgb(0.12, 0.33, 0.68);
const BLUE: Color = Color::srgb(0.34, 0.58, 0.84);
const HAZE: Color = Color::srgb(0.86, 0.77, 0.62);
const GLOW: Color = Color::srgb(1.0, 0.70, 0.34);
const CLOUD: Color = Color::srgb(1.0, 0.93, 0.82);
const CLOUD_SHADE: Color = Color::srgb(0.62, 0.60, 0.68);
/// Inside the camera's far plane, outside of all hills.
const DOME: f32 = 820.0;
/// How far shadows are drawn, in metres.
const SHADOWS: f32 = 62.0;

pub fn sky_plugin(app: &mut App) {
    app.insert_resource(DirectionalLightShadowMap { size: 2048 })
        .insert_resource(ClearColor(HAZE))
        .insert_resource(GlobalAmbientLight { color: SKYLIGHT, brightness: 820.0, ..default() })
        .add_systems(Startup, build);
}

/// The camera's settings for the time of day.
pub fn mood() -> impl Bundle {
    let fog = DistanceFog {
        color: HAZE,
        directional_light_color: GLOW.with_alpha(0.35),
        directional_light_exponent: 10.0,
        falloff: FogFalloff::from_visibility_colors(
            620.0,
            Color::srgb(0.58, 0.62, 0.68),
            Color::srgb(0.74, 0.70, 0.64),
        ),
    };
    let section = ColorGradingSection { contrast: 1.1, saturation: 1.1, ..default() };
    let grading = ColorGrading {
        global: ColorGradingGlobal { post_saturation: 1.12, ..default() },
        shadows: section,
        midtones: section,
        highlights: section,
    };
    // On a software renderer every lit sample costs: one per pixel, and none for hidden surfaces.
    (fog, grading, DepthPrepass, Msaa::Off, Fxaa::default())
}

fn build(mut commands: Commands, mut meshes: ResMut<Assets<Mesh>>, mut materials: ResMut<Assets<StandardMaterial>>) {
    commands.spawn((
        DirectionalLight { illuminance: 11_000.0, color: SUNLIGHT, shadow_maps_enabled: true, ..default() },
        CascadeShadowConfigBuilder {
            num_cascades: 2,
            first_cascade_far_bound: 17.0,
            maximum_distance: SHADOWS,
            ..default()
        }
        .build(),
        Transform::from_translation(SUN).looking_at(Vec3::ZERO, Vec3::Y),
    ));
    let air = materials.add(StandardMaterial { unlit: true, fog_enabled: false, cull_mode: None, ..default() });
    commands.spawn((Mesh3d(meshes.add(dome())), MeshMaterial3d(air), NotShadowCaster, NotShadowReceiver));
}

/// The sky as a painted bowl: finest near the horizon, where clouds lie.
fn dome() -> Mesh {
    let mut clay = Clay::default();
    let way = |u: f32, v: f32| {
        let height = -0.06 + 1.63 * v * v;
        let (sin, cos) = height.sin_cos();
        let (x, z) = (u * TAU).sin_cos();
        Vec3::new(x * cos, sin, z * cos)
    };
    clay.sheet([150, 50], |u, v| way(u, v) * DOME, |u, v| sky(way(u, v)));
    clay.mesh()
}

fn sky(way: Vec3) -> Color {
    let height = way.y.max(0.0);
    let sunward = way.dot(SUN.normalize()).max(0.0);
    let air = HAZE.mix(&BLUE, smoothstep(0.0, 0.26, height)).mix(&ZENITH, smoothstep(0.16, 0.9, height));
    let air = air.mix(&tinted(GLOW, 1.0 + 1.5 * sunward.powi(8)), 0.7 * sunward.powi(5) + 0.3 * sunward.powi(40));
    // Long banks low over the hills, thin streaks above them.
    let turn = way.x.atan2(way.z);
    let bank = rough_noise(turn * 3.2 + 11.0, height * 17.0);
    let streak = rough_noise(turn * 2.1 + height * 4.0, height * 11.0 + 40.0);
    let there =
        0.85 * smoothstep(0.52, 0.74, bank) * smoothstep(0.02, 0.07, height) * (1.0 - smoothstep(0.2, 0.42, height))
            + 0.5 * smoothstep(0.5, 0.8, streak) * smoothstep(0.2, 0.4, height) * (1.0 - smoothstep(0.55, 0.8, height));
    // Lit from above and from the sun's side: where there is less of the cloud a little way up, its edge is bright.
    let above = rough_noise(turn * 3.2 + 11.0, (height + 0.022) * 17.0);
    let lit = smoothstep(-0.12, 0.14, bank - above + 0.1 * sunward);
    air.mix(&CLOUD_SHADE.mix(&CLOUD, lit), there.min(0.92))
}
