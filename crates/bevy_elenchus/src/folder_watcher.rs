//! Bevy's file watcher, told what a trainer's save looks like.
//!
//! Bevy 0.19 does nothing on a rename inside a watched folder, which is how every atomic save ends; and it reloads only
//! files that some asset has read before, so the first adapter of a character would go unseen, as would the repair of a
//! folder that never loaded. This watcher passes every event on and adds the reloads that follow from it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use async_channel::{Sender, unbounded};
use bevy::{
    asset::io::{AssetSource, AssetSourceEvent, AssetWatcher},
    tasks::{IoTaskPool, TaskPool},
};

use crate::assets::{ADAPTER_CONFIG, ADAPTER_MODEL, CHARACTER};

/// Events closer together than this are one: a save is seen whole, and soon enough.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// Watches a folder of characters; for [`bevy::asset::io::AssetSourceBuilder::with_watcher`].
pub(crate) fn folder_watcher(
    folder: String,
) -> impl FnMut(Sender<AssetSourceEvent>) -> Option<Box<dyn AssetWatcher>> + Send + Sync {
    let mut files = AssetSource::get_default_watcher(folder, DEBOUNCE);
    move |to_server| {
        let (to_us, from_files) = unbounded();
        let watcher = files(to_us)?;
        let pass_on = async move {
            while let Ok(event) = from_files.recv().await {
                // A closed server is no reason to stop: the watcher's thread must find someone listening to its end.
                for path in reloads(&event) {
                    let _ = to_server.send(AssetSourceEvent::ModifiedAsset(path)).await;
                }
                let _ = to_server.send(event).await;
            }
        };
        IoTaskPool::get_or_init(TaskPool::default).spawn(pass_on).detach();
        Some(watcher)
    }
}

/// The files to reload besides those that Bevy reloads on this event itself.
fn reloads(event: &AssetSourceEvent) -> Vec<PathBuf> {
    use AssetSourceEvent::{AddedAsset, AddedFolder, ModifiedAsset, RenamedAsset, RenamedFolder};
    let folder = |path: &Path| vec![path.join(CHARACTER), path.join(ADAPTER_MODEL)];
    match event {
        AddedFolder(path) | RenamedFolder { new: path, .. } => folder(path),
        AddedAsset(path) | ModifiedAsset(path) | RenamedAsset { new: path, .. } => {
            let mut paths = match path.parent() {
                Some(parent) if path.ends_with(ADAPTER_CONFIG) => folder(parent),
                _ => Vec::new(),
            };
            if matches!(event, RenamedAsset { .. }) {
                paths.push(path.clone());
            }
            paths
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_save_reloads_what_it_touches() {
        let check = |event: AssetSourceEvent, expected: &[&str]| {
            let expected: Vec<_> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(reloads(&event), expected, "{event:?}");
        };
        let renamed = |old: &str, new: &str| AssetSourceEvent::RenamedAsset { old: old.into(), new: new.into() };
        let both = &["socrates/character.toml", "socrates/adapter_model.safetensors"];
        check(renamed("socrates/.tmp1", "socrates/adapter_model.safetensors"), &[both[1]]);
        check(renamed("socrates/.tmp1", "socrates/character.toml"), &[both[0]]);
        check(
            renamed("socrates/.tmp1", "socrates/adapter_config.json"),
            &[both[0], both[1], "socrates/adapter_config.json"],
        );
        check(AssetSourceEvent::ModifiedAsset("socrates/adapter_config.json".into()), both);
        check(AssetSourceEvent::AddedAsset("socrates/adapter_config.json".into()), both);
        check(AssetSourceEvent::RenamedFolder { old: "socrates.new".into(), new: "socrates".into() }, both);
        check(AssetSourceEvent::AddedFolder("socrates".into()), both);
        // Bevy reloads these itself, and nothing else depends on them.
        check(AssetSourceEvent::ModifiedAsset("socrates/adapter_model.safetensors".into()), &[]);
        check(AssetSourceEvent::RemovedAsset("socrates/adapter_config.json".into()), &[]);
    }
}
