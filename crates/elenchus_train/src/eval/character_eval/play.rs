//! Holds the conversations of a battery. Those that do not depend on each other take their turns together, in batches.

use elenchus_dialogue::{PromptMemory, Request, Spoken, Turn, speak_many_remembering};
use elenchus_lm::Rng;

use super::{
    case::{Case, Check},
    cases::{SPAM, TOPICS},
    checks::{admits_not_knowing, ends_properly, is_echo, is_near_repeat, names_topic, own_name_fault, role_fault},
    results::{Exchange, Played, Refused},
    setup::{CharacterEval, Group, Participant},
};
use crate::{Result, data::STRANGER, numeric::mixed};

/// Lines that two NPCs say.
pub(super) const NPC_TURNS: usize = 8;
/// Caps a line among NPCs, in tokens, as a game does.
const NPC_REPLY_TOKENS: usize = 48;
/// Requests between two calls of `on_progress`.
const CHUNK: usize = 48;
/// A repetition is one of these many last replies.
const REMEMBERED_REPLIES: usize = 6;

/// A conversation under way. With the player there is one participant, who answers each of `lines`; among NPCs there are
/// two, who answer each other.
struct Dialogue<'a> {
    group: Group,
    kind: &'a str,
    facts: Vec<String>,
    /// What each participant is reminded of beside the line it answers, as a group with a topic does.
    notes: Vec<String>,
    participants: Vec<&'a Participant>,
    turns: Vec<Turn>,
    /// The player's lines; among NPCs the opening alone.
    lines: Vec<&'a str>,
    exchanges: Vec<Exchange>,
    replies: usize,
    check: &'a Check,
    seed: u64,
}

impl Dialogue<'_> {
    /// Who answers next.
    fn speaker(&self) -> &Participant {
        self.participants[self.exchanges.len() % self.participants.len()]
    }

    /// What the next reply answers: the player's next line, or what the other NPC said.
    fn next_request(&mut self, of: &CharacterEval<'_>) -> Request {
        let number = self.exchanges.len();
        if let Some(line) = self.lines.get(number) {
            let speaker = match self.participants.get(1) {
                Some(partner) => partner.character.name.clone(),
                None => STRANGER.to_owned(),
            };
            self.turns.push(Turn { speaker, text: (*line).to_owned() });
        }
        let speaker = self.speaker();
        Request {
            voice: speaker.adapter.clone().map(Into::into),
            facts: self.facts.clone(),
            notes: self.notes.get(number % self.participants.len()).into_iter().cloned().collect(),
            rng: Rng::from_seed(mixed(self.seed, number as u64)),
            filter: of.filter.clone(),
            max_tokens: (self.participants.len() > 1).then_some(NPC_REPLY_TOKENS),
            ..Request::new(speaker.character.clone(), self.turns.clone())
        }
    }

    /// Takes the reply; returns whether the conversation continues.
    fn hear(&mut self, spoken: Spoken) -> bool {
        let speaker = self.speaker().character.name.clone();
        let line = self.turns.last().map_or_else(String::new, |turn| turn.text.clone());
        let refused = spoken.refused.into_iter().map(|refusal| Refused { rule: refusal.rule, text: refusal.text });
        let text = spoken.text.trim().to_owned();
        if !text.is_empty() {
            self.turns.push(Turn { speaker: speaker.clone(), text: text.clone() });
        }
        // A group falls silent where nobody has an answer.
        let is_silent = text.is_empty() && self.participants.len() > 1;
        self.exchanges.push(Exchange { line, speaker, reply: text, stop: spoken.stop, refused: refused.collect() });
        self.exchanges.len() < self.replies && !is_silent
    }
}

/// All conversations, in the order of the cases; those among NPCs stand last.
pub(super) fn play(
    of: &CharacterEval<'_>,
    cases: &[Case],
    on_progress: &mut impl FnMut(usize, usize),
) -> Result<Vec<Played>> {
    let rounds = 0..of.seeds.get();
    let is_held = |group| of.only.is_empty() || of.only.contains(&group);
    let mut dialogues: Vec<Dialogue<'_>> = cases
        .iter()
        .enumerate()
        .flat_map(|(at, case)| rounds.clone().map(move |round| (round * cases.len() + at, case)))
        .filter(|(_, case)| is_held(case.group))
        .map(|(number, case)| Dialogue {
            group: case.group,
            kind: &case.kind,
            facts: case.facts.clone(),
            notes: Vec::new(),
            participants: vec![&of.speaker],
            turns: Vec::new(),
            lines: case.lines.iter().map(String::as_str).collect(),
            exchanges: Vec::new(),
            replies: case.lines.len(),
            check: &case.check,
            seed: mixed(of.seed, number as u64 + 1),
        })
        .collect();
    let topics = TOPICS.iter().enumerate();
    for (number, topic) in
        topics.flat_map(|(at, topic)| rounds.clone().map(move |round| (round * TOPICS.len() + at, topic)))
    {
        let Some(partner) = of.partner.as_ref().filter(|_| is_held(Group::NpcToNpc)) else { break };
        let names = [&of.speaker.character.name, &partner.character.name];
        let note = |other: &str| format!("You and {other} talk about {}.", topic.name);
        dialogues.push(Dialogue {
            group: Group::NpcToNpc,
            kind: topic.name,
            facts: Vec::new(),
            // The speaker answers first.
            notes: vec![note(names[1]), note(names[0])],
            participants: vec![&of.speaker, partner],
            turns: Vec::new(),
            lines: vec![topic.opening],
            exchanges: Vec::new(),
            replies: NPC_TURNS,
            check: &Check::None,
            seed: mixed(of.seed, u64::MAX - number as u64),
        });
    }
    let all = dialogues.iter().map(|dialogue| dialogue.replies).sum();
    let mut memory = PromptMemory::default();
    let mut done = 0;
    let mut open: Vec<usize> = (0..dialogues.len()).collect();
    while !open.is_empty() {
        let mut still_open = Vec::new();
        for chunk in open.chunks(CHUNK) {
            on_progress(done, all);
            let requests: Vec<Request> = chunk.iter().map(|&at| dialogues[at].next_request(of)).collect();
            let spoken = speak_many_remembering(of.model, &requests, &mut memory)?;
            done += spoken.len();
            for (&at, spoken) in chunk.iter().zip(spoken) {
                if dialogues[at].hear(spoken) {
                    still_open.push(at);
                }
            }
        }
        open = still_open;
    }
    on_progress(all, all);
    Ok(dialogues.into_iter().map(|dialogue| judged(of, dialogue)).collect())
}

fn judged(of: &CharacterEval<'_>, dialogue: Dialogue<'_>) -> Played {
    let Dialogue { group, kind, facts, exchanges, check, .. } = dialogue;
    let reply = exchanges.last().map_or("", |exchange| exchange.reply.as_str());
    let character = &of.speaker.character;
    let fault = match check {
        Check::OwnName => own_name_fault(reply, &character.name, &of.other_names),
        Check::Says(wanted) => wanted.fault(reply),
        Check::AdmitsNotKnowing => (!admits_not_knowing(reply)).then(|| "answers what it cannot know".to_owned()),
        Check::StaysInRole { worked } => role_fault(reply, character, &of.other_names, worked),
        Check::None => None,
    };
    Played { group, kind: kind.to_owned(), facts, exchanges, faults: fault.into_iter().collect() }
}

/// Replies to the same line that nearly repeat one of the last, and such as nearly repeat the one right before.
pub(super) fn repetitions(exchanges: &[Exchange]) -> [Vec<bool>; 2] {
    debug_assert!(exchanges.len() <= SPAM);
    let repeats = |at: usize, within: usize| {
        let before = &exchanges[at.saturating_sub(within)..at];
        before.iter().any(|before| is_near_repeat(&exchanges[at].reply, &before.reply))
    };
    let all = |within| (1..exchanges.len()).map(|at| repeats(at, within)).collect();
    [all(REMEMBERED_REPLIES), all(1)]
}

/// What is wrong with a line among NPCs: cut, an echo, without a word of the topic.
pub(super) fn npc_faults(kind: &str, exchange: &Exchange) -> [bool; 3] {
    let words = TOPICS.iter().find(|topic| topic.name == kind).map_or(&[][..], |topic| topic.words);
    [!ends_properly(&exchange.reply), is_echo(&exchange.reply, &exchange.line), !names_topic(&exchange.reply, words)]
}
