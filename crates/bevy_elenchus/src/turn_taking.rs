//! Who speaks next in a group, and when.
//!
//! Nothing here keeps a turn's state: a turn is a member's [`Speaking`] that names the group, so whatever ends a reply, a
//! cancellation, a despawn, a failure, ends the turn. A turn asks no more than the newest line's answer of one member;
//! what it said is heard by all others at once.

use bevy::{ecs::relationship::RelationshipTarget, prelude::*};

use crate::{
    CharacterAsset, Conversation, ConversationGroup, ElenchusSystems, EngineStatus, GiveTurn, GroupMembers,
    GroupSilent, Npc, Say, SilenceReason, Speaking,
    events::trigger,
    group::Lull,
    group_lines::members,
    hear::overhear,
    lookup::{is_named, loaded},
    npc::LineQueue,
    say,
};

/// Each frame: a group that has been silent for long enough continues, once the engine is ready.
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
            trigger(world, GroupSilent { entity, reason });
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

/// The members that can answer the newest line, the one after its speaker first; `None` while there are fewer than two
/// members, or while a character is still loading and may be the speaker.
fn answerers(world: &World, entity: Entity) -> Option<Vec<Entity>> {
    let members = members(world, entity);
    let speaker = &world.get::<ConversationGroup>(entity)?.speaker;
    let is_loading = |&member: &Entity| {
        let character = world.get::<Npc>(member).map(|npc| loaded::<CharacterAsset>(world, &npc.character));
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

pub(crate) fn on_give_turn(turn: On<GiveTurn>, mut groups: Query<&mut Lull, With<ConversationGroup>>) {
    match groups.get_mut(turn.entity) {
        Ok(mut lull) => lull.next = Some(turn.member),
        Err(_) => warn!("`GiveTurn` to {}, which has no `ConversationGroup` component", turn.entity),
    }
}

pub(crate) fn plugin(app: &mut App) {
    app.add_systems(PreUpdate, take_turns.in_set(ElenchusSystems::TakeTurns))
        .add_observer(on_give_turn)
        .register_type::<GiveTurn>()
        .register_type::<GroupSilent>()
        .register_type::<SilenceReason>();
}
