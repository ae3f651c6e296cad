//! The loop of every training run: resume, step, measure, keep the best, log, evaluate, checkpoint, stop.
//!
//! A kind of training ([`Fit`]) says what one step is and what belongs in its checkpoint. Since a step is a function of the
//! configuration, its number and what the checkpoint holds, a run that was stopped or killed resumes bit for bit.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Result, RunFolder,
    run_folder::{Checkpoint, METRICS},
    tensorboard::{Curves, EventFile},
};

/// How a finished or halted run ended.
pub const RESULT: &str = "result.json";

/// How far a run goes, and when it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FitSettings {
    pub total_steps: u64,
    /// Steps between two checkpoints.
    pub checkpoint_steps: u64,
    /// Steps between two evaluations.
    pub eval_steps: u64,
    /// Evaluations without a better measure after which the run ends.
    pub patience: Option<u64>,
}

/// The best step so far and what was measured after it.
pub(crate) type Best = (u64, f64);

/// A kind of training.
pub(crate) trait Fit {
    /// One line of `metrics.jsonl`.
    type Report: Curves + Serialize + DeserializeOwned;

    /// Puts variables, moments and whatever else it holds back; the steps taken.
    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<u64>;

    /// The run begins, or resumes after `step`: its own files lose what later steps wrote. At step 0 it evaluates.
    fn begin(&mut self, step: u64, best: Option<Best>, reports: Vec<Self::Report>) -> Result<()>;

    /// Takes the step after `step` others.
    fn step(&mut self, step: u64) -> Result<Self::Report>;

    /// Measures what the report holds of an evaluation. A number is what the best variables are chosen by: the lowest.
    fn measure(&mut self, report: &mut Self::Report) -> Result<Option<f64>>;

    /// The variables are the best so far.
    fn keep_best(&mut self) -> Result<()> {
        Ok(())
    }

    /// A step was taken and logged.
    fn stepped(&mut self, report: Self::Report);

    /// What an evaluation shows besides the measure.
    fn evaluate(&mut self, _step: u64, _best: Option<Best>) -> Result<()> {
        Ok(())
    }

    /// Whether the run ends before its last step.
    fn is_spent(&self) -> bool {
        false
    }

    /// Why the run must not continue.
    fn halt(&self) -> Option<String> {
        None
    }

    /// All that [`Fit::restore`] needs. `best` is written by the loop.
    fn checkpoint(&self, step: u64) -> Result<Checkpoint>;
}

/// How [`fit`] ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    /// After its last step.
    Over {
        step: u64,
        best: Option<Best>,
        /// It was asked to stop during that very step.
        stops: bool,
    },
    /// It was asked to stop after this step.
    Stopped(u64),
    /// It must not continue after this step.
    Halted(u64, String),
}

/// Trains to the end, or resumes from the run's last checkpoint. `should_stop` is read after each step: the run then ends
/// with a checkpoint.
pub(crate) fn fit<F: Fit>(
    training: &mut F,
    run: &RunFolder,
    settings: FitSettings,
    should_stop: &AtomicBool,
) -> Result<End> {
    let (mut step, mut best) = (0, None);
    if let Some(checkpoint) = run.load_checkpoint()? {
        step = training.restore(&checkpoint)?;
        best = checkpoint.best;
    }
    run.keep_lines(METRICS, |report: &F::Report| report.step() <= step)?;
    let reports = run.metrics::<F::Report>()?;
    let curves = EventFile::rewrite(run, &reports)?;
    training.begin(step, best, reports)?;

    let is_last = |training: &F, step: u64| step >= settings.total_steps || training.is_spent();
    let is_over = |training: &F, step: u64, best: Option<Best>| {
        let evaluations = |step: u64| step / settings.eval_steps;
        let since = best.map_or(0, |(best, _)| evaluations(step) - evaluations(best));
        is_last(training, step) || settings.patience.is_some_and(|patience| since >= patience)
    };
    let mut stops = false;
    loop {
        if let Some(reason) = training.halt() {
            return Ok(End::Halted(step, reason));
        }
        if is_over(training, step, best) {
            return Ok(End::Over { step, best, stops });
        }
        if stops {
            return Ok(End::Stopped(step));
        }
        run.remove(RESULT)?;
        let mut report = training.step(step)?;
        step += 1;
        let evaluates = is_last(training, step) || step.is_multiple_of(settings.eval_steps);
        if evaluates
            && let Some(measured) = training.measure(&mut report)?
            && best.is_none_or(|(_, lowest)| measured < lowest)
        {
            best = Some((step, measured));
            training.keep_best()?;
        }
        run.append(METRICS, &report)?;
        curves.append(&report)?;
        training.stepped(report);
        if evaluates {
            training.evaluate(step, best)?;
        }
        stops = should_stop.load(Ordering::Relaxed);
        let ends = training.halt().is_some() || is_over(training, step, best);
        if stops || ends || step.is_multiple_of(settings.checkpoint_steps) {
            run.save_checkpoint(&Checkpoint { best, ..training.checkpoint(step)? })?;
        }
    }
}
