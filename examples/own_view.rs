//! A game with its own view: one line of subtitles that is written out at reading speed, and three answers to choose
//! from. The plugin draws nothing, so a view is what observes its events; this one never asks how a reply was made.
//!
//! `cargo run --release --example own_view` (once `cargo run --release -- model fetch` has fetched the model).

use bevy::prelude::*;
use bevy_elenchus::prelude::*;

/// Characters a second: the engine is faster than people read.
const PACE: f32 = 38.0;
const KEYS: [KeyCode; 3] = [KeyCode::Digit1, KeyCode::Digit2, KeyCode::Digit3];
const ANSWERS: [&str; 3] =
    ["What is courage?", "Why do you ask so many questions?", "I must go. What should I think about?"];

/// The reply, and how much of it is written out.
#[derive(Resource, Default)]
struct Subtitle {
    text: String,
    shown: f32,
    /// The reply is complete.
    complete: bool,
}

#[derive(Component)]
struct Line;

#[derive(Component)]
struct Answers;

fn main() -> AppExit {
    App::new()
        .add_plugins(AdaptersSourcePlugin::default())
        .add_plugins((DefaultPlugins, ElenchusPlugins))
        .insert_resource(ClearColor(Color::srgb(0.10, 0.07, 0.05)))
        .init_resource::<Subtitle>()
        .add_systems(Startup, spawn)
        .add_systems(Update, (greet, choose, write_out).chain())
        .add_observer(begin)
        .add_observer(hear)
        .add_observer(end)
        .add_observer(apologise)
        .run()
}

fn spawn(mut commands: Commands, assets: Res<AssetServer>) {
    let font = TextFont::from(assets.load("fonts/GFSNeohellenic.otf"));
    commands.spawn(Npc::new(assets.load("adapters://socrates/character.toml")));
    commands.spawn(Camera2d);
    commands.spawn((
        Node {
            width: percent(100),
            height: percent(100),
            flex_direction: FlexDirection::Column,
            justify_content: JustifyContent::End,
            align_items: AlignItems::Center,
            row_gap: px(24),
            padding: px(48).all(),
            ..default()
        },
        children![
            (
                Line,
                Text::default(),
                font.clone().with_font_size(30.0),
                TextLayout::justify(Justify::Center),
                Node { max_width: px(900), ..default() }
            ),
            (Answers, Text::default(), font.with_font_size(22.0), TextColor(Color::srgb(0.75, 0.68, 0.5))),
        ],
    ));
}

/// His greeting: shown here, and entered as his own words.
fn greet(
    mut commands: Commands,
    mut loaded: MessageReader<AssetEvent<CharacterAsset>>,
    characters: Res<Assets<CharacterAsset>>,
    npc: Single<Entity, With<Npc>>,
    mut subtitle: ResMut<Subtitle>,
) {
    for event in loaded.read() {
        if let AssetEvent::LoadedWithDependencies { id } = event
            && let Some(asset) = characters.get(*id)
            && let Some(greeting) = asset.character.greetings.first()
        {
            commands.trigger(Hear::new(*npc, &asset.character.name, greeting));
            *subtitle = Subtitle { text: greeting.clone(), shown: 0.0, complete: true };
        }
    }
}

fn choose(
    mut commands: Commands,
    keys: Res<ButtonInput<KeyCode>>,
    subtitle: Res<Subtitle>,
    npc: Single<Entity, With<Npc>>,
    mut answers: Single<&mut Text, With<Answers>>,
) {
    let read = subtitle.complete && subtitle.shown >= subtitle.text.chars().count() as f32;
    let numbered = ANSWERS.iter().enumerate().map(|(at, answer)| format!("{}.  {answer}", at + 1));
    let choices = if read { numbered.collect::<Vec<_>>().join("\n") } else { String::new() };
    if answers.0 != choices {
        answers.0 = choices;
    }
    for (key, answer) in KEYS.into_iter().zip(ANSWERS) {
        if read && keys.just_pressed(key) {
            commands.trigger(Say::new(*npc, "Stranger", answer));
        }
    }
}

fn write_out(time: Res<Time>, mut subtitle: ResMut<Subtitle>, mut line: Single<&mut Text, With<Line>>) {
    let all = subtitle.text.chars().count() as f32;
    subtitle.shown = (subtitle.shown + PACE * time.delta_secs()).min(all);
    let shown: String = subtitle.text.chars().take(subtitle.shown as usize).collect();
    if line.0 != shown {
        line.0 = shown;
    }
}

fn begin(_: On<ReplyStarted>, mut subtitle: ResMut<Subtitle>) {
    *subtitle = Subtitle::default();
}

fn hear(delta: On<ReplyDelta>, mut subtitle: ResMut<Subtitle>) {
    subtitle.text.push_str(&delta.text);
}

fn end(_: On<ReplyFinished>, mut subtitle: ResMut<Subtitle>) {
    subtitle.complete = true;
}

fn apologise(failed: On<ReplyFailed>, mut subtitle: ResMut<Subtitle>) {
    *subtitle = Subtitle { text: failed.fallback.clone(), shown: 0.0, complete: true };
    error!("{}", failed.error);
}
