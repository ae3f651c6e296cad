//! The AIRL paper's reader: a BERT classifier of sentiment in five stars, out of any Hugging Face folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use candle_core::{D, DType, Device, Tensor};
use candle_nn::{Linear, Module, VarBuilder};
use candle_transformers::models::bert::{BertModel, Config};
use serde_json::Value;
use tokenizers::{
    Tokenizer, TruncationParams, models::wordpiece::WordPiece, normalizers::BertNormalizer,
    pre_tokenizers::bert::BertPreTokenizer, processors::bert::BertProcessing,
};

use super::{Opinion, VerdictReader};
use crate::{Error, Result};

/// Classes such a classifier has: stars from one to five.
const STARS: usize = 5;

/// `BertForSequenceClassification` with five classes, on the CPU in f32.
pub struct Sentiment {
    model: BertModel,
    pooler: Linear,
    classifier: Linear,
    tokenizer: Tokenizer,
}

impl Sentiment {
    /// Reads `config.json`, `model.safetensors`, and `tokenizer.json` or `vocab.txt`.
    pub fn open(folder: &Path) -> Result<Self> {
        let fail = |file: &str, reason: String| Error::Classifier { file: folder.join(file), reason };
        let json = |file: &str| -> Result<Value> {
            let text = read(folder, file)?;
            serde_json::from_str(&text).map_err(|error| fail(file, format!("{error} (hint: half-written?)")))
        };
        let config = json("config.json")?;
        let kind = config["architectures"][0].as_str().unwrap_or("missing");
        if kind != "BertForSequenceClassification" {
            return Err(fail(
                "config.json",
                format!(
                    "`architectures` is {kind}, expected BertForSequenceClassification (hint: a five-star classifier)"
                ),
            ));
        }
        let labels = config["id2label"].as_object().map_or(0, serde_json::Map::len);
        if labels != STARS {
            return Err(fail(
                "config.json",
                format!("`id2label` names {labels} classes, expected {STARS}: one to five stars, in this order"),
            ));
        }
        let config: Config = serde_json::from_value(config).map_err(|error| fail("config.json", error.to_string()))?;

        let weights = "model.safetensors";
        let model_file = folder.join(weights);
        if !model_file.is_file() {
            return Err(fail(weights, "is missing (hint: pytorch_model.bin has to be saved as safetensors)".into()));
        }
        let unfit = |error: candle_core::Error| fail(weights, error.to_string());
        let tensors = candle_core::safetensors::load(&model_file, &Device::Cpu).map_err(unfit)?;
        let vars = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let hidden = config.hidden_size;
        let pooler = candle_nn::linear(hidden, hidden, vars.pp("bert.pooler.dense")).map_err(unfit)?;
        let classifier = candle_nn::linear(hidden, STARS, vars.pp("classifier")).map_err(unfit)?;
        let model = BertModel::load(vars.pp("bert"), &config).map_err(unfit)?;

        let mut tokenizer = if folder.join("tokenizer.json").is_file() {
            Tokenizer::from_file(folder.join("tokenizer.json"))
                .map_err(|error| fail("tokenizer.json", error.to_string()))?
        } else {
            let settings = if folder.join("tokenizer_config.json").is_file() {
                json("tokenizer_config.json")?
            } else {
                Value::Null
            };
            word_pieces(folder, settings["do_lower_case"].as_bool().unwrap_or(true))?
        };
        let known = tokenizer.get_vocab_size(true);
        if known > config.vocab_size {
            let reason = format!("the tokenizer knows {known} tokens, the model {}", config.vocab_size);
            return Err(fail("config.json", format!("{reason} (hint: do the files belong together?)")));
        }
        let truncation = TruncationParams { max_length: config.max_position_embeddings, ..Default::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(|error| fail("tokenizer.json", error.to_string()))?;
        tokenizer.with_padding(None);
        Ok(Self { model, pooler, classifier, tokenizer })
    }

    /// Logits of one to five stars, of a text as token ids and segment ids.
    pub fn logits(&self, ids: &[u32], types: &[u32]) -> Result<Vec<f32>> {
        let row = |values: &[u32]| Tensor::new(values, &Device::Cpu)?.unsqueeze(0);
        let hidden = self.model.forward(&row(ids)?, &row(types)?, None)?;
        let first = hidden.narrow(1, 0, 1)?.squeeze(1)?;
        let pooled = self.pooler.forward(&first)?.tanh()?;
        Ok(self.classifier.forward(&pooled)?.squeeze(0)?.to_vec1()?)
    }
}

impl VerdictReader for Sentiment {
    fn name(&self) -> &str {
        "sentiment"
    }

    fn read(&self, verdict: &str) -> Result<Option<Opinion>> {
        if verdict.trim().is_empty() {
            return Ok(None);
        }
        let encoding = self.tokenizer.encode(verdict, true).map_err(|error| Error::Tokenizer(error.to_string()))?;
        let logits = Tensor::new(self.logits(encoding.get_ids(), encoding.get_type_ids())?, &Device::Cpu)?;
        let stars = logits.argmax(D::Minus1)?.to_scalar::<u32>()? + 1;
        Ok(Some(Opinion::from_stars(f64::from(stars))))
    }
}

fn read(folder: &Path, file: &str) -> Result<String> {
    let file: PathBuf = folder.join(file);
    fs::read_to_string(&file).map_err(|cause| Error::File { file, cause, hint: "" })
}

/// BERT's own tokenizer, of folders older than `tokenizer.json`.
fn word_pieces(folder: &Path, lower_case: bool) -> Result<Tokenizer> {
    let fail = |reason: String| Error::Classifier { file: folder.join("vocab.txt"), reason };
    read(folder, "vocab.txt")?;
    let path = folder.join("vocab.txt");
    let model = WordPiece::from_file(&path.to_string_lossy())
        .unk_token("[UNK]".into())
        .build()
        .map_err(|error| fail(error.to_string()))?;
    let mut tokenizer = Tokenizer::new(model);
    let special = |token: &str| {
        let id = tokenizer.token_to_id(token);
        id.map(|id| (token.to_owned(), id)).ok_or_else(|| fail(format!("has no {token}")))
    };
    let (end, begin) = (special("[SEP]")?, special("[CLS]")?);
    special("[UNK]")?;
    let normalizer = BertNormalizer::new(true, true, None, lower_case);
    tokenizer.with_normalizer(Some(normalizer)).map_err(|error| fail(error.to_string()))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_post_processor(Some(BertProcessing::new(end, begin)));
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;

    /// A classifier that hears one word: "splendid" lights the fifth class, everything else the first.
    fn write_classifier(folder: &Path) {
        let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "reply", "splend", "##id", ".", "dull"];
        fs::write(folder.join("vocab.txt"), words.join("\n")).unwrap();
        let config = json!({
            "architectures": ["BertForSequenceClassification"], "model_type": "bert", "vocab_size": 10,
            "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
            "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "max_position_embeddings": 12, "type_vocab_size": 2,
            "initializer_range": 0.02, "layer_norm_eps": 1e-12, "pad_token_id": 0,
            "id2label": {"0": "1 star", "1": "2 stars", "2": "3 stars", "3": "4 stars", "4": "5 stars"},
        });
        fs::write(folder.join("config.json"), config.to_string()).unwrap();
        let mut tensors = HashMap::new();
        let mut put = |name: &str, shape: &[usize], value: &dyn Fn(usize) -> f32| {
            let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
            tensors.insert(name.to_owned(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
        };
        let zero = |_| 0.0;
        let eye = |at: usize| f32::from(u8::from(at / 8 == at % 8));
        // The first number of a token says whether it is "##id"; [CLS] is told by attention, which looks at all alike.
        put("bert.embeddings.word_embeddings.weight", &[10, 8], &|at| if at == 7 * 8 { 40.0 } else { 0.0 });
        put("bert.embeddings.position_embeddings.weight", &[12, 8], &zero);
        put("bert.embeddings.token_type_embeddings.weight", &[2, 8], &zero);
        for norm in ["embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"] {
            put(&format!("bert.{norm}.LayerNorm.weight"), &[8], &|_| 1.0);
            put(&format!("bert.{norm}.LayerNorm.bias"), &[8], &zero);
        }
        for (name, value) in [
            ("attention.self.query", &zero as &dyn Fn(usize) -> f32),
            ("attention.self.key", &zero),
            ("attention.self.value", &eye),
            ("attention.output.dense", &eye),
            ("intermediate.dense", &zero),
            ("output.dense", &zero),
        ] {
            put(&format!("bert.encoder.layer.0.{name}.weight"), &[8, 8], value);
            put(&format!("bert.encoder.layer.0.{name}.bias"), &[8], &zero);
        }
        put("bert.pooler.dense.weight", &[8, 8], &eye);
        put("bert.pooler.dense.bias", &[8], &zero);
        put("classifier.weight", &[5, 8], &|at| if at == 4 * 8 { 9.0 } else { 0.0 });
        put("classifier.bias", &[5], &|at| if at == 0 { 0.5 } else { 0.0 });
        candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    }

    #[test]
    fn stars_become_opinions() {
        let folder = tempfile::tempdir().unwrap();
        write_classifier(folder.path());
        let reader = Sentiment::open(folder.path()).unwrap();
        assert_eq!(reader.read("A Splendid reply.").unwrap(), Some(Opinion::For));
        assert_eq!(reader.read("a dull reply").unwrap(), Some(Opinion::Against));
        assert_eq!(reader.read(" \n").unwrap(), None);
        // Longer than the model has positions: the end is not heard.
        assert_eq!(reader.read(&("dull ".repeat(40) + "splendid")).unwrap(), Some(Opinion::Against));
    }

    #[test]
    fn what_is_no_such_classifier_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let check = |says: &[&str]| {
            let error = Sentiment::open(folder.path()).err().expect("refused").to_string();
            assert!(says.iter().all(|part| error.contains(part)), "{error}");
        };
        check(&["config.json"]);
        write_classifier(folder.path());
        let config = fs::read_to_string(folder.path().join("config.json")).unwrap();
        let spoil = |from: &str, to: &str| {
            assert!(config.contains(from));
            fs::write(folder.path().join("config.json"), config.replace(from, to)).unwrap();
        };
        spoil("BertForSequenceClassification", "BertForMaskedLM");
        check(&["config.json", "BertForMaskedLM", "five-star"]);
        spoil(r#""4":"5 stars""#, r#""3":"4 stars""#);
        check(&["config.json", "4 classes"]);
        spoil(r#""vocab_size":10"#, r#""vocab_size":9"#);
        check(&["model.safetensors"]);
        fs::write(folder.path().join("config.json"), &config).unwrap();
        fs::write(folder.path().join("vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n").unwrap();
        check(&["vocab.txt", "[SEP]"]);
        fs::remove_file(folder.path().join("vocab.txt")).unwrap();
        check(&["vocab.txt"]);
        fs::remove_file(folder.path().join("model.safetensors")).unwrap();
        check(&["model.safetensors", "hint"]);
    }
}
