//! Adapters made ready for a base, kept while somebody holds the adapter they came from.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crate::{Adapter, AdapterId, LoraAdapter, ModelConfig, Result};

/// Prepared adapters by identity; `P` is the form an executor reads.
pub struct AdapterStore<P> {
    entries: Mutex<HashMap<AdapterId, (Weak<LoraAdapter>, Arc<P>)>>,
}

impl<P> AdapterStore<P> {
    /// The adapter made ready; the first call checks that it fits and does the work.
    ///
    /// # Errors
    /// The adapter does not fit the model, or what `prepare` returns.
    pub fn get(
        &self,
        adapter: &Adapter,
        config: &ModelConfig,
        prepare: impl FnOnce(&Adapter) -> Result<P>,
    ) -> Result<Arc<P>> {
        let id = adapter.id();
        // A panic elsewhere leaves the map whole: entries are inserted in one step.
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, prepared)) = entries.get(&id) {
            return Ok(prepared.clone());
        }
        adapter.lora.check_fits(config)?;
        let prepared = Arc::new(prepare(adapter)?);
        // Voices that were reloaded or dropped make room here.
        entries.retain(|_, (lora, _)| lora.strong_count() > 0);
        entries.insert(id, (Arc::downgrade(&adapter.lora), prepared.clone()));
        Ok(prepared)
    }
}

impl<P> Default for AdapterStore<P> {
    fn default() -> Self {
        Self { entries: Mutex::default() }
    }
}
