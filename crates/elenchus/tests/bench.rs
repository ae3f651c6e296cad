//! `elenchus bench`: every figure is present and positive, as a table and as JSON; what cannot be measured is refused.

#[expect(dead_code, reason = "each test binary uses its part")]
mod common;

use std::fs;

use common::{Stage, failed, succeeded};
use elenchus_lm::testing::TinyModel;
use serde_json::{Value, json};

const SHORT: &str = "bench --base tiny.gguf --repetitions 1 --prompt 40 --gen 3";

#[test]
fn every_figure_is_there_and_positive() {
    let stage = Stage::new();
    for (seed, id) in [(1, "socrates"), (2, "hippias")] {
        TinyModel::default().write_adapter(&stage.path("adapters").join(id), seed);
    }
    let run = |more: &str| -> Value {
        let printed = succeeded(stage.run(&format!("{SHORT} --json {more}"), &[]));
        assert_eq!(printed.lines().count(), 1, "{printed}");
        serde_json::from_str(&printed).unwrap()
    };
    // As `talk` finds characters, except for one that has no adapter.
    fs::create_dir(stage.path("adapters/olive_seller")).unwrap();
    fs::write(stage.path("adapters/olive_seller/character.toml"), "version = 1").unwrap();
    let report = run("--sequences 3 --threads 1");
    for figure in [
        "/machine/threads",
        "/machine/cores",
        "/machine/read_gb_per_second",
        "/base/file_bytes",
        "/base/load_seconds",
        "/base/packed_bytes",
        "/base/bytes_per_token",
        "/prefill_tokens_per_second",
        "/decode/tokens_per_second",
        "/decode/weights_gb_per_second",
        "/decode/percent_of_read_bandwidth",
        "/decode_with_adapter/tokens_per_second",
        "/decode_with_adapter/weights_gb_per_second",
        "/decode_with_adapter/percent_of_read_bandwidth",
        "/decode_together/tokens_per_second",
        "/decode_together/tokens_per_second_per_stream",
        "/first_token/warm_ms",
        "/first_token/cold_ms",
        "/kv/f16_bytes_per_token",
        "/kv/int8_bytes_per_token",
    ] {
        let value = report.pointer(figure).and_then(Value::as_f64);
        assert!(value.is_some_and(|value| value.is_finite() && value > 0.0), "{figure} in {report}");
    }
    for (name, expected) in [
        ("/machine/threads", json!(1)),
        ("/base/file", json!("tiny.gguf")),
        ("/base/file_bytes", json!(fs::metadata(stage.path("tiny.gguf")).unwrap().len())),
        ("/repetitions", json!(1)),
        ("/prompt_tokens", json!(40)),
        ("/reply_tokens", json!(3)),
        ("/decode_together/sequences", json!(3)),
        ("/first_token/line_tokens", json!(30)),
        ("/kv/form", json!("f16")),
    ] {
        assert_eq!(report.pointer(name), Some(&expected), "{name}");
    }
    assert!(!report["machine"]["instruction_set"].as_str().unwrap().is_empty());
    assert_eq!(report["base"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(report["adapters"], json!(["hippias", "socrates"]));
    assert_eq!(report["decode_with_adapter"]["adapter"], "hippias");
    let together = &report["decode_together"];
    let of = |name: &str| together[name].as_f64().unwrap();
    assert!((of("tokens_per_second") / of("tokens_per_second_per_stream") - 3.0).abs() < 1e-9, "{together}");
    if cfg!(target_os = "linux") {
        assert!(report["resident_bytes"].as_u64().unwrap() > 1 << 20);
    }

    // The same sizes whichever form is in use; without an adapter none is reported.
    let bare = run("--sequences 1 --threads 1 --kv int8 --adapters none");
    assert_eq!(bare["kv"]["form"], "int8");
    for form in ["f16_bytes_per_token", "int8_bytes_per_token"] {
        assert_eq!(bare["kv"][form], report["kv"][form]);
    }
    assert!(bare["kv"]["int8_bytes_per_token"].as_u64() < bare["kv"]["f16_bytes_per_token"].as_u64());
    assert_eq!(bare["adapters"], json!([]));
    assert!(bare.get("decode_with_adapter").is_none(), "{bare}");
}

#[test]
fn the_table_is_readable() {
    let text = succeeded(Stage::new().run(&format!("{SHORT} --adapters voice --sequences 2"), &[]));
    for words in [
        "machine ",
        "tiny.gguf",
        "adapters      voice\n",
        "reading 40 tokens",
        "one stream, no adapter: ",
        "one stream, in voice: ",
        "2 streams together",
        "30 tokens after 40 cached ones",
        "cold: all 70\n",
        "bytes a token as f16",
        "medians of 1.",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused_by_name() {
    let stage = Stage::new();
    let other = TinyModel { hidden: 128, ..TinyModel::default() };
    other.write_adapter(&stage.path("wide"), 1);
    let check = |arguments: &str, says: &[&str]| {
        let error = failed(stage.run(&format!("bench --base tiny.gguf {arguments}"), &[]));
        for part in says {
            assert!(error.contains(part), "{arguments} gave: {error}");
        }
    };
    check("--threads 0", &["--threads", "0 is not in 1.."]);
    check("--threads 65535", &["--threads 65535", "cores", "hint"]);
    check("--sequences 0", &["--sequences", "0 is not in 1.."]);
    check("--prompt 0", &["--prompt", "0 is not in 1.."]);
    check("--gen 0", &["--gen", "0 is not in 1.."]);
    check("--repetitions 0", &["--repetitions", "0 is not in 1.."]);
    check("--kv f32", &["--kv", "f16, int8"]);
    check("--adapters none --prompt 5000", &["--prompt of 5000", "64 after it", "4096 tokens of tiny.gguf", "hint"]);
    check("--adapters none --prompt 4067 --gen 1", &["4067 tokens and 30 after it", "4096", "hint"]);
    check("--adapters voice,wide", &["wide", "lora_A has 128 columns", "expects 64", "--adapters none"]);
    check("--adapters voice,nowhere", &["nowhere"]);
    // Its characters have no adapters, and then there are no characters.
    check("", &["adapters", "has an adapter", "--adapters none"]);
    fs::remove_dir_all(stage.path("adapters")).unwrap();
    check("", &["no characters found", "--adapters none"]);
    let error = failed(stage.run("bench --base no.gguf --adapters none", &[]));
    assert!(error.contains("no.gguf does not exist"), "{error}");
}
