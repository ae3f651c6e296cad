//! The registry of methods: which ones a configuration can name.
//!
//! This crate's own are in [`Methods::default`]; a caller adds further ones with [`Methods::with`], and this crate does not
//! know them.

use std::{fmt, path::Path, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{
    Method, Settings, dpo::DpoSettings, grpo::GrpoSettings, kto::KtoSettings, ppo::PpoSettings, rloo::RlooSettings,
};
use crate::config_file::{self, Misfit};

/// The methods that a configuration can name.
#[derive(Clone)]
pub struct Methods(Vec<Entry>);

impl Default for Methods {
    /// Those of this crate.
    fn default() -> Self {
        Self(Vec::new())
            .with::<PpoSettings>()
            .with::<RlooSettings>()
            .with::<GrpoSettings>()
            .with::<DpoSettings>()
            .with::<KtoSettings>()
    }
}

/// One method by name.
#[derive(Clone, Copy)]
struct Entry {
    name: &'static str,
    paper: Option<&'static str>,
    read: fn(Value) -> serde_json::Result<MethodSettings>,
}

impl Methods {
    /// Adds a method; it replaces one of the same name.
    #[must_use]
    pub fn with<S: Settings>(mut self) -> Self {
        self.0.retain(|entry| entry.name != S::NAME);
        let read = |table| Ok(MethodSettings::of(serde_json::from_value::<S>(table)?));
        self.0.push(Entry { name: S::NAME, paper: S::PAPER, read });
        self
    }

    /// Their names, as configurations have them.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|entry| entry.name)
    }

    /// The settings that a configuration has written.
    ///
    /// # Errors
    /// What is wrong, as serde says it: an unknown method or field, or a value of another type.
    pub fn read(&self, written: WrittenMethod) -> Result<MethodSettings, String> {
        let WrittenMethod { name, table } = written;
        let Some(entry) = self.0.iter().find(|entry| entry.name == name) else {
            let known: Vec<String> = self.names().map(|name| format!("`{name}`")).collect();
            let unknown = format!("unknown variant `{name}`, expected one of {}", known.join(", "));
            return Err(config_file::with_suggestion(&unknown));
        };
        (entry.read)(table).map_err(|error| config_file::with_suggestion(&error.to_string()))
    }

    /// What the original of a method was trained with; `None` for one without published settings.
    pub(super) fn paper(&self, name: &str) -> Option<&'static str> {
        self.0.iter().find(|entry| entry.name == name)?.paper
    }

    /// The methods whose originals' settings are known.
    pub(super) fn papers(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().filter(|entry| entry.paper.is_some()).map(|entry| entry.name)
    }
}

/// A method as a configuration names it, before a registry has read it: a name, or a table with a name.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenMethod {
    name: String,
    table: Value,
}

impl Default for WrittenMethod {
    fn default() -> Self {
        Self { name: RlooSettings::NAME.to_owned(), table: Value::Object(serde_json::Map::new()) }
    }
}

impl<'de> Deserialize<'de> for WrittenMethod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fail = |what: &str| Err(serde::de::Error::custom(what));
        match Value::deserialize(deserializer)? {
            Value::String(name) => Ok(Self { name, ..Self::default() }),
            Value::Object(mut table) => match table.remove("name") {
                Some(Value::String(name)) => Ok(Self { name, table: Value::Object(table) }),
                Some(_) => fail("`name` is no string"),
                None => fail("missing field `name`"),
            },
            _ => fail("expected a method's name, or a table with a `name`"),
        }
    }
}

/// A method and its settings: `method = "rloo"`, or a table with the name and what differs from the defaults.
#[derive(Clone)]
pub struct MethodSettings(Arc<dyn AnySettings>);

impl MethodSettings {
    /// Those of one method.
    pub fn of<S: Settings>(settings: S) -> Self {
        Self(Arc::new(settings))
    }

    /// The method at the beginning of a run.
    pub fn method(&self) -> Box<dyn Method> {
        self.0.method()
    }

    /// The method's name, as papers write it.
    pub fn name(&self) -> &'static str {
        self.0.title()
    }

    /// Refuses values that make no sense: the field and why.
    pub fn check(&self) -> Result<(), Misfit> {
        self.0.check()
    }

    /// The folder of the model that values are read from, where the method reads them from one.
    pub fn value_model(&self) -> Option<&Path> {
        self.0.value_model()
    }
}

impl fmt::Debug for MethodSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for MethodSettings {
    fn eq(&self, other: &Self) -> bool {
        let values = serde_json::to_value(self).ok().zip(serde_json::to_value(other).ok());
        values.is_some_and(|(ours, theirs)| ours == theirs)
    }
}

impl Serialize for MethodSettings {
    /// The name first, then all settings in their own order.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Named<'a> {
            name: &'static str,
            #[serde(flatten)]
            settings: &'a dyn erased_serde::Serialize,
        }
        Named { name: self.0.name(), settings: self.0.as_serialize() }.serialize(serializer)
    }
}

/// [`Settings`] of any method.
trait AnySettings: fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;
    fn title(&self) -> &'static str;
    fn method(&self) -> Box<dyn Method>;
    fn check(&self) -> Result<(), Misfit>;
    fn value_model(&self) -> Option<&Path>;
    fn as_serialize(&self) -> &dyn erased_serde::Serialize;
}

impl<S: Settings> AnySettings for S {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn title(&self) -> &'static str {
        S::TITLE
    }

    fn method(&self) -> Box<dyn Method> {
        Settings::method(self)
    }

    fn check(&self) -> Result<(), Misfit> {
        Settings::check(self)
    }

    fn value_model(&self) -> Option<&Path> {
        Settings::value_model(self)
    }

    fn as_serialize(&self) -> &dyn erased_serde::Serialize {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What earlier versions wrote: an internally tagged enum. Runs of a comparison are found again by this very text.
    #[derive(Serialize)]
    #[serde(tag = "name", rename_all = "kebab-case")]
    enum Tagged {
        Ppo(PpoSettings),
        Dpo(DpoSettings),
    }

    #[derive(Serialize)]
    struct Config<M> {
        before: f32,
        method: M,
        after: Vec<f32>,
    }

    #[test]
    fn settings_are_written_as_a_tagged_enum_writes_them() {
        let text = |method: &dyn erased_serde::Serialize| {
            toml::to_string(&Config { before: 0.1, method, after: vec![0.5] }).unwrap()
        };
        let (ppo, dpo) = (PpoSettings::default(), DpoSettings::default());
        assert_eq!(text(&MethodSettings::of(ppo)), text(&Tagged::Ppo(ppo)));
        assert_eq!(text(&MethodSettings::of(dpo)), text(&Tagged::Dpo(dpo)));
    }

    #[test]
    fn a_name_or_a_table_with_a_name() {
        let read = |text: &str| {
            let written: WrittenMethod = serde_json::from_str(text).map_err(|error| error.to_string())?;
            Methods::default().read(written)
        };
        assert_eq!(read("\"ppo\""), Ok(MethodSettings::of(PpoSettings::default())));
        let rloo = RlooSettings { kl_coef: 0.1, ..RlooSettings::default() };
        assert_eq!(read("{\"name\": \"rloo\", \"kl_coef\": 0.1}"), Ok(MethodSettings::of(rloo)));
        let check = |text: &str, says: &str| {
            let error = read(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        };
        check("\"ppp\"", "unknown variant `ppp` (hint: did you mean `ppo`?)");
        check("{\"name\": \"rloo\", \"kl_cof\": 1}", "unknown field `kl_cof` (hint: did you mean `kl_coef`?)");
        check("{\"kl_coef\": 1}", "missing field `name`");
        check("3", "expected a method's name");
    }
}
