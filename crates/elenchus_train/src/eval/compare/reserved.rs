//! The works that the judge of style learns from, of those that a `training.toml` names.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::{
    Error, Lesson, Result,
    data::{OnBroken, Pair},
    read_pairs,
};

/// All pairs of some works in the character's texts, fit to be trained on or not: others' short lines are lines as well. `file`
/// is the `training.toml`.
///
/// # Errors
/// A work that is not there, or one that voices and judges are measured on.
pub fn reserved_pairs(lesson: &Lesson, file: &Path, works: &[String]) -> Result<Vec<Pair>> {
    let config = &lesson.config;
    let beside = |path: &PathBuf| file.parent().unwrap_or(Path::new(".")).join(path);
    let files: Vec<PathBuf> = config.data.iter().map(beside).collect();
    let on_broken = if config.skip_broken { OnBroken::Skip } else { OnBroken::Stop };
    let (mut pairs, _) = read_pairs(&files, &lesson.character, &config.speakers, config.context, on_broken)?;
    let fail = |work: &str, reason: String| {
        Err(Error::Comparison { what: format!("the work `{work}` for the judge of style"), reason })
    };
    let known: BTreeSet<&str> = pairs.iter().map(|pair| pair.work.as_str()).collect();
    if let Some(work) = works.iter().find(|work| !known.contains(work.as_str())) {
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        return fail(work, format!("is in none of the files that `data` names (hint: there are {known})"));
    }
    let held_out = |work: &String| lesson.split.held_out.iter().any(|pair| pair.work == *work);
    if let Some(work) = works.iter().find(|work| held_out(work)) {
        return fail(work, "is what the judge is tested on (hint: a work that is not held out)".to_owned());
    }
    pairs.retain(|pair| works.contains(&pair.work));
    Ok(pairs)
}
