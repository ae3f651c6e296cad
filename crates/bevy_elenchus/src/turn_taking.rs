//! Who speaks next in a group, and when.
//!
//! Nothing here keeps a turn's state: a turn is a member's [`Speaking`] that names the group, so whatever ends a reply, a
//! cancellation, a despawn, a failure, ends the turn. A turn asks no more than the newest line's answer of one member;
//! what it said is heard by all others at once.

use bevy::{ecs::relationship::RelationshipTarget, prelude::*};
use elenchus_dialogue::{ReplyReport, has_words};

use crate::{
    CharacterAsset, Conversation, ConversationGroup, Earshot, ElenchusSystems, EngineStatus, GiveTurn, GroupMembers,
    GroupSilent, Interrupt, Listener, MemberOf, Npc, Overheard, Say, SilenceReason, Speaking,
    ending::{self, is_named},
    group::Lull,
    hear::overhear,
    npc::LineQueue,
    say,
};

/// Each frame: a group in which nobody has spoken for long enough goes on, once the engine is there.
pub(crate) fn take_turns(
    time: Res<Time>,
    status: Res<EngineStatus>,
    mut groups: Query<(Entity, &ConversationGroup, &GroupMembers, &mut Lull)>,
    npcs: Query<(Option<&Speaking>, &LineQueue), With<Npc>>,
    mut commands: Commands,
) {
    let ready = matches!(*status, EngineStatus::Ready { .. });
    for (entity, group, members, mut lull) in &mut groups {
        if lull.over.is_some() && lull.over == group.spent() {
            continue;
        }
        let (mut turn, mut other_talk) = (false, false);
        for (speaking, queue) in npcs.iter_many(members.iter()) {
            turn |= speaking.is_some_and(|speaking| speaking.group == Some(entity));
            other_talk |= !queue.lines.is_empty() || speaking.is_some_and(|speaking| speaking.group != Some(entity));
        }
        if turn || other_talk {
            lull.silence = default();
            if other_talk {
                lull.interrupt();
            }
            continue;
        }
        lull.silence = lull.silence.saturating_add(time.delta());
        let due = if lull.interrupted { group.quiet } else { group.pause };
        if ready && lull.silence >= due {
            commands.queue(move |world: &mut World| next_turn(world, entity));
        }
    }
}

fn next_turn(world: &mut World, entity: Entity) {
    let Some(mut answerers) = answerers(world, entity) else { return };
    let Some(group) = world.get::<ConversationGroup>(entity).cloned() else { return };
    let Some(mut lull) = world.get_mut::<Lull>(entity) else { return };
    answerers.retain(|member| !lull.failed.contains(member));
    let over = group.spent().or(answerers.is_empty().then_some(SilenceReason::NoAnswer));
    let told = std::mem::replace(&mut lull.over, over);
    if let Some(reason) = over {
        if told != over {
            ending::tell(world, GroupSilent { entity, reason });
        }
        return;
    }
    // Now and not when it is next looked: the reply may be over by then.
    lull.silence = default();
    lull.interrupted = false;
    let given = lull.next.take();
    let chosen = given.filter(|member| answerers.contains(member));
    if let (Some(member), None) = (given, chosen) {
        warn!(
            "`GiveTurn` to {member}, which cannot answer the newest line of group {entity} (hint: it must be an NPC and a \
             member, and not the one who said it)"
        );
    }
    if let Some(speaker) = chosen.or(answerers.first().copied()) {
        begin_turn(world, entity, &group, speaker);
    }
}

/// Everyone hears the opening with the first turn; later lines were heard when they were said.
fn begin_turn(world: &mut World, entity: Entity, group: &ConversationGroup, speaker: Entity) {
    if group.turns == 0 {
        for member in members(world, entity).into_iter().filter(|&member| member != speaker) {
            let conversation = world.get::<Conversation>(member);
            // As when this very turn was interrupted before a word, or saved.
            if !conversation.is_some_and(|conversation| conversation.ends_with(&group.speaker, &group.line)) {
                overhear(world, member, &group.speaker, &group.line);
            }
        }
    }
    let mut say = Say::new(speaker, &group.speaker, &group.line).ambient();
    say.max_tokens = group.reply_tokens;
    say::answer(world, say, Some(entity));
}

/// What a member is reminded of with the line it answers: with whom it talks, and about what.
pub(crate) fn topic(world: &World, entity: Entity, member: Entity) -> Option<String> {
    let topic =
        world.get::<ConversationGroup>(entity)?.topic.as_deref().map(|topic| topic.trim().trim_end_matches('.'));
    let topic = topic.filter(|topic| has_words(topic))?;
    let others = members(world, entity).into_iter().filter(|&other| other != member);
    let mut others: Vec<String> =
        others.map(|other| ending::name(world, other)).filter(|name| has_words(name)).collect();
    others.dedup();
    let with = match others.split_last() {
        None => "You talk".to_owned(),
        Some((last, [])) => format!("You and {last} talk"),
        Some((last, rest)) => format!("You, {} and {last} talk", rest.join(", ")),
    };
    Some(format!("{with} about {topic}."))
}

/// Members that are NPCs.
fn members(world: &World, group: Entity) -> Vec<Entity> {
    let members = world.get::<GroupMembers>(group).into_iter().flat_map(GroupMembers::iter);
    members.filter(|&member| world.get::<Npc>(member).is_some()).collect()
}

/// Whoever can answer the newest line, the one after its speaker first; `None` while there are no two members, or while
/// a character is being loaded and nobody knows yet whose line it is.
fn answerers(world: &World, entity: Entity) -> Option<Vec<Entity>> {
    let members = members(world, entity);
    let speaker = &world.get::<ConversationGroup>(entity)?.speaker;
    let is_loading = |&member: &Entity| {
        let character = world.get::<Npc>(member).map(|npc| say::loaded::<CharacterAsset>(world, &npc.character));
        matches!(character, Some(Ok(None)))
    };
    if members.len() < 2 || members.iter().any(is_loading) {
        return None;
    }
    let spoke: Vec<bool> = members.iter().map(|&member| is_named(world, member, speaker)).collect();
    let after = spoke.iter().position(|&spoke| spoke).map_or(0, |speaker| speaker + 1);
    let order = (0..members.len()).map(|index| (after + index) % members.len());
    Some(order.filter(|&index| !spoke[index]).map(|index| members[index]).collect())
}

/// A turn has ended as it should. Saying nothing is no answer.
pub(crate) fn finished(
    world: &mut World,
    entity: Entity,
    member: Entity,
    name: &str,
    report: &ReplyReport,
) -> Vec<Overheard> {
    if let Some(mut group) = world.get_mut::<ConversationGroup>(entity) {
        group.tokens += report.reply_ids.len();
    }
    if report.text.is_empty() {
        failed(world, entity, member);
        return Vec::new();
    }
    said(world, entity, member, name, &report.text)
}

/// A member's line, whole or as far as it came: the others hear it, and one of them will answer it. Returns what is to
/// be told of it.
pub(crate) fn said(world: &mut World, entity: Entity, speaker: Entity, name: &str, text: &str) -> Vec<Overheard> {
    let Some(mut group) = world.get_mut::<ConversationGroup>(entity) else { return Vec::new() };
    group.speaker = name.to_owned();
    group.line = text.to_owned();
    group.turns += 1;
    if let Some(mut lull) = world.get_mut::<Lull>(entity) {
        lull.failed.clear();
    }
    let members = members(world, entity);
    let earshot = world.resource::<Earshot>().clone();
    let mut listeners = world.query_filtered::<Entity, With<Listener>>();
    let listeners: Vec<Entity> = listeners
        .iter(world)
        .filter(|listener| *listener != speaker && !members.contains(listener))
        .filter(|&listener| earshot.reaches(world, speaker, listener))
        .collect();
    for hearer in members.into_iter().filter(|&member| member != speaker).chain(listeners.iter().copied()) {
        // A namesake would take the line for its own.
        if !is_named(world, hearer, name) {
            overhear(world, hearer, name, text);
        }
    }
    let overheard =
        |listener| Overheard { entity: listener, group: entity, speaker, name: name.to_owned(), text: text.to_owned() };
    listeners.into_iter().map(overheard).collect()
}

/// A member had no answer: the newest line is the next one's to answer. Without a model it is nobody's fault, and all
/// wait for one.
pub(crate) fn failed(world: &mut World, entity: Entity, member: Entity) {
    if matches!(world.resource::<EngineStatus>(), EngineStatus::Ready { .. })
        && let Some(mut lull) = world.get_mut::<Lull>(entity)
    {
        lull.failed.push(member);
    }
}

/// A member says a line of the game's to the group: nobody else has the turn, and the answer comes after the usual pause.
pub(crate) fn give_way(world: &mut World, entity: Entity, to: Entity) {
    for member in members(world, entity).into_iter().filter(|&member| member != to) {
        if world.get::<Speaking>(member).is_some_and(|speaking| speaking.group == Some(entity)) {
            ending::cancel(world, member);
            ending::next_in_queue(world, member);
        }
    }
    if let Some(mut lull) = world.get_mut::<Lull>(entity) {
        lull.interrupted = false;
    }
}

/// Whoever speaks for the group falls silent, and the others wait as they do for the player's talk.
pub(crate) fn interrupt(world: &mut World, entity: Entity) {
    let Some(mut lull) = world.get_mut::<Lull>(entity) else { return };
    lull.interrupt();
    for member in members(world, entity) {
        if world.get::<Speaking>(member).is_some_and(|speaking| speaking.group == Some(entity)) {
            ending::cancel(world, member);
            ending::next_in_queue(world, member);
        }
    }
}

/// Ends a turn that nobody in the group is to hear of any more.
fn dismiss(world: &mut World, entity: Entity, member: Entity) {
    if let Some(mut speaking) = world.get_mut::<Speaking>(member)
        && speaking.group == Some(entity)
    {
        speaking.group = None;
        ending::cancel(world, member);
        ending::next_in_queue(world, member);
    }
}

/// A group begins, or begins anew.
pub(crate) fn on_group_inserted(inserted: On<Insert, ConversationGroup>, mut commands: Commands) {
    commands.entity(inserted.entity).try_insert(Lull::default());
}

/// A group is gone, or begins anew: a turn under way belonged to the old one.
pub(crate) fn on_group_discarded(
    discarded: On<Discard, ConversationGroup>,
    groups: Query<&GroupMembers>,
    mut commands: Commands,
) {
    let entity = discarded.entity;
    for member in groups.get(entity).into_iter().flat_map(GroupMembers::iter) {
        commands.queue(move |world: &mut World| dismiss(world, entity, member));
    }
}

/// A member leaves; inserting the same `MemberOf` again is no leaving.
pub(crate) fn on_member_left(left: On<Discard, MemberOf>, members: Query<&MemberOf>, mut commands: Commands) {
    let member = left.entity;
    let Ok(&MemberOf(group)) = members.get(member) else { return };
    commands.queue(move |world: &mut World| {
        if world.get::<MemberOf>(member).is_none_or(|now| now.0 != group) {
            dismiss(world, group, member);
        }
    });
}

pub(crate) fn on_give_turn(turn: On<GiveTurn>, mut groups: Query<&mut Lull, With<ConversationGroup>>) {
    match groups.get_mut(turn.entity) {
        Ok(mut lull) => lull.next = Some(turn.member),
        Err(_) => warn!("`GiveTurn` to {}, which has no `ConversationGroup` component", turn.entity),
    }
}

pub(crate) fn on_interrupt(interrupted: On<Interrupt>, mut commands: Commands) {
    let group = interrupted.entity;
    commands.queue(move |world: &mut World| interrupt(world, group));
}

pub(crate) fn plugin(app: &mut App) {
    app.add_systems(PreUpdate, take_turns.in_set(ElenchusSystems::TakeTurns))
        .add_observer(on_group_inserted)
        .add_observer(on_group_discarded)
        .add_observer(on_member_left)
        .add_observer(on_give_turn)
        .add_observer(on_interrupt)
        .register_type::<GiveTurn>()
        .register_type::<Interrupt>()
        .register_type::<GroupSilent>()
        .register_type::<SilenceReason>();
}

#[cfg(test)]
mod tests {
    use elenchus_dialogue::{BaseInfo, Error};

    use super::*;

    #[test]
    fn an_engine_that_stops_in_mid_turn_is_no_members_failure() {
        let mut world = World::new();
        let [group, member] = [world.spawn(Lull::default()).id(), world.spawn_empty().id()];
        world.insert_resource(EngineStatus::Failed { error: Error::Stopped });
        failed(&mut world, group, member);
        assert!(world.get::<Lull>(group).unwrap().failed.is_empty());
        let base = BaseInfo { name: "tiny".into(), sha256: String::new(), context: 64 };
        world.insert_resource(EngineStatus::Ready { base });
        failed(&mut world, group, member);
        assert_eq!(world.get::<Lull>(group).unwrap().failed, [member]);
    }
}
