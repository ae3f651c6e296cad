//! F1: what the engine does, what it costs, and whether frames suffer.

use std::collections::VecDeque;

use bevy::prelude::*;
use bevy_elenchus::{ReplyReport, prelude::*};

use crate::{
    args::Args,
    crowd::Character,
    view::{CHALK, Fonts, PARCHMENT, SHADE},
};

/// Frames in the plot.
const FRAMES: usize = 150;
/// Of the plot, in logical pixels.
const PLOT: Vec2 = Vec2::new(300.0, 64.0);
/// Frames that medians are taken of.
const REMEMBERED: usize = 1200;

#[derive(Event, Clone, Copy, Debug)]
pub struct ToggleOverlay;

/// How long frames took, newest last.
#[derive(Resource, Default)]
pub struct Frames {
    /// Milliseconds, and whether any character spoke.
    times: VecDeque<(f32, bool)>,
}

/// The last reply of each speaker, newest first.
#[derive(Resource, Default)]
struct Replies(Vec<(Entity, ReplyReport)>);

#[derive(Component)]
struct Overlay;

/// Its contents.
#[derive(Component)]
struct Facts;

/// One frame of the plot; 0 is the oldest.
#[derive(Component)]
struct Bar(usize);

pub fn overlay_plugin(app: &mut App) {
    app.init_resource::<Frames>()
        .init_resource::<Replies>()
        .add_systems(Startup, spawn)
        .add_systems(Update, (count, key, (write, plot).run_if(is_shown)).chain())
        .add_observer(toggle)
        .add_observer(remember);
}

fn spawn(mut commands: Commands, args: Res<Args>, fonts: Res<Fonts>) {
    let facts = commands.spawn((Facts, Text::default(), fonts.text(15.0), TextColor(CHALK))).id();
    let bars: Vec<Entity> = (0..FRAMES)
        .map(|at| {
            let node = Node { width: px(PLOT.x / FRAMES as f32), height: px(0), flex_shrink: 0.0, ..default() };
            commands.spawn((Bar(at), node, BackgroundColor(CHALK))).id()
        })
        .collect();
    let plot = commands
        .spawn((
            Node {
                width: px(PLOT.x),
                height: px(PLOT.y),
                align_items: AlignItems::End,
                overflow: Overflow::clip(),
                ..default()
            },
            BackgroundColor(Color::BLACK.with_alpha(0.35)),
        ))
        .add_children(&bars)
        .id();
    let legend = commands
        .spawn((
            Text::new("frame times: "),
            fonts.text(13.0),
            TextColor(CHALK.with_alpha(0.8)),
            children![
                (TextSpan::new("silence"), fonts.bold(13.0), TextColor(PARCHMENT)),
                (TextSpan::new(", "), fonts.text(13.0), TextColor(CHALK.with_alpha(0.8))),
                (TextSpan::new("speech"), fonts.bold(13.0), TextColor(SPEECH)),
            ],
        ))
        .id();
    commands
        .spawn((
            Overlay,
            Node {
                position_type: PositionType::Absolute,
                right: px(16),
                top: px(16),
                flex_direction: FlexDirection::Column,
                row_gap: px(7),
                padding: px(13).all(),
                border_radius: BorderRadius::all(px(12)),
                ..default()
            },
            BackgroundColor(SHADE),
            GlobalZIndex(4000),
            if args.overlay { Visibility::Visible } else { Visibility::Hidden },
            Pickable::IGNORE,
        ))
        .add_children(&[facts, plot, legend]);
}

const SPEECH: Color = Color::srgb(0.93, 0.52, 0.25);

fn key(mut commands: Commands, keys: Res<ButtonInput<KeyCode>>) {
    if keys.just_pressed(KeyCode::F1) {
        commands.trigger(ToggleOverlay);
    }
}

fn toggle(_: On<ToggleOverlay>, mut overlay: Single<&mut Visibility, With<Overlay>>) {
    overlay.toggle_visible_hidden();
}

fn is_shown(overlay: Single<&Visibility, With<Overlay>>) -> bool {
    **overlay == Visibility::Visible
}

fn count(time: Res<Time<Real>>, speaking: Query<(), With<Speaking>>, mut frames: ResMut<Frames>) {
    frames.times.push_back((time.delta_secs() * 1e3, !speaking.is_empty()));
    if frames.times.len() > REMEMBERED {
        frames.times.pop_front();
    }
}

fn remember(finished: On<ReplyFinished>, mut replies: ResMut<Replies>) {
    if let Some(report) = &finished.report {
        replies.0.retain(|(entity, _)| *entity != finished.entity);
        replies.0.insert(0, (finished.entity, report.clone()));
        replies.0.truncate(4);
    }
}

impl Frames {
    /// The median of frames with speech or without, in milliseconds.
    fn median(&self, speech: bool) -> Option<f32> {
        let mut times: Vec<f32> = self.times.iter().filter(|(_, spoke)| *spoke == speech).map(|(ms, _)| *ms).collect();
        times.sort_by(f32::total_cmp);
        times.get(times.len() / 2).copied()
    }
}

fn write(
    status: Res<EngineStatus>,
    stats: Res<EngineStats>,
    frames: Res<Frames>,
    replies: Res<Replies>,
    speaking: Query<(&Npc, &Speaking)>,
    npcs: Query<&Npc, With<Character>>,
    characters: Res<Assets<CharacterAsset>>,
    mut facts: Single<&mut Text, With<Facts>>,
) {
    let name = |npc: &Npc| characters.get(&npc.character).map_or("?", |character| character.character.name.as_str());
    let model = match &*status {
        EngineStatus::Ready { base } => format!("{}, context of {} tokens", base.name, base.context),
        EngineStatus::Loading { progress } => format!("loading the model, {:.0}%", progress * 100.0),
        EngineStatus::Stopped | EngineStatus::Failed { .. } => "no model".into(),
    };
    let speakers: Vec<&str> = speaking.iter().map(|(npc, _)| name(npc)).collect();
    let speakers = if speakers.is_empty() { "nobody".into() } else { speakers.join(", ") };
    let mut lines = vec![
        model,
        format!("speaking: {speakers}"),
        format!("{:.0} tokens/s, {} at once, {} waiting", stats.tokens_per_second, stats.active, stats.queued),
        format!(
            "KV memory {:.1} MB; read {} tokens, cached {}",
            stats.kv_bytes as f32 / 1e6,
            stats.prompt_tokens,
            stats.cached_tokens
        ),
    ];
    for (entity, report) in &replies.0 {
        let adapter = report.adapter.map_or("no adapter".into(), |id| format!("adapter {}", &id.to_string()[..8]));
        lines.push(format!(
            "{}, {adapter}:\n    {} tokens, the first after {} ms, {:.0} tokens/s",
            npcs.get(*entity).map_or("?", name),
            report.reply_ids.len(),
            report.first_token.as_millis(),
            report.tokens_per_second
        ));
    }
    let ms = |median: Option<f32>| median.map_or("–".into(), |ms| format!("{ms:.1} ms"));
    lines.push(format!(
        "a frame: {} in silence, {} in speech (median)",
        ms(frames.median(false)),
        ms(frames.median(true))
    ));
    facts.0 = lines.join("\n");
}

/// The tallest bar is the slowest frame of those shown.
fn plot(frames: Res<Frames>, mut bars: Query<(&Bar, &mut Node, &mut BackgroundColor)>) {
    let shown: Vec<(f32, bool)> = frames.times.iter().rev().take(FRAMES).rev().copied().collect();
    let tallest = shown.iter().map(|(ms, _)| *ms).fold(1.0, f32::max);
    for (bar, mut node, mut color) in &mut bars {
        let (ms, spoke) = shown.get(bar.0).copied().unwrap_or_default();
        node.height = px(PLOT.y * ms / tallest);
        color.0 = if spoke { SPEECH } else { PARCHMENT };
    }
}
