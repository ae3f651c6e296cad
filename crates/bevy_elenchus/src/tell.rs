//! Lines that an author wrote: an NPC says them as it says its own, word by word or sentence by sentence over frames.

use bevy::prelude::*;
use elenchus_dialogue::{RequestId, sentences};

use crate::{
    CharacterAsset, Conversation, ConversationGroup, ElenchusSettings, ElenchusSystems, MemberOf, Npc, ReplyDelta,
    ReplyError, ReplyStarted, Speaking, SpeechFilter, Tell,
    ending::{self, Ending},
    engine_handle::EngineHandle,
    events::trigger,
    interruption,
    lookup::{character_path, loaded},
    receive,
    requests::Requests,
    status,
};

/// The NPC is speaking; its first word comes with the next frame.
pub(crate) fn begin(world: &mut World, tell: Tell) {
    let Tell { entity, text, to_group } = tell;
    let group = world.get::<MemberOf>(entity).map(|member| member.0);
    let group = group.filter(|&group| to_group && world.get::<ConversationGroup>(group).is_some());
    let path = character_path(world, entity);
    let id = world.resource_mut::<Requests>().begin_told(entity);
    let mut npc = world.entity_mut(entity);
    let mut conversation = npc.entry::<Conversation>().or_default();
    let mut conversation = conversation.get_mut();
    conversation.awaiting_reply = false;
    conversation.character = path;
    npc.insert(Speaking { told: Some(text.trim().to_owned()), group, ..Speaking::new(id) });
    if let Some(group) = group {
        interruption::give_way(world, group, entity);
    }
}

/// Each frame: every line that is being told continues.
pub(crate) fn go_on(handle: Res<EngineHandle>, speaking: Query<(Entity, &Speaking)>, mut commands: Commands) {
    if handle.paused {
        return;
    }
    for (entity, speaking) in speaking.iter().filter(|(_, speaking)| speaking.told.is_some()) {
        let id = speaking.id;
        commands.queue(move |world: &mut World| say_more(world, entity, id));
    }
}

/// Each step may run observers of the game, which may cancel or despawn.
fn say_more(world: &mut World, entity: Entity, id: RequestId) {
    let goes_on =
        |world: &World| world.resource::<Requests>().speaker(id).is_some() && world.get::<Npc>(entity).is_some();
    let Some(npc) = world.get::<Npc>(entity).filter(|_| goes_on(world)) else { return };
    match loaded::<CharacterAsset>(world, &npc.character) {
        Ok(Some(_)) => {}
        Ok(None) => return,
        Err((path, reason)) => {
            return ending::end(world, id, Ending::Failed(ReplyError::Character { path, reason }));
        }
    }
    if let Some(mut speaking) = world.get_mut::<Speaking>(entity)
        && !std::mem::replace(&mut speaking.started, true)
    {
        trigger(world, ReplyStarted { entity });
    }
    if !goes_on(world) {
        return;
    }
    let by_sentence =
        world.get::<SpeechFilter>(entity).is_some() || world.resource::<ElenchusSettings>().filter.is_some();
    let Some(mut speaking) = world.get_mut::<Speaking>(entity) else { return };
    let Some(left) = speaking.told.take() else { return };
    let (text, left) = left.split_at(piece(&left, by_sentence));
    let (text, over) = (text.to_owned(), left.is_empty());
    speaking.text.push_str(&text);
    speaking.told = Some(left.to_owned());
    trigger(world, ReplyDelta { entity, text });
    if over && goes_on(world) {
        ending::end(world, id, Ending::Told);
    }
}

/// How many bytes come next: a sentence, or a word, with the white space before it.
fn piece(text: &str, by_sentence: bool) -> usize {
    if by_sentence {
        return sentences(text).next().map_or(text.len(), str::len);
    }
    let word = text.len() - text.trim_start().len();
    text[word..].find(char::is_whitespace).map_or(text.len(), |end| word + end)
}

pub(crate) fn plugin(app: &mut App) {
    let after = go_on.after(receive::receive).before(status::update_stats);
    app.add_systems(PreUpdate, after.in_set(ElenchusSystems::Receive));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_told_in_words_or_sentences_and_nothing_is_lost() {
        fn pieces(mut text: &str, by_sentence: bool) -> Vec<&str> {
            let mut pieces = Vec::new();
            while !text.is_empty() {
                let (piece, left) = text.split_at(piece(text, by_sentence));
                pieces.push(piece);
                text = left;
            }
            pieces
        }
        assert_eq!(pieces("Know thyself.\n Go", false), ["Know", " thyself.", "\n Go"]);
        assert_eq!(pieces("Know thyself.\n Go", true), ["Know thyself.", "\n Go"]);
    }
}
