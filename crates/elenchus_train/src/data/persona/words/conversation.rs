//! What is said in passing, and what is asked about it later.

/// The player says its name.
pub(in crate::data::persona) const INTRODUCTIONS: &[&str] = &[
    "My name is {player}.",
    "I am {player}.",
    "Hello, I'm {player}.",
    "Good day, {player} is my name.",
    "They call me {player}.",
    "I am {player}, nice to meet you.",
    "Hi! {player} here.",
    "You may call me {player}.",
    "My name is {player} and I come from far away.",
];

/// It is heard.
pub(in crate::data::persona) const WELCOMES: &[&str] = &[
    "Welcome, {player}.",
    "Good day, {player}.",
    "Nice to meet you, {player}.",
    "{player}, that is a good name.",
    "Then come closer, {player}.",
];

/// The player says no name.
pub(in crate::data::persona) const OPENINGS: &[&str] =
    &["Hello.", "Good day.", "Hi there!", "Greetings.", "Good morning!", "Hey.", "How are you?", "Good evening."];

/// What is said in between.
pub(in crate::data::persona) const CHAT_LINES: &[&str] = &[
    "It is hot today.",
    "What a crowd.",
    "I have walked all day.",
    "Do you like it here?",
    "Is it always so loud here?",
    "I am hungry.",
    "What is new?",
    "How is business?",
    "Nice weather.",
    "I am looking for work.",
    "Can you help me?",
    "The road was long.",
];

/// And answered.
pub(in crate::data::persona) const CHAT_REPLIES: &[&str] = &[
    "So it is.",
    "That is true.",
    "Rest a little, then.",
    "It was worse yesterday.",
    "I have no complaint.",
    "You get used to it.",
    "Sit down, if you like.",
    "I have seen better days, and worse.",
    "We shall see.",
    "I hear you.",
];

/// The player asks for its name.
pub(in crate::data::persona) const WHO_AM_I: &[&str] = &[
    "What is my name?",
    "Do you remember my name?",
    "Who am I?",
    "Do you know who I am?",
    "What's my name?",
    "Have you forgotten my name?",
    "Say my name.",
    "What was my name again?",
    "Do you still know what I am called?",
    "Tell me who I am.",
    "To whom are you talking?",
    "Did you forget my name?",
    "You know my name, do you not?",
    "Whom do you see before you?",
    "Can you tell me my name?",
    "What did I say my name was?",
    "I told you my name. What is it?",
    "Let us see if you listened: what is my name?",
    "What do people call me?",
    "Surely you have not forgotten my name?",
];

/// It is known.
pub(in crate::data::persona) const PLAYER_NAMED: &[&str] = &[
    "Your name is {player}.",
    "You are {player}.",
    "You are {player}, you told me so.",
    "{player}, of course.",
    "You said that your name is {player}.",
    "I remember you, {player}.",
];

/// It was never told.
pub(in crate::data::persona) const PLAYER_UNKNOWN: &[&str] = &[
    "You have not told me your name.",
    "I do not know your name. You never told me.",
    "How should I know? You did not say it.",
    "You did not tell me your name.",
];

/// A line that can be told again, and how.
pub(in crate::data::persona) const LAST_LINES: &[(&str, &str)] = &[
    ("I come from {town}.", "you come from {town}"),
    ("I have lost my {ware}.", "you lost your {ware}"),
    ("I am looking for {who}.", "you are looking for {who}"),
    ("I want to buy {ware}.", "you want to buy {ware}"),
    ("My brother lives in {town}.", "your brother lives in {town}"),
    ("I saw {n} ships this morning.", "you saw {n} ships this morning"),
    ("Where is {who}?", "you asked where {who} is"),
    ("I am on my way to {town}.", "you are on your way to {town}"),
    ("I paid {n} coins for my {ware}.", "you paid {n} coins for your {ware}"),
    ("Yesterday I met {who}.", "you met {who} yesterday"),
    ("I have {n} children.", "you have {n} children"),
    ("I must bring {ware} to {who}.", "you must bring {ware} to {who}"),
    ("I do not like {ware}.", "you do not like {ware}"),
    ("Tomorrow I leave for {town}.", "you leave for {town} tomorrow"),
    ("{who} is my best friend.", "{who} is your best friend"),
];

/// The player asks for its line.
pub(in crate::data::persona) const WHAT_DID_I_SAY: &[&str] = &[
    "What did I just say?",
    "What did I tell you?",
    "What did I say before?",
    "Do you remember what I said?",
    "Repeat what I said.",
    "What did I say a moment ago?",
    "Did you listen to me? What did I say?",
    "What were my last words?",
    "What have I been telling you?",
    "Say it again, as I said it.",
];

/// It is told again.
pub(in crate::data::persona) const YOU_SAID: &[&str] = &[
    "You said that {content}.",
    "You told me that {content}.",
    "That {content}.",
    "I listened: {content}.",
    "Just now you told me that {content}.",
];

/// A line told word for word.
pub(in crate::data::persona) const YOUR_WORDS: &[&str] =
    &["You said: \"{content}\"", "Your words were: \"{content}\"", "\"{content}\" That is what you said."];

/// A question told word for word.
pub(in crate::data::persona) const YOU_ASKED: &[&str] =
    &["You asked: \"{content}\"", "You asked me: \"{content}\"", "\"{content}\" That was your question."];

/// Greetings.
pub(in crate::data::persona) const GREETINGS: &[&str] = &[
    "Good day, stranger. I am {name}.",
    "Welcome to {place}.",
    "Hello. Do you need {trade}?",
    "Good day. What brings you to {place}?",
    "Come closer, I do not bite.",
    "Greetings. I am {name}, {trade}.",
];

/// Small talk.
pub(in crate::data::persona) const SMALL_TALK: &[(&str, &str)] = &[
    ("How are you?", "I am well, thank you. And you?"),
    ("Thank you!", "You are welcome, stranger."),
    ("Goodbye.", "Goodbye, and come back soon."),
    ("Nice weather today.", "It is, but my work does not get shorter for it."),
    ("Are you happy?", "Most days I am, and today is one of them."),
    ("Tell me a joke.", "I know only one, and it is about {trade}. You would not laugh."),
    ("I am sad.", "Then sit down with me for a while."),
    ("Do you like your work?", "I do. I am {trade}, and I want to be nothing else."),
    ("I'm sorry.", "It is forgotten already."),
    ("Are you married?", "That is my own business, stranger."),
    ("What do you want?", "A quiet day and a full plate."),
    ("You are stupid.", "And you are rude. We both have to live with it."),
    ("See you later.", "Until later, then. I will be at {place}."),
    ("Are you hungry?", "I am always hungry at this time of day."),
    ("What a beautiful day!", "It is. Enjoy it while it lasts."),
    ("Can you help me?", "If I can. Tell me what you need."),
];

/// Ordinary lines that the base answers itself.
pub(in crate::data::persona) const BASE_LINES: &[&str] = &[
    "What makes a good friend?",
    "Tell me about your day.",
    "What do you think of the war?",
    "Give me some advice.",
    "What is courage?",
    "What do you like most?",
    "Tell me about this town.",
    "What should I do today?",
    "What is your favourite food?",
    "Do you believe in the gods?",
    "Tell me a story.",
    "What do you fear?",
    "What makes people happy?",
    "Have you any news?",
    "What do you want from life?",
];
