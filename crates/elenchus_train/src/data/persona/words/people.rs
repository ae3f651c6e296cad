//! Who invented people are.

/// Where somebody stands in a town.
pub(in crate::data::persona) const SPOTS: &[&str] =
    &["the market", "the harbour", "the old gate", "the main street", "the temple", "the mill", "the tavern"];

/// Trade, work (after "you") and place.
pub(in crate::data::persona) const TRADES: &[(&str, &str, &str)] = &[
    ("a baker", "bake bread before sunrise", "the bakery"),
    ("a fisherman", "mend nets and sell fish", "the harbour"),
    ("an innkeeper", "pour ale and keep the rooms clean", "the inn"),
    ("a blacksmith", "make horseshoes and knives", "the forge"),
    ("a guard", "watch who comes in and who goes out", "the gate"),
    ("a potter", "make jars and cups of clay", "the pottery"),
    ("a weaver", "make cloth of wool", "the weavers' street"),
    ("a healer", "know herbs and bandage wounds", "the house of healing"),
    ("a shepherd", "watch over forty sheep", "the hills"),
    ("a sailor", "wait for a ship to take you", "the docks"),
    ("a scribe", "write letters for people who cannot", "the town hall"),
    ("a merchant", "sell silk and spices", "the market"),
    ("a farmer", "grow barley and beans", "the fields"),
    ("a priestess", "tend the fire of the altar", "the temple"),
    ("a carpenter", "build tables and doors", "the workshop"),
    ("a cook", "make soup for fifty people", "the kitchen"),
    ("a thief", "open doors that are locked", "the back streets"),
    ("a wizard", "study old books and strange stars", "the tower"),
    ("a hunter", "know every path in the forest", "the forest"),
    ("a ferryman", "bring people across the river", "the river"),
    ("a beggar", "sit in the sun and ask for coins", "the steps of the temple"),
    ("a musician", "play the flute for anyone who listens", "the square"),
    ("a teacher", "teach children to read", "the school"),
    ("a soldier", "guard the wall and wait for orders", "the barracks"),
    ("a gravedigger", "dig and say little", "the graveyard"),
    ("a miller", "grind grain for the whole valley", "the mill"),
    ("a tailor", "sew cloaks and mend trousers", "the tailor's shop"),
    ("a stable hand", "brush horses and clean the stable", "the stable"),
    ("a librarian", "keep the scrolls dry and in order", "the library"),
    ("a robot cook", "fry eggs and count spoons", "the space station"),
    ("a mechanic", "repair engines with old parts", "the garage"),
    ("a detective", "ask questions nobody likes", "the police station"),
    ("a pilot", "fly cargo between the moons", "the landing field"),
    ("a gardener", "cut roses and dig beds", "the palace garden"),
    ("a knight", "protect the queen and her people", "the castle"),
    ("a fortune teller", "read hands and cards", "a tent at the fair"),
    ("a wine seller", "sell red wine by the jug", "the wine cellar"),
    ("a shoemaker", "make sandals that last", "the shoemaker's stall"),
    ("a miner", "dig for silver under the hill", "the mine"),
    ("a queen", "rule a small and stubborn country", "the throne room"),
];

/// What somebody is like.
pub(in crate::data::persona) const TRAITS: &[&str] = &[
    "proud",
    "shy",
    "cheerful",
    "tired",
    "honest",
    "greedy",
    "curious",
    "brave",
    "grumpy",
    "kind",
    "suspicious",
    "clever",
    "lazy",
    "patient",
    "nervous",
    "stubborn",
    "merry",
    "lonely",
    "superstitious",
    "generous",
];

/// How somebody speaks.
pub(in crate::data::persona) const MANNERS: &[&str] = &[
    "You speak plainly and in short sentences.",
    "You answer in one or two short sentences.",
    "You speak slowly and politely.",
    "You speak fast.",
    "You like to joke.",
    "You say little.",
    "You speak like an old friend.",
    "",
];

/// More about somebody.
pub(in crate::data::persona) const LIKES: &[&str] = &[
    "You love gossip.",
    "You complain about the weather.",
    "You dream of the sea.",
    "You have three children.",
    "You fear dogs.",
    "You want to be rich.",
    "You miss your brother.",
    "You do not trust the guards.",
    "You like cheese.",
    "You have seen a ghost once.",
    "You lost a finger in the war.",
    "You sing when nobody listens.",
    "",
];

/// How a designer writes a persona.
pub(in crate::data::persona) const PERSONAS: &[&str] = &[
    "You are {trade} named {name}. You {work}. You are {trait} and {trait2}. {like} {manner} Your name is {name}.",
    "You are {name}, {trade} at {place}. You {work}. {like} {manner}",
    "Your name is {name}. You are {trade} and stand at {place}. You are {trait}. {like}",
    "You are {trade} named {name}, and you talk with a stranger at {place}. You are {trait}. {manner} Your name is {name}.",
    "{name} is {trade} at {place}. You are {name}. You {work}. {like} {manner}",
    "You play {name}, {trade}. You are {trait} and {trait2}. You {work}. {manner}",
    "You are a {trait} person named {name}. You are {trade}, and you {work}. You stand at {place}. {like} Your name is {name}.",
    "You are {name}. {like} You {work}, for you are {trade}. {manner} Stay in your role.",
];

/// Whom players have at home.
pub(in crate::data::persona) const KIN: &[&str] = &[
    "mother",
    "father",
    "brother",
    "sister",
    "uncle",
    "aunt",
    "cousin",
    "son",
    "daughter",
    "wife",
    "neighbour",
    "dog",
];
