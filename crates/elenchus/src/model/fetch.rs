//! Where a base comes from: a path, the hub, or the default model, fetched at first use with a progress bar on a terminal.

use std::{env, path::PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use elenchus_dialogue::base_model;
use elenchus_fetch::{FetchProgress, HUB_PREFIX, Hub, HubModel};
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::{note, print};

/// The named model, or the default one. A name of the hub, `hf:OWNER/REPO`, is downloaded at first use.
pub fn base_or_default(base: Option<PathBuf>) -> Result<PathBuf> {
    let Some(path) = base else { return default_model() };
    if path.exists() {
        return Ok(path);
    }
    match path.to_str().filter(|name| name.starts_with(HUB_PREFIX)) {
        Some(name) => of_hub(name),
        None => bail!(
            "{} does not exist (hint: --base takes a GGUF file, a model folder, or {HUB_PREFIX}OWNER/REPO)",
            path.display()
        ),
    }
}

/// `elenchus model fetch`.
pub fn run(model: Option<&str>) -> Result<()> {
    let path = match model {
        Some(name) => of_hub(name)?,
        None => {
            let path = default_model()?;
            elenchus_fetch::verify_default(&path)?;
            path
        }
    };
    print(&format!("{}\n", path.display()))
}

/// The hub as this user reaches it, by the variables of Hugging Face's own programs.
pub fn hub() -> Result<Hub> {
    let cache = base_model::cache_folder()
        .context("there is no user's cache for models of the hub: the home directory is not known (hint: set HOME)")?;
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let mut hub = Hub { token: variable("HF_TOKEN"), ..Hub::new(cache) };
    if let Some(endpoint) = variable("HF_ENDPOINT") {
        hub.endpoint = endpoint;
    }
    Ok(hub)
}

fn of_hub(name: &str) -> Result<PathBuf> {
    let model: HubModel = name.parse().map_err(|reason: String| anyhow!(reason))?;
    let hub = hub()?;
    Ok(with_bar(name, &mut |progress| hub.fetch(&model, progress))?)
}

fn default_model() -> Result<PathBuf> {
    Ok(with_bar(base_model::DEFAULT_FILE, &mut |progress| elenchus_fetch::fetch_default(progress))?)
}

type Fetch<'a> = &'a mut dyn FnMut(&mut dyn FnMut(FetchProgress)) -> elenchus_fetch::Result<PathBuf>;

/// Runs a fetch; the bar appears if anything is to be done.
fn with_bar(name: &str, fetch: Fetch<'_>) -> elenchus_fetch::Result<PathBuf> {
    let mut bar: Option<ProgressBar> = None;
    let result = fetch(&mut |progress| {
        let bar = bar.get_or_insert_with(|| {
            let bar = ProgressBar::no_length();
            if bar.is_hidden() {
                note(&format!("Fetching the model, once: {name}"));
            }
            bar
        });
        match progress {
            FetchProgress::Downloading(bytes, total) => {
                bar.set_style(style("{msg} {bar:30} {bytes} of {total_bytes}, {eta} left"));
                bar.set_message("Fetching the model, once:");
                bar.set_length(total);
                bar.set_position(bytes);
            }
            FetchProgress::Waiting => {
                bar.set_style(style("{msg}"));
                bar.set_message("Another process fetches this model; waiting for it ...");
                bar.tick();
            }
            FetchProgress::Verifying => {
                bar.set_style(style("{msg}"));
                bar.set_message("Checking the model's hash ...");
                bar.tick();
            }
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    result
}

/// A bar of a thousand steps, for work on a model.
pub fn bar(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(1000);
    bar.set_style(style("{msg} {bar:30} {percent} %, {eta} left"));
    bar.set_message(what);
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_that_is_not_there_is_refused_before_anything_is_fetched() {
        let error = |name: &str| base_or_default(Some(name.into())).unwrap_err().to_string();
        let path = error("no/such/model.gguf");
        assert!(path.contains("no/such/model.gguf does not exist") && path.contains("--base"), "{path}");
        assert!(error("hf:socrates").contains("`hf:socrates` is no model of the hub"));
    }
}
