//! Facts as games tell them, questions about them in other words, and answers.

use elenchus_dialogue::folded_words;
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_pcg::Pcg64Mcg;

use super::{
    templates::{fill, name, pick, town},
    words::*,
};

/// Facts of one kind: how games word them, several questions and answers.
pub(super) struct FactFamily {
    facts: &'static [&'static str],
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
    /// What of the fact must be in an answer.
    pub key: String,
}

impl Told {
    /// Whether a reply says what was asked for. Numbers may be figures or words.
    pub(crate) fn is_in(&self, reply: &str) -> bool {
        let figure =
            |word: String| NUMBERS.iter().position(|number| *number == word).map_or(word, |number| number.to_string());
        let said: Vec<String> = folded_words(reply).into_iter().map(figure).collect();
        folded_words(&self.key).into_iter().map(figure).all(|word| said.contains(&word))
    }
}

impl FactFamily {
    /// A kind to ask for, and up to `most` facts of other kinds.
    pub(crate) fn asked_and_others(rng: &mut Pcg64Mcg, most: usize) -> (&'static Self, Vec<String>) {
        let count = rng.random_range(0..=most);
        let mut families: Vec<&Self> = FAMILIES.choose_multiple(rng, count + 1).collect();
        families.shuffle(rng);
        let asked = families.pop().unwrap_or(&FAMILIES[0]);
        (asked, families.into_iter().map(|family| family.tell(rng).fact).collect())
    }

    pub(super) fn tell(&self, rng: &mut Pcg64Mcg) -> Told {
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
            fact: text(pick(self.facts, rng)),
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
    ($([$($fact:literal),+ $(,)?] => $key:literal: [$($line:literal),+ $(,)?] [$($reply:literal),+ $(,)?];)+) => {
        const FAMILIES: &[FactFamily] = &[$(FactFamily {
            facts: &[$($fact),+], lines: &[$($line),+], replies: &[$($reply),+], key: $key,
        }),+];
    };
}

families! {
    ["{ware} costs {n} {coin}.", "The price of {ware} is {n} {coin} today.", "{who} asks {n} {coin} for {ware}.", "{ware} is sold for {n} {coin}.", "{who} wants {n} {coin} for the {ware}.", "You sell {ware} for {n} {coin}."] => "{n} {coin}":
        ["How much is the {ware}?", "What does {ware} cost?", "What do I pay for {ware}?", "I want {ware}. How much?", "What is the price of {ware}?", "I would like some {ware}. What must I give you?", "Is {ware} dear here?", "Give me {ware}. What do I owe?", "What do you ask for {ware}?", "What do you want for {ware}?", "I'd like {ware}, please. The price?", "How many {coin} for {ware}?", "Can I afford {ware}?", "I have no {ware} left. What would it cost me?"]
        ["{ware} costs {n} {coin}.", "That is {n} {coin}.", "{n} {coin}, and not less.", "For {ware} you pay {n} {coin}.", "You must pay {n} {coin} for {ware}.", "{n} {coin} for {ware}."];
    ["A room at the inn of {who} costs {n} {coin} a night.", "A bed costs {n} {coin} for one night.", "You take {n} {coin} for a room.", "{who} lets rooms for {n} {coin} a night."] => "{n} {coin}":
        ["What does a room cost?", "How much is a bed for the night?", "I need a room for tonight. How much is it?", "Is the inn expensive?", "I want to sleep here. What do you take for it?", "What must I pay to stay the night?", "How much do you ask for a room?", "What do you want for one night?", "Where can I sleep, and for how much?", "I am tired. Have you a bed, and what is it?"]
        ["A room costs {n} {coin} a night.", "You pay {n} {coin} a night.", "{n} {coin} a night.", "That is {n} {coin} for one night.", "A bed is {n} {coin}."];
    ["The {place} is {state}.", "The {place} has been {state} since yesterday.", "The old {place} is {state} again."] => "{state}":
        ["Can I go to the {place}?", "Is the {place} open?", "What about the {place}?", "Tell me about the {place}.", "May I use the {place}?", "I want to see the {place}. Will you let me?", "I am going to the {place}.", "How does it look at the {place}?", "Could I sleep in the {place}?"]
        ["The {place} is {state}.", "No use going there: the {place} is {state}.", "I hear that the {place} is {state}.", "No, the {place} is {state}.", "You cannot, for the {place} is {state}."];
    ["The {place} has {ruined}."] => "{ruined}":
        ["May I go in there, into the {place}?", "Is the {place} safe?", "Does the {place} still stand?", "I must get to the {place}.", "What is wrong with the {place}?", "Can I walk over to the {place}?"]
        ["The {place} has {ruined}.", "No, the {place} has {ruined}.", "Stay away, the {place} has {ruined}.", "You cannot go there: the {place} has {ruined}."];
    ["{who} stole the {thing}.", "The thief who took the {thing} is {who}.", "It was {who} who stole the {thing}."] => "{who}":
        ["I am hunting for whoever took the {thing}.", "Whom should the guards hang for the {thing}?", "Who took the {thing}?", "Who is the thief?", "Do you know who has the {thing}?", "What happened to the {thing}?"]
        ["{who} stole the {thing}.", "It was {who} who took the {thing}.", "They say that {who} stole the {thing}."];
    ["The {thing} is hidden in the {place}.", "The {thing} lies in the {place}.", "Somebody put the {thing} in the {place}."] => "{place}":
        ["Somebody hid the {thing}. Where should I dig?", "Where must I look if I want the {thing}?", "Where is the {thing}?", "I am looking for the {thing}.", "Have you seen the {thing}?", "Where can I find the {thing}?"]
        ["The {thing} is hidden in the {place}.", "Look in the {place}, there you find the {thing}.", "It is in the {place}."];
    ["The {place} is {side} the {place2}."] => "{side} the {place2}":
        ["Where is the {place}?", "How do I get to the {place}?", "Which way to the {place}?", "I am looking for the {place}."]
        ["The {place} is {side} the {place2}.", "You find the {place} {side} the {place2}.", "Go on, it is {side} the {place2}."];
    ["{who} sells {ware} near the {place}."] => "{who}":
        ["I have run out of {ware}. Whom do I see?", "Who sells {ware}?", "Where can I buy {ware}?", "I need {ware}.", "Do you know somebody who has {ware}?"]
        ["{who} sells {ware} near the {place}.", "Ask {who} near the {place} for {ware}.", "{ware}? Go to {who}, near the {place}."];
    ["{who} is {job} of {town}.", "{job} is somebody called {who}.", "{job} of {town} is {who}."] => "{who}":
        ["Whom do I ask for if I need {job}?", "Who does the work of {job}?", "Who is {job} here?", "Who is {job} of {town}?", "What is the name of {job}?", "I must speak to {job}."]
        ["{who} is {job} of {town}.", "That is {who}.", "You want {who}, who is {job}."];
    ["{who} is ill."] => "ill":
        ["Why does {who} not open the door?", "How is {who}?", "Have you seen {who}?", "Where is {who} today?", "What is wrong with {who}?"]
        ["{who} is ill.", "{who} is ill today, the poor soul.", "I hear that {who} is ill."];
    ["{who} has gone to {town}."] => "{town}":
        ["Where is {who}?", "I am looking for {who}.", "Have you seen {who}?", "Where did {who} go?"]
        ["{who} has gone to {town}.", "You will not find {who} here, for {who} is in {town}.", "To {town}, as I heard."];
    ["The ship to {town} leaves {when}.", "A ship sails to {town} {when}.", "{when} a ship goes to {town}."] => "{when}":
        ["How long have I got until the ship sails?", "When does the ship leave?", "I want to go to {town}. When is there a ship?", "When can I sail to {town}?", "Is there a ship to {town}?"]
        ["The ship to {town} leaves {when}.", "It leaves {when}.", "{when} the ship leaves for {town}."];
    ["The market opens {when}."] => "{when}":
        ["It is too early, all stalls are shut. When can I come back?", "When does the market open?", "When can I buy something?", "Is the market open?", "When do they open the market?"]
        ["The market opens {when}.", "It opens {when}.", "Come back {when}, the market opens then."];
    ["The road to {town} is {state}."] => "{state}":
        ["Can I go to {town}?", "How is the road to {town}?", "Which road leads to {town}?", "I am on my way to {town}."]
        ["The road to {town} is {state}.", "Not by the road, it is {state}.", "Be careful, the road to {town} is {state}."];
    ["There are {n} {beast} in the {place}.", "{n} {beast} live in the {place}.", "{who} counted {n} {beast} in the {place}."] => "{n} {beast}":
        ["How many {beast} are there?", "What is in the {place}?", "Is the {place} safe?", "How many {beast} did they see?"]
        ["There are {n} {beast} in the {place}.", "{n} {beast} are in the {place}.", "I heard of {n} {beast} in there."];
    ["{who} is looking for {ware}."] => "{who}":
        ["Who needs {ware}?", "Does anybody want to buy {ware}?", "I have {ware} to sell. Who wants it?"]
        ["{who} is looking for {ware}.", "Ask {who}, who is looking for {ware}.", "{who} wants it."];
    ["The password is {who}."] => "{who}":
        ["What is the password?", "What must I say at the gate?", "Do you know the password?"]
        ["The password is {who}.", "Say {who}, that is the password.", "It is {who}, but keep it to yourself."];
    ["{who} married {whom} {when}."] => "{whom}":
        ["Whom did {who} marry?", "Who married {who}?", "Is {who} married?", "Any news of {who}?"]
        ["{who} married {whom}.", "It was {whom} who married {who}.", "{who} and {whom} are married now."];
    ["{who} owes {whom} {n} {coin}."] => "{n} {coin}":
        ["How much does {who} owe?", "Does {who} have debts?", "What does {who} owe {whom}?"]
        ["{who} owes {whom} {n} {coin}.", "{n} {coin}, and {whom} wants them back.", "It is {n} {coin} that {who} owes."];
    ["The {beast} come {when}."] => "{when}":
        ["When must we bar the doors against the {beast}?", "When do the {beast} come?", "Tell me about the {beast}.", "When are the {beast} here?"]
        ["The {beast} come {when}.", "They come {when}.", "{when} they come, so be ready."];
    ["The festival begins {when}."] => "{when}":
        ["How long is it until people dance here?", "When is the festival?", "When does the festival begin?", "Is there a festival?"]
        ["The festival begins {when}.", "It begins {when}.", "{when}, and everybody will be there."];
    ["The stranger saved {who} from the {beast}."] => "{who}":
        ["Have you heard what I did?", "Whom did I save?", "What do people say about me?", "Do you know me?"]
        ["You saved {who} from the {beast}.", "They say that you saved {who}.", "You are the one who saved {who} from the {beast}."];
    ["The stranger has won {n} {coin}."] => "{n} {coin}":
        ["How much did I win?", "Have you heard of my luck?", "What did I win?"]
        ["You won {n} {coin}.", "{n} {coin}, as everybody knows.", "They say that you have won {n} {coin}."];
    ["{who} wears a {color} cloak."] => "{color}":
        ["What does {who} look like?", "How do I know {who}?", "What does {who} wear?", "How will I find {who} in the crowd?"]
        ["{who} wears a {color} cloak.", "Look for a {color} cloak, that is {who}.", "You know {who} by the {color} cloak."];
    ["{who} lives {side} the {place}."] => "{side} the {place}":
        ["Where does {who} live?", "Where is the house of {who}?", "I want to visit {who}."]
        ["{who} lives {side} the {place}.", "Go and look {side} the {place}, there {who} lives.", "You find {who} {side} the {place}."];
    ["A storm destroyed the {place}."] => "storm":
        ["What happened to the {place}?", "Why is nobody at the {place}?", "Is the {place} still there?"]
        ["A storm destroyed the {place}.", "The {place} is gone, a storm destroyed it.", "It was the storm, it destroyed the {place}."];
    ["It is {when} that {who} comes back."] => "{when}":
        ["When does {who} come back?", "When will I see {who}?", "How long must I wait for {who}?"]
        ["{who} comes back {when}.", "{when}, that is when {who} comes back.", "Wait for {who}, who comes back {when}."];
    ["The guards let nobody through the {place}."] => "guards":
        ["Can I go through the {place}?", "How do I pass the {place}?", "May I enter the {place}?"]
        ["The guards let nobody through the {place}.", "No, the guards let nobody through.", "Not today, for the guards let nobody through the {place}."];
    ["The best {ware} is made in {town}."] => "{town}":
        ["Where does the best {ware} come from?", "Which {ware} is good?", "Where do they make good {ware}?"]
        ["The best {ware} is made in {town}.", "From {town}, nobody makes better {ware}.", "In {town} they make the best {ware}."];
    ["{who} was born in {town}."] => "{town}":
        ["Where does {who} come from?", "Where was {who} born?", "Is {who} from here?"]
        ["{who} was born in {town}.", "{who} comes from {town}.", "From {town}, that is where {who} was born."];
    ["The {thing} weighs {n} pounds."] => "{n} pounds":
        ["How heavy is the {thing}?", "What does the {thing} weigh?", "Can I carry the {thing}?"]
        ["The {thing} weighs {n} pounds.", "{n} pounds, so bring a friend.", "It weighs {n} pounds."];
    ["The {place} closes {when}.", "They shut the {place} {when}."] => "{when}":
        ["How late can I come to the {place}?", "When does the {place} close?", "Until when is the {place} open?", "How long can I stay at the {place}?", "When do they shut the {place}?"]
        ["The {place} closes {when}.", "They shut the {place} {when}.", "It closes {when}.", "{when}, then the {place} is shut."];
    ["The wedding of {who} is {when}.", "{who} gets married {when}."] => "{when}":
        ["When is the wedding of {who}?", "On which day does {who} marry?", "When will {who} get married?"]
        ["The wedding of {who} is {when}.", "{who} gets married {when}.", "It is {when}."];
    ["The judges hear {who} {when}.", "{who} stands before the judge {when}."] => "{when}":
        ["When do they hear {who}?", "When does {who} stand before the judge?", "Which day is the hearing of {who}?"]
        ["They hear {who} {when}.", "{who} stands before the judge {when}.", "It is {when} that they hear {who}."];
    ["The healer {who} lives {side} the {place}.", "You find the healer {who} {side} the {place}."] => "{side} the {place}":
        ["I am ill. Where is a healer?", "My leg is broken! Who can help?", "Where does the healer live?", "I need a doctor. Where must I go?"]
        ["The healer {who} lives {side} the {place}.", "Go to {who}, {side} the {place}.", "You find the healer {side} the {place}."];
    ["{who} is {n} years old."] => "{n}":
        ["How old is {who}?", "What is the age of {who}?", "Is {who} old?"]
        ["{who} is {n} years old.", "{n} years, as I heard.", "{who} has seen {n} years."];
    ["The way to {town} takes {n} days.", "It is {n} days to {town}."] => "{n} days":
        ["How far is it to {town}?", "How long is the way to {town}?", "When would I be in {town} if I left now?", "Is {town} far from here?"]
        ["The way to {town} takes {n} days.", "It is {n} days to {town}.", "{n} days, if you walk well."];
    ["Whoever crosses the {place} pays {n} {coin}.", "The toll at the {place} is {n} {coin}."] => "{n} {coin}":
        ["What is the toll at the {place}?", "Must I pay at the {place}?", "How much do they take at the {place}?", "What do I pay to get past the {place}?"]
        ["The toll is {n} {coin}.", "You pay {n} {coin} at the {place}.", "They take {n} {coin}.", "Yes, it is {n} {coin}."];
    ["{who} pays {n} {coin} for the lost {thing}.", "The reward for the {thing} is {n} {coin}."] => "{n} {coin}":
        ["What is the reward for the {thing}?", "What do I get if I find the {thing}?", "Is there a reward?", "How much will they give me for the {thing}?"]
        ["The reward is {n} {coin}.", "You get {n} {coin} for the {thing}.", "{n} {coin}, if you find the {thing}."];
    ["Only {who} has the key to the {place}.", "The key to the {place} is with {who}."] => "{who}":
        ["Who has the key to the {place}?", "Who can open the {place} for me?", "How do I get into the {place}?", "I want into the {place}. Whom do I ask?"]
        ["{who} has the key to the {place}.", "Ask {who}, who has the key.", "Only {who} can open the {place}."];
    ["There is no {ware} left.", "The {ware} is sold out.", "We have run out of {ware}."] => "no {ware}":
        ["Can I buy {ware}?", "I would like {ware}.", "Have you got {ware}?", "Give me some {ware}!", "Is there {ware}?"]
        ["There is no {ware} left.", "No, the {ware} is sold out.", "I am sorry, we have no {ware} left."];
    ["The {thing} belongs to {who}.", "{who} is the owner of the {thing}."] => "{who}":
        ["Whose {thing} is this?", "Who owns the {thing}?", "To whom does the {thing} belong?", "I found a {thing}. Whose is it?"]
        ["The {thing} belongs to {who}.", "It is {who} who owns the {thing}.", "That is the {thing} of {who}."];
    ["{who} is afraid of {beast}.", "{who} fears nothing but {beast}."] => "{beast}":
        ["What does {who} fear?", "What is {who} afraid of?", "Is {who} afraid of anything?"]
        ["{who} is afraid of {beast}.", "{beast}, of all things.", "{who} fears {beast}."];
    ["{who} paid {n} {coin} for the {thing}.", "The {thing} was sold to {who} for {n} {coin}."] => "{n} {coin}":
        ["What did the {thing} cost?", "How much did {who} pay for the {thing}?", "For how much was the {thing} sold?"]
        ["{who} paid {n} {coin} for the {thing}.", "It was {n} {coin}.", "The {thing} was sold for {n} {coin}."];
    ["The soup today is made of {ware}.", "Today they cook {ware}."] => "{ware}":
        ["What is there to eat?", "What is in the soup?", "What do they cook today?", "I am hungry. What have they got?"]
        ["The soup is made of {ware} today.", "There is {ware} today.", "They cook {ware} today."];
}
