//! Adapters prepared for a base, kept as long as the adapter they were made from is alive.

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
    /// The prepared adapter; the first call checks that it fits and prepares it.
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
        // A panic elsewhere leaves the map consistent: entries are inserted in one step.
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, prepared)) = entries.get(&id) {
            return Ok(prepared.clone());
        }
        adapter.lora.check_fits(config)?;
        let prepared = Arc::new(prepare(adapter)?);
        // Removes entries of adapters that were reloaded or dropped.
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
