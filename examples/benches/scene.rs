//! What eight speaking NPCs cost the frames of a rendered scene, and what is left for them to speak with.
//!
//! ```text
//! cargo bench -p elenchus_examples --features scene --bench scene [-- --seconds N] [--turns N] [--screenshot FILE]
//! ```
//!
//! A colonnade with light and shadow, eight of the shipped characters in it, at 640x360; every frame is waited for. In
//! turns nobody speaks and all eight speak, each with an adapter of its own, on one engine thread at lowered priority.
//! At the end the scene is not drawn, and the same eight have the machine to themselves. On a machine without a GPU, mesa's
//! lavapipe (Debian: `mesa-vulkan-drivers`) draws on the CPU, which the engine then competes for: the hardest case.

use std::{
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use bevy::{
    app::{PluginGroupBuilder, SubApps},
    asset::RenderAssetUsages,
    camera::RenderTarget,
    core_pipeline::tonemapping::Tonemapping,
    light::CascadeShadowConfigBuilder,
    prelude::*,
    render::{
        RenderPlugin,
        render_resource::{Extent3d, PollType, TextureDimension, TextureFormat, TextureUsages},
        renderer::{RenderAdapterInfo, RenderDevice},
        view::screenshot::{Screenshot, save_to_disk},
    },
    window::ExitCondition,
};
use bevy_elenchus::prelude::*;

const CHARACTERS: [&str; 8] =
    ["socrates", "alcibiades", "callicles", "cario", "hermes", "hippias", "ischomachus", "strepsiades"];
const SIZE: (u32, u32) = (640, 360);
const FRAME_GATE: f64 = 1.15;
const SPEED_GATE: f64 = 0.1;
/// Frames and replies settle before they are counted.
const SETTLE: Duration = Duration::from_secs(1);

/// Whether the eight speak.
#[derive(Resource, Default)]
struct Talk(bool);

/// Where an NPC's head is in its nodding.
#[derive(Component)]
struct Sway(f32);

fn main() {
    let (mut seconds, mut turns, mut screenshot) = (10, 7, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{arg} N"));
        match arg.as_str() {
            "--seconds" => seconds = number(),
            "--turns" => turns = number(),
            "--screenshot" => screenshot = args.next().map(PathBuf::from),
            // Cargo's own.
            "--bench" => {}
            other => panic!("unknown argument {other} (hint: --seconds N, --turns N, --screenshot FILE)"),
        }
    }
    let span = Duration::from_secs(seconds);
    let mut game = Game::new();
    game.wait_for_model();
    println!("{}; {}x{}, every frame waited for", game.adapter(), SIZE.0, SIZE.1);

    let (mut silent, mut speaking, mut ratios, mut speeds) = (vec![], vec![], vec![], vec![]);
    for turn in 1..=turns {
        let (idle, _) = game.measure(false, true, span);
        let (busy, speed) = game.measure(true, true, span);
        println!(
            "  turn {turn}: {:6.1} ms a frame while nobody speaks, {:6.1} while all do, {speed:5.1} tokens/s",
            median(&idle),
            median(&busy)
        );
        ratios.push(median(&busy) / median(&idle));
        speeds.push(speed);
        silent.extend(idle);
        speaking.extend(busy);
    }
    if let Some(path) = screenshot {
        game.photograph(path);
    }
    let (_, alone) = game.measure(true, false, span);

    let (ratio, speed) = (median(&ratios), median(&speeds));
    for (name, frames) in [("nobody speaks", &silent), ("all eight speak", &speaking)] {
        println!("{name:<16} {:6.1} ms a frame (median), {:6.1} (95th percentile)", median(frames), late(frames));
    }
    let met = |met| if met { "met" } else { "MISSED" };
    println!(
        "frames           {ratio:.3} x the silent ones (median of turns; gate {FRAME_GATE}: {})",
        met(ratio <= FRAME_GATE)
    );
    println!(
        "speech           {speed:.1} tokens/s, {:.2} of the {alone:.1} with nothing drawn (gate {SPEED_GATE}: {})",
        speed / alone,
        met(speed >= SPEED_GATE * alone)
    );
}

struct Game(SubApps);

impl Game {
    fn new() -> Self {
        let mut app = App::new();
        let engine = EngineSettings { threads: 1, ..default() };
        app.add_plugins((AdaptersSourcePlugin::default(), rendering(), ElenchusPlugin { engine, ..default() }))
            .init_resource::<Talk>()
            .add_systems(Startup, (build_scene, spawn_npcs))
            .add_systems(Update, (sway, keep_talking))
            .add_observer(|failed: On<ReplyFailed>| panic!("a reply failed: {}", failed.error));
        app.finish();
        app.cleanup();
        // Frames are driven from here, so that each is waited for.
        Self(std::mem::take(app.sub_apps_mut()))
    }

    fn world(&self) -> &World {
        self.0.main.world()
    }

    fn world_mut(&mut self) -> &mut World {
        self.0.main.world_mut()
    }

    fn adapter(&self) -> String {
        let info = self.world().resource::<RenderAdapterInfo>();
        format!("{} ({:?})", info.name, info.device_type)
    }

    /// One frame, from the game's update to the last pixel.
    fn frame(&mut self) -> Duration {
        let begin = Instant::now();
        self.0.update();
        let wait = PollType::Wait { submission_index: None, timeout: None };
        self.world().resource::<RenderDevice>().wgpu_device().poll(wait).expect("the device answers");
        begin.elapsed()
    }

    fn wait_for_model(&mut self) {
        loop {
            self.frame();
            match self.world().resource::<EngineStatus>() {
                EngineStatus::Ready { .. } => return,
                EngineStatus::Failed { error } => panic!("{error}"),
                EngineStatus::Loading { .. } => {}
            }
        }
    }

    /// Frame times in milliseconds, and tokens a second.
    fn measure(&mut self, talk: bool, draw: bool, span: Duration) -> (Vec<f64>, f64) {
        self.world_mut().resource_mut::<Talk>().0 = talk;
        let mut cameras = self.0.main.world_mut().query::<&mut Camera>();
        cameras.iter_mut(self.0.main.world_mut()).for_each(|mut camera| camera.is_active = draw);
        if !talk {
            self.hush();
        }
        self.run(draw, SETTLE);
        let tokens = |game: &Self| game.world().resource::<EngineStats>().reply_tokens;
        let (before, begin) = (tokens(self), Instant::now());
        let frames = self.run(draw, span);
        let speed = (tokens(self) - before) as f64 / begin.elapsed().as_secs_f64();
        (frames, speed)
    }

    fn run(&mut self, draw: bool, span: Duration) -> Vec<f64> {
        let begin = Instant::now();
        let mut frames = Vec::new();
        while begin.elapsed() < span {
            let frame = self.frame();
            frames.push(frame.as_secs_f64() * 1e3);
            if !draw {
                sleep(Duration::from_millis(16).saturating_sub(frame));
            }
        }
        frames
    }

    /// Whoever speaks is cut short.
    fn hush(&mut self) {
        let world = self.world_mut();
        let mut speaking = world.query_filtered::<Entity, With<Speaking>>();
        let speaking: Vec<Entity> = speaking.iter(world).collect();
        for entity in speaking {
            world.entity_mut(entity).remove::<Speaking>();
        }
    }

    fn photograph(&mut self, path: PathBuf) {
        let mut targets = self.0.main.world_mut().query::<&RenderTarget>();
        let image =
            targets.iter(self.0.main.world()).find_map(RenderTarget::as_image).expect("the camera's image").clone();
        self.world_mut().spawn(Screenshot::image(image)).observe(save_to_disk(path));
        for _ in 0..5 {
            self.frame();
        }
    }
}

/// Bevy with a renderer and without a window.
fn rendering() -> PluginGroupBuilder {
    let window = WindowPlugin { primary_window: None, exit_condition: ExitCondition::DontExit, ..default() };
    let render = RenderPlugin { synchronous_pipeline_compilation: true, ..default() };
    DefaultPlugins.set(window).set(render)
}

fn build_scene(
    mut commands: Commands,
    mut meshes: ResMut<Assets<Mesh>>,
    mut materials: ResMut<Assets<StandardMaterial>>,
    mut images: ResMut<Assets<Image>>,
) {
    let size = Extent3d { width: SIZE.0, height: SIZE.1, depth_or_array_layers: 1 };
    let mut target =
        Image::new_uninit(size, TextureDimension::D2, TextureFormat::Rgba8UnormSrgb, RenderAssetUsages::RENDER_WORLD);
    target.texture_descriptor.usage |= TextureUsages::RENDER_ATTACHMENT | TextureUsages::COPY_SRC;
    commands.spawn((
        Camera3d::default(),
        RenderTarget::from(images.add(target)),
        // The others look up their colours in tables that would have to be unpacked.
        Tonemapping::Reinhard,
        Transform::from_xyz(0.0, 3.2, 11.0).looking_at(Vec3::new(0.0, 1.4, 0.0), Vec3::Y),
    ));
    commands.spawn((
        DirectionalLight { illuminance: 9_000.0, shadow_maps_enabled: true, ..default() },
        CascadeShadowConfigBuilder { num_cascades: 2, maximum_distance: 40.0, ..default() }.build(),
        Transform::from_xyz(6.0, 9.0, 7.0).looking_at(Vec3::ZERO, Vec3::Y),
    ));
    let stone = materials.add(Color::srgb(0.82, 0.78, 0.68));
    let ground = materials.add(Color::srgb(0.66, 0.58, 0.44));
    commands.spawn((Mesh3d(meshes.add(Plane3d::default().mesh().size(60.0, 60.0))), MeshMaterial3d(ground)));
    let (column, capital) = (meshes.add(Cylinder::new(0.35, 4.2)), meshes.add(Cuboid::new(1.0, 0.3, 1.0)));
    for at in -5..=5 {
        let x = at as f32 * 1.9;
        commands.spawn((Mesh3d(column.clone()), MeshMaterial3d(stone.clone()), Transform::from_xyz(x, 2.1, -4.0)));
        commands.spawn((Mesh3d(capital.clone()), MeshMaterial3d(stone.clone()), Transform::from_xyz(x, 4.35, -4.0)));
    }
    let beam = meshes.add(Cuboid::new(21.0, 0.7, 1.2));
    commands.spawn((Mesh3d(beam), MeshMaterial3d(stone), Transform::from_xyz(0.0, 4.85, -4.0)));
}

fn spawn_npcs(
    mut commands: Commands,
    assets: Res<AssetServer>,
    mut meshes: ResMut<Assets<Mesh>>,
    mut materials: ResMut<Assets<StandardMaterial>>,
) {
    let (body, head) = (meshes.add(Capsule3d::new(0.34, 0.9)), meshes.add(Sphere::new(0.24)));
    let skin = materials.add(Color::srgb(0.78, 0.6, 0.45));
    for (number, name) in CHARACTERS.into_iter().enumerate() {
        let angle = (number as f32 - 3.5) * 0.36;
        let place = Vec3::new(6.0 * angle.sin(), 0.8, 3.0 - 4.0 * angle.cos());
        let cloth = materials.add(Color::hsl(number as f32 * 45.0, 0.45, 0.6));
        commands.spawn((
            Npc::new(assets.load(format!("adapters://{name}/character.toml"))),
            Mesh3d(body.clone()),
            MeshMaterial3d(cloth),
            Transform::from_translation(place),
            Sway(number as f32),
            children![(Mesh3d(head.clone()), MeshMaterial3d(skin.clone()), Transform::from_xyz(0.0, 1.0, 0.0))],
        ));
    }
}

/// Nothing stands still, so that every frame is a new one.
fn sway(time: Res<Time>, mut npcs: Query<(&mut Transform, &Sway)>) {
    for (mut transform, sway) in &mut npcs {
        transform.rotation = Quat::from_rotation_z(0.06 * (time.elapsed_secs() * 1.3 + sway.0).sin());
    }
}

/// Says the next line to everyone who is silent.
fn keep_talking(mut commands: Commands, talk: Res<Talk>, silent: Query<Entity, (With<Npc>, Without<Speaking>)>) {
    if talk.0 {
        for npc in &silent {
            commands.trigger(Say::new(npc, "Plato", "And what, my friend, would you say that courage is?"));
        }
    }
}

fn median(numbers: &[f64]) -> f64 {
    quantile(numbers, 0.5)
}

fn late(numbers: &[f64]) -> f64 {
    quantile(numbers, 0.95)
}

fn quantile(numbers: &[f64], share: f64) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}
