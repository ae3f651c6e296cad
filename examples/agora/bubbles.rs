//! Speech stands in bubbles above the speakers' heads. The plugin reports it in events; this is one way to draw them.
//!
//! A bubble hangs in a frame of fixed width above the head and grows upwards in it, so that it needs no second layout
//! for its own size. Words beyond its height scroll out at the top.

use bevy::{prelude::*, ui::UiSystems};
use bevy_elenchus::prelude::*;

use crate::{
    crowd::Character,
    figure::Figure,
    meetings::EARSHOT,
    player::Player,
    talk::{Near, Talk},
    view::{CHALK, FADED_INK, Fonts, INK, PARCHMENT, SHADE, TERRACOTTA},
};

/// Of the frame, in logical pixels.
const WIDTH: f32 = 360.0;
/// Of a bubble at most, as a share of the window's height.
const MOST: f32 = 0.42;
/// Between the crown and the tip of the bubble, in metres.
const ABOVE: f32 = 0.22;
/// Names are shown within this, in metres.
const NAMED: f32 = 14.0;
/// To the edges of the window, and between two bubbles, in logical pixels.
const MARGIN: f32 = 10.0;
const GAP: f32 = 4.0;
/// What the tip adds below a bubble, and a line to it; how large a name is.
const TIP: f32 = 6.0;
const LINE: f32 = 24.0;
const PLATE: Vec2 = Vec2::new(110.0, 32.0);

/// A line that was not generated: a greeting, an opening.
#[derive(EntityEvent, Clone, Debug)]
pub struct Utter {
    pub entity: Entity,
    pub text: String,
}

/// The frame above a character's head.
#[derive(Component)]
pub struct Bubble {
    pub of: Entity,
    pub text: String,
    /// The reply has no words yet.
    thinking: bool,
    /// Seconds it stays after the whole text is shown.
    stays: Option<f32>,
    paper: Entity,
    words: Entity,
    tip: Entity,
    plate: Entity,
    names: [Entity; 2],
}

/// From a character to its bubble.
#[derive(Component, Deref)]
pub struct Voiced(Entity);

/// The bubble itself.
#[derive(Component)]
pub struct Paper;

/// The text in it.
#[derive(Component)]
pub struct Words;

pub fn bubbles_plugin(app: &mut App) {
    app.add_systems(Update, write)
        // Positions of camera and heads in this frame.
        .add_systems(PostUpdate, place.before(UiSystems::Prepare))
        .add_observer(hang)
        .add_observer(take_down)
        .add_observer(utter)
        .add_observer(think)
        .add_observer(speak)
        .add_observer(finish)
        .add_observer(apologise);
}

fn hang(character: On<Add, Character>, mut commands: Commands, fonts: Res<Fonts>) {
    let words = commands
        .spawn((
            Words,
            Text::default(),
            fonts.text(20.0),
            TextColor(INK),
            TextLayout { linebreak: LineBreak::WordOrCharacter, ..default() },
        ))
        .id();
    let pane = commands
        .spawn((
            Node { max_height: vh(MOST * 100.0), overflow: Overflow::scroll_y(), ..default() },
            // The newest words are shown: the layout knows how far down they are.
            ScrollPosition(Vec2::new(0.0, f32::MAX)),
        ))
        .add_child(words)
        .id();
    let name = commands.spawn((Text::default(), fonts.bold(15.0), TextColor(TERRACOTTA))).id();
    let paper = commands
        .spawn((
            Paper,
            Node {
                flex_direction: FlexDirection::Column,
                max_width: percent(100),
                padding: UiRect::new(px(14), px(14), px(6), px(9)),
                border: px(1).all(),
                border_radius: BorderRadius::all(px(12)),
                flex_shrink: 0.0,
                ..default()
            },
            BackgroundColor(PARCHMENT),
            BorderColor::all(FADED_INK.with_alpha(0.5)),
            BoxShadow::new(Color::BLACK.with_alpha(0.35), px(0), px(3), px(0), px(9)),
        ))
        .add_children(&[name, pane])
        .id();
    let tip = commands
        .spawn((
            Node { width: px(14), height: px(14), margin: UiRect::top(px(-8)), flex_shrink: 0.0, ..default() },
            UiTransform::from_rotation(Rot2::degrees(45.0)),
            BackgroundColor(PARCHMENT),
        ))
        .id();
    let plate_name = commands.spawn((Text::default(), fonts.bold(16.0), TextColor(CHALK))).id();
    let plate = commands
        .spawn((
            Node {
                padding: UiRect::axes(px(9), px(2)),
                margin: UiRect::top(px(6)),
                border_radius: BorderRadius::all(px(8)),
                flex_shrink: 0.0,
                ..default()
            },
            BackgroundColor(SHADE),
        ))
        .add_child(plate_name)
        .id();
    let frame = commands
        .spawn((
            Bubble {
                of: character.entity,
                text: String::new(),
                thinking: false,
                stays: None,
                paper,
                words,
                tip,
                plate,
                names: [name, plate_name],
            },
            Node {
                position_type: PositionType::Absolute,
                width: px(WIDTH),
                height: percent(100),
                flex_direction: FlexDirection::Column,
                justify_content: JustifyContent::End,
                align_items: AlignItems::Center,
                ..default()
            },
            GlobalZIndex(0),
            Visibility::Hidden,
            Pickable::IGNORE,
        ))
        .add_children(&[paper, tip, plate])
        .id();
    for node in [words, pane, paper, tip, name, plate, plate_name] {
        commands.entity(node).insert(Pickable::IGNORE);
    }
    commands.entity(character.entity).insert(Voiced(frame));
}

fn take_down(character: On<Remove, Character>, mut commands: Commands, voiced: Query<&Voiced>) {
    if let Ok(voiced) = voiced.get(character.entity) {
        commands.entity(voiced.0).despawn();
    }
}

/// The bubble of a speaker.
fn bubble_of<'a>(
    entity: Entity,
    voiced: &Query<&Voiced>,
    bubbles: &'a mut Query<&mut Bubble>,
) -> Option<Mut<'a, Bubble>> {
    bubbles.get_mut(voiced.get(entity).ok()?.0).ok()
}

impl Bubble {
    fn begin(&mut self, text: &str) {
        self.text = text.to_owned();
        self.thinking = false;
        self.stays = None;
    }

    /// Long enough to be read.
    fn close(&mut self) {
        self.thinking = false;
        self.stays = Some(4.0 + 0.06 * self.text.chars().count() as f32);
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && !self.thinking
    }
}

fn utter(line: On<Utter>, voiced: Query<&Voiced>, mut bubbles: Query<&mut Bubble>) {
    if let Some(mut bubble) = bubble_of(line.entity, &voiced, &mut bubbles) {
        bubble.begin(&line.text);
        bubble.close();
    }
}

fn think(started: On<ReplyStarted>, voiced: Query<&Voiced>, mut bubbles: Query<&mut Bubble>) {
    if let Some(mut bubble) = bubble_of(started.entity, &voiced, &mut bubbles) {
        bubble.begin("");
        bubble.thinking = true;
    }
}

fn speak(delta: On<ReplyDelta>, voiced: Query<&Voiced>, mut bubbles: Query<&mut Bubble>) {
    if let Some(mut bubble) = bubble_of(delta.entity, &voiced, &mut bubbles) {
        bubble.thinking = false;
        bubble.text.push_str(&delta.text);
    }
}

/// A cancelled reply breaks off visibly.
fn finish(finished: On<ReplyFinished>, voiced: Query<&Voiced>, mut bubbles: Query<&mut Bubble>) {
    if let Some(mut bubble) = bubble_of(finished.entity, &voiced, &mut bubbles) {
        bubble.text = finished.text.clone();
        if finished.stop == StopReason::Cancelled && !bubble.text.is_empty() {
            bubble.text.push_str(" —");
        }
        bubble.close();
    }
}

fn apologise(failed: On<ReplyFailed>, voiced: Query<&Voiced>, mut bubbles: Query<&mut Bubble>) {
    error!("{}", failed.error);
    if let Some(mut bubble) = bubble_of(failed.entity, &voiced, &mut bubbles) {
        bubble.begin(&failed.fallback);
        bubble.close();
    }
}

/// Text, dots while there is none, the name.
fn write(
    time: Res<Time>,
    talk: Res<Talk>,
    mut bubbles: Query<&mut Bubble>,
    npcs: Query<&Npc>,
    characters: Res<Assets<CharacterAsset>>,
    mut texts: Query<&mut Text>,
) {
    for mut bubble in &mut bubbles {
        if let Some(stays) = bubble.stays
            && talk.with != Some(bubble.of)
        {
            let left = stays - time.delta_secs();
            bubble.stays = Some(left);
            if left <= 0.0 {
                bubble.begin("");
            }
        }
        if let Ok(mut text) = texts.get_mut(bubble.words) {
            let dots = ["·", "· ·", "· · ·"][(time.elapsed_secs() * 2.5) as usize % 3];
            let words = if bubble.thinking { dots } else { &bubble.text };
            if text.0 != words {
                text.0 = words.to_owned();
            }
        }
        if let Some(character) = npcs.get(bubble.of).ok().and_then(|npc| characters.get(&npc.character)) {
            for name in bubble.names {
                if let Ok(mut text) = texts.get_mut(name)
                    && text.0 != character.character.name
                {
                    text.0.clone_from(&character.character.name);
                }
            }
        }
    }
}

/// Above the head, within the window, and above the bubbles of closer speakers. Bubbles of talk out of earshot are not
/// shown.
fn place(
    camera: Single<(&Camera, &Transform), With<Camera3d>>,
    player: Single<&Transform, With<Player>>,
    talk: Res<Talk>,
    near: Res<Near>,
    figures: Query<(&Transform, &Figure)>,
    mut bubbles: Query<(Entity, &Bubble, &mut Node, &mut Visibility, &mut GlobalZIndex)>,
    mut nodes: Query<&mut Node, Without<Bubble>>,
    papers: Query<&ComputedNode, With<Paper>>,
    scale: Res<UiScale>,
) {
    let (camera, eye) = *camera;
    let Some(window) = camera.logical_viewport_size().map(|size| size / scale.0) else { return };
    let view = GlobalTransform::from(*eye);
    let mut wanted = Vec::new();
    for (entity, bubble, _, mut visibility, _) in &mut bubbles {
        let Ok((body, figure)) = figures.get(bubble.of) else { continue };
        let distance = body.translation.distance(player.translation);
        let talks = talk.with == Some(bubble.of);
        let speaks = !bubble.is_empty() && (talks || distance < EARSHOT * 1.4);
        // While one talks, other names are in the way.
        let named = talk.with.is_none() && (near.0 == Some(bubble.of) || distance < NAMED);
        let crown = body.translation + figure.crown() + Vec3::Y * ABOVE;
        let at = camera.world_to_viewport(&view, crown).ok().map(|at| at / scale.0);
        // The player's partner is heard from outside of the view as well.
        let seen = at.filter(|at| talks || (at.cmpge(Vec2::ZERO).all() && at.cmple(window).all()));
        let shown = seen.filter(|_| speaks || named);
        visibility.set_if_neq(if shown.is_some() { Visibility::Visible } else { Visibility::Hidden });
        if let Some(at) = shown {
            let closeness = 1000 - (eye.translation.distance(body.translation) * 10.0) as i32;
            wanted.push((if talks { 2000 } else { closeness.max(1) }, at, speaks, entity));
        }
    }
    wanted.sort_by_key(|(order, ..)| -order);
    let mut placed: Vec<Rect> = Vec::new();
    for (order, at, speaks, entity) in wanted {
        let Ok((_, bubble, mut frame, _, mut z_index)) = bubbles.get_mut(entity) else { continue };
        z_index.set_if_neq(GlobalZIndex(order));
        // As large as it was in the last frame, and a line more while it grows.
        let paper = papers.get(bubble.paper).map_or(Vec2::ZERO, |paper| paper.size() * paper.inverse_scale_factor());
        let growing = if bubble.stays.is_none() { LINE } else { 0.0 };
        let size = if speaks { paper + Vec2::Y * (TIP + growing) } else { PLATE };
        let left = (at.x - WIDTH / 2.0).clamp(MARGIN, (window.x - WIDTH - MARGIN).max(MARGIN));
        let mut bottom = at.y.clamp((size.y + MARGIN).min(window.y), window.y - MARGIN);
        let middle = left + WIDTH / 2.0;
        let around = |bottom: f32| Rect::new(middle - size.x / 2.0, bottom - size.y, middle + size.x / 2.0, bottom);
        let mut hidden = false;
        while let Some(other) = placed.iter().find(|other| !other.intersect(around(bottom)).is_empty()) {
            // A name is only useful above its head.
            hidden |= !speaks;
            bottom = other.min.y - GAP;
        }
        if !hidden {
            placed.push(around(bottom));
        }
        let (left_px, bottom_px) = (px(left), px(window.y - bottom));
        if (frame.left, frame.bottom) != (left_px, bottom_px) {
            (frame.left, frame.bottom) = (left_px, bottom_px);
        }
        let shown = |shown| if shown { Display::Flex } else { Display::None };
        // The tip still points to the head where the frame was pushed back into the window.
        let aside = px((at.x - middle).clamp(24.0 - WIDTH / 2.0, WIDTH / 2.0 - 24.0));
        for (part, display, aside) in [
            (bubble.paper, shown(speaks), auto()),
            (bubble.tip, shown(speaks), aside),
            (bubble.plate, shown(!speaks && !hidden), auto()),
        ] {
            if let Ok(mut node) = nodes.get_mut(part)
                && (node.display != display || node.left != aside)
            {
                (node.display, node.left) = (display, aside);
            }
        }
    }
}
