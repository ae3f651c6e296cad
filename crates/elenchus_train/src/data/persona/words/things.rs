//! What facts are about: wares, places, numbers.

/// Things that are sold.
pub(in crate::data::persona) const WARES: &[&str] = &[
    "bread",
    "olive oil",
    "goat meat",
    "wool",
    "honey",
    "wine",
    "cheese",
    "salt",
    "fish",
    "rope",
    "leather",
    "silk",
    "beer",
    "flour",
    "lamp oil",
    "medicine",
    "soup",
    "paper",
    "incense",
    "clay",
    "garlic",
    "vinegar",
    "tea",
    "wax",
    "firewood",
    "barley",
    "butter",
    "dried fruit",
    "glass",
    "iron",
];

/// Places, after "the".
pub(in crate::data::persona) const PLACES: &[&str] = &[
    "bridge",
    "mill",
    "temple",
    "cellar",
    "old tower",
    "harbour",
    "well",
    "north gate",
    "bath house",
    "library",
    "stable",
    "market",
    "forest",
    "mine",
    "graveyard",
    "theatre",
    "barn",
    "bakery",
    "town hall",
    "cave",
    "lighthouse",
    "smithy",
];

/// Things that are lost, after "the".
pub(in crate::data::persona) const THINGS: &[&str] = &[
    "key",
    "crown",
    "silver cup",
    "letter",
    "ring",
    "statue",
    "golden apple",
    "book",
    "shield",
    "chest",
    "bell",
    "necklace",
    "map",
    "horn",
];

/// Money.
pub(in crate::data::persona) const COINS: &[&str] =
    &["silver", "obols", "coins", "gold pieces", "coppers", "drachmas", "credits", "crowns"];

/// Where something is.
pub(in crate::data::persona) const SIDES: &[&str] =
    &["behind", "next to", "opposite", "north of", "south of", "under", "in front of", "east of"];

/// When.
pub(in crate::data::persona) const TIMES: &[&str] = &[
    "at noon",
    "at dawn",
    "tomorrow",
    "after sunset",
    "in three days",
    "tonight",
    "at midnight",
    "next week",
    "in the evening",
    "before sunrise",
    "in the spring",
];

/// What has become of a place.
pub(in crate::data::persona) const RUINED: &[&str] = &[
    "burned down",
    "collapsed",
    "been closed",
    "been torn down",
    "sunk into the mud",
    "been robbed",
    "lost its roof",
    "been sold",
];

/// How a place is.
pub(in crate::data::persona) const STATES: &[&str] = &[
    "closed",
    "shut",
    "under water",
    "forbidden to strangers",
    "nailed up",
    "full of smoke",
    "locked",
    "flooded",
    "burning",
    "full of snow",
    "guarded",
    "broken",
    "haunted",
    "empty",
    "under repair",
    "blocked by a tree",
];

/// Who threatens.
pub(in crate::data::persona) const BEASTS: &[&str] =
    &["wolves", "bandits", "ghosts", "rats", "goblins", "pirates", "bears", "snakes", "spiders"];

/// Offices.
pub(in crate::data::persona) const JOBS: &[&str] =
    &["the mayor", "the captain", "the priest", "the healer", "the judge", "the smith", "the cook"];

/// Colours.
pub(in crate::data::persona) const COLORS: &[&str] =
    &["red", "blue", "green", "black", "white", "yellow", "grey", "purple"];

/// Numbers as words.
pub(in crate::data::persona) const NUMBERS: &[&str] =
    &["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
