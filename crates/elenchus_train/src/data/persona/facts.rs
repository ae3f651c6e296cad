//! Facts as games tell them, questions about them in other words, and answers.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_pcg::Pcg64Mcg;

use super::{fill, name, pick, town, words::*};

/// Facts of one kind: one template, several questions and answers.
pub(super) struct FactFamily {
    fact: &'static str,
    lines: &'static [&'static str],
    replies: &'static [&'static str],
    /// What of it must be in the answer.
    key: &'static str,
}

/// A fact, a question about it and the answer.
#[derive(Debug)]
pub(super) struct Told {
    pub fact: String,
    pub line: String,
    pub reply: String,
    #[cfg_attr(not(test), expect(dead_code, reason = "tests hold replies to it"))]
    pub key: String,
}

impl FactFamily {
    /// A kind to ask for, and up to `most` facts of other kinds.
    pub fn asked_and_others(rng: &mut Pcg64Mcg, most: usize) -> (&'static Self, Vec<String>) {
        let count = rng.random_range(0..=most);
        let mut families: Vec<&Self> = FAMILIES.choose_multiple(rng, count + 1).collect();
        families.shuffle(rng);
        let asked = families.pop().unwrap_or(&FAMILIES[0]);
        (asked, families.into_iter().map(|family| family.tell(rng).fact).collect())
    }

    pub fn tell(&self, rng: &mut Pcg64Mcg) -> Told {
        let (ware, place, other_place) = (pick(WARES, rng), pick(PLACES, rng), pick(PLACES, rng));
        let (who, whom, town) = (name(rng), name(rng), town(rng));
        let number: u32 = if rng.random_bool(0.7) { rng.random_range(2..13) } else { rng.random_range(13..100) };
        let n = match NUMBERS.get(number as usize) {
            Some(word) if rng.random_bool(0.4) => (*word).to_owned(),
            _ => number.to_string(),
        };
        let slots = [
            ("ware", ware),
            ("place", place),
            ("place2", other_place),
            ("who", who.as_str()),
            ("whom", &whom),
            ("town", &town),
            ("n", &n),
            ("coin", pick(COINS, rng)),
            ("side", pick(SIDES, rng)),
            ("when", pick(TIMES, rng)),
            ("state", pick(STATES, rng)),
            ("ruined", pick(RUINED, rng)),
            ("beast", pick(BEASTS, rng)),
            ("thing", pick(THINGS, rng)),
            ("job", pick(JOBS, rng)),
            ("color", pick(COLORS, rng)),
        ];
        let text = |template: &str| fill(template, &slots);
        Told {
            fact: text(self.fact),
            line: text(pick(self.lines, rng)),
            reply: text(pick(self.replies, rng)),
            key: text(self.key),
        }
    }
}

/// A few facts of different kinds, at least one.
pub(super) fn some(rng: &mut Pcg64Mcg, most: usize) -> Vec<String> {
    let count = rng.random_range(1..=most);
    FAMILIES.choose_multiple(rng, count).map(|family| family.tell(rng).fact).collect()
}

macro_rules! families {
    ($($fact:literal => $key:literal: [$($line:literal),+ $(,)?] [$($reply:literal),+ $(,)?];)+) => {
        const FAMILIES: &[FactFamily] = &[$(FactFamily {
            fact: $fact, lines: &[$($line),+], replies: &[$($reply),+], key: $key,
        }),+];
    };
}

families! {
    "{ware} costs {n} {coin}." => "{n} {coin}":
        ["How much is the {ware}?", "What does {ware} cost?", "What do I pay for {ware}?", "I want {ware}. How much?", "What is the price of {ware}?", "I would like some {ware}. What must I give you?", "Is {ware} dear here?", "Give me {ware}. What do I owe?"]
        ["{ware} costs {n} {coin}.", "That is {n} {coin}.", "{n} {coin}, and not less.", "For {ware} you pay {n} {coin}."];
    "A room at the inn of {who} costs {n} {coin} a night." => "{n} {coin}":
        ["What does a room cost?", "How much is a bed for the night?", "I need a room for tonight. How much is it?", "Is the inn expensive?", "I want to sleep here. What do you take for it?", "What must I pay to stay the night?"]
        ["A room costs {n} {coin} a night.", "At the inn of {who} you pay {n} {coin} a night.", "{n} {coin} a night, at the inn of {who}."];
    "The {place} is {state}." => "{state}":
        ["Can I go to the {place}?", "Is the {place} open?", "What about the {place}?", "Tell me about the {place}.", "May I use the {place}?", "I want to see the {place}. Will you let me?", "I am going to the {place}.", "How does it look at the {place}?", "Could I sleep in the {place}?"]
        ["The {place} is {state}.", "No use going there: the {place} is {state}.", "I hear that the {place} is {state}.", "No, the {place} is {state}.", "You cannot, for the {place} is {state}."];
    "The {place} has {ruined}." => "{ruined}":
        ["May I go in there, into the {place}?", "Is the {place} safe?", "Does the {place} still stand?", "I must get to the {place}.", "What is wrong with the {place}?", "Can I walk over to the {place}?"]
        ["The {place} has {ruined}.", "No, the {place} has {ruined}.", "Stay away, the {place} has {ruined}.", "You cannot go there: the {place} has {ruined}."];
    "{who} stole the {thing}." => "{who}":
        ["I am hunting for whoever took the {thing}.", "Whom should the guards hang for the {thing}?", "Who took the {thing}?", "Who is the thief?", "Do you know who has the {thing}?", "What happened to the {thing}?"]
        ["{who} stole the {thing}.", "It was {who} who took the {thing}.", "They say that {who} stole the {thing}."];
    "The {thing} is hidden in the {place}." => "{place}":
        ["Somebody hid the {thing}. Where should I dig?", "Where must I look if I want the {thing}?", "Where is the {thing}?", "I am looking for the {thing}.", "Have you seen the {thing}?", "Where can I find the {thing}?"]
        ["The {thing} is hidden in the {place}.", "Look in the {place}, there you find the {thing}.", "It is in the {place}."];
    "The {place} is {side} the {place2}." => "{side} the {place2}":
        ["Where is the {place}?", "How do I get to the {place}?", "Which way to the {place}?", "I am looking for the {place}."]
        ["The {place} is {side} the {place2}.", "You find the {place} {side} the {place2}.", "Go on, it is {side} the {place2}."];
    "{who} sells {ware} near the {place}." => "{who}":
        ["I have run out of {ware}. Whom do I see?", "Who sells {ware}?", "Where can I buy {ware}?", "I need {ware}.", "Do you know somebody who has {ware}?"]
        ["{who} sells {ware} near the {place}.", "Ask {who} near the {place} for {ware}.", "{ware}? Go to {who}, near the {place}."];
    "{who} is {job} of {town}." => "{who}":
        ["Whom do I ask for if I need {job}?", "Who does the work of {job}?", "Who is {job} here?", "Who is {job} of {town}?", "What is the name of {job}?", "I must speak to {job}."]
        ["{who} is {job} of {town}.", "That is {who}.", "You want {who}, who is {job}."];
    "{who} is ill." => "ill":
        ["Why does {who} not open the door?", "How is {who}?", "Have you seen {who}?", "Where is {who} today?", "What is wrong with {who}?"]
        ["{who} is ill.", "{who} is ill today, the poor soul.", "I hear that {who} is ill."];
    "{who} has gone to {town}." => "{town}":
        ["Where is {who}?", "I am looking for {who}.", "Have you seen {who}?", "Where did {who} go?"]
        ["{who} has gone to {town}.", "You will not find {who} here, for {who} is in {town}.", "To {town}, as I heard."];
    "The ship to {town} leaves {when}." => "{when}":
        ["How long have I got until the ship sails?", "When does the ship leave?", "I want to go to {town}. When is there a ship?", "When can I sail to {town}?", "Is there a ship to {town}?"]
        ["The ship to {town} leaves {when}.", "It leaves {when}.", "{when} the ship leaves for {town}."];
    "The market opens {when}." => "{when}":
        ["It is too early, all stalls are shut. When can I come back?", "When does the market open?", "When can I buy something?", "Is the market open?", "When do they open the market?"]
        ["The market opens {when}.", "It opens {when}.", "Come back {when}, the market opens then."];
    "The road to {town} is {state}." => "{state}":
        ["Can I go to {town}?", "How is the road to {town}?", "Which road leads to {town}?", "I am on my way to {town}."]
        ["The road to {town} is {state}.", "Not by the road, it is {state}.", "Be careful, the road to {town} is {state}."];
    "There are {n} {beast} in the {place}." => "{n} {beast}":
        ["How many {beast} are there?", "What is in the {place}?", "Is the {place} safe?", "How many {beast} did they see?"]
        ["There are {n} {beast} in the {place}.", "{n} {beast} are in the {place}.", "I heard of {n} {beast} in there."];
    "{who} is looking for {ware}." => "{who}":
        ["Who needs {ware}?", "Does anybody want to buy {ware}?", "I have {ware} to sell. Who wants it?"]
        ["{who} is looking for {ware}.", "Ask {who}, who is looking for {ware}.", "{who} wants it."];
    "The password is {who}." => "{who}":
        ["What is the password?", "What must I say at the gate?", "Do you know the password?"]
        ["The password is {who}.", "Say {who}, that is the password.", "It is {who}, but keep it to yourself."];
    "{who} married {whom} {when}." => "{whom}":
        ["Whom did {who} marry?", "Who married {who}?", "Is {who} married?", "Any news of {who}?"]
        ["{who} married {whom}.", "It was {whom} who married {who}.", "{who} and {whom} are married now."];
    "{who} owes {whom} {n} {coin}." => "{n} {coin}":
        ["How much does {who} owe?", "Does {who} have debts?", "What does {who} owe {whom}?"]
        ["{who} owes {whom} {n} {coin}.", "{n} {coin}, and {whom} wants them back.", "It is {n} {coin} that {who} owes."];
    "The {beast} come {when}." => "{when}":
        ["When must we bar the doors against the {beast}?", "When do the {beast} come?", "Tell me about the {beast}.", "When are the {beast} here?"]
        ["The {beast} come {when}.", "They come {when}.", "{when} they come, so be ready."];
    "The festival begins {when}." => "{when}":
        ["How long is it until people dance here?", "When is the festival?", "When does the festival begin?", "Is there a festival?"]
        ["The festival begins {when}.", "It begins {when}.", "{when}, and everybody will be there."];
    "The stranger saved {who} from the {beast}." => "{who}":
        ["Have you heard what I did?", "Whom did I save?", "What do people say about me?", "Do you know me?"]
        ["You saved {who} from the {beast}.", "They say that you saved {who}.", "You are the one who saved {who} from the {beast}."];
    "The stranger has won {n} {coin}." => "{n} {coin}":
        ["How much did I win?", "Have you heard of my luck?", "What did I win?"]
        ["You won {n} {coin}.", "{n} {coin}, as everybody knows.", "They say that you have won {n} {coin}."];
    "{who} wears a {color} cloak." => "{color}":
        ["What does {who} look like?", "How do I know {who}?", "What does {who} wear?", "How will I find {who} in the crowd?"]
        ["{who} wears a {color} cloak.", "Look for a {color} cloak, that is {who}.", "You know {who} by the {color} cloak."];
    "{who} lives {side} the {place}." => "{side} the {place}":
        ["Where does {who} live?", "Where is the house of {who}?", "I want to visit {who}."]
        ["{who} lives {side} the {place}.", "Go and look {side} the {place}, there {who} lives.", "You find {who} {side} the {place}."];
    "A storm destroyed the {place}." => "storm":
        ["What happened to the {place}?", "Why is nobody at the {place}?", "Is the {place} still there?"]
        ["A storm destroyed the {place}.", "The {place} is gone, a storm destroyed it.", "It was the storm, it destroyed the {place}."];
    "It is {when} that {who} comes back." => "{when}":
        ["When does {who} come back?", "When will I see {who}?", "How long must I wait for {who}?"]
        ["{who} comes back {when}.", "{when}, that is when {who} comes back.", "Wait for {who}, who comes back {when}."];
    "The guards let nobody through the {place}." => "guards":
        ["Can I go through the {place}?", "How do I pass the {place}?", "May I enter the {place}?"]
        ["The guards let nobody through the {place}.", "No, the guards let nobody through.", "Not today, for the guards let nobody through the {place}."];
    "The best {ware} is made in {town}." => "{town}":
        ["Where does the best {ware} come from?", "Which {ware} is good?", "Where do they make good {ware}?"]
        ["The best {ware} is made in {town}.", "From {town}, nobody makes better {ware}.", "In {town} they make the best {ware}."];
    "{who} was born in {town}." => "{town}":
        ["Where does {who} come from?", "Where was {who} born?", "Is {who} from here?"]
        ["{who} was born in {town}.", "{who} comes from {town}.", "From {town}, that is where {who} was born."];
    "The {thing} weighs {n} pounds." => "{n} pounds":
        ["How heavy is the {thing}?", "What does the {thing} weigh?", "Can I carry the {thing}?"]
        ["The {thing} weighs {n} pounds.", "{n} pounds, so bring a friend.", "It weighs {n} pounds."];
}
