//! Characters that talk to each other without the player: two walk up to each other, one opens, they take turns, they
//! part.

use std::time::Duration;

use bevy::prelude::*;
use bevy_elenchus::prelude::*;

use crate::{args::Args, bubbles::Utter, crowd::Character, player::Player, talk::Talk, votes::Votes};

/// Pairs that talk at the same time; more would be a noise.
const AT_ONCE: usize = 2;
/// Seconds between a parting and the next meeting.
const LULL: f32 = 8.0;
/// How far a voice carries, in metres.
pub const EARSHOT: f32 = 10.0;
/// Others are silent within this distance of the player's talk, in metres.
const QUIET: f32 = 9.0;
/// What is said in one meeting.
const TURNS: usize = 6;
const REPLY_TOKENS: usize = 48;

/// Beyond this many turns, a character drops half of its conversation.
const MOST_TURNS: usize = 120;

/// Who begins, with whom, the opening, and the topic. The lines are written for this project.
#[rustfmt::skip]
const OPENINGS: [(&str, &str, &str, &str); 14] = [
    ("hermes", "socrates", "Socrates! They say that you know nothing, and teach it to everyone. Is it true?", "what a man can know"),
    ("callicles", "socrates", "Still whispering about virtue in a corner, Socrates? What has it ever won you?", "virtue"),
    ("alcibiades", "socrates", "Socrates, I am to speak before the assembly. What should I tell them about justice?", "justice"),
    ("olive_seller", "cario", "You there with the basket! Does your master never send you for olives?", "olives"),
    ("strepsiades", "hermes", "You are a god. Tell me, how does a man get rid of his debts?", "debts"),
    ("hippias", "ischomachus", "I made this cloak and these sandals myself. What have you made with your hands?", "the work of their hands"),
    ("cario", "strepsiades", "You look as hungry as I am, old man. Whose fault is it with you?", "hunger"),
    ("ischomachus", "olive_seller", "How were the trees this year? Mine stand in good order.", "this year's olives"),
    ("alcibiades", "callicles", "Tell me, who will lead this city when we are both old?", "who will lead Athens"),
    ("strepsiades", "socrates", "Socrates, teach me the argument that wins though it is wrong. I have creditors.", "arguments that win"),
    ("hermes", "olive_seller", "A cup of your olives, and what is said in the market today?", "the news of the market"),
    ("hippias", "socrates", "I can speak on anything you like, Socrates. Shall I tell you what the beautiful is?", "the beautiful"),
    ("callicles", "alcibiades", "You follow that barefoot talker about. What does he give you?", "Socrates"),
    ("cario", "hermes", "Is there any meat left over from what they burn for you up there?", "meat and sacrifices"),
];

/// On the way to another character, or beside it.
#[derive(Component, Clone, Copy, Debug)]
pub struct Meeting {
    pub place: Vec3,
}

/// Two characters with something to talk about.
#[derive(Component, Clone, Debug)]
pub struct Appointment {
    pub opener: Entity,
    pub line: String,
    /// What they talk about.
    pub topic: String,
}

/// Makes two meet now, whatever others do; their opening is in the list, or about the weather.
#[derive(Event, Clone, Copy, Debug)]
pub struct Meet {
    pub opener: Entity,
    pub other: Entity,
}

/// When the next two meet.
#[derive(Resource, Default)]
pub struct Meetings {
    pub wait: f32,
    pub next: usize,
}

pub fn meetings_plugin(app: &mut App) {
    app.init_resource::<Meetings>()
        .insert_resource(Earshot::new(|world: &World, speaker, listener| {
            let place = |entity| world.get::<Transform>(entity).map(|place| place.translation);
            place(speaker).zip(place(listener)).is_some_and(|(a, b)| a.distance(b) < EARSHOT)
        }))
        .add_systems(Update, (meet.run_if(engine_ready), open, hush, part_when_left))
        .add_observer(meet_now)
        .add_observer(part);
}

/// The next two of the list who are here and free.
fn meet(
    mut commands: Commands,
    args: Res<Args>,
    time: Res<Time>,
    talk: Res<Talk>,
    mut meetings: ResMut<Meetings>,
    appointments: Query<(), With<Appointment>>,
    characters: Query<(Entity, &Character, &Transform), (Without<MemberOf>, Without<Speaking>, Without<Player>)>,
) {
    if args.quiet || appointments.iter().count() >= AT_ONCE {
        return;
    }
    meetings.wait -= time.delta_secs();
    if meetings.wait > 0.0 {
        return;
    }
    let find = |folder| {
        characters.iter().find(|(entity, character, _)| character.folder == folder && talk.with != Some(*entity))
    };
    for step in 0..OPENINGS.len() {
        let number = (meetings.next + step) % OPENINGS.len();
        let (opener, other, line, topic) = OPENINGS[number];
        if let (Some((opener, _, from)), Some((other, _, to))) = (find(opener), find(other)) {
            meetings.next = number + 1;
            meetings.wait = LULL;
            appoint(&mut commands, (opener, from.translation), (other, to.translation), line, topic);
            return;
        }
    }
}

fn meet_now(meet: On<Meet>, mut commands: Commands, characters: Query<(&Character, &Transform)>) {
    let (Ok((opener, from)), Ok((other, to))) = (characters.get(meet.opener), characters.get(meet.other)) else {
        return;
    };
    let (from, to) = (from.translation, to.translation);
    let known = OPENINGS.iter().find(|(a, b, ..)| *a == opener.folder && *b == other.folder);
    let (line, topic) =
        known.map_or(("A fine day to stand about and talk.", "the weather"), |&(_, _, line, topic)| (line, topic));
    appoint(&mut commands, (meet.opener, from), (meet.other, to), line, topic);
}

/// The opener walks to the other, who waits.
fn appoint(commands: &mut Commands, opener: (Entity, Vec3), other: (Entity, Vec3), line: &str, topic: &str) {
    let apart = (opener.1 - other.1).with_y(0.0).normalize_or(Vec3::X);
    commands.entity(other.0).insert(Meeting { place: other.1 });
    commands.entity(opener.0).insert(Meeting { place: other.1 + apart * 1.5 });
    let group = commands.spawn(Appointment { opener: opener.0, line: line.into(), topic: topic.into() }).id();
    commands.entity(group).add_related::<MemberOf>(&[opener.0, other.0]);
}

/// Beside each other, the opener speaks first.
fn open(
    mut commands: Commands,
    appointments: Query<(Entity, &Appointment, &GroupMembers), Without<ConversationGroup>>,
    members: Query<(&Transform, &Meeting)>,
    npcs: Query<&Npc>,
    characters: Res<Assets<CharacterAsset>>,
    talk: Res<Talk>,
) {
    for (group, appointment, both) in &appointments {
        let arrived =
            members.iter_many(both.iter()).all(|(place, meeting)| place.translation.distance(meeting.place) < 0.6);
        let asked = both.iter().any(|member| talk.with == Some(member));
        let name = npcs.get(appointment.opener).ok().and_then(|npc| characters.get(&npc.character));
        if let Some(character) = name
            && arrived
            && !asked
        {
            commands.entity(group).insert(ConversationGroup {
                max_turns: Some(TURNS),
                reply_tokens: Some(REPLY_TOKENS),
                // Long enough to have read what was said.
                pause: Duration::from_secs_f32(3.5),
                ..ConversationGroup::new(&character.character.name, &appointment.line).about(&appointment.topic)
            });
            commands.trigger(Utter { entity: appointment.opener, text: appointment.line.clone() });
        }
    }
}

/// Characters near the player's talk fall silent.
fn hush(
    mut commands: Commands,
    talk: Res<Talk>,
    groups: Query<(Entity, &GroupMembers), With<ConversationGroup>>,
    places: Query<&Transform>,
) {
    let Some(here) = talk.with.and_then(|with| places.get(with).ok()) else { return };
    for (group, members) in &groups {
        let mut places = places.iter_many(members.iter());
        if places.any(|place| place.translation.distance(here.translation) < QUIET) {
            commands.trigger(Interrupt { entity: group });
        }
    }
}

/// They part; of talk without an end the oldest turns are dropped.
fn part(
    silent: On<GroupSilent>,
    mut commands: Commands,
    groups: Query<&GroupMembers>,
    mut conversations: Query<&mut Conversation>,
    mut votes: ResMut<Votes>,
) {
    let members = groups.get(silent.entity).ok();
    for member in members.into_iter().flat_map(RelationshipTarget::iter) {
        if let Ok(mut conversation) = conversations.get_mut(member)
            && conversation.turns.len() > MOST_TURNS
        {
            conversation.keep_newest(MOST_TURNS / 2);
            // Votes refer to turns by index, and the indices have moved.
            votes.0.retain(|(voted, ..)| *voted != member);
        }
    }
    end(&mut commands, silent.entity, members);
}

/// A character whose partner was despawned ends the meeting.
fn part_when_left(mut commands: Commands, groups: Query<(Entity, &GroupMembers), With<Appointment>>) {
    for (group, members) in &groups {
        if members.len() < 2 {
            end(&mut commands, group, Some(members));
        }
    }
}

fn end(commands: &mut Commands, group: Entity, members: Option<&GroupMembers>) {
    for member in members.into_iter().flat_map(RelationshipTarget::iter) {
        commands.entity(member).remove::<Meeting>();
    }
    commands.entity(group).despawn();
}
