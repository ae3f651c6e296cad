//! `elenchus adapter`: what it writes, and that peft and llama.cpp read it in the same way.
//!
//! The comparisons with other programs need Python (`--ignored`); they set up their own and fail if they cannot. For
//! this they build llama.cpp from source, which takes a quarter of an hour once.

#[expect(dead_code, reason = "each test binary uses its part")]
mod common;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use common::{Stage, failed, succeeded, workspace};
use elenchus_lm::{
    BlockType, Linear, LoraAdapter, LoraPair, Precision,
    gguf::{Gguf, GgufWriter},
    testing::TinyModel,
};
use safetensors::SafeTensors;

/// f32 sums in another order.
const TOLERANCE: f32 = 5e-4;

const IDS: [&[u32]; 3] = [&[72, 105, 33], &[65], &[66, 67, 68, 69, 257, 10, 200, 3, 99, 99, 99, 42]];

/// A folder `odd` whose pairs differ in everything: some linears of some layers, three ranks, three alphas.
fn write_odd_adapter(stage: &Stage) {
    let config = TinyModel::default().config();
    let pair = |linear: Linear, rank: usize, scaling: f32| {
        let (rows, columns) = linear.shape(&config);
        let values =
            |count: usize, step: usize| (0..count).map(|at| ((at * step) % 17) as f32 / 64.0 - 0.125).collect();
        LoraPair { a: values(rank * columns, 5), b: values(rows * rank, 7), rank, scaling }
    };
    let pairs = BTreeMap::from([
        ((0, Linear::Q), pair(Linear::Q, 3, 16.0 / 3.0)),
        ((0, Linear::Gate), pair(Linear::Gate, 8, 2.0)),
        ((1, Linear::K), pair(Linear::K, 8, 2.0)),
        ((1, Linear::O), pair(Linear::O, 5, 4.0 / 5f32.sqrt())),
        ((1, Linear::Down), pair(Linear::Down, 8, -1.0)),
    ]);
    LoraAdapter::from_pairs("odd", pairs).save(&stage.path("odd"), "tiny", Precision::F32).unwrap();
}

fn hash(folder: &Path) -> [u8; 32] {
    LoraAdapter::open(folder).unwrap().hash()
}

/// Our exact logits after each list of ids, one after the other.
fn our_logits(stage: &Stage, base: &str, adapter: Option<&str>) -> Vec<f32> {
    fs::write(stage.path("ids.json"), serde_json::to_string(&IDS).unwrap()).unwrap();
    let flag = adapter.map_or(String::new(), |adapter| format!("--adapter {adapter}"));
    let rest = "--ids-file ids.json --numerics exact --executor candle --out ours.safetensors";
    succeeded(stage.run(&format!("model logits --base {base} {flag} {rest}"), &[]));
    let bytes = fs::read(stage.path("ours.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    (0..IDS.len()).flat_map(|at| floats(file.tensor(&format!("last_{at}")).unwrap().data())).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

fn largest_difference(x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len());
    // `max` would ignore a NaN.
    let differences = x.iter().zip(y).map(|(x, y)| (x - y).abs());
    differences.inspect(|difference| assert!(!difference.is_nan(), "NaN")).fold(0.0, f32::max)
}

#[test]
fn an_exported_adapter_is_imported_as_it_was() {
    let stage = Stage::new();
    write_odd_adapter(&stage);
    let round = |folder: &str, flags: &str| {
        let exported =
            succeeded(stage.run(&format!("adapter export {folder} --gguf a.gguf --base tiny.gguf {flags}"), &[]));
        assert!(exported.contains("a.gguf") && exported.contains("tiny.gguf"), "{exported}");
        succeeded(stage.run(&format!("adapter import a.gguf back --base tiny.gguf {flags}"), &[]));
    };
    round("voice", "--f32");
    assert_eq!(hash(&stage.path("back")), hash(&stage.path("voice")));
    round("voice", "");
    assert_ne!(hash(&stage.path("back")), hash(&stage.path("voice")), "f16 rounds");
    // Where one alpha is not enough, B carries the rest and the update stays.
    round("odd", "--f32");
    assert_ne!(hash(&stage.path("back")), hash(&stage.path("odd")));
    let difference = largest_difference(
        &our_logits(&stage, "tiny.gguf", Some("back")),
        &our_logits(&stage, "tiny.gguf", Some("odd")),
    );
    assert!(difference < 1e-5, "{difference}");
}

#[test]
fn a_merged_adapter_speaks_as_the_sum() {
    let stage = Stage::new();
    write_odd_adapter(&stage);
    let shown = succeeded(stage.run("adapter merge sum odd=0.5 voice odd=-0.5 --f32", &[]));
    assert!(shown.contains("rank        4, 10, 16"), "{shown}");
    let difference = largest_difference(
        &our_logits(&stage, "tiny.gguf", Some("sum")),
        &our_logits(&stage, "tiny.gguf", Some("voice")),
    );
    assert!(difference < 1e-4, "{difference}");
    let error = failed(stage.run("adapter merge voice voice odd", &[]));
    assert!(error.contains("voice is one of the adapters"), "{error}");
    let error = failed(stage.run("adapter merge sum voice=0", &[]));
    assert!(error.contains("voice") && error.contains("weight is 0"), "{error}");
}

#[test]
fn diff_tells_what_is_where_and_how_far_apart() {
    let stage = Stage::new();
    write_odd_adapter(&stage);
    let shown = succeeded(stage.run("adapter diff voice odd", &[]));
    for words in
        ["only first  v_proj in layers 0, 1", "only first  q_proj in layers 1", "only second down_proj in layers 1"]
    {
        assert!(shown.contains(words), "{words:?} is not in {shown}");
    }
    let json = |arguments: &str| -> serde_json::Value {
        serde_json::from_str(&succeeded(stage.run(&format!("adapter diff {arguments} --json"), &[]))).unwrap()
    };
    let same = json("voice voice");
    assert_eq!(same["total"]["relative"], 0.0);
    assert_eq!(same["only_first"], serde_json::json!([]));
    assert_eq!(same["layers"].as_object().unwrap().len(), 4);
    succeeded(stage.run("adapter merge louder voice=1.5 --f32", &[]));
    let louder = json("louder voice");
    for part in [&louder["total"], &louder["linears"]["q_proj"], &louder["layers"]["layers.1.self_attn.v_proj"]] {
        let number = |name: &str| part[name].as_f64().unwrap();
        assert!((number("relative") - 0.5).abs() < 1e-6 && (number("cosine") - 1.0).abs() < 1e-6, "{part}");
    }
    assert_eq!(json("voice odd")["layers"]["layers.1.self_attn.v_proj"]["relative"], serde_json::Value::Null);
}

#[test]
fn bad_files_end_with_code_1_and_are_named() {
    let stage = Stage::new();
    fs::write(stage.path("words.gguf"), "no model").unwrap();
    let check = |arguments: &str, expected: &[&str]| {
        let error = failed(stage.run(arguments, &[]));
        for words in expected {
            assert!(error.contains(words), "{arguments} gave: {error}");
        }
    };
    check("adapter export adapters --gguf a.gguf --base tiny.gguf", &["adapters", "adapter_config.json"]);
    check("adapter export voice --gguf tiny.gguf --base tiny.gguf", &["tiny.gguf is the base model itself"]);
    check("adapter export voice --gguf a.gguf --base words.gguf", &["words.gguf"]);
    check("adapter import tiny.gguf back --base tiny.gguf", &["tiny.gguf", "general.type"]);
    check("adapter import words.gguf back --base tiny.gguf", &["words.gguf"]);
    check("adapter diff voice adapters", &["adapters"]);
    check("adapter merge sum adapters", &["adapters"]);
    TinyModel { hidden: 128, ..TinyModel::default() }.write_gguf(&stage.path("wide.gguf"));
    check("adapter export voice --gguf a.gguf --base wide.gguf", &["64 columns", "expects 128", "another base model"]);
    assert!(!stage.path("a.gguf").exists() && !stage.path("back").exists() && !stage.path("sum").exists());
}

/// The python of an environment that a script sets up.
fn python(script: &str) -> String {
    let script = workspace().join(script);
    let output = Command::new(&script).stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    assert!(output.status.success(), "{}: {}", script.display(), output.status);
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn run_python(python: &str, stage: &Stage, script: &str, arguments: &str) -> Output {
    let mut command = Command::new(python);
    command.arg(workspace().join(script).canonicalize().unwrap()).args(arguments.split_whitespace());
    command.current_dir(stage.path("")).output().unwrap()
}

#[track_caller]
fn check_near(what: &str, theirs: &[f32], ours: &[f32], tolerance: f32) {
    let difference = largest_difference(theirs, ours);
    println!("{what}: largest difference {difference:.2e}");
    assert!(difference < tolerance, "{what}: {difference}");
}

#[test]
#[ignore = "needs Python"]
fn peft_reads_our_adapters_and_we_read_its() {
    let python = python("tools/python/venv");
    let stage = Stage::new();
    write_odd_adapter(&stage);
    succeeded(stage.run("adapter merge sum odd=0.75 voice --f32", &[]));
    let base = our_logits(&stage, "tiny.gguf", None);
    let arguments = "tiny.gguf ids.json out voice odd sum";
    succeeded(run_python(&python, &stage, "tools/python/peft_round_trip.py", arguments));
    let theirs = |name: &str| floats(&fs::read(stage.path(&format!("out/{name}.f32"))).unwrap());
    check_near("base", &theirs("base"), &base, TOLERANCE);
    for (name, adapter) in [("0", "voice"), ("1", "odd"), ("2", "sum"), ("plain", "out/plain"), ("mixed", "out/mixed")]
    {
        let ours = our_logits(&stage, "tiny.gguf", Some(adapter));
        assert!(largest_difference(&ours, &base) > 0.05, "{adapter} changes nothing, so nothing is compared");
        check_near(adapter, &theirs(name), &ours, TOLERANCE);
    }
}

/// The tiny model with dense weights: llama.cpp rounds activations to 8 bits before it multiplies by blocks.
fn write_dense_model(from: &Path, to: &Path) {
    let file = Gguf::open(from).unwrap();
    let mut writer = GgufWriter::new();
    for (key, value) in file.metadata() {
        writer.set(key, value.clone());
    }
    for (name, info) in file.tensors() {
        let (_, bytes) = file.tensor(name).unwrap();
        let values = info.dtype.dequantise(bytes);
        writer.tensor(name, &info.shape, BlockType::F32, values.into_iter().flat_map(f32::to_le_bytes).collect());
    }
    writer.write(to).unwrap();
}

#[test]
#[ignore = "needs Python"]
fn llama_cpp_speaks_with_our_exported_adapters() {
    let python = python("tools/llama_cpp/venv");
    let stage = Stage::new();
    write_odd_adapter(&stage);
    write_dense_model(&stage.path("tiny.gguf"), &stage.path("dense.gguf"));
    let base = our_logits(&stage, "dense.gguf", None);
    let theirs = |adapter: &str| {
        succeeded(run_python(
            &python,
            &stage,
            "tools/llama_cpp/logits.py",
            &format!("dense.gguf ids.json theirs.f32 {adapter}"),
        ));
        floats(&fs::read(stage.path("theirs.f32")).unwrap())
    };
    check_near("base", &theirs(""), &base, TOLERANCE);
    for adapter in ["voice", "odd"] {
        succeeded(stage.run(&format!("adapter export {adapter} --gguf a.gguf --base dense.gguf --f32"), &[]));
        let ours = our_logits(&stage, "dense.gguf", Some(adapter));
        assert!(largest_difference(&ours, &base) > 0.05, "{adapter} changes nothing, so nothing is compared");
        check_near(adapter, &theirs("a.gguf"), &ours, TOLERANCE);
        succeeded(stage.run(&format!("adapter export {adapter} --gguf a.gguf --base dense.gguf"), &[]));
        // llama.cpp rounds what enters f16 weights to f16 too.
        check_near(&format!("{adapter} in f16"), &theirs("a.gguf"), &ours, 0.02);
    }
}
