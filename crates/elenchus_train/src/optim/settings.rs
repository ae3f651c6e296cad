//! What every training run is told: how its variables move, and how often it is saved and looked at.

use elenchus_candle::Activations;

use super::{AdamWSettings, Decay, Schedule};
use crate::{
    config_file::{self, Misfit},
    fit::FitSettings,
};

/// The settings that all kinds of training share; [`training_settings`] puts them among a kind's own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct OptimSettings {
    pub pass_tokens: usize,
    pub gradient_checkpointing: bool,
    pub learning_rate: f64,
    pub warmup_steps: u64,
    pub decay: Decay,
    pub max_grad_norm: f64,
    pub adamw: AdamWSettings,
    pub checkpoint_steps: u64,
    pub eval_steps: u64,
}

impl OptimSettings {
    /// What all kinds begin with; some override a few.
    pub(crate) const DEFAULT: Self = Self {
        pass_tokens: 1024,
        gradient_checkpointing: false,
        learning_rate: 1e-4,
        warmup_steps: 10,
        decay: Decay::Linear,
        max_grad_norm: 1.0,
        adamw: AdamWSettings::DEFAULT,
        checkpoint_steps: 25,
        eval_steps: 25,
    };

    /// The learning rates of a run of so many steps.
    pub(crate) fn schedule(&self, total_steps: u64) -> Schedule {
        Schedule { peak: self.learning_rate, warmup_steps: self.warmup_steps, total_steps, decay: self.decay }
    }

    /// What a forward pass keeps for its backward.
    pub(crate) fn activations(&self) -> Activations {
        if self.gradient_checkpointing { Activations::Recompute } else { Activations::Keep }
    }

    /// How far the loop goes.
    pub(crate) fn fit(&self, total_steps: u64) -> FitSettings {
        let Self { checkpoint_steps, eval_steps, .. } = *self;
        FitSettings { total_steps, checkpoint_steps, eval_steps, patience: None }
    }

    /// Refuses values that make no sense: the field and why.
    pub(crate) fn check(&self) -> Result<(), Misfit> {
        config_file::at_least_one(&[
            ("training.pass_tokens", self.pass_tokens as u64),
            ("training.checkpoint_steps", self.checkpoint_steps),
            ("training.eval_steps", self.eval_steps),
        ])?;
        let AdamWSettings { beta1, beta2, eps, weight_decay } = self.adamw;
        config_file::above_zero(&[
            ("training.learning_rate", self.learning_rate),
            ("training.max_grad_norm", self.max_grad_norm),
            ("training.adamw.eps", eps),
        ])?;
        config_file::below_one(&[
            ("training.adamw.beta1", beta1),
            ("training.adamw.beta2", beta2),
            ("training.adamw.weight_decay", weight_decay),
        ])
    }
}

/// A kind's training settings: its own fields before and after those of [`OptimSettings`], all in one table. serde refuses
/// unknown fields of a flattened struct without line and suggestion, so the fields are written into the kind's own struct.
macro_rules! training_settings {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $($(#[$before_attribute:meta])* pub $before:ident: $before_type:ty,)*
            ..
            $($(#[$after_attribute:meta])* pub $after:ident: $after_type:ty,)*
        }
    ) => {
        $(#[$attribute])*
        pub struct $name {
            $($(#[$before_attribute])* pub $before: $before_type,)*
            /// Tokens in one forward and backward pass: memory against speed. A step takes as many passes as it needs.
            pub pass_tokens: usize,
            /// Keep each block's input alone and compute the block again in the backward pass: less memory for more time.
            pub gradient_checkpointing: bool,
            /// The highest learning rate.
            pub learning_rate: f64,
            /// Steps of linear warm-up to it.
            pub warmup_steps: u64,
            /// The shape after warm-up.
            pub decay: $crate::Decay,
            /// Gradients are scaled to this global norm where they exceed it.
            pub max_grad_norm: f64,
            /// The optimiser.
            pub adamw: $crate::AdamWSettings,
            /// Steps between two checkpoints: what a killed run may lose.
            pub checkpoint_steps: u64,
            /// Steps between two evaluations.
            pub eval_steps: u64,
            $($(#[$after_attribute])* pub $after: $after_type,)*
        }

        impl $name {
            /// Those that all kinds of training share.
            pub(crate) fn optim(&self) -> $crate::optim::OptimSettings {
                $crate::optim::OptimSettings {
                    pass_tokens: self.pass_tokens,
                    gradient_checkpointing: self.gradient_checkpointing,
                    learning_rate: self.learning_rate,
                    warmup_steps: self.warmup_steps,
                    decay: self.decay,
                    max_grad_norm: self.max_grad_norm,
                    adamw: self.adamw,
                    checkpoint_steps: self.checkpoint_steps,
                    eval_steps: self.eval_steps,
                }
            }
        }
    };
}

pub(crate) use training_settings;
