use safetensors::{Dtype, tensor::TensorView};

use super::*;

const CONFIG: &str = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "later_key": 1}"#;

/// Tensors as name, shape and a dtype; values count up.
fn weights(tensors: &[(&str, &[usize], Dtype)]) -> Vec<u8> {
    let data: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, shape, dtype)| {
            let values = (0..shape.iter().product::<usize>()).map(|at| at as f32);
            match dtype {
                Dtype::F16 => values.flat_map(|v| half::f16::from_f32(v).to_le_bytes()).collect(),
                Dtype::BF16 => values.flat_map(|v| half::bf16::from_f32(v).to_le_bytes()).collect(),
                _ => values.flat_map(f32::to_le_bytes).collect(),
            }
        })
        .collect();
    let views = tensors.iter().zip(&data).map(|((name, shape, dtype), data)| {
        ((*name).to_owned(), TensorView::new(*dtype, shape.to_vec(), data).unwrap())
    });
    safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()
}

const Q_A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
const Q_B: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";

fn plain() -> Vec<u8> {
    weights(&[(Q_A, &[2, 8], Dtype::F32), (Q_B, &[8, 2], Dtype::F32)])
}

#[test]
fn all_float_types_read_the_same() {
    let f32 = LoraAdapter::parse("a", CONFIG.as_bytes(), &plain()).unwrap();
    for dtype in [Dtype::F16, Dtype::BF16] {
        let bytes = weights(&[(Q_A, &[2, 8], dtype), (Q_B, &[8, 2], dtype)]);
        let other = LoraAdapter::parse("b", CONFIG.as_bytes(), &bytes).unwrap();
        assert_eq!(other.pairs(), f32.pairs());
        assert_eq!(other.hash(), f32.hash());
    }
}

#[test]
fn scaling_follows_pattern_and_rslora() {
    let scaling = |extra: &str| {
        let config = CONFIG.replace("\"later_key\": 1", extra);
        LoraAdapter::parse("a", config.as_bytes(), &plain()).unwrap().pairs()[&(0, Linear::Q)].scaling
    };
    assert_eq!(scaling("\"x\": 0"), 2.0);
    assert_eq!(scaling("\"use_rslora\": true"), 4.0 / 2f32.sqrt());
    assert_eq!(scaling("\"alpha_pattern\": {\"q_proj\": 10}"), 5.0);
    assert_eq!(scaling("\"alpha_pattern\": {\"layers.0.self_attn.q_proj\": 6}"), 3.0);
    assert_eq!(scaling("\"alpha_pattern\": {\"v_proj\": 10}"), 2.0);
    assert_eq!(scaling("\"r\": 9, \"rank_pattern\": {\".*q_proj\": 2}"), 2.0);
}

#[test]
fn what_is_saved_is_read_back_in_both_precisions() {
    let pair = |rank: usize, scaling| {
        let values = |count: usize| (0..count).map(|at| at as f32 / 8.0 - 1.0).collect();
        LoraPair { a: values(rank * 4), b: values(6 * rank), rank, scaling }
    };
    let pairs = [((0, Linear::Q), pair(2, 2.0)), ((0, Linear::Down), pair(3, 2.0)), ((1, Linear::Q), pair(2, 0.5))];
    let adapter = LoraAdapter::from_pairs("it", BTreeMap::from(pairs));
    for precision in [Precision::F32, Precision::F16] {
        let folder = tempfile::tempdir().unwrap();
        adapter.save(folder.path(), "base", precision).unwrap();
        let back = LoraAdapter::open(folder.path()).unwrap();
        assert_eq!(back.pairs(), adapter.pairs(), "{precision:?}");
        assert_eq!(back.hash(), adapter.hash());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left behind");
    }
}

#[test]
fn identity_is_content_and_scale() {
    let one = Arc::new(LoraAdapter::parse("one", CONFIG.as_bytes(), &plain()).unwrap());
    let two = Arc::new(LoraAdapter::parse("two", CONFIG.as_bytes(), &plain()).unwrap());
    assert_eq!(Adapter::new(one.clone()).id(), Adapter::new(two).id());
    assert_ne!(Adapter::new(one.clone()).id(), Adapter { lora: one, scale: 0.5 }.id());
}

fn check_refused(config: &str, tensors: &[u8], says: &[&str]) {
    let error = LoraAdapter::parse("it", config.as_bytes(), tensors).expect_err("refused").to_string();
    for part in says {
        assert!(error.contains(part), "`{error}` does not say `{part}`");
    }
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let with = |field: &str| CONFIG.replace("\"later_key\": 1", field);
    check_refused(&with("\"use_dora\": true"), &plain(), &["use_dora", "DoRA"]);
    check_refused(&with("\"modules_to_save\": [\"lm_head\"]"), &plain(), &["modules_to_save", "lm_head"]);
    check_refused(&CONFIG.replace("\"none\"", "\"all\""), &plain(), &["`bias` is all"]);
    check_refused(&with("\"lora_bias\": true"), &plain(), &["lora_bias"]);
    check_refused(&CONFIG.replace("LORA", "IA3"), &plain(), &["peft_type", "IA3"]);
    check_refused(&CONFIG.replace("\"r\": 2", "\"r\": 3"), &plain(), &["rank 2", "says 3"]);
    check_refused(&CONFIG.replace("\"r\": 2", "\"r\": 1e30"), &plain(), &["`r` is"]);
    check_refused("[]", &plain(), &["not a JSON object"]);
    check_refused("{\"peft_type\": \"LO", &plain(), &["half-written"]);
    check_refused(CONFIG, &plain()[..40], &["adapter_model.safetensors"]);
    check_refused(CONFIG, &[0xff; 64], &["adapter_model.safetensors"]);
    check_refused(CONFIG, &weights(&[]), &["no tensors"]);
    check_refused(CONFIG, &weights(&[(Q_A, &[2, 8], Dtype::F32)]), &["only one of"]);
    let odd =
        |name: &str| weights(&[(Q_A, &[2, 8], Dtype::F32), (Q_B, &[8, 2], Dtype::F32), (name, &[2, 8], Dtype::F32)]);
    for (name, says) in [
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", "DoRA"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "embedding"),
        ("base_model.model.lm_head.lora_A.weight", "head"),
        ("base_model.model.model.layers.0.self_attn.q_proj.bias", "biases"),
        ("base_model.model.model.norm.weight", "whole trained weights"),
        ("base_model.model.model.layers.0.mlp.q_proj.lora_A.weight", "not a known linear"),
        ("base_model.model.model.h.0.self_attn.k_proj.lora_A.weight", "not a known linear"),
    ] {
        check_refused(CONFIG, &odd(name), &[name, says]);
    }
    let integers = weights(&[(Q_A, &[2, 8], Dtype::F32), (Q_B, &[8, 2], Dtype::I32)]);
    check_refused(CONFIG, &integers, &["I32"]);
}

#[test]
fn nan_weights_are_refused_with_their_tensor() {
    let mut bytes = plain();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    check_refused(CONFIG, &bytes, &["1 of 16", "diverged"]);
}

#[test]
fn another_width_is_reported_with_its_numbers() {
    let adapter = LoraAdapter::parse("it", CONFIG.as_bytes(), &plain()).unwrap();
    let mut config = crate::config::tests::tiny();
    config.layers.truncate(1);
    let error = adapter.check_fits(&config).unwrap_err().to_string();
    assert!(error.contains("lora_A has 8 columns, but the base expects 64"), "{error}");
    config.layers.clear();
    assert!(adapter.check_fits(&config).unwrap_err().to_string().contains("the base has 0 layers"));
}

#[test]
fn an_adapter_of_a_gate_does_not_fit_a_family_without_one() {
    let config = crate::testing::TinyModel { architecture: "gpt2", ..Default::default() }.config();
    let pair = |linear: Linear| {
        let (rows, columns) = linear.shape(&config);
        LoraPair { a: vec![0.5; columns], b: vec![0.25; rows], rank: 1, scaling: 2.0 }
    };
    let adapter = |linear| LoraAdapter::from_pairs("it", BTreeMap::from([((1, linear), pair(linear))]));
    let folder = tempfile::tempdir().unwrap();
    let gate = adapter(Linear::Gate);
    assert!(gate.check_fits(&config).unwrap_err().to_string().contains("layer 1 `gate_proj`: the base has none"));
    let error = gate.for_family(config.architecture).save(folder.path(), "gpt2", Precision::F32).unwrap_err();
    assert!(error.to_string().contains("has no gate_proj"), "{error}");
    // `c_proj` alone would name the attention's too.
    let down = adapter(Linear::Down).for_family(config.architecture);
    down.check_fits(&config).unwrap();
    down.save(folder.path(), "gpt2", Precision::F32).unwrap();
    let saved: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(saved["target_modules"], serde_json::json!(["h.1.mlp.c_proj"]));
    assert_eq!(saved["fan_in_fan_out"], true);
    assert_eq!(LoraAdapter::open(folder.path()).unwrap().pairs(), down.pairs());
    let neo = Architecture::by_model_type("gpt_neo").unwrap();
    let config = ModelConfig { architecture: neo, ..config };
    let error = down.save_gguf(&folder.path().join("a.gguf"), &config, Precision::F32).unwrap_err().to_string();
    assert!(error.contains("llama.cpp does not know gpt_neo"), "{error}");
}

#[test]
fn alpha_gives_the_scaling_back_to_the_bit() {
    for rank in 1..=70 {
        for alpha in [1.0, 16.0, 32.0, 0.1, 1e-7, -3.0, 32.0 * (rank as f64).sqrt()] {
            let scaling = (alpha / rank as f64) as f32;
            let pair = LoraPair { a: vec![0.0; rank], b: vec![0.0; rank], rank, scaling };
            assert_eq!((pair.alpha() / rank as f64) as f32, scaling, "alpha {alpha}, rank {rank}");
            if alpha.fract() == 0.0 {
                assert_eq!(pair.alpha(), alpha, "rank {rank}");
            }
        }
    }
}

/// LoRA of rank 16 on q and v in the shape of GPT-Neo 1.3B: 24 layers of two 2048 x 2048 linears. The paper's 13 MB.
#[test]
fn an_adapter_in_the_papers_shape_takes_the_papers_bytes() {
    const BYTES: usize = 24 * 2 * (16 * 2048 + 2048 * 16) * 4;
    assert_eq!(BYTES, 12_582_912);
    let pair = LoraPair { a: vec![0.5; 16 * 2048], b: vec![0.25; 2048 * 16], rank: 16, scaling: 2.0 };
    let keys = (0..24).flat_map(|layer| [(layer, Linear::Q), (layer, Linear::V)]);
    let adapter = LoraAdapter::from_pairs("paper", keys.map(|key| (key, pair.clone())).collect());
    assert_eq!(adapter.num_parameters() * 4, BYTES);
    for (precision, expected) in [(Precision::F32, BYTES), (Precision::F16, BYTES / 2)] {
        let folder = tempfile::tempdir().unwrap();
        adapter.save(folder.path(), "gpt-neo-1.3B", precision).unwrap();
        let file = fs::read(folder.path().join("adapter_model.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        assert_eq!(tensors.iter().map(|(_, tensor)| tensor.data().len()).sum::<usize>(), expected);
        let header = file.len() - expected;
        assert!(header < 16 << 10, "names and shapes take {header} bytes");
    }
}
