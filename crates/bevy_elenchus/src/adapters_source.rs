//! `adapters://`: character folders live beside `assets/`, where the trainer writes them, and a game ships them as they are.

use bevy::{asset::io::AssetSourceBuilder, prelude::*};

/// Registers the asset source `adapters://`. Add it before `AssetPlugin` (part of `DefaultPlugins`), which closes the list
/// of sources; added later, the log says so and the source is missing. A game that keeps its characters under its own
/// `assets/` does not need it.
#[derive(Clone, Debug)]
pub struct AdaptersSourcePlugin {
    /// The folder: absolute, or relative to where Bevy looks for `assets/`.
    pub folder: String,
}

impl Default for AdaptersSourcePlugin {
    fn default() -> Self {
        Self { folder: "adapters".into() }
    }
}

impl Plugin for AdaptersSourcePlugin {
    fn build(&self, app: &mut App) {
        if app.world().contains_resource::<AssetServer>() {
            error!(
                "`AdaptersSourcePlugin` was added after `AssetPlugin`, so nothing is found under `adapters://` (hint: add \
                 it before `DefaultPlugins`, or before `AssetPlugin` where there are none)"
            );
        }
        let source = AssetSourceBuilder::platform_default(&self.folder, None);
        #[cfg(feature = "hot_reload")]
        let source = source.with_watcher(crate::folder_watcher::folder_watcher(self.folder.clone()));
        app.register_asset_source("adapters", source);
    }
}
