//! Messages about what is missing, and what to do about it; about saved files, for a moment. A game continues without a
//! model.

use bevy::{
    asset::{AssetPath, UntypedAssetLoadFailedEvent},
    prelude::*,
};
use bevy_elenchus::prelude::*;

use crate::view::{CHALK, Fonts, SHADE};

/// How long messages stay, in seconds.
const STAYS: f32 = 5.0;

/// Something to tell the player for a moment.
#[derive(Event, Clone, Debug)]
pub struct Tell(pub String);

/// The messages on screen.
#[derive(Resource, Default)]
struct News {
    /// Each with the time it stays.
    passing: Vec<(String, f32)>,
    /// Files that could not be loaded, each with its reason.
    broken: Vec<(AssetPath<'static>, String)>,
}

#[derive(Component)]
pub struct Notice;

pub fn notice_plugin(app: &mut App) {
    app.init_resource::<News>()
        .add_systems(Startup, spawn)
        .add_systems(
            Update,
            (find_broken, forget_repaired::<CharacterAsset>, forget_repaired::<AdapterAsset>, retry, write).chain(),
        )
        .add_observer(tell);
}

fn spawn(mut commands: Commands, fonts: Res<Fonts>) {
    commands.spawn((
        Node {
            position_type: PositionType::Absolute,
            top: px(16),
            left: percent(22),
            right: percent(22),
            justify_content: JustifyContent::Center,
            ..default()
        },
        GlobalZIndex(3500),
        Pickable::IGNORE,
        children![(
            Notice,
            Text::default(),
            fonts.text(18.0),
            TextColor(CHALK),
            BackgroundColor(SHADE),
            Node { padding: UiRect::axes(px(16), px(9)), border_radius: BorderRadius::all(px(10)), ..default() },
            Visibility::Hidden,
            Pickable::IGNORE,
        )],
    ));
}

fn tell(news: On<Tell>, mut all: ResMut<News>) {
    all.passing.retain(|(text, _)| *text != news.0);
    all.passing.push((news.0.clone(), STAYS));
}

fn find_broken(mut failed: MessageReader<UntypedAssetLoadFailedEvent>, mut news: ResMut<News>) {
    for failure in failed.read() {
        // What may follow is a place in the code, which helps no player.
        let text = failure.error.to_string().lines().next().unwrap_or_default().to_owned();
        news.broken.retain(|(path, _)| *path != failure.path);
        news.broken.push((failure.path.clone(), text));
    }
}

/// A file that loads after all is removed from the messages.
fn forget_repaired<A: Asset>(
    mut events: MessageReader<AssetEvent<A>>,
    assets: Res<AssetServer>,
    mut news: ResMut<News>,
) {
    for event in events.read() {
        if let AssetEvent::Added { id } | AssetEvent::Modified { id } = event
            && let Some(repaired) = assets.get_path(*id)
        {
            news.broken.retain(|(path, _)| *path != repaired);
        }
    }
}

fn retry(mut commands: Commands, keys: Res<ButtonInput<KeyCode>>, status: Res<EngineStatus>) {
    if keys.just_pressed(KeyCode::F4) && matches!(*status, EngineStatus::Failed { .. }) {
        commands.trigger(RetryLoad);
    }
}

fn write(
    time: Res<Time>,
    status: Res<EngineStatus>,
    mut news: ResMut<News>,
    notice: Single<(&mut Text, &mut Visibility), With<Notice>>,
) {
    news.passing.retain_mut(|(_, left)| {
        *left -= time.delta_secs();
        *left > 0.0
    });
    let mut lines = Vec::new();
    match &*status {
        EngineStatus::Loading { progress } => lines.push(format!("Loading the model: {:.0}%", progress * 100.0)),
        EngineStatus::Failed { error } => lines.push(format!(
            "The characters have no model to think with, and speak lines that were written for that.\n{error}\n\
             In a terminal:  cargo run --release -- model fetch    then press F4 here."
        )),
        EngineStatus::Stopped | EngineStatus::Ready { .. } => {}
    }
    for (_, broken) in &news.broken {
        lines.push(format!(
            "{broken}\nWho needs it speaks lines that were written for that.\n\
             In a terminal:  cargo run --release -- adapter inspect FOLDER    says more; a repaired file is heard at once."
        ));
    }
    lines.extend(news.passing.iter().map(|(text, _)| text.clone()));
    let (mut text, mut visibility) = notice.into_inner();
    let words = lines.join("\n\n");
    visibility.set_if_neq(if words.is_empty() { Visibility::Hidden } else { Visibility::Inherited });
    if text.0 != words {
        text.0 = words;
    }
}
