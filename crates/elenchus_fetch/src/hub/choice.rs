//! Which files of a repository a base model takes.

use super::HubModel;

/// The quantisation that is taken where a repository has several: small, and hardly worse than the whole.
const PREFERRED: &str = "Q4_K_M";
/// Files besides the weights of a Hugging Face folder that are read if they are there.
const FOLDER_FILES: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
];
pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Names in an error message; some repositories have hundreds of files.
const MAX_LISTED: usize = 24;

/// What is downloaded.
#[derive(Debug, PartialEq)]
pub(super) enum Choice {
    /// A GGUF file, or all parts of a split one; the first is the one that is opened.
    Gguf(Vec<String>),
    /// A folder's files. Where [`INDEX`] is among them, it names the shards.
    Folder(Vec<String>),
}

/// Chooses among the files of a repository, or says why none fits and what there is.
pub(super) fn choose(model: &HubModel, files: &[String]) -> Result<Choice, String> {
    if let Some(file) = &model.file {
        if !files.contains(file) {
            let ggufs: Vec<&str> = files.iter().map(String::as_str).filter(|file| is_gguf(file)).collect();
            let there = if ggufs.is_empty() { files.iter().map(String::as_str).collect() } else { ggufs };
            return Err(format!("there is no file `{file}` (hint: there are {})", listed(&there)));
        }
        if !is_gguf(file) {
            return Err(format!(
                "`{file}` is no GGUF file (hint: name a .gguf file, or `hf:{}` alone for a folder of safetensors)",
                model.repo
            ));
        }
        return with_parts(file, files).map(Choice::Gguf);
    }
    let ggufs: Vec<&str> = files.iter().map(String::as_str).filter(|file| is_model_gguf(file)).collect();
    let chosen: Vec<&str> = match ggufs.as_slice() {
        [] => return folder(files).map(Choice::Folder),
        [only] => vec![only],
        _ => ggufs.iter().copied().filter(|file| file.to_uppercase().contains(PREFERRED)).collect(),
    };
    match chosen.as_slice() {
        [one] => with_parts(one, files).map(Choice::Gguf),
        several => Err(format!(
            "it has {} GGUF files, {} of them {PREFERRED} (hint: name one, `--base hf:{}/FILE`; there are {})",
            ggufs.len(),
            if several.is_empty() { "none".to_owned() } else { several.len().to_string() },
            model.repo,
            listed(&ggufs)
        )),
    }
}

/// Of a split model all parts, by the name of the first; of a whole one itself.
pub(super) fn with_parts(file: &str, files: &[String]) -> Result<Vec<String>, String> {
    let Some((prefix, no, count)) = split_name(file) else { return Ok(vec![file.to_owned()]) };
    if no != 1 {
        return Err(format!(
            "`{file}` is part {no} of {count} (hint: name the first part, `{}`)",
            part(prefix, 1, count)
        ));
    }
    let parts: Vec<String> = (1..=count).map(|no| part(prefix, no, count)).collect();
    match parts.iter().find(|part| !files.contains(part)) {
        Some(missing) => Err(format!("`{missing}` is not there, so `{file}` is not complete")),
        None => Ok(parts),
    }
}

/// The names of a split model's parts, if the name is one's.
pub(super) fn parts_of(file: &str) -> Vec<String> {
    match split_name(file) {
        Some((prefix, _, count)) => (1..=count).map(|no| part(prefix, no, count)).collect(),
        None => vec![file.to_owned()],
    }
}

fn part(prefix: &str, no: usize, count: usize) -> String {
    format!("{prefix}-{no:05}-of-{count:05}.gguf")
}

/// `name-00002-of-00003.gguf` as name, 2 and 3, as llama.cpp writes it.
fn split_name(file: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = file.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (prefix, no) = rest.rsplit_once('-')?;
    let number = |digits: &str| (digits.len() == 5).then(|| digits.parse::<usize>().ok()).flatten();
    let (no, count) = (number(no)?, number(count)?);
    (1..=count).contains(&no).then_some((prefix, no, count))
}

pub(super) fn is_gguf(file: &str) -> bool {
    file.to_lowercase().ends_with(".gguf")
}

/// A language model's file, or the first part of one: no vision projector, no importance matrix.
fn is_model_gguf(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file).to_lowercase();
    is_gguf(&name)
        && !["mmproj", "imatrix"].iter().any(|other| name.contains(other))
        && split_name(file).is_none_or(|(_, no, _)| no == 1)
}

fn folder(files: &[String]) -> Result<Vec<String>, String> {
    let has = |name: &str| files.iter().any(|file| file == name);
    let weights = [INDEX, SINGLE].into_iter().find(|name| has(name));
    let Some(weights) = weights.filter(|_| has("config.json")) else {
        let hint = if has("adapter_config.json") {
            "this is an adapter; name the base it was trained on".to_owned()
        } else {
            let names: Vec<&str> = files.iter().map(String::as_str).collect();
            format!("look for the model's files in GGUF; here are {}", listed(&names))
        };
        return Err(format!("it has neither GGUF files nor config.json with model.safetensors (hint: {hint})"));
    };
    let beside = FOLDER_FILES.into_iter().filter(|name| has(name));
    Ok(beside.chain([weights]).map(ToOwned::to_owned).collect())
}

fn listed(names: &[&str]) -> String {
    match names.len() {
        0 => "none".to_owned(),
        1..=MAX_LISTED => names.join(", "),
        all => format!("{}, and {} more", names[..MAX_LISTED].join(", "), all - MAX_LISTED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, files: &[&str]) -> Result<Choice, String> {
        choose(&name.parse().unwrap(), &files.iter().map(|&file| file.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_one_gguf_file_or_q4_k_m_of_several_is_taken() {
        let check = |name: &str, files: &[&str], expected: &[&str]| {
            let expected = expected.iter().map(|&file| file.to_owned()).collect();
            assert_eq!(of(name, files).unwrap(), Choice::Gguf(expected), "{name} {files:?}");
        };
        check("hf:a/b", &["README.md", "b.gguf", "config.json", "model.safetensors"], &["b.gguf"]);
        check("hf:a/b", &["b-q8_0.gguf", "b-q4_k_m.gguf"], &["b-q4_k_m.gguf"]);
        check("hf:a/b", &["mmproj-F16.gguf", "b.imatrix.gguf", "b.GGUF"], &["b.GGUF"]);
        check("hf:a/b/b-Q8_0.gguf", &["b-Q8_0.gguf", "b-Q4_K_M.gguf"], &["b-Q8_0.gguf"]);
        let split = ["q/b-00001-of-00002.gguf", "q/b-00002-of-00002.gguf"];
        check("hf:a/b", &split, &split);
        check("hf:a/b/q/b-00001-of-00002.gguf", &split, &split);
    }

    #[test]
    fn where_there_is_no_choice_the_names_are_listed() {
        let check = |name: &str, files: &[&str], expected: &[&str]| {
            let error = of(name, files).unwrap_err();
            expected.iter().for_each(|words| assert!(error.contains(words), "{error:?} should hold {words:?}"));
        };
        check(
            "hf:a/b",
            &["x-Q8_0.gguf", "x-Q2_K.gguf"],
            &["2 GGUF files, none", "x-Q8_0.gguf, x-Q2_K.gguf", "hf:a/b/FILE"],
        );
        check("hf:a/b", &["x-Q4_K_M.gguf", "y-Q4_K_M.gguf"], &["2 of them Q4_K_M"]);
        check("hf:a/b/z.gguf", &["x.gguf", "README.md"], &["no file `z.gguf`", "there are x.gguf)"]);
        check("hf:a/b/model.safetensors", &["model.safetensors"], &["is no GGUF file", "`hf:a/b` alone"]);
        check("hf:a/b/x-00002-of-00002.gguf", &["x-00002-of-00002.gguf"], &["part 2 of 2", "x-00001-of-00002.gguf"]);
        check("hf:a/b", &["x-00001-of-00002.gguf"], &["`x-00002-of-00002.gguf` is not there"]);
        check("hf:a/b", &["adapter_config.json", "adapter_model.safetensors"], &["this is an adapter"]);
        check("hf:a/b", &["pytorch_model.bin", "config.json"], &["neither GGUF", "pytorch_model.bin, config.json"]);
        let many: Vec<String> = (0..30).map(|number| format!("{number}.gguf")).collect();
        check("hf:a/b", &many.iter().map(String::as_str).collect::<Vec<_>>(), &["and 6 more"]);
    }

    #[test]
    fn of_a_folder_what_is_read_is_taken() {
        let files = ["README.md", "config.json", "tokenizer.json", "model.safetensors", "onnx/model.onnx"];
        let expected = ["config.json", "tokenizer.json", "model.safetensors"].map(ToOwned::to_owned);
        assert_eq!(of("hf:a/b", &files).unwrap(), Choice::Folder(expected.to_vec()));
        let Choice::Folder(files) = of("hf:a/b", &["config.json", INDEX, "model-00001-of-00001.safetensors"]).unwrap()
        else {
            panic!("no folder")
        };
        assert_eq!(files, ["config.json", INDEX]);
    }
}
