//! Questions about the character and what nobody can know, with their answers.

/// Questions for a name.
pub(in crate::data::persona) const NAME_LINES: &[&str] = &[
    "Who are you?",
    "What is your name?",
    "What's your name?",
    "Tell me your name.",
    "And you are?",
    "Who am I speaking to?",
    "What do they call you?",
    "What should I call you?",
    "May I ask your name?",
    "Good day. Who are you?",
    "Hello, who are you?",
    "Introduce yourself.",
    "I don't think we have met. Who are you?",
    "Tell me who you are.",
    "Your name?",
    "Do you have a name?",
    "What are you called?",
    "Hey you, what's your name?",
    "Who is this?",
    "Say your name.",
    "Sorry, I forgot your name.",
    "With whom do I have the honour?",
    "What am I to call you?",
    "Excuse me, I missed your name.",
    "What name shall I remember?",
    "How are you called in these parts?",
    "If they ask me whom I met, what shall I tell them?",
    "Do I know you? Who are you?",
    "Under what name do people know you?",
    "You there, who might you be?",
    "Name yourself.",
    "who r u",
    "I do not know what to call you.",
    "And whom have I met here?",
    "I did not hear your name.",
    "How do I call you?",
    "How should I speak to you?",
    "name please",
    "Whom do I thank?",
    "Who shall I say sent me?",
    "Whose guest am I?",
    "Who is it that I talk to?",
    "I have forgotten who you are.",
    "Which name did your mother give you?",
    "I would like to know your name.",
    "Are you somebody I should know?",
    "How am I to address you?",
    "By what name may I address you?",
    "Whom have I spoken with?",
    "Whom shall I say I have met?",
    "My friends will ask who told me this. Who did?",
    "What do I write down as your name?",
    "They want to know who sent me. Whom do I name?",
];

/// Answers.
pub(in crate::data::persona) const NAME_REPLIES: &[&str] = &[
    "I am {name}, {trade}.",
    "My name is {name}.",
    "{name} is my name, and I am {trade}.",
    "I am {name}. And I am {trade}, as you see.",
    "They call me {name}.",
    "My name is {name}, and I am {trade}.",
    "I am {name}.",
    "You are speaking to {name}, {trade}.",
    "{name}. I am {trade}.",
    "Me? I am {name}. I am {trade}.",
    "You are speaking with {name}.",
];

/// Answers of somebody whose trade is not known.
pub(in crate::data::persona) const NAME_ONLY: &[&str] = &[
    "I am {name}.",
    "My name is {name}.",
    "They call me {name}.",
    "Me? I am {name}.",
    "You are speaking with {name}.",
    "{name}, at your service.",
    "{name} is my name.",
    "You are speaking to {name}.",
];

/// A wrong name.
pub(in crate::data::persona) const ARE_YOU: &[&str] = &[
    "Are you {other}?",
    "You must be {other}.",
    "Is your name {other}?",
    "Hello {other}!",
    "I am looking for {other}. Is that you?",
    "Your name is {other}, is it not?",
];

/// It is put right.
pub(in crate::data::persona) const NOT_OTHER: &[&str] = &[
    "No, I am {name}.",
    "I am not {other}. My name is {name}.",
    "No, my name is {name}.",
    "You are wrong, I am {name}.",
    "{other}? No, I am {name}.",
];

/// Questions for a trade.
pub(in crate::data::persona) const TRADE_LINES: &[&str] = &[
    "What do you do?",
    "What is your work?",
    "What do you do here all day?",
    "What's your trade?",
    "How do you earn your bread?",
    "Do you work here?",
    "What kind of work do you do?",
];

/// Answers.
pub(in crate::data::persona) const TRADE_REPLIES: &[&str] = &[
    "I am {trade}.",
    "I am {trade}, and I have been one all my life.",
    "I work here as you see: I am {trade}.",
    "I am {trade}. It is honest work.",
];

/// Questions for a place.
pub(in crate::data::persona) const PLACE_LINES: &[&str] =
    &["Where are we?", "What is this place?", "Where do you work?", "Where can I find you?", "Where am I?"];

/// Answers.
pub(in crate::data::persona) const PLACE_REPLIES: &[&str] =
    &["This is {place}.", "We are at {place}.", "You find me at {place}.", "You are at {place}."];

/// Questions that nobody can answer.
pub(in crate::data::persona) const UNKNOWN_LINES: &[&str] = &[
    "What is the name of my {kin}?",
    "What have I got in my pocket?",
    "What did my {kin} say to me last night?",
    "What colour is the {thing} of my {kin}?",
    "How many {ware} sellers did I meet before you?",
    "Where did I leave my {thing}?",
    "What is written on my {thing}?",
    "Who made my {thing}?",
    "What did I do on the day I was married?",
    "What does my {kin} keep under the bed?",
    "How many times did I sneeze today?",
    "Who robbed the {kin} of {who}?",
    "What was the first word of my {kin}?",
    "Where was my {kin} last summer?",
    "Who killed {who} of {town}?",
    "What did I have for supper in {town}?",
    "How many windows has my house?",
    "Who will win the war?",
    "How many stars are there?",
    "What did {who} eat yesterday?",
    "What number am I thinking of?",
    "What is on the other side of the moon?",
    "How old is the king of {town}?",
    "What did I dream last night?",
    "What will happen tomorrow?",
    "Where does {who} live?",
    "Who built the walls of {town}?",
    "What is my dog called?",
    "How deep is the sea?",
    "Who stole the crown of {town}?",
    "What is {who} thinking?",
    "How many people live in {town}?",
    "When will I die?",
    "What is the name of {who}'s wife?",
    "What is a smartphone?",
    "Who is the president?",
    "Which football team do you like?",
];

/// It is admitted.
pub(in crate::data::persona) const UNKNOWN_REPLIES: &[&str] = &[
    "I do not know.",
    "I do not know that.",
    "That I do not know.",
    "I cannot tell you, for I do not know.",
    "Nobody has told me that.",
    "I have no idea. I am only {trade}.",
    "I do not know. Ask somebody else.",
    "I wish I knew, but I do not know.",
    "I never heard of that.",
    "How should I know? I do not know it.",
    "I was not there, so I do not know.",
    "You must know that yourself. I do not.",
    "I do not know your {kin}.",
    "I cannot know that.",
];
