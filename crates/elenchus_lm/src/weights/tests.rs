use std::fs;

use serde_json::json;

use super::*;
use crate::{
    gguf::{GgufWriter, Value},
    testing::TinyModel,
};

fn error_of(result: Result<Weights>) -> String {
    result.map(|_| ()).unwrap_err().to_string()
}

/// The tiny model after a change.
fn open_changed(change: impl FnOnce(&mut GgufWriter)) -> Result<Weights> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let mut writer = TinyModel::default().gguf();
    change(&mut writer);
    writer.write(&path).unwrap();
    Weights::open(&path, &mut |_| {})
}

#[test]
fn every_tensor_has_the_shape_the_configuration_asks_for() {
    let weights = open_changed(|_| {}).unwrap();
    assert_eq!(weights.config(), &TinyModel::default().config());
    for name in TensorName::all(weights.config()) {
        assert_eq!(weights.tensor(name).unwrap().shape, name.shape(weights.config()), "{name:?}");
    }
    let error = weights.tensor(TensorName::AttentionNorm(2)).unwrap_err().to_string();
    assert!(error.contains("tensor `blk.2.attn_norm.weight` is missing"), "{error}");
}

#[test]
fn a_gguf_without_a_head_uses_the_embedding() {
    let weights = open_changed(|writer| writer.remove_tensor("output.weight")).unwrap();
    let [head, embedding] = [TensorName::Output, TensorName::TokenEmbedding].map(|name| weights.tensor(name).unwrap());
    assert_eq!(head.bytes.as_ptr(), embedding.bytes.as_ptr());
}

#[test]
fn the_hash_is_sha256_and_progress_ends_at_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    // Wide enough that hashing takes more than one chunk.
    TinyModel { hidden: 512, ..TinyModel::default() }.write_gguf(&path);
    let mut shares = Vec::new();
    let weights = Weights::open(&path, &mut |share| shares.push(share)).unwrap();
    assert_eq!(weights.hash().as_slice(), Sha256::digest(fs::read(&path).unwrap()).as_slice());
    assert!(shares.len() > 1 && shares.is_sorted() && shares.last() == Some(&1.0), "{shares:?}");
}

#[test]
fn a_gguf_that_cannot_be_run_is_refused_by_name() {
    fn check(key: &str, value: impl Into<Value>, expected: &str) {
        let error = error_of(open_changed(|writer| {
            writer.replace(key, value);
        }));
        assert!(error.contains(expected) && error.contains("tiny.gguf"), "{error:?} should hold {expected:?}");
    }
    check("general.architecture", "qwen9", "architecture `qwen9` is not supported");
    check("general.architecture", 3, "`general.architecture` should be a text");
    check("general.type", "adapter", "it is an adapter, not a model (hint: name the base");
    check("general.type", "mmproj", "it is a projector for images");
    check("llama.expert_count", 8, "`llama.expert_count` = Int(8) is not supported");
    check("llama.rope.scaling.type", "linear", "`llama.rope.scaling.type` = String(\"linear\")");
    check("llama.rope.scaling.factor", 4.0, "`llama.rope.scaling.factor` = Float(4.0)");
    check("llama.attention.sliding_window", 128, "`llama.attention.sliding_window`");
    check("llama.rope.dimension_count", 8, "`llama.rope.dimension_count` = 8 in heads of 16");
    check("llama.attention.value_length", 8, "`llama.attention.value_length` = 8 in heads of 16");
    check("llama.block_count", 0, "the number of layers is 0");
    check("llama.block_count", 3, "tensor `blk.2.attn_norm.weight` is missing");
    check("llama.block_count", 1, "tensor `blk.1.attn_norm.weight` is not supported");
    check("llama.block_count", -1, "`llama.block_count` is -1");
    check("llama.block_count", 1_i64 << 40, "the number of layers is 1099511627776");
    check("llama.feed_forward_length", 96, "is [128, 64], but the configuration asks for [96, 64]");
    check("llama.embedding_length", 63, "the embedding length 63 cannot be shared by 4 heads evenly");
    check("llama.feed_forward_length", i64::MAX, "the intermediate size is 9223372036854775807");
    check("llama.attention.head_count", 0, "cannot be shared by 0 heads");
    check("llama.attention.head_count", vec![4, 4], "should be an integer but is an array");
    check("llama.attention.head_count_kv", 0, "the number of key/value heads is 0");
    check("llama.attention.head_count_kv", 3, "4 heads cannot share 3 key/value heads");
    check("llama.attention.head_count_kv", 4, "is [32, 64], but the configuration asks for [64, 64]");
    check("llama.attention.layer_norm_rms_epsilon", f32::NAN, "the epsilon of the norms is NaN");
    check("llama.rope.freq_base", 0.0, "the rotary base is 0");
    check("llama.context_length", 0, "the context length is 0");
}

#[test]
fn keys_that_change_nothing_are_accepted() {
    let open = |key: &str, value: Value| {
        open_changed(|writer| {
            writer.set(key, value);
        })
        .unwrap()
    };
    open("llama.expert_count", 0.into());
    open("llama.rope.scaling.type", "none".into());
    open("llama.attention.key_length", 16.into());
    open("llama.a_key_of_tomorrow", vec![1, 2].into());
}

#[test]
fn tensors_too_few_or_too_many_are_named() {
    let check = |change: &dyn Fn(&mut GgufWriter), expected: &str| {
        let error = error_of(open_changed(change));
        assert!(error.contains(expected), "{error:?} should hold {expected:?}");
    };
    for name in ["token_embd.weight", "output_norm.weight", "blk.1.ffn_down.weight"] {
        check(&|writer| writer.remove_tensor(name), &format!("tensor `{name}` is missing"));
    }
    let extra = |name: &'static str| {
        move |writer: &mut GgufWriter| {
            writer.tensor(name, &[8], BlockType::F32, vec![0; 32]);
        }
    };
    check(&extra("rope_freqs.weight"), "the rotary factor is 0, but must be a positive number");
    check(&extra("blk.0.attn_q_norm.weight"), "tensor `blk.0.attn_q_norm.weight` is not supported");
    check(&extra("blk.0.attn_q.bias"), "tensor `blk.0.attn_q.bias` is [8], but the configuration asks for [64]");
}

#[test]
fn a_family_with_biases_is_read_with_them_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let model = TinyModel { architecture: "qwen2", ..TinyModel::default() };
    model.write_gguf(&path);
    assert_eq!(Weights::open(&path, &mut |_| {}).unwrap().config(), &model.config());
    let mut writer = model.gguf();
    writer.remove_tensor("blk.1.attn_v.bias");
    writer.write(&path).unwrap();
    let error = error_of(Weights::open(&path, &mut |_| {}));
    assert!(error.contains("tensor `blk.1.attn_v.bias` is missing"), "{error}");
}

#[test]
fn parts_of_a_fused_tensor_are_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let model = TinyModel { architecture: "phi3", ..TinyModel::default() };
    model.write_gguf(&path);
    let weights = Weights::open(&path, &mut |_| {}).unwrap();
    assert_eq!(weights.config(), &model.config());
    let gguf = Gguf::open(&path).unwrap();
    for (name, parts) in [("attn_qkv", &Linear::ALL[..3]), ("ffn_up", &Linear::ALL[4..6])] {
        let (info, whole) = gguf.tensor(&format!("blk.1.{name}.weight")).unwrap();
        let parts: Vec<_> =
            parts.iter().map(|&linear| weights.tensor(TensorName::Linear(1, linear)).unwrap()).collect();
        assert_eq!(parts.iter().map(|part| part.shape[0]).sum::<usize>(), info.shape[0]);
        assert!(parts.iter().flat_map(|part| part.bytes.iter()).eq(whole), "{name}");
    }
    // LongRoPE's short factors, at the context they are for.
    let mut writer = model.gguf();
    for (name, factor) in [("rope_factors_short.weight", 1.5f32), ("rope_factors_long.weight", 9.0)] {
        writer.tensor(name, &[6], BlockType::F32, factor.to_le_bytes().repeat(6));
    }
    writer.set("phi3.rope.scaling.attn_factor", 1.25).set("phi3.rope.scaling.original_context_length", 1024);
    writer.write(&path).unwrap();
    let long = Weights::open(&path, &mut |_| {}).unwrap();
    let ModelConfig { rope_factors, rope_magnitude, max_positions, .. } = long.config();
    assert_eq!((rope_factors.as_slice(), *rope_magnitude, *max_positions), ([1.5; 6].as_slice(), 1.25, 1024));
    let mut writer = model.gguf();
    writer.replace("phi3.attention.head_count_kv", 4);
    writer.write(&path).unwrap();
    let error = error_of(Weights::open(&path, &mut |_| {}));
    assert!(error.contains("tensor `blk.0.attn_qkv.weight` is [128, 64], but the configuration asks for [192, 64]"));
}

#[test]
fn a_path_that_holds_no_model_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let check = |path: &Path, expected: &str| {
        let error = error_of(Weights::open(path, &mut |_| {}));
        assert!(error.contains(expected), "{error:?} should hold {expected:?}");
    };
    let file = folder.path().join("model.gguf");
    check(&file, "model.gguf: No such file");
    fs::write(&file, b"").unwrap();
    check(&file, "the file is empty");
    fs::write(&file, b"PK\x03\x04 something else").unwrap();
    check(&file, "does not start with `GGUF`");
    check(
        folder.path(),
        "the folder has no config.json, no tokenizer.json, no *.safetensors (hint: name a `.gguf` file",
    );
    fs::write(folder.path().join("tokenizer.json"), b"{}").unwrap();
    fs::write(folder.path().join("model.safetensors"), b"").unwrap();
    check(folder.path(), "the folder has no config.json (hint: ");
    fs::write(folder.path().join("adapter_config.json"), b"{}").unwrap();
    check(folder.path(), "name the base it was trained on");
}

/// A Hugging Face folder of the tiny shape with zero weights; `tied` leaves the head out.
fn write_folder(folder: &Path, tied: bool, change: impl FnOnce(&mut serde_json::Value)) {
    let config = TinyModel::default().config();
    let mut json = json!({
        "model_type": "llama", "vocab_size": config.vocab_size, "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size, "num_hidden_layers": config.num_layers(),
        "num_attention_heads": config.num_heads, "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim, "max_position_embeddings": 64, "tie_word_embeddings": tied,
    });
    change(&mut json);
    fs::write(folder.join("config.json"), json.to_string()).unwrap();
    let tensors: Vec<_> = TensorName::all(&config)
        .into_iter()
        .filter(|&name| !(tied && name == TensorName::Output))
        .map(|name| (config.architecture.hf_names.name(name), name.shape(&config)))
        .collect();
    let zeros = vec![0u8; tensors.iter().map(|(_, shape)| 2 * shape.iter().product::<usize>()).max().unwrap()];
    let views = tensors.iter().map(|(name, shape)| {
        let bytes = &zeros[..2 * shape.iter().product::<usize>()];
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, shape.clone(), bytes).unwrap())
    });
    fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn a_hugging_face_folder_is_read_tied_and_untied() {
    for tied in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        write_folder(folder.path(), tied, |_| {});
        let weights = Weights::open(folder.path(), &mut |_| {}).unwrap();
        for name in TensorName::all(weights.config()) {
            let tensor = weights.tensor(name).unwrap();
            assert_eq!((tensor.shape, tensor.dtype), (name.shape(weights.config()), BlockType::BF16));
        }
        let [head, embedding] =
            [TensorName::Output, TensorName::TokenEmbedding].map(|name| weights.tensor(name).unwrap().bytes.as_ptr());
        assert_eq!(head == embedding, tied);
        let file_hash = Sha256::digest(fs::read(folder.path().join("model.safetensors")).unwrap());
        assert_eq!(weights.hash().as_slice(), Sha256::digest(file_hash).as_slice());
    }
}

/// As the first checkpoints of GPT-2 lie on Hugging Face: saved without the head, so without `transformer.`, with the causal
/// mask, and with a row for each input.
#[test]
fn a_folder_of_gpt_2_is_read_without_its_first_name_and_transposed() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "model_type": "gpt2", "vocab_size": 5, "n_embd": 4, "n_head": 2, "n_layer": 1, "n_positions": 3,
        "activation_function": "gelu_new",
    });
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let write = |extra: &[(&str, &[usize])]| {
        let mut tensors: Vec<(&str, &[usize])> = vec![
            ("wte.weight", &[5, 4]),
            ("wpe.weight", &[3, 4]),
            ("h.0.attn.bias", &[1, 1, 3, 3]),
            ("h.0.attn.c_attn.weight", &[4, 12]),
            ("h.0.attn.c_attn.bias", &[12]),
            ("h.0.attn.c_proj.weight", &[4, 4]),
            ("h.0.mlp.c_fc.weight", &[4, 16]),
            ("h.0.mlp.c_fc.bias", &[16]),
            ("h.0.mlp.c_proj.weight", &[16, 4]),
        ];
        for vector in [
            "ln_f.weight",
            "ln_f.bias",
            "h.0.ln_1.weight",
            "h.0.ln_1.bias",
            "h.0.ln_2.weight",
            "h.0.ln_2.bias",
            "h.0.attn.c_proj.bias",
            "h.0.mlp.c_proj.bias",
        ] {
            tensors.push((vector, &[4]));
        }
        tensors.extend(extra);
        let counting: Vec<u8> = (0..64).flat_map(|at| (at as f32).to_le_bytes()).collect();
        let views = tensors.iter().map(|&(name, shape)| {
            let bytes = &counting[..4 * shape.iter().product::<usize>()];
            (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes).unwrap())
        });
        fs::write(folder.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
        Weights::open(folder.path(), &mut |_| {})
    };
    let weights = write(&[]).unwrap();
    let values = |name| weights.tensor(name).unwrap().dequantise();
    // Row r, column c of the file is 12 r + c; keys are its columns 4 to 7.
    let keys: Vec<f32> = (4..8).flat_map(|column| (0..4).map(move |row| (12 * row + column) as f32)).collect();
    assert_eq!(values(TensorName::Linear(0, Linear::K)), keys);
    assert_eq!(values(TensorName::Bias(0, Linear::V)), [8.0, 9.0, 10.0, 11.0]);
    let down = weights.tensor(TensorName::Linear(0, Linear::Down)).unwrap();
    assert_eq!((down.shape.as_slice(), down.dequantise()[1]), ([4, 16].as_slice(), 4.0));
    assert_eq!(weights.norm_bias(TensorName::OutputNorm).unwrap().unwrap(), [0.0, 1.0, 2.0, 3.0]);
    let error = error_of(write(&[("h.0.crossattention.c_attn.weight", &[4, 12])]));
    assert!(error.contains("tensor `h.0.crossattention.c_attn.weight` is not supported"), "{error}");
}

#[test]
fn a_folder_whose_head_is_missing_or_whose_shapes_differ_is_an_error() {
    let check = |tied: bool, change: &dyn Fn(&mut serde_json::Value), expected: &str| {
        let folder = tempfile::tempdir().unwrap();
        write_folder(folder.path(), tied, change);
        let error = error_of(Weights::open(folder.path(), &mut |_| {}));
        assert!(error.contains(expected), "{error:?} should hold {expected:?}");
    };
    check(true, &|json| json["tie_word_embeddings"] = false.into(), "tensor `lm_head.weight` is missing");
    check(false, &|json| json["vocab_size"] = 260.into(), "is [259, 64], but the configuration asks for [260, 64]");
    check(false, &|json| json["num_hidden_layers"] = 1.into(), "tensor `model.layers.1.input_layernorm.weight`");
    check(false, &|json| json["num_hidden_layers"] = 3.into(), "`model.layers.2.input_layernorm.weight` is missing");
}
