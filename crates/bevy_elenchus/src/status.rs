//! Is the model there, and what is it doing: two resources that are always present.

use bevy::prelude::*;
use elenchus_dialogue::{BaseInfo, Error};

/// Where the engine stands. Changes are seen by change detection: `status.is_changed()`.
#[derive(Resource, Clone, Debug, Default, Reflect)]
#[reflect(opaque)]
#[reflect(Resource, Default)]
pub enum EngineStatus {
    /// There is no engine, and no model in memory: [`StartEngine`](crate::StartEngine) starts it. NPCs answer with their
    /// fallback lines.
    #[default]
    Stopped,
    /// The model is being read; lines wait.
    Loading {
        /// The share done, 0 to 1.
        progress: f32,
    },
    /// NPCs can speak.
    Ready {
        /// The model.
        base: BaseInfo,
    },
    /// There is no model; NPCs answer with their fallback lines. Trigger [`RetryLoad`](crate::RetryLoad) to try
    /// again.
    Failed {
        /// Why.
        error: Error,
    },
}

/// The engine's counters, a frame old at most. Dereferences to [`elenchus_dialogue::EngineStats`].
#[derive(Resource, Clone, Copy, Debug, Default, PartialEq, Deref, Reflect)]
#[reflect(opaque)]
#[reflect(Resource, Default)]
pub struct EngineStats(pub elenchus_dialogue::EngineStats);

impl EngineStatus {
    /// The engine has been started.
    pub(crate) const LOADING: Self = Self::Loading { progress: 0.0 };
}

/// Run condition: the model is loaded.
pub fn engine_ready(status: Option<Res<EngineStatus>>) -> bool {
    status.is_some_and(|status| matches!(*status, EngineStatus::Ready { .. }))
}

pub(crate) fn plugin(app: &mut App) {
    app.init_resource::<EngineStats>().register_type::<EngineStatus>().register_type::<EngineStats>();
}
