//! What a member's line does to its group: the others hear it, and one of them answers it next.

use bevy::{ecs::relationship::RelationshipTarget, prelude::*};
use elenchus_dialogue::{ReplyReport, has_words};

use crate::{
    ConversationGroup, Earshot, EngineStatus, GroupMembers, Listener, Npc, Overheard,
    group::Lull,
    hear::overhear,
    lookup::{is_named, name},
};

/// What a member is reminded of with the line it answers: with whom it talks, and about what.
pub(crate) fn topic(world: &World, entity: Entity, member: Entity) -> Option<String> {
    let topic =
        world.get::<ConversationGroup>(entity)?.topic.as_deref().map(|topic| topic.trim().trim_end_matches('.'));
    let topic = topic.filter(|topic| has_words(topic))?;
    let others = members(world, entity).into_iter().filter(|&other| other != member);
    let mut others: Vec<String> = others.map(|other| name(world, other)).filter(|name| has_words(name)).collect();
    others.dedup();
    let with = match others.split_last() {
        None => "You talk".to_owned(),
        Some((last, [])) => format!("You and {last} talk"),
        Some((last, rest)) => format!("You, {} and {last} talk", rest.join(", ")),
    };
    Some(format!("{with} about {topic}."))
}

/// Members that are NPCs.
pub(crate) fn members(world: &World, group: Entity) -> Vec<Entity> {
    let members = world.get::<GroupMembers>(group).into_iter().flat_map(GroupMembers::iter);
    members.filter(|&member| world.get::<Npc>(member).is_some()).collect()
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
    // Without `HearingPlugin` there are no listeners.
    let earshot = world.get_resource::<Earshot>().cloned();
    let mut listeners = world.query_filtered::<Entity, With<Listener>>();
    let listeners: Vec<Entity> = listeners
        .iter(world)
        .filter(|listener| *listener != speaker && !members.contains(listener))
        .filter(|&listener| earshot.as_ref().is_some_and(|earshot| earshot.reaches(world, speaker, listener)))
        .collect();
    for hearer in members.into_iter().filter(|&member| member != speaker).chain(listeners.iter().copied()) {
        // An NPC of the same name would take the line for its own.
        if !is_named(world, hearer, name) {
            overhear(world, hearer, name, text);
        }
    }
    let overheard =
        |listener| Overheard { entity: listener, group: entity, speaker, name: name.to_owned(), text: text.to_owned() };
    listeners.into_iter().map(overheard).collect()
}

/// A member had no answer: the newest line is the next one's to answer. Without a model it is no member's failure, and all
/// wait for one.
pub(crate) fn failed(world: &mut World, entity: Entity, member: Entity) {
    if matches!(world.resource::<EngineStatus>(), EngineStatus::Ready { .. })
        && let Some(mut lull) = world.get_mut::<Lull>(entity)
    {
        lull.failed.push(member);
    }
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
