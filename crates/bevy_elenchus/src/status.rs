//! Is the model there, and what is it doing: two resources that are always present.

use bevy::prelude::*;
use elenchus_dialogue::{BaseInfo, Error};

use crate::{RetryLoad, plugin::EngineHandle};

/// Where the engine stands. Changes are seen by change detection: `status.is_changed()`.
#[derive(Resource, Clone, Debug, Reflect)]
#[reflect(opaque)]
#[reflect(Resource, Default)]
pub enum EngineStatus {
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
    /// There is no model; NPCs answer with their fallback lines. Trigger [`RetryLoad`] to try again.
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

impl Default for EngineStatus {
    fn default() -> Self {
        Self::Loading { progress: 0.0 }
    }
}

/// Run condition: the model is loaded.
pub fn engine_ready(status: Option<Res<EngineStatus>>) -> bool {
    status.is_some_and(|status| matches!(*status, EngineStatus::Ready { .. }))
}

pub(crate) fn update_stats(handle: Res<EngineHandle>, mut stats: ResMut<EngineStats>) {
    stats.set_if_neq(EngineStats(handle.engine.stats()));
}

pub(crate) fn on_retry_load(_: On<RetryLoad>, mut handle: ResMut<EngineHandle>, mut status: ResMut<EngineStatus>) {
    if !matches!(*status, EngineStatus::Failed { .. }) {
        return;
    }
    if handle.engine.is_running() {
        handle.engine.reload();
    } else {
        *handle = EngineHandle::start(handle.settings.clone(), handle.loader.clone());
    }
    *status = EngineStatus::default();
}
