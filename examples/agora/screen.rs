//! The output of the agora: a window, photographs, or nothing.
//!
//! All three run the same systems. Without a window a `PrimaryWindow` entity is kept, because focus and text input need
//! one; the camera draws on an image of its size. Without photographs there is no renderer either, and so no need of a
//! GPU.

use std::{path::PathBuf, time::Duration};

use bevy::{
    app::{PluginGroupBuilder, ScheduleRunnerPlugin},
    camera::RenderTarget,
    log::LogPlugin,
    prelude::*,
    render::{
        RenderPlugin,
        render_resource::TextureFormat,
        settings::{RenderCreation, WgpuSettings},
        view::screenshot::{Screenshot, save_to_disk},
    },
    window::{ExitCondition, PrimaryWindow, WindowResolution},
    winit::WinitPlugin,
};

use crate::{args::Args, script::Running};

/// Takes a photograph of the next frame.
#[derive(Event, Clone, Debug)]
pub struct Photograph(pub PathBuf);

/// The target of the player's camera.
#[derive(Resource, Clone)]
pub struct Canvas(pub RenderTarget);

/// Bevy, configured by the arguments.
pub fn bevy(args: &Args) -> PluginGroupBuilder {
    let window =
        Window { title: "The agora".into(), resolution: WindowResolution::new(args.size.x, args.size.y), ..default() };
    let exit_condition = if args.headless { ExitCondition::DontExit } else { ExitCondition::OnPrimaryClosed };
    // Without a renderer, warnings about each missing part of it are noise.
    let renderer = if args.draws() { "warn" } else { "off" };
    let filter = format!("wgpu=error,naga=warn,bevy_render={renderer},bevy_app=warn,bevy_winit=warn");
    let log = LogPlugin { filter, ..default() };
    let mut plugins =
        DefaultPlugins.set(WindowPlugin { primary_window: Some(window), exit_condition, ..default() }).set(log);
    if args.headless {
        plugins =
            plugins.disable::<WinitPlugin>().add(ScheduleRunnerPlugin::run_loop(Duration::from_secs_f64(1.0 / 60.0)));
        // No photograph is taken before its shaders are compiled.
        let render_creation = if args.draws() {
            RenderCreation::default()
        } else {
            RenderCreation::Automatic(Box::new(WgpuSettings { backends: None, ..default() }))
        };
        plugins = plugins.set(RenderPlugin { synchronous_pipeline_compilation: true, render_creation, ..default() });
    }
    plugins
}

pub fn screen_plugin(app: &mut App) {
    app.add_systems(PreStartup, choose_canvas).add_observer(photograph).add_systems(Last, end);
}

fn choose_canvas(mut commands: Commands, args: Res<Args>, mut images: ResMut<Assets<Image>>) {
    let target = if args.headless {
        let image = Image::new_target_texture(args.size.x, args.size.y, TextureFormat::Rgba8UnormSrgb, None);
        RenderTarget::from(images.add(image))
    } else {
        RenderTarget::default()
    };
    commands.insert_resource(Canvas(target));
}

fn photograph(photograph: On<Photograph>, mut commands: Commands, canvas: Res<Canvas>) {
    let picture = match &canvas.0 {
        RenderTarget::Image(image) => Screenshot::image(image.handle.clone()),
        _ => Screenshot::primary_window(),
    };
    commands.spawn(picture).observe(save_to_disk(photograph.0.clone()));
}

/// After `--frames`, or, with no window to close, once the script is over; and photographs are on disk.
fn end(
    mut commands: Commands,
    args: Res<Args>,
    script: Option<Res<Running>>,
    photographs: Query<(), With<Screenshot>>,
    mut frames: Local<u32>,
    mut photographed: Local<bool>,
    mut exit: MessageWriter<AppExit>,
) {
    *frames += 1;
    let last = match args.frames {
        Some(last) => *frames >= last,
        None => args.headless && script.is_some_and(|script| script.is_over()),
    };
    if !last {
        return;
    }
    if let Some(file) = args.screenshot.as_ref().filter(|_| !std::mem::replace(&mut *photographed, true)) {
        commands.trigger(Photograph(file.clone()));
    } else if photographs.is_empty() {
        exit.write(AppExit::Success);
    }
}

/// The window, if there is one to look at.
pub fn has_window(windows: Query<(), With<PrimaryWindow>>, args: Res<Args>) -> bool {
    !args.headless && !windows.is_empty()
}
