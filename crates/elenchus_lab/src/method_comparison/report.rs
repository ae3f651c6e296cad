//! The state of a comparison: where its runs are, and how the methods compare there.

use std::path::Path;

use elenchus_train::{
    Result, RunFolder,
    rl::{BudgetSettings, Values},
};
use serde::Serialize;

use super::{
    config::{Entrant, MethodComparisonConfig, MethodRun},
    curves::{Curve, Look, Place, Standing, standings},
};

/// The state of a comparison, from its runs' folders.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MethodComparisonReport {
    /// What everybody is held against.
    pub baseline: String,
    /// What every run may spend.
    pub budget: BudgetSettings,
    /// All runs that have begun.
    pub curves: Vec<Curve>,
    /// All methods at the same divergence, one place after the other.
    pub at_kl: Vec<(Place, Vec<Standing>)>,
    /// All methods where the one that said least has said all it may, and the same of updates and time.
    pub at_cost: Vec<(Place, Vec<Standing>)>,
    /// How every method learns: its adapters in memory beside the one base.
    pub methods: Vec<MethodAbout>,
}

/// What a method keeps in memory, and whom it asks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MethodAbout {
    /// What it is called.
    pub label: String,
    /// Adapters that learn.
    pub learning: usize,
    /// Adapters that are only read: the reference, and a frozen value model.
    pub frozen: usize,
    /// Whether judges hear what is said.
    pub judged: bool,
}

impl MethodComparisonReport {
    /// Reads the runs of a comparison that have begun; `out` is its folder.
    pub fn read(config: &MethodComparisonConfig, runs: &[MethodRun], out: &Path) -> Result<Self> {
        let mut curves = Vec::new();
        for run in runs {
            let folder = out.join(&run.folder);
            if folder.is_dir() {
                curves.push(Curve::read(run, &RunFolder::open(&folder, &run.text)?)?);
            }
        }
        curves.retain(|curve| !curve.looks.is_empty());
        let baseline = config.baseline().to_owned();
        let at = |place: Place| (place, standings(&curves, &baseline, place));
        let ends = |of: fn(&Look) -> f64| {
            let ends = curves.iter().filter_map(|curve| curve.looks.last()).map(of);
            ends.fold(f64::INFINITY, f64::min)
        };
        let at_kl = config.kl.iter().map(|&kl| at(Place::Kl(kl))).collect();
        let least = [
            Place::Tokens(ends(|look| look.spent.tokens as f64)),
            Place::Updates(ends(|look| look.spent.updates as f64)),
            Place::Seconds(ends(|look| look.spent.seconds)),
        ];
        let at_cost = if curves.is_empty() { Vec::new() } else { least.map(at).to_vec() };
        let methods = config.methods.iter().map(MethodAbout::of).collect();
        Ok(Self { baseline, budget: config.budget, at_kl, at_cost, methods, curves })
    }
}

impl MethodAbout {
    fn of(entrant: &Entrant) -> Self {
        let plan = entrant.method.method().plan();
        let (learning, frozen) = match plan.values {
            Values::Model { rate } if rate > 0.0 => (2, 1),
            Values::Model { .. } => (1, 2),
            Values::None | Values::Head => (1, 1),
        };
        Self { label: entrant.label().to_owned(), learning, frozen, judged: plan.scores }
    }
}
