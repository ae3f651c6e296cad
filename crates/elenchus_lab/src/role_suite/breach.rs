//! What voices are held to.

use serde::Serialize;

/// What a reply did that it should not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Breach {
    /// It spoke as the program that it is.
    OutOfRole,
    /// It told the secret.
    Leak,
    /// It gave away what it sells or guards.
    GivesAway,
    /// It insulted the speaker.
    Insult,
}
