//! A group's turn that is cut short: by the player's talk, by the game, by a member that leaves.

use bevy::{ecs::relationship::RelationshipTarget, prelude::*};

use crate::{
    ConversationGroup, GroupMembers, Interrupt, MemberOf, Speaking,
    ending::{cancel, next_line},
    group::Lull,
    group_lines::members,
};

/// A member says an authored line to the group: the current turn is cancelled, and the answer comes after the usual
/// pause.
pub(crate) fn give_way(world: &mut World, entity: Entity, to: Entity) {
    for member in members(world, entity).into_iter().filter(|&member| member != to) {
        if world.get::<Speaking>(member).is_some_and(|speaking| speaking.group == Some(entity)) {
            cancel(world, member);
            next_line(world, member);
        }
    }
    if let Some(mut lull) = world.get_mut::<Lull>(entity) {
        lull.interrupted = false;
    }
}

/// Cancels the group's current turn; the group then waits as it does for the player's talk.
pub(crate) fn interrupt(world: &mut World, entity: Entity) {
    let Some(mut lull) = world.get_mut::<Lull>(entity) else { return };
    lull.interrupt();
    for member in members(world, entity) {
        if world.get::<Speaking>(member).is_some_and(|speaking| speaking.group == Some(entity)) {
            cancel(world, member);
            next_line(world, member);
        }
    }
}

/// Cancels a turn without telling the group.
fn dismiss(world: &mut World, entity: Entity, member: Entity) {
    if let Some(mut speaking) = world.get_mut::<Speaking>(member)
        && speaking.group == Some(entity)
    {
        speaking.group = None;
        cancel(world, member);
        next_line(world, member);
    }
}

/// A group starts, or starts over.
pub(crate) fn on_group_inserted(inserted: On<Insert, ConversationGroup>, mut commands: Commands) {
    commands.entity(inserted.entity).try_insert(Lull::default());
}

/// A group was removed or replaced: a turn in progress belonged to the old one.
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

pub(crate) fn on_interrupt(interrupted: On<Interrupt>, mut commands: Commands) {
    let group = interrupted.entity;
    commands.queue(move |world: &mut World| interrupt(world, group));
}

pub(crate) fn plugin(app: &mut App) {
    app.add_observer(on_group_inserted)
        .add_observer(on_group_discarded)
        .add_observer(on_member_left)
        .add_observer(on_interrupt)
        .register_type::<Interrupt>();
}
