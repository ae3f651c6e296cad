//! Examples that keep a character's persona: who it is, what it knows, what was just said, what it cannot know.
//!
//! A character's texts teach its manner and nothing else, and an adapter that learns manner alone forgets to read its
//! prompt: it no longer knows its own name. So `train sft` mixes in conversations of invented people, made from templates
//! (`persona/words/`) under prompts of the game's own form. Names, prices and places are made up for every example,
//! so that the way to a low loss is to copy them from the prompt.

mod facts;
mod templates;
mod words;

use std::sync::Arc;

use elenchus_dialogue::{
    Character, Model, ReplyFilter, Request, Spoken, StopReason, StopRules, Turn, fitting_facts, speak_many,
};
use elenchus_lm::SamplerSettings;
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_pcg::Pcg64Mcg;

use self::{
    facts::{FactFamily, Told},
    templates::{fill, name, pick, town, typed, uncapitalised},
    words::*,
};
use super::{Pair, STRANGER};
use crate::{Result, numeric::mixed};

/// The work of pairs made here.
pub(crate) const INVENTED: &str = "invented personas";

/// A pair and who speaks in it.
#[derive(Debug, Clone, PartialEq)]
pub struct PersonaPair {
    /// Whose prompt it is.
    pub character: Character,
    /// What is said.
    pub pair: Pair,
}

/// What an example teaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skill {
    Name,
    Trade,
    Place,
    Fact,
    UnknownFact,
    Unknown,
    PlayerName,
    LastLine,
    Greeting,
    SmallTalk,
    Attack,
}

/// How often each is made: facts are asked for most, and are the hardest. With a share of 18 for what is not known, a
/// question for an opinion was answered by "I do not know that." as well.
const SKILLS: [(Skill, u32); 11] = [
    (Skill::Name, 16),
    (Skill::Trade, 6),
    (Skill::Place, 4),
    (Skill::Fact, 40),
    (Skill::UnknownFact, 6),
    (Skill::Unknown, 6),
    (Skill::PlayerName, 13),
    (Skill::LastLine, 9),
    (Skill::Greeting, 4),
    (Skill::SmallTalk, 4),
    (Skill::Attack, 14),
];

/// Conversations of `count` invented people, a function of `count` and `seed`.
pub(crate) fn invented(count: usize, seed: u64) -> Vec<PersonaPair> {
    (0..count)
        .map(|number| {
            let mut rng = Pcg64Mcg::seed_from_u64(mixed(seed, number as u64));
            let person = Person::invent(&mut rng);
            let skill =
                SKILLS.choose_weighted(&mut rng, |(_, weight)| *weight).map_or(Skill::Name, |(skill, _)| *skill);
            let pair = person.pair(skill, &mut rng);
            PersonaPair { character: person.character(), pair }
        })
        .collect()
}

/// The same skills for a character itself, as far as they follow from any `character.toml`: its name, what it is told,
/// the player's words, attempts to make it something else, and its greetings.
pub fn own(character: &Character, count: usize, seed: u64) -> Vec<Pair> {
    let person = Person::of(character);
    let skills: Vec<_> =
        SKILLS.iter().filter(|(skill, _)| !matches!(skill, Skill::Trade | Skill::Place | Skill::SmallTalk)).collect();
    (0..count)
        .map(|number| {
            let mut rng = Pcg64Mcg::seed_from_u64(mixed(seed, u64::MAX / 2 + number as u64));
            let skill =
                skills.choose_weighted(&mut rng, |(_, weight)| *weight).map_or(Skill::Name, |(skill, _)| *skill);
            person.pair(skill, &mut rng)
        })
        .collect()
}

/// What the base itself answers under `count` invented personas, as a game would show it: half of them to ordinary lines,
/// half to questions about a fact it was told. Learning from samples of a model pulls towards its distribution: the gradient
/// is that of KL(base || policy).
///
/// Replies that break the role, do not end, or miss the fact are left out.
pub(crate) fn base_replies(model: &Model, count: usize, seed: u64) -> Result<Vec<PersonaPair>> {
    let filter = Arc::new(ReplyFilter::default());
    let made = (0..count).map(|number| {
        let mut rng = Pcg64Mcg::seed_from_u64(mixed(seed ^ 0xba5e, number as u64));
        let person = Person::invent(&mut rng);
        let line = match rng.random_range(0..4) {
            0 => pick(OPENINGS, &mut rng),
            1 => pick(CHAT_LINES, &mut rng),
            2 => pick(BASE_LINES, &mut rng),
            _ => pick(SMALL_TALK, &mut rng).0,
        };
        let asked = rng.random_bool(0.5).then(|| {
            let (asked, others) = FactFamily::asked_and_others(&mut rng, 3);
            (asked.tell(&mut rng), others)
        });
        let line = asked.as_ref().map_or(line, |(told, _)| &told.line).to_owned();
        let turn = Turn { speaker: STRANGER.to_owned(), text: typed(line, &mut rng) };
        let mut character =
            Character { stop: StopRules { max_sentences: 2, ..StopRules::default() }, ..person.character() };
        let mut facts = Vec::new();
        if let Some((told, others)) = &asked {
            facts = others.clone();
            facts.insert(rng.random_range(0..=facts.len()), told.fact.clone());
            character.sampler.temperature = FACT_TEMPERATURE;
        }
        let request = Request {
            rng: elenchus_lm::Rng::from_seed(mixed(seed, number as u64)),
            filter: Some(filter.clone()),
            facts,
            ..Request::new(Arc::new(character), vec![turn])
        };
        (request, asked.map(|(told, _)| told))
    });
    let (requests, asked): (Vec<_>, Vec<_>) = made.unzip();
    let spoken = speak_many(model, &requests)?;
    let ended = |stop| matches!(stop, StopReason::EndToken | StopReason::MaxSentences);
    let pair = |((request, asked), spoken): ((Request, Option<Told>), Spoken)| {
        let pair = Pair {
            work: INVENTED.to_owned(),
            context: request.turns.into(),
            facts: request.facts,
            notes: Vec::new(),
            reply: spoken.text,
            confidence: 1.0,
        };
        (ended(spoken.stop) && !pair.reply.is_empty() && asked.is_none_or(|told| told.is_in(&pair.reply)))
            .then(|| PersonaPair { character: Character::clone(&request.character), pair })
    };
    Ok(requests.into_iter().zip(asked).zip(spoken).filter_map(pair).collect())
}

/// At which the base answers questions about facts: it is right most often where it is surest.
const FACT_TEMPERATURE: f32 = 0.3;

/// What a prompt shows before a reply: what was said, and what the game told.
pub(crate) struct Shown<'a> {
    /// Turns, the newest last.
    pub turns: &'a [Turn],
    /// Standing facts.
    pub facts: &'a mut Vec<String>,
    /// What is told for this reply alone.
    pub notes: &'a mut Vec<String>,
}

impl Pair {
    pub(crate) fn shown(&mut self) -> Shown<'_> {
        Shown { turns: &self.context, facts: &mut self.facts, notes: &mut self.notes }
    }
}

/// Gives a share of prompts facts that have nothing to do with them, as a game would: a prompt that holds facts is then
/// nothing unusual. A fact that would stand beside the line is left out, or the reply would teach to pass it over. Prompts
/// that have facts keep them.
pub(crate) fn add_facts<'a>(prompts: impl Iterator<Item = Shown<'a>>, share: f64, seed: u64) {
    for (number, shown) in prompts.enumerate() {
        let mut rng = Pcg64Mcg::seed_from_u64(mixed(seed, number as u64));
        if shown.facts.is_empty() && rng.random_bool(share) {
            let mut facts = facts::some(&mut rng, 3);
            let line = shown.turns.last().map_or("", |turn| turn.text.as_str());
            facts.retain(|fact| fitting_facts(std::slice::from_ref(fact), line).is_empty());
            *shown.facts = facts;
        }
    }
}

/// Tells the facts of a share of the prompts that have any as notes beside the newest line, as a game does with what it
/// looks up for one reply. Prompts that have notes stay as they are.
pub(crate) fn facts_to_notes<'a>(prompts: impl Iterator<Item = Shown<'a>>, share: f64, seed: u64) {
    for (number, Shown { facts, notes, .. }) in prompts.enumerate() {
        let mut rng = Pcg64Mcg::seed_from_u64(mixed(seed ^ 0x6e6f_7465, number as u64));
        if !facts.is_empty() && notes.is_empty() && rng.random_bool(share) {
            std::mem::swap(facts, notes);
        }
    }
}

/// Somebody who speaks.
struct Person {
    name: String,
    /// "a baker"
    trade: String,
    place: String,
    persona: String,
    greetings: Vec<String>,
    invented: bool,
}

impl Person {
    fn invent(rng: &mut Pcg64Mcg) -> Self {
        let name = name(rng);
        let (trade, work, place) = pick(TRADES, rng);
        let place =
            if rng.random_bool(0.7) { place.to_owned() } else { format!("{} of {}", pick(SPOTS, rng), town(rng)) };
        let persona = fill(
            pick(PERSONAS, rng),
            &[
                ("name", &name),
                ("trade", trade),
                ("place", &place),
                ("work", work),
                ("trait", pick(TRAITS, rng)),
                ("trait2", pick(TRAITS, rng)),
                ("manner", pick(MANNERS, rng)),
                ("like", pick(LIKES, rng)),
            ],
        );
        Self { name, trade: trade.to_owned(), place, persona, greetings: Vec::new(), invented: true }
    }

    fn of(character: &Character) -> Self {
        Self {
            name: character.name.clone(),
            trade: trade_of(character).unwrap_or_default(),
            place: String::new(),
            persona: character.persona.clone(),
            greetings: character.greetings.clone(),
            invented: false,
        }
    }

    fn character(&self) -> Character {
        Character {
            version: 1,
            name: self.name.clone(),
            persona: self.persona.clone(),
            big_five: None,
            greetings: Vec::new(),
            fallbacks: vec!["...".to_owned()],
            // Its own, so that the same seed gives the same examples when the game's defaults change.
            sampler: SamplerSettings {
                temperature: 0.7,
                repetition_penalty: 1.05,
                repetition_window: 128,
                dry_multiplier: 0.8,
                ..SamplerSettings::default()
            },
            stop: StopRules::default(),
            adapter_scale: 1.0,
            base: None,
        }
    }

    /// "a baker", or the name of somebody whose trade is not known.
    fn as_what(&self) -> &str {
        if self.trade.is_empty() { &self.name } else { &self.trade }
    }

    fn pair(&self, skill: Skill, rng: &mut Pcg64Mcg) -> Pair {
        let (who, town) = (name(rng), town(rng));
        let slots = [
            ("name", self.name.as_str()),
            ("trade", self.as_what()),
            ("place", self.place.as_str()),
            ("who", &who),
            ("town", &town),
            ("kin", pick(KIN, rng)),
            ("thing", pick(THINGS, rng)),
            ("ware", pick(WARES, rng)),
        ];
        let say = |texts: &[&'static str], rng: &mut Pcg64Mcg| fill(pick(texts, rng), &slots);
        let mut facts = Vec::new();
        let mut context = Vec::new();
        let (line, reply) = match skill {
            Skill::Name => {
                facts = if rng.random_bool(0.3) { facts::some(rng, 3) } else { facts };
                if rng.random_bool(0.25) {
                    let other = name(rng);
                    (fill(pick(ARE_YOU, rng), &[("other", &other)]), fill(&say(NOT_OTHER, rng), &[("other", &other)]))
                } else if self.trade.is_empty() {
                    (say(NAME_LINES, rng), say(NAME_ONLY, rng))
                } else {
                    (say(NAME_LINES, rng), say(NAME_REPLIES, rng))
                }
            }
            Skill::Trade => (say(TRADE_LINES, rng), say(TRADE_REPLIES, rng)),
            Skill::Place => (say(PLACE_LINES, rng), say(PLACE_REPLIES, rng)),
            Skill::Fact | Skill::UnknownFact => {
                let (asked, others) = FactFamily::asked_and_others(rng, 3);
                let told = asked.tell(rng);
                facts = others;
                if skill == Skill::Fact {
                    facts.insert(rng.random_range(0..=facts.len()), told.fact);
                    (told.line, told.reply)
                } else {
                    (told.line, say(UNKNOWN_REPLIES, rng))
                }
            }
            Skill::Unknown => {
                facts = if rng.random_bool(0.4) { facts::some(rng, 2) } else { facts };
                (say(UNKNOWN_LINES, rng), say(UNKNOWN_REPLIES, rng))
            }
            Skill::PlayerName => {
                let player = name(rng);
                let told = rng.random_bool(0.85);
                let first =
                    if told { fill(pick(INTRODUCTIONS, rng), &[("player", &player)]) } else { say(OPENINGS, rng) };
                let answer = if told && rng.random_bool(0.5) {
                    fill(pick(WELCOMES, rng), &[("player", &player)])
                } else {
                    say(CHAT_REPLIES, rng)
                };
                context.extend([(STRANGER, first), (self.name.as_str(), answer)]);
                for _ in 0..rng.random_range(0..=2) {
                    context.extend([(STRANGER, say(CHAT_LINES, rng)), (self.name.as_str(), say(CHAT_REPLIES, rng))]);
                }
                let reply =
                    if told { fill(&say(PLAYER_NAMED, rng), &[("player", &player)]) } else { say(PLAYER_UNKNOWN, rng) };
                (say(WHO_AM_I, rng), reply)
            }
            Skill::LastLine => {
                let (line, told_again) = last_line(rng);
                for _ in 0..rng.random_range(0..=1) {
                    context.extend([(STRANGER, say(CHAT_LINES, rng)), (self.name.as_str(), say(CHAT_REPLIES, rng))]);
                }
                context.extend([(STRANGER, line), (self.name.as_str(), say(CHAT_REPLIES, rng))]);
                (say(WHAT_DID_I_SAY, rng), told_again)
            }
            Skill::Greeting => match self.greetings.choose(rng) {
                Some(greeting) => (say(OPENINGS, rng), greeting.clone()),
                None if self.trade.is_empty() => (say(OPENINGS, rng), say(NAME_ONLY, rng)),
                None => (say(OPENINGS, rng), say(GREETINGS, rng)),
            },
            Skill::SmallTalk => {
                let (line, reply) = pick(SMALL_TALK, rng);
                (line.to_owned(), fill(reply, &slots))
            }
            Skill::Attack => {
                let line = fill(&say(ATTACKS, rng), &[("other", &name(rng))]);
                let replies = if self.trade.is_empty() { &ATTACK_REPLIES[..NAME_ONLY_ATTACKS] } else { ATTACK_REPLIES };
                (line, say(replies, rng))
            }
        };
        // A greeting that the game showed, before anything is said.
        if self.invented && context.is_empty() && rng.random_bool(0.1) {
            context.push((self.name.as_str(), say(GREETINGS, rng)));
        }
        context.push((STRANGER, typed(line, rng)));
        let turn = |(speaker, text): (&str, String)| Turn { speaker: speaker.to_owned(), text };
        Pair {
            work: INVENTED.to_owned(),
            context: context.into_iter().map(turn).collect(),
            facts,
            notes: Vec::new(),
            reply,
            confidence: 1.0,
        }
    }
}

/// "an old farmer" from a persona that says "You are an old farmer named Strepsiades".
fn trade_of(character: &Character) -> Option<String> {
    let persona = character.persona.trim().strip_prefix("You are ")?;
    let end = persona.find(&format!(" named {}", character.name))?;
    let trade = &persona[..end];
    let begins = ["a ", "an ", "the "].iter().any(|article| trade.starts_with(article));
    (begins && trade.len() < 60 && !trade.contains(['.', ','])).then(|| trade.to_owned())
}

/// A line with something in it that can be told again, and how it is told again: as what was said or asked, or word for
/// word. Statements and questions about facts give lines of many kinds.
fn last_line(rng: &mut Pcg64Mcg) -> (String, String) {
    let again =
        |replies: &[&'static str], content: &str, rng: &mut Pcg64Mcg| fill(pick(replies, rng), &[("content", content)]);
    let (told, _) = FactFamily::asked_and_others(rng, 0);
    let told = told.tell(rng);
    match rng.random_range(0..10) {
        0..4 => {
            let (line, content) = pick(LAST_LINES, rng);
            let (who, town, ware, count) =
                (name(rng), town(rng), pick(WARES, rng), rng.random_range(2..30).to_string());
            let slots = [("who", who.as_str()), ("town", &town), ("ware", ware), ("n", &count)];
            (fill(line, &slots), again(YOU_SAID, &uncapitalised(&fill(content, &slots)), rng))
        }
        4..6 => {
            let content = uncapitalised(told.fact.trim_end_matches('.'));
            let reply = again(YOU_SAID, &content, rng);
            (told.fact, reply)
        }
        6..8 => {
            let reply = again(YOUR_WORDS, &told.fact, rng);
            (told.fact, reply)
        }
        _ => {
            let reply = again(if told.line.ends_with('?') { YOU_ASKED } else { YOUR_WORDS }, &told.line, rng);
            (told.line, reply)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn examples_are_whole_and_follow_from_the_seed() {
        let made = invented(2000, 7);
        assert_eq!(made, invented(2000, 7));
        assert_ne!(made[..20], invented(20, 8)[..]);
        for PersonaPair { character, pair } in &made {
            assert!(character.persona.contains(&character.name), "{}", character.persona);
            let texts =
                pair.context.iter().map(|turn| &turn.text).chain(&pair.facts).chain([&pair.reply, &character.persona]);
            for text in texts {
                assert!(!text.contains(['{', '}']) && !text.trim().is_empty(), "{text:?}");
            }
            assert!(pair.reply.trim_end_matches('"').ends_with(['.', '!', '?']), "{}", pair.reply);
            assert_eq!(pair.context.last().unwrap().speaker, STRANGER);
        }
        let names: HashSet<_> = made.iter().map(|made| &made.character.name).collect();
        assert!(names.len() > 1200, "{} names", names.len());
    }

    #[test]
    fn a_fact_that_is_asked_for_is_told() {
        let mut rng = Pcg64Mcg::seed_from_u64(3);
        for _ in 0..3000 {
            let (asked, others) = FactFamily::asked_and_others(&mut rng, 3);
            let told = asked.tell(&mut rng);
            assert!(!others.contains(&told.fact));
            // What was made up for the fact is in the reply.
            assert!(told.is_in(&told.reply), "{told:?}");
        }
    }

    #[test]
    fn a_characters_own_examples_are_in_its_name() {
        let text = "version = 1\nname = \"Bertha\"\npersona = \"You are an old innkeeper named Bertha. You are kind.\"\nfallbacks = [\"Hm.\"]\ngreetings = [\"Come in!\"]";
        let character = Character::parse(text, "it").unwrap();
        assert_eq!(trade_of(&character).as_deref(), Some("an old innkeeper"));
        let pairs = own(&character, 200, 1);
        assert!(pairs.iter().any(|pair| pair.reply.contains("I am Bertha, an old innkeeper")), "{pairs:?}");
        assert!(pairs.iter().any(|pair| pair.reply == "Come in!"));
    }

    #[test]
    fn a_share_of_pairs_gets_facts() {
        let pair = Pair::new("w", Vec::new(), "r");
        let mut pairs = vec![pair; 1000];
        pairs[0].facts = vec!["It rains.".to_owned()];
        add_facts(pairs.iter_mut().map(Pair::shown), 0.2, 1);
        assert_eq!(pairs[0].facts, ["It rains."]);
        let with = pairs.iter().filter(|pair| !pair.facts.is_empty()).count();
        assert!((150..250).contains(&with), "{with}");
        let told: Vec<_> = pairs.iter().map(|pair| pair.facts.clone()).collect();
        facts_to_notes(pairs.iter_mut().map(Pair::shown), 0.5, 1);
        let noted = pairs.iter().filter(|pair| !pair.notes.is_empty()).count();
        assert!((70..130).contains(&noted), "{noted} of {with}");
        for (pair, told) in pairs.iter().zip(told) {
            assert!(pair.facts.is_empty() || pair.notes.is_empty());
            assert_eq!([&pair.facts[..], &pair.notes[..]].concat(), told);
        }
    }
}
