//! Names of people and towns, and the syllables of made-up ones.

/// Names that people have.
pub(in crate::data::persona) const NAMES: &[&str] = &[
    "Timon", "Lysis", "Phaedra", "Nikias", "Myrto", "Doris", "Kleon", "Thalia", "Bertha", "Rook", "Otto", "Greta",
    "Hakon", "Sven", "Ingrid", "Leif", "Astrid", "Bram", "Tilda", "Edwin", "Maud", "Osric", "Rowan", "Hazel", "Marcus",
    "Livia", "Cassia", "Titus", "Amara", "Kofi", "Zuri", "Omar", "Layla", "Yusuf", "Nadia", "Ravi", "Priya", "Mei",
    "Jun", "Hiro", "Sana", "Ivan", "Olga", "Pavel", "Katya", "Diego", "Inés", "Rosa", "Pedro", "Anna", "Tom", "Jack",
    "Lucy", "Nell", "Finn", "Brigid", "Cormac", "Maeve", "Garrick", "Isolde", "Tristan", "Elara", "Thorin", "Gimble",
    "Mira", "Quill", "Vex", "Dorian", "Selene", "Petra", "Corin", "Wren", "Sable", "Jorah", "Alis", "Damon", "Chloe",
    "Niko", "Zeno", "Korax", "Milo",
];

/// Beginnings of a made-up name's syllables.
pub(in crate::data::persona) const ONSETS: &[&str] = &[
    "b", "br", "c", "cr", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "kl", "l", "m", "n", "p", "ph", "pr", "r",
    "s", "st", "t", "th", "tr", "v", "w", "y", "z", "sh", "ch",
];

/// Their vowels.
pub(in crate::data::persona) const VOWELS: &[&str] = &["a", "e", "i", "o", "u", "ae", "ei", "ia", "o", "a", "e"];

/// Ends of made-up names.
pub(in crate::data::persona) const ENDINGS: &[&str] = &[
    "n", "s", "r", "l", "m", "x", "th", "rin", "nor", "vas", "dra", "la", "na", "ris", "ton", "mir", "dor", "lus",
    "ka", "ne", "sa", "lia", "nos", "bert", "mund", "wen",
];

/// Towns that exist, or might.
pub(in crate::data::persona) const TOWNS: &[&str] = &[
    "Corinth",
    "Thebes",
    "Megara",
    "Sparta",
    "Argos",
    "Delphi",
    "Samos",
    "Ephesus",
    "Miletus",
    "Eleusis",
    "Aegina",
    "Marathon",
    "Riverton",
    "Oakham",
    "Stonebridge",
    "Millbrook",
    "Ashford",
    "Greyhaven",
];

/// Ends of made-up towns.
pub(in crate::data::persona) const TOWN_ENDINGS: &[&str] =
    &["ford", "ton", "burg", "stead", "haven", "wick", "polis", " Bay", " Hill"];
