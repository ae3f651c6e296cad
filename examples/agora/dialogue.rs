//! The player's view of a talk: the line being typed, the history, and votes on replies.

use bevy::{
    input::mouse::{MouseScrollUnit, MouseWheel},
    input_focus::InputFocus,
    prelude::*,
    ui_widgets::{Activate, Button},
};
use bevy_elenchus::prelude::*;

use crate::{
    player::NAME,
    talk::{Near, PlayerLine, Talk},
    text_field::{self, Submitted, TextField},
    view::{AEGEAN, CHALK, FADED_INK, Fonts, INK, PARCHMENT, SHADE, TERRACOTTA},
    votes::{Opinion, Vote, Votes},
};

const HISTORY_WIDTH: f32 = 380.0;
/// Turns in the history.
const SHOWN: usize = 60;
/// A notch of the wheel, or a press of a key, in logical pixels.
const SCROLL: f32 = 60.0;

/// The panel at the bottom.
#[derive(Component)]
struct Panel;

/// "Press E".
#[derive(Component)]
struct Prompt;

/// Key hints, while the player talks to no character.
#[derive(Component)]
struct Help;

/// The history so far.
#[derive(Component)]
pub struct History;

/// Turns shown, and for whom.
#[derive(Component, Default, PartialEq)]
struct Shown {
    with: Option<Entity>,
    turns: usize,
    votes: usize,
}

/// A button for a vote on a reply.
#[derive(Component)]
struct VoteButton(Vote);

pub fn dialogue_plugin(app: &mut App) {
    app.add_systems(Startup, spawn)
        .add_systems(Update, (prompt, panel, keys, fill_history, scroll_history).chain())
        .add_observer(submitted)
        .add_observer(voted);
}

fn spawn(mut commands: Commands, fonts: Res<Fonts>) {
    let field = text_field::spawn(&mut commands, &fonts, "");
    let hint = commands
        .spawn((
            Text::new("Enter says it    ·    Esc or walking away (up, down) ends the talk    ·    F2 good, F3 poor    ·    Page up, Page down"),
            fonts.text(14.0),
            TextColor(CHALK.with_alpha(0.8)),
        ))
        .id();
    let frame = commands
        .spawn((
            Node {
                border: px(2).all(),
                border_radius: BorderRadius::all(px(8)),
                overflow: Overflow::clip(),
                ..default()
            },
            BorderColor::all(TERRACOTTA),
            BackgroundColor(PARCHMENT),
        ))
        .add_child(field)
        .id();
    commands
        .spawn((
            Panel,
            Node {
                position_type: PositionType::Absolute,
                left: percent(20),
                right: percent(20),
                bottom: px(22),
                flex_direction: FlexDirection::Column,
                row_gap: px(6),
                padding: px(10).all(),
                border_radius: BorderRadius::all(px(12)),
                ..default()
            },
            BackgroundColor(SHADE),
            GlobalZIndex(3000),
            Visibility::Hidden,
        ))
        .add_children(&[frame, hint]);
    commands.spawn((
        Prompt,
        Node {
            position_type: PositionType::Absolute,
            left: percent(50),
            bottom: px(60),
            width: px(0),
            justify_content: JustifyContent::Center,
            ..default()
        },
        Visibility::Hidden,
        Pickable::IGNORE,
        children![(
            Node {
                padding: UiRect::axes(px(16), px(7)),
                border_radius: BorderRadius::all(px(10)),
                flex_shrink: 0.0,
                ..default()
            },
            BackgroundColor(SHADE),
            Pickable::IGNORE,
            children![(Text::default(), fonts.text(20.0), TextColor(CHALK), TextLayout::no_wrap(), Pickable::IGNORE)],
        )],
    ));
    commands.spawn((
        Help,
        Text::new(
            "W A S D, arrows or a click: walk    ·    right button: look    ·    wheel: closer    ·    F1: the engine    ·    \
             F5, F9: save, load",
        ),
        fonts.text(14.0),
        TextColor(CHALK.with_alpha(0.85)),
        TextShadow { offset: Vec2::ONE, color: Color::BLACK.with_alpha(0.7) },
        Node { position_type: PositionType::Absolute, left: px(16), bottom: px(12), ..default() },
        Pickable::IGNORE,
    ));
    commands.spawn((
        History,
        Shown::default(),
        Node {
            position_type: PositionType::Absolute,
            left: px(16),
            top: px(16),
            width: px(HISTORY_WIDTH),
            max_height: vh(56),
            flex_direction: FlexDirection::Column,
            row_gap: px(8),
            padding: px(12).all(),
            border_radius: BorderRadius::all(px(12)),
            overflow: Overflow::scroll_y(),
            ..default()
        },
        ScrollPosition::default(),
        BackgroundColor(SHADE),
        GlobalZIndex(1500),
        Visibility::Hidden,
    ));
}

fn name_of(entity: Option<Entity>, npcs: &Query<&Npc>, characters: &Assets<CharacterAsset>) -> Option<String> {
    Some(characters.get(&npcs.get(entity?).ok()?.character)?.character.name.clone())
}

fn prompt(
    near: Res<Near>,
    talk: Res<Talk>,
    npcs: Query<&Npc>,
    characters: Res<Assets<CharacterAsset>>,
    prompt: Single<(Entity, &mut Visibility), With<Prompt>>,
    children: Query<&Children>,
    mut texts: Query<&mut Text>,
) {
    let (prompt, mut visibility) = prompt.into_inner();
    let name = name_of(near.0, &npcs, &characters).filter(|_| talk.with.is_none());
    visibility.set_if_neq(if name.is_some() { Visibility::Visible } else { Visibility::Hidden });
    for descendant in children.iter_descendants(prompt) {
        if let (Ok(mut text), Some(name)) = (texts.get_mut(descendant), &name) {
            let words = format!("Press E to talk to {name}");
            if text.0 != words {
                text.0 = words;
            }
        }
    }
}

/// Shown during a talk; the field gets the keys once the E that began it is released.
fn panel(
    talk: Res<Talk>,
    keys: Res<ButtonInput<KeyCode>>,
    npcs: Query<&Npc>,
    characters: Res<Assets<CharacterAsset>>,
    mut panel: Single<&mut Visibility, With<Panel>>,
    mut help: Single<&mut Visibility, (With<Help>, Without<Panel>)>,
    field: Single<(Entity, &TextField)>,
    mut texts: Query<&mut Text>,
    mut focus: ResMut<InputFocus>,
) {
    let (entity, field) = *field;
    let open = talk.with.is_some();
    panel.set_if_neq(if open { Visibility::Visible } else { Visibility::Hidden });
    help.set_if_neq(if open { Visibility::Hidden } else { Visibility::Visible });
    if let Some(name) = name_of(talk.with, &npcs, &characters) {
        text_field::set_hint(field, &format!("Say something to {name}"), &mut texts);
    }
    if open && !keys.pressed(KeyCode::KeyE) {
        text_field::focus(entity, &mut focus);
    } else if !open && focus.get() == Some(entity) {
        focus.clear();
    }
}

fn submitted(line: On<Submitted>, mut commands: Commands) {
    commands.trigger(PlayerLine(line.text.clone()));
}

fn keys(mut commands: Commands, keys: Res<ButtonInput<KeyCode>>) {
    for (key, opinion) in [(KeyCode::F2, Opinion::Up), (KeyCode::F3, Opinion::Down)] {
        if keys.just_pressed(key) {
            commands.trigger(Vote { opinion, turn: None });
        }
    }
}

/// Rebuilt when there are more turns.
fn fill_history(
    mut commands: Commands,
    talk: Res<Talk>,
    votes: Res<Votes>,
    fonts: Res<Fonts>,
    history: Single<(Entity, &mut Shown, &mut Visibility, &mut ScrollPosition), With<History>>,
    conversations: Query<&Conversation>,
    npcs: Query<&Npc>,
    characters: Res<Assets<CharacterAsset>>,
) {
    let (history, mut shown, mut visibility, mut scroll) = history.into_inner();
    let conversation = talk.with.and_then(|with| conversations.get(with).ok());
    let turns = conversation.map_or(&[][..], |conversation| &conversation.turns);
    visibility.set_if_neq(if turns.is_empty() { Visibility::Hidden } else { Visibility::Visible });
    let wanted = Shown { with: talk.with, turns: turns.len(), votes: votes.0.len() };
    if *shown == wanted {
        return;
    }
    let grown = (shown.with, shown.turns) != (wanted.with, wanted.turns);
    *shown = wanted;
    let own_name = name_of(talk.with, &npcs, &characters);
    let mut rows = Vec::new();
    for (at, turn) in turns.iter().enumerate().skip(turns.len().saturating_sub(SHOWN)) {
        let own = own_name.as_ref() == Some(&turn.speaker);
        let (name, color) = match () {
            () if own => (turn.speaker.as_str(), TERRACOTTA.mix(&CHALK, 0.45)),
            () if turn.speaker == NAME => ("You", AEGEAN.mix(&CHALK, 0.55)),
            () => (turn.speaker.as_str(), CHALK.with_alpha(0.6)),
        };
        let answers = own && turns[..at].iter().any(|turn| Some(&turn.speaker) != own_name.as_ref());
        let said = commands
            .spawn((
                Text::new(format!("{name}  ")),
                fonts.bold(16.0),
                TextColor(color),
                Pickable::IGNORE,
                children![(TextSpan::new(&turn.text), fonts.text(16.0), TextColor(CHALK))],
            ))
            .id();
        let mut row = commands.spawn((
            Node { flex_direction: FlexDirection::Column, row_gap: px(3), flex_shrink: 0.0, ..default() },
            Pickable { should_block_lower: false, is_hoverable: true },
        ));
        row.add_child(said);
        if answers {
            let given = votes.0.iter().find(|(entity, turn, _)| (Some(*entity), *turn) == (talk.with, at));
            let given = given.map(|(_, _, opinion)| *opinion);
            let row = row.id();
            let buttons = commands.spawn(Node { column_gap: px(6), ..default() }).id();
            for (opinion, word) in [(Opinion::Up, "good"), (Opinion::Down, "poor")] {
                let chosen = given == Some(opinion);
                let button = commands
                    .spawn((
                        Button,
                        VoteButton(Vote { opinion, turn: Some(at) }),
                        Node {
                            padding: UiRect::axes(px(9), px(1)),
                            border_radius: BorderRadius::all(px(7)),
                            ..default()
                        },
                        BackgroundColor(if chosen { PARCHMENT } else { CHALK.with_alpha(0.13) }),
                        children![(
                            Text::new(word),
                            fonts.text(13.0),
                            TextColor(if chosen { INK } else { CHALK.mix(&FADED_INK, 0.3) }),
                            Pickable::IGNORE
                        )],
                    ))
                    .id();
                commands.entity(buttons).add_child(button);
            }
            commands.entity(row).add_child(buttons);
            rows.push(row);
        } else {
            rows.push(row.id());
        }
    }
    commands.entity(history).despawn_children().add_children(&rows);
    if grown {
        // As far down as it goes: the layout knows how far that is.
        scroll.y = f32::MAX;
    }
}

/// By the wheel while the pointer is over it, and by keys.
fn scroll_history(
    mut wheel: MessageReader<MouseWheel>,
    keys: Res<ButtonInput<KeyCode>>,
    pointed: crate::view::Pointed,
    history: Single<(&mut ScrollPosition, &ComputedNode), With<History>>,
) {
    let (mut scroll, node) = history.into_inner();
    let notches: f32 = wheel
        .read()
        .map(|wheel| match wheel.unit {
            MouseScrollUnit::Line => wheel.y * SCROLL,
            MouseScrollUnit::Pixel => wheel.y,
        })
        .sum();
    let mut by = if pointed.any() { -notches } else { 0.0 };
    by += if keys.just_pressed(KeyCode::PageDown) { SCROLL * 3.0 } else { 0.0 };
    by -= if keys.just_pressed(KeyCode::PageUp) { SCROLL * 3.0 } else { 0.0 };
    let most = ((node.content_size().y - node.size().y) * node.inverse_scale_factor()).max(0.0);
    let to = (scroll.y.min(most) + by).clamp(0.0, most);
    // New turns have not been laid out yet.
    if scroll.y != to && (by != 0.0 || scroll.y != f32::MAX) {
        scroll.y = to;
    }
}

fn voted(activate: On<Activate>, mut commands: Commands, buttons: Query<&VoteButton>) {
    if let Ok(button) = buttons.get(activate.entity) {
        commands.trigger(button.0);
    }
}
