//! What both sides learn, and the files that hand it to the peer: the very batches, rates and fresh adapter.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::Device;
use elenchus_candle::{CandleExecutor, TrainableLora};
use elenchus_dialogue::Model;
use elenchus_lm::{CpuExecutor, CpuSettings, LoraAdapter, Numerics, Precision, Weights};
use elenchus_train::{Example, Lesson, SftConfig, batch, data::Pair, examples, perplexity};
use serde_json::{Value, json};

use crate::peer::Result;

/// The name of [`Task::dense`].
pub const DENSE: &str = "dense";

/// The same with gradient checkpointing.
pub const RECOMPUTED: &str = "dense-recomputed";

/// Text that the dense batch is cut from.
const TEXT: &str = include_str!("../../../../docs/architecture.md");

const DENSE_CONFIG: &str = r#"
character = "none"
data = ["none"]
held_out_works = ["none"]

[lora]
rank = 16
alpha = 32.0
dropout = 0.05
targets = ["q_proj", "v_proj"]

[training]
seed = 1
epochs = 1000
batch = 4
max_tokens = 256
pass_tokens = 1024
warmup_steps = 0
decay = "constant"
"#;

/// The base that is trained on, in f32.
pub struct Base {
    pub path: PathBuf,
    pub weights: Arc<Weights>,
    pub executor: CandleExecutor,
}

impl Base {
    pub fn open() -> Result<Self> {
        let path = elenchus_fetch::fetch_default(&mut |_| {})?;
        let weights = Arc::new(Weights::open(&path, &mut |_| {})?);
        let executor = CandleExecutor::new(&weights, &Device::Cpu, Numerics::Exact)?;
        Ok(Self { path, weights, executor })
    }
}

/// Examples, and how they are learned.
pub struct Task {
    pub config: SftConfig,
    pub examples: Vec<Example>,
    pub held_out: Vec<Example>,
    /// What a run begins from, if not from a fresh adapter.
    start: Option<Arc<LoraAdapter>>,
}

impl Task {
    /// `dense`, `dense-recomputed`, or a `training.toml`.
    pub fn named(name: &str, base: &Base) -> Result<Self> {
        match name {
            DENSE => Self::dense(base),
            RECOMPUTED => {
                let mut task = Self::dense(base)?;
                task.config.training.gradient_checkpointing = true;
                Ok(task)
            }
            _ => Self::of_training(Path::new(name), base),
        }
    }

    /// 4 x 256 tokens of text, the same in each step, all of them learned but the first of each row.
    fn dense(base: &Base) -> Result<Self> {
        let tokens = base.weights.tokenizer()?.encode(TEXT, elenchus_lm::Markup::AsText)?;
        let rows = tokens.chunks_exact(256).take(4);
        let examples: Vec<Example> =
            rows.map(|row| Example { tokens: row.to_vec(), reply_start: 1, is_ended: false, weight: 1.0 }).collect();
        if examples.len() < 4 {
            return Err(format!("the text has {} tokens, a dense batch needs 1024", tokens.len()).into());
        }
        Ok(Self { config: SftConfig::parse(DENSE_CONFIG, DENSE)?, held_out: examples.clone(), examples, start: None })
    }

    /// What `elenchus train sft FILE` learns from and measures on.
    fn of_training(file: &Path, base: &Base) -> Result<Self> {
        let lesson = Lesson::open(file)?;
        let engine = CpuExecutor::new(&base.weights, CpuSettings::default())?;
        let model = Model::new(Arc::new(engine), &base.weights)?;
        let max_tokens = lesson.config.training.max_tokens;
        let of = |pairs: &[Pair]| examples(pairs, &lesson.character, &model, max_tokens);
        let trained_on = of(&[lesson.split.train, lesson.player_lines].concat())?;
        let held_out = of(&lesson.split.held_out)?;
        Ok(Self { config: lesson.config, examples: trained_on, held_out, start: lesson.start })
    }

    /// The adapter that a run of this task begins with.
    pub fn fresh(&self, base: &Base) -> Result<TrainableLora> {
        if let Some(start) = &self.start {
            return Ok(TrainableLora::new(start, &base.executor)?);
        }
        let lora = &self.config.lora;
        let (linears, seed) = (self.config.linears()?, self.config.training.seed);
        Ok(TrainableLora::fresh(&base.executor, &linears, lora.rank, lora.alpha, seed)?)
    }

    /// Writes what `tools/python/peft_train.py` reads: `settings.json`, `batches.jsonl`, `held_out.jsonl` and `adapter/`.
    /// Returns how many steps were written, at most `steps`.
    pub fn export(&self, base: &Base, folder: &Path, steps: u64) -> Result<u64> {
        fs::create_dir_all(folder)?;
        let (lora, settings) = (self.fresh(base)?, &self.config.training);
        let schedule = settings.schedule(self.examples.len());
        let steps = steps.min(schedule.total_steps);

        let first: Vec<Example> = batch(&self.examples, settings, 0).into_iter().cloned().collect();
        let first = perplexity(&base.executor, Some(&lora), &first, |_| {})?;
        let first_loss = -(first.logprob + first.end_logprob) / (first.tokens + first.end_tokens) as f64;
        let all = json!({
            "seed": settings.seed, "dropout": self.config.lora.dropout, "max_grad_norm": settings.max_grad_norm,
            "adamw": settings.adamw, "first_loss": first_loss,
        });
        fs::write(folder.join("settings.json"), format!("{all:#}\n"))?;

        let mut lines = BufWriter::new(File::create(folder.join("batches.jsonl"))?);
        for step in 0..steps {
            let examples: Vec<Value> = batch(&self.examples, settings, step).into_iter().map(line).collect();
            writeln!(lines, "{}", json!({"step": step, "learning_rate": schedule.rate(step), "examples": examples}))?;
        }
        lines.flush()?;
        let mut lines = BufWriter::new(File::create(folder.join("held_out.jsonl"))?);
        for example in &self.held_out {
            writeln!(lines, "{}", line(example))?;
        }
        lines.flush()?;
        let name = base.path.file_name().unwrap_or_default().to_string_lossy();
        lora.to_adapter("fresh")?.save(&folder.join("adapter"), &name, Precision::F32)?;
        Ok(steps)
    }
}

fn line(example: &Example) -> Value {
    json!({"tokens": example.tokens, "reply_start": example.reply_start, "is_ended": example.is_ended})
}
