//! `character.toml`: who a character is, how its words are sampled and when it stops.

use std::ops::RangeInclusive;

use elenchus_lm::SamplerSettings;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, names, visible::has_words};

/// A character as its file describes it. Unknown keys are tolerated (and warned about), so that newer files still load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Character {
    /// Version of the format; this crate writes 1 and refuses newer ones.
    pub version: u32,
    /// The name spoken to and shown.
    pub name: String,
    /// The card: who this is, in the second person ("You are Socrates...").
    pub persona: String,
    /// Temperament, 0 to 1 each; the prompt has it in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub big_five: Option<BigFive>,
    /// Said when a conversation begins, if the game asks.
    #[serde(default)]
    pub greetings: Vec<String>,
    /// Said instead of a reply that failed; at least one.
    pub fallbacks: Vec<String>,
    /// How words are sampled.
    #[serde(default)]
    pub sampler: SamplerSettings,
    /// When a reply ends.
    #[serde(default)]
    pub stop: StopRules,
    /// Scale of the folder's adapter, if it has one.
    #[serde(default = "one")]
    pub adapter_scale: f32,
    /// The base the adapter was trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseRef>,
}

fn one() -> f32 {
    1.0
}

/// The five-factor model of personality, 0 (low) to 1 (high).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BigFive {
    /// Openness to experience.
    pub openness: f32,
    /// Conscientiousness.
    pub conscientiousness: f32,
    /// Extraversion.
    pub extraversion: f32,
    /// Agreeableness.
    pub agreeableness: f32,
    /// Neuroticism.
    pub neuroticism: f32,
}

/// When a reply ends besides the model's own end token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StopRules {
    /// Texts that end the reply and are not part of it; may span tokens.
    pub strings: Vec<String>,
    /// End when the text begins to speak for another: `PLATO:` at the start of a line.
    pub other_speaker: bool,
    /// Sentences at most; 0 for no limit.
    pub max_sentences: usize,
    /// The first sentence after which a reply has so many words is its last; 0 for no such rule. "Good evening!" alone is too
    /// little of an answer, and a small model's second thought often contradicts its first.
    pub enough_words: usize,
    /// Tokens at most.
    pub max_tokens: usize,
    /// Seconds at most, from the first token on.
    pub max_seconds: f32,
}

impl Default for StopRules {
    fn default() -> Self {
        Self {
            strings: Vec::new(),
            other_speaker: true,
            max_sentences: 4,
            enough_words: 0,
            max_tokens: 160,
            max_seconds: 30.0,
        }
    }
}

/// Which base model an adapter was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRef {
    /// For people.
    pub name: String,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
}

/// The version of the format that this crate writes, and the newest it reads.
const VERSION: u32 = 1;

impl Character {
    /// Whether someone of this name is this character; case counts for nothing.
    pub fn is_named(&self, name: &str) -> bool {
        names::same(name, &self.name)
    }

    /// Reads the text of a `character.toml`; `file` is what errors call it.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let refuse = |reason: String| Error::Character { file: file.to_owned(), reason };
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| refuse(error.to_string()))?;
        // The version comes first: a newer file may differ in everything else.
        match table.get("version").map(toml::Value::as_integer) {
            Some(Some(version)) if version == i64::from(VERSION) => {}
            Some(Some(version)) if version > i64::from(VERSION) => {
                return Err(refuse(format!(
                    "`version` is {version}, but this program reads versions up to {VERSION} (hint: update the program)"
                )));
            }
            _ => return Err(refuse(format!("`version` is missing or no version (hint: write `version = {VERSION}`)"))),
        }
        let character: Self = toml::from_str(text).map_err(|error| refuse(error.to_string()))?;
        character.check().map_err(refuse)?;
        let known = toml::Table::try_from(&character).map_err(|error| refuse(error.to_string()))?;
        for key in unknown_keys(&table, &known) {
            tracing::warn!("{file}: unknown key `{key}` is ignored (hint: a typing error, or a newer program's file)");
        }
        Ok(character)
    }

    fn check(&self) -> Result<(), String> {
        check_words("name", &self.name, "the name spoken to and shown")?;
        if self.name.contains(['\n', '\r', ':']) {
            return Err(format!("`name` is {:?}, which holds a colon or a line break (hint: remove it)", self.name));
        }
        check_words("persona", &self.persona, "who this is: \"You are Socrates...\"")?;
        if self.fallbacks.is_empty() {
            return Err("`fallbacks` is empty (hint: write at least one line to say when a reply fails)".to_owned());
        }
        for (field, lines) in [("greetings", &self.greetings), ("fallbacks", &self.fallbacks)] {
            for (index, line) in lines.iter().enumerate() {
                check_words(&format!("{field}[{index}]"), line, "a line to say, or remove it")?;
            }
        }
        if let Some(traits) = &self.big_five {
            for (name, value) in traits.named() {
                check_range(&format!("big_five.{name}"), value, 0.0..=1.0, "0 (low) to 1 (high)")?;
            }
        }
        let sampler = &self.sampler;
        check_range(
            "sampler.temperature",
            sampler.temperature,
            0.0..=10.0,
            "0 (the likeliest token) to 10; 0.7 is usual",
        )?;
        check_range("sampler.top_p", sampler.top_p, f32::MIN_POSITIVE..=1.0, "above 0, up to 1 (keeps all)")?;
        check_range("sampler.min_p", sampler.min_p, 0.0..=1.0, "0 (keeps all) to 1")?;
        let penalty = sampler.repetition_penalty;
        check_range("sampler.repetition_penalty", penalty, 0.1..=10.0, "0.1 to 10; 1 changes nothing")?;
        for (field, value) in [
            ("sampler.frequency_penalty", sampler.frequency_penalty),
            ("sampler.presence_penalty", sampler.presence_penalty),
        ] {
            check_range(field, value, -10.0..=10.0, "-10 to 10; 0 changes nothing")?;
        }
        check_range("sampler.dry_multiplier", sampler.dry_multiplier, 0.0..=10.0, "0 (off) to 10")?;
        check_range("sampler.dry_base", sampler.dry_base, 1.0..=10.0, "1 to 10; 1.75 is usual")?;
        if let Some(index) = self.stop.strings.iter().position(String::is_empty) {
            return Err(format!("`stop.strings[{index}]` is empty and would end every reply (hint: remove it)"));
        }
        if self.stop.max_tokens == 0 {
            return Err("`stop.max_tokens` is 0, which leaves nothing to say (hint: 1 or more)".to_owned());
        }
        check_range("stop.max_seconds", self.stop.max_seconds, f32::MIN_POSITIVE..=86_400.0, "above 0, up to 86400")?;
        check_range("adapter_scale", self.adapter_scale, -10.0..=10.0, "-10 to 10; 1 is as trained")?;
        if let Some(base) = &self.base
            && (base.sha256.len() != 64 || !base.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            return Err(format!(
                "`base.sha256` is {:?} (hint: 64 hex digits, as `sha256sum FILE` prints)",
                base.sha256
            ));
        }
        Ok(())
    }
}

impl BigFive {
    /// The traits by the names they have in the file.
    pub(crate) fn named(&self) -> [(&'static str, f32); 5] {
        [
            ("openness", self.openness),
            ("conscientiousness", self.conscientiousness),
            ("extraversion", self.extraversion),
            ("agreeableness", self.agreeableness),
            ("neuroticism", self.neuroticism),
        ]
    }
}

fn check_words(field: &str, text: &str, fix: &str) -> Result<(), String> {
    if !has_words(text) { Err(format!("`{field}` is empty (hint: write {fix})")) } else { Ok(()) }
}

fn check_range(field: &str, value: f32, range: RangeInclusive<f32>, fix: &str) -> Result<(), String> {
    if range.contains(&value) { Ok(()) } else { Err(format!("`{field}` is {value} (hint: {fix})")) }
}

/// Keys of a file that its parsed form does not hold, as dotted paths.
fn unknown_keys(file: &toml::Table, known: &toml::Table) -> Vec<String> {
    let mut unknown = Vec::new();
    for (key, value) in file {
        match (value, known.get(key)) {
            (_, None) => unknown.push(key.clone()),
            (toml::Value::Table(file), Some(toml::Value::Table(known))) => {
                unknown.extend(unknown_keys(file, known).into_iter().map(|inner| format!("{key}.{inner}")));
            }
            _ => {}
        }
    }
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "version = 1\nname = \"Socrates\"\npersona = \"You are Socrates.\"\nfallbacks = [\"Hm.\"]\n";

    fn parse(more: &str) -> Result<Character> {
        Character::parse(&format!("{SMALL}{more}"), "socrates/character.toml")
    }

    #[test]
    fn a_small_file_has_the_defaults_and_survives_writing() {
        let character = parse("").unwrap();
        assert_eq!(character.stop, StopRules::default());
        assert_eq!(character.adapter_scale, 1.0);
        let full = parse(
            "greetings = [\"Hail.\"]\n[big_five]\nopenness = 0.9\nconscientiousness = 0.5\nextraversion = 1\n\
             agreeableness = 0\nneuroticism = 0.1\n[stop]\nstrings = [\"\\n\"]\nmax_sentences = 0\n",
        )
        .unwrap();
        assert_eq!(full.stop.strings, ["\n"]);
        for character in [character, full] {
            let written = toml::to_string(&character).unwrap();
            assert_eq!(Character::parse(&written, "again").unwrap(), character);
        }
    }

    #[test]
    fn the_documented_example_is_a_character() {
        let page = include_str!("../../../docs/character-toml.md");
        let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let character = Character::parse(example, "docs/character-toml.md").unwrap();
        let file: toml::Table = example.parse().unwrap();
        let known = toml::Table::try_from(&character).unwrap();
        assert!(unknown_keys(&file, &known).is_empty());
        // Every field of the sampler and of the stop rules stands in a table, with its default.
        let defaults = toml::Table::try_from(SamplerSettings::default()).unwrap();
        let fields: Vec<_> = defaults.into_iter().chain(toml::Table::try_from(StopRules::default()).unwrap()).collect();
        for (field, default) in fields {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{field}` |")));
            let row = row.unwrap_or_else(|| panic!("{field} is not documented"));
            let cell = row.split('|').nth(2).unwrap().trim().trim_matches('`');
            match default {
                toml::Value::Array(_) => assert_eq!(cell, "none", "{field}"),
                toml::Value::Boolean(value) => assert_eq!(cell, value.to_string(), "{field}"),
                toml::Value::Float(value) => assert!((cell.parse::<f64>().unwrap() - value).abs() < 1e-6, "{field}"),
                value => assert_eq!(cell, value.to_string(), "{field}"),
            }
        }
    }

    #[test]
    fn unknown_keys_are_found_and_tolerated() {
        let more = "mood = 1\n[stop]\nmax_token = 3\n[lore]\nfile = \"x\"\n";
        let character = parse(more).unwrap();
        let file: toml::Table = format!("{SMALL}{more}").parse().unwrap();
        let known = toml::Table::try_from(&character).unwrap();
        let mut unknown = unknown_keys(&file, &known);
        unknown.sort();
        assert_eq!(unknown, ["lore", "mood", "stop.max_token"]);
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_file_field_and_value() {
        fn check(text: &str, expected: &str) {
            let message = Character::parse(text, "socrates/character.toml").unwrap_err().to_string();
            assert!(message.starts_with("socrates/character.toml: "), "{message}");
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        }
        let with = |more: &str| format!("{SMALL}{more}");
        let without = |key: &str| SMALL.lines().filter(|line| !line.starts_with(key)).collect::<Vec<_>>().join("\n");
        let instead = |line: &str| {
            let key = line.split(' ').next().unwrap();
            format!("{}\n{line}", without(key))
        };
        check("version = ", "line 1");
        check("", "`version` is missing");
        check(&instead("version = 2"), "`version` is 2, but this program reads versions up to 1");
        check(&instead("version = 0"), "write `version = 1`");
        check(&instead("version = \"1\""), "write `version = 1`");
        check(&without("name"), "missing field `name`");
        check(&instead("name = \"  \""), "`name` is empty");
        check(&instead("name = \"\\u200b\""), "`name` is empty");
        check(&instead("name = \"a:b\""), "`name` is \"a:b\"");
        check(&instead("persona = \"\""), "`persona` is empty");
        check(&without("fallbacks"), "missing field `fallbacks`");
        check(&instead("fallbacks = []"), "`fallbacks` is empty");
        check(&instead("fallbacks = [\"a\", \" \"]"), "`fallbacks[1]` is empty");
        check(&with("greetings = [\"\"]"), "`greetings[0]` is empty");
        check(&with("greetings = 3"), "expected a sequence");
        check(&with("adapter_scale = nan"), "`adapter_scale` is NaN");
        check(
            &with(
                "[big_five]\nopenness = 1.5\nconscientiousness = 0\nextraversion = 0\nagreeableness = 0\nneuroticism = 0",
            ),
            "`big_five.openness` is 1.5",
        );
        check(&with("[sampler]\ntemperature = -1"), "`sampler.temperature` is -1");
        check(&with("[sampler]\ntemperature = inf"), "`sampler.temperature` is inf");
        check(&with("[sampler]\ntop_k = -1"), "top_k");
        check(&with("[sampler]\ntop_p = 0"), "`sampler.top_p` is 0");
        check(&with("[sampler]\nmin_p = 2"), "`sampler.min_p` is 2");
        check(&with("[sampler]\nrepetition_penalty = 0"), "`sampler.repetition_penalty` is 0");
        check(&with("[sampler]\nfrequency_penalty = 11"), "`sampler.frequency_penalty` is 11");
        check(&with("[sampler]\npresence_penalty = nan"), "`sampler.presence_penalty` is NaN");
        check(&with("[sampler]\ndry_multiplier = -1"), "`sampler.dry_multiplier` is -1");
        check(&with("[sampler]\ndry_base = 0.5"), "`sampler.dry_base` is 0.5");
        check(&with("[stop]\nstrings = [\"a\", \"\"]"), "`stop.strings[1]` is empty");
        check(&with("[stop]\nmax_tokens = 0"), "`stop.max_tokens` is 0");
        check(&with("[stop]\nmax_seconds = 0"), "`stop.max_seconds` is 0");
        check(&with("[base]\nname = \"x\"\nsha256 = \"12\""), "`base.sha256` is \"12\"");
    }
}
