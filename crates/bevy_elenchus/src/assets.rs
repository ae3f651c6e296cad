//! A character is a folder: `character.toml`, and beside it the adapter as PEFT writes it.
//!
//! Character and adapter are assets of their own, so that a trainer's new adapter reloads alone, and a broken one leaves
//! the character its fallback lines. A reload that fails keeps the asset as it was.

use std::{str::Utf8Error, sync::Arc};

use bevy::{
    asset::{
        AssetLoader, AssetPath, LoadContext, ReadAssetBytesError,
        io::{AssetReaderError, Reader},
    },
    prelude::*,
};
use elenchus_dialogue::Character;
use elenchus_lm::LoraAdapter;

#[cfg(feature = "hot_reload")]
pub(crate) const CHARACTER: &str = "character.toml";
pub(crate) const ADAPTER_CONFIG: &str = "adapter_config.json";
pub(crate) const ADAPTER_MODEL: &str = "adapter_model.safetensors";

/// Who an NPC is, from `character.toml`.
#[derive(Asset, TypePath, Clone, Debug)]
pub struct CharacterAsset {
    /// Persona, fallback lines, sampler, stop rules.
    pub character: Arc<Character>,
    /// The adapter beside it, where the folder has one.
    #[dependency]
    pub adapter: Option<Handle<AdapterAsset>>,
}

/// A voice, from `adapter_model.safetensors` and the `adapter_config.json` beside it.
#[derive(Asset, TypePath, Clone, Debug)]
pub struct AdapterAsset {
    /// The low-rank updates; replies under way keep the one they started with.
    pub lora: Arc<LoraAdapter>,
}

/// Reads `character.toml`, and starts to load the adapter if an `adapter_config.json` lies beside it.
#[derive(Default, TypePath)]
pub struct CharacterLoader;

/// Reads a PEFT folder; load its `adapter_model.safetensors`.
#[derive(Default, TypePath)]
pub struct AdapterLoader;

/// Why a character or an adapter could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssetError {
    /// The file could not be read to its end.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// The reader's word.
        source: std::io::Error,
    },
    /// The file is not UTF-8.
    #[error("{file} is not UTF-8 text: {source} (hint: save it as UTF-8)")]
    Utf8 {
        /// The file.
        file: String,
        /// Where it stops being UTF-8.
        source: Utf8Error,
    },
    /// A file beside it could not be read.
    #[error("{file}: {source}")]
    Beside {
        /// The file.
        file: String,
        /// The asset server's word.
        source: Box<ReadAssetBytesError>,
    },
    /// Weights without the file that says how to use them: without it the character would speak in the base's voice.
    #[error(
        "{config} is missing beside {weights} (hint: copy both files of the trained adapter, or remove the weights if the \
         character is to have none)"
    )]
    NoConfig {
        /// The file that is missing.
        config: String,
        /// The file that is there.
        weights: String,
    },
    /// The character cannot be used.
    #[error(transparent)]
    Character(#[from] elenchus_dialogue::Error),
    /// The adapter cannot be used.
    #[error(transparent)]
    Adapter(#[from] elenchus_lm::Error),
}

impl AssetLoader for CharacterLoader {
    type Asset = CharacterAsset;
    type Settings = ();
    type Error = AssetError;

    async fn load(
        &self,
        reader: &mut dyn Reader,
        _settings: &(),
        context: &mut LoadContext<'_>,
    ) -> Result<CharacterAsset, AssetError> {
        let file = context.path().to_string();
        let bytes = read(reader, &file).await?;
        let text = str::from_utf8(&bytes).map_err(|source| AssetError::Utf8 { file: file.clone(), source })?;
        let character = Arc::new(Character::parse(text, &file)?);
        let adapter = match context.read_asset_bytes(beside(context.path(), ADAPTER_CONFIG)).await {
            Ok(_) => Some(context.load(beside(context.path(), ADAPTER_MODEL))),
            Err(ReadAssetBytesError::AssetReaderError(AssetReaderError::NotFound(_))) => {
                let weights = beside(context.path(), ADAPTER_MODEL);
                if context.read_asset_bytes(weights.clone()).await.is_ok() {
                    let config = beside(context.path(), ADAPTER_CONFIG).to_string();
                    return Err(AssetError::NoConfig { config, weights: weights.to_string() });
                }
                None
            }
            Err(source) => {
                return Err(AssetError::Beside {
                    file: beside(context.path(), ADAPTER_CONFIG).to_string(),
                    source: source.into(),
                });
            }
        };
        Ok(CharacterAsset { character, adapter })
    }

    fn extensions(&self) -> &[&str] {
        &["character.toml"]
    }
}

impl AssetLoader for AdapterLoader {
    type Asset = AdapterAsset;
    type Settings = ();
    type Error = AssetError;

    async fn load(
        &self,
        reader: &mut dyn Reader,
        _settings: &(),
        context: &mut LoadContext<'_>,
    ) -> Result<AdapterAsset, AssetError> {
        let file = context.path().to_string();
        let weights = read(reader, &file).await?;
        let config = beside(context.path(), ADAPTER_CONFIG);
        let config = context
            .read_asset_bytes(config.clone())
            .await
            .map_err(|source| AssetError::Beside { file: config.to_string(), source: source.into() })?;
        Ok(AdapterAsset { lora: Arc::new(LoraAdapter::parse(&file, &config, &weights)?) })
    }
}

async fn read(reader: &mut dyn Reader, file: &str) -> Result<Vec<u8>, AssetError> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await.map_err(|source| AssetError::Io { file: file.into(), source })?;
    Ok(bytes)
}

fn beside(path: &AssetPath<'_>, name: &str) -> AssetPath<'static> {
    let folder = path.path().parent().unwrap_or_else(|| "".as_ref());
    AssetPath::from_path_buf(folder.join(name)).with_source(path.source().clone_owned())
}

pub(crate) fn plugin(app: &mut App) {
    app.init_asset::<CharacterAsset>()
        .init_asset::<AdapterAsset>()
        .init_asset_loader::<CharacterLoader>()
        .init_asset_loader::<AdapterLoader>();
}
