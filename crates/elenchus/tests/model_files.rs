//! Model files as people have them: from the hub, in parts, quantised here, listed.

#[expect(dead_code, reason = "each test binary uses its part")]
mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    process::Output,
    thread,
};

use common::{Stage, failed, succeeded};
use elenchus_lm::{BlockType, gguf::Gguf, gguf::GgufWriter, testing::TinyModel};
use serde_json::Value;

/// A server that speaks the hub's API and has one repository, `plato/tiny`, with one file.
fn hub(file: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while !request.ends_with("\r\n\r\n") && reader.read_line(&mut request).unwrap_or(0) > 0 {}
            let path = request.split(' ').nth(1).unwrap_or_default();
            let (status, body) = match path {
                "/api/models/plato/tiny/revision/main" => {
                    ("200 OK", br#"{"sha": "0123abc", "siblings": [{"rfilename": "tiny-Q8_0.gguf"}]}"#.to_vec())
                }
                "/plato/tiny/resolve/0123abc/tiny-Q8_0.gguf" => ("200 OK", file.clone()),
                _ => ("404 Not Found", Vec::new()),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nETag: \"x\"\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let body = if request.starts_with("HEAD") { &[] } else { body.as_slice() };
            // The client may have left.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
    endpoint
}

fn run(stage: &Stage, endpoint: &str, arguments: &str) -> Output {
    let mut command = stage.command(arguments);
    command.env("HF_ENDPOINT", endpoint).env("XDG_CACHE_HOME", stage.path("cache")).env_remove("HF_TOKEN");
    command.env("HOME", stage.path(".")).env("LOCALAPPDATA", stage.path("cache"));
    command.output().unwrap()
}

#[test]
fn a_model_of_the_hub_is_downloaded_once_and_named_everywhere_as_a_base() {
    let stage = Stage::new();
    let endpoint = hub(fs::read(stage.path("tiny.gguf")).unwrap());
    let path = succeeded(run(&stage, &endpoint, "model fetch hf:plato/tiny"));
    assert!(path.trim_end().ends_with("tiny-Q8_0.gguf"), "{path}");
    let nowhere = "http://127.0.0.1:9";
    for arguments in [
        "talk --base hf:plato/tiny --seed 1 --say Hello",
        "talk --base hf:plato/tiny/tiny-Q8_0.gguf --seed 1 --say Hello",
        "model inspect --base hf:plato/tiny",
        "adapter inspect voice --base hf:plato/tiny",
    ] {
        succeeded(run(&stage, nowhere, arguments));
    }
    let error = failed(run(&stage, nowhere, "talk --base hf:plato/other --say Hello"));
    assert!(error.contains("hf:plato/other: it is not in the cache") && error.contains("HF_ENDPOINT"), "{error}");
    let error = failed(run(&stage, &endpoint, "talk --base hf:plato/other --say Hello"));
    assert!(error.contains("has no such model"), "{error}");

    let listed: Value = serde_json::from_str(&succeeded(run(&stage, nowhere, "model list --json"))).unwrap();
    let models = listed["models"].as_array().unwrap();
    let model = models.iter().find(|model| model["name"] == "hf:plato/tiny").unwrap_or_else(|| panic!("{listed:#}"));
    assert_eq!((&model["architecture"], &model["quantisation"]), (&"llama".into(), &"Q8_0".into()));
    assert_eq!(model["file_bytes"], fs::metadata(stage.path("tiny.gguf")).unwrap().len());
    assert!(model["memory_bytes"].as_u64() > model["weight_memory_bytes"].as_u64());
    if cfg!(target_os = "linux") {
        assert_eq!(model["fits"], true);
    }
    let shown = succeeded(run(&stage, nowhere, "model list"));
    assert!(shown.contains("hf:plato/tiny\n    llama, 0 M parameters, Q8_0, "), "{shown}");
}

#[test]
fn what_cannot_be_used_is_listed_with_the_reason() {
    let stage = Stage::new();
    fs::create_dir(stage.path("models")).unwrap();
    fs::write(stage.path("models/broken.gguf"), "no model").unwrap();
    let shown = succeeded(run(&stage, "http://127.0.0.1:9", "model list"));
    assert!(
        shown.contains("broken.gguf\n    cannot be used: ") && shown.contains("does not start with `GGUF`"),
        "{shown}"
    );
}

#[test]
fn a_split_model_speaks_from_its_first_part() {
    let stage = Stage::new();
    let whole = Gguf::open(&stage.path("tiny.gguf")).unwrap();
    let (first, second) = ("tiny-00001-of-00002.gguf", "tiny-00002-of-00002.gguf");
    let mut parts = [GgufWriter::new(), GgufWriter::new()];
    for (key, value) in whole.metadata() {
        parts[0].set(key.as_str(), value.clone());
    }
    for (no, part) in parts.iter_mut().enumerate() {
        part.set("split.no", no as i64).set("split.count", 2).set("split.tensors.count", whole.tensors().len() as i64);
        let tensors = whole.tensors().iter().enumerate().filter(|(at, _)| usize::from(*at > 7) == no);
        for (_, (name, info)) in tensors {
            part.tensor(name.as_str(), &info.shape, info.dtype, whole.tensor(name).unwrap().1.to_vec());
        }
        part.write(&stage.path([first, second][no])).unwrap();
    }
    let say = |base: &str| stage.run(&format!("talk --base {base} --seed 1"), &["Hello."]);
    assert_eq!(succeeded(say(first)), succeeded(say("tiny.gguf")));
    let error = failed(say(second));
    assert!(error.contains(&format!("name the first part, `{first}`")), "{error}");
    fs::remove_file(stage.path(second)).unwrap();
    let error = failed(say(first));
    assert!(error.contains("part 2 of 2 is missing") && error.contains(second), "{error}");
}

#[test]
fn a_quantised_file_is_written_and_speaks() {
    let stage = Stage::new();
    TinyModel { dtype: BlockType::F16, hidden: 256, ..TinyModel::default() }.write_gguf(&stage.path("dense.gguf"));
    for (name, held) in [("q8_0", "Q8_0"), ("q4_k", "Q4_K"), ("q4_0", "Q4_0")] {
        let said = succeeded(stage.run(&format!("model quantize dense.gguf {name}.gguf --type {name}"), &[]));
        assert!(said.contains(&format!("{name}.gguf: llama, 1 M parameters, {held}, ")), "{said}");
        succeeded(stage.run(&format!("talk --base {name}.gguf --seed 1"), &["Hello."]));
        succeeded(stage.run(&format!("talk --base dense.gguf --quantize {name} --seed 1"), &["Hello."]));
    }
    let error = failed(stage.run("model quantize dense.gguf q8_0.gguf --type q8_0", &[]));
    assert!(error.contains("q8_0.gguf exists already"), "{error}");
    let error = failed(stage.run("model quantize q4_0.gguf again.gguf --type q4_0", &[]));
    assert!(error.contains("each quantisation adds its error"), "{error}");
}
