//! A run's battery, before and after.

use serde::{Deserialize, Serialize};

use super::results::CheckRow;
use crate::{Result, RunFolder};

/// What a training run's report says of the battery: `battery.json` of its folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunBattery {
    /// SHA-256 of the trained adapter's weights, as hex digits.
    pub adapter: String,
    /// Determined every reply.
    pub seed: u64,
    /// As the run found it: the base without an adapter, or, where a run learned from judges, the adapter it began from.
    pub before: Vec<CheckRow>,
    /// With the run's adapter.
    pub after: Vec<CheckRow>,
}

impl RunBattery {
    pub(crate) const FILE: &str = "battery.json";

    /// Before and after, check by check.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&CheckRow, &CheckRow)> {
        let same = |row: &CheckRow| (row.check.clone(), row.is_part);
        let before = move |row: &CheckRow| self.before.iter().find(|before| same(before) == same(row));
        self.after.iter().filter(|row| !row.is_part).filter_map(move |row| Some((before(row)?, row)))
    }

    /// What a finished run's folder says of its battery, if it was measured.
    ///
    /// # Errors
    /// A file that cannot be read, or is none of ours.
    pub fn of(run: &RunFolder) -> Result<Option<Self>> {
        run.json(Self::FILE)
    }

    /// Saves it in the folder of an SFT or RL run, whose report then has it.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, run: &RunFolder) -> Result<()> {
        run.write_json(Self::FILE, self)
    }
}
