//! Names of devices and numerics; each executor says which it supports.

use std::{fmt, str::FromStr};

/// A device by name: `cpu`, `cuda`, or `cuda:1` for the second GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ComputeDevice {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU by its number; needs a build with the feature `cuda`.
    Cuda(usize),
}

/// How products use the base weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Numerics {
    /// Blocks as they are, activations quantised to eight bits for the product: fast. Dense weights become Q8_0.
    #[default]
    Quantised,
    /// Dequantised to f32: the reference.
    Exact,
    /// Dequantised and rounded to bf16, half of the memory; products are f32, and widen each weight again.
    Bf16,
}

impl fmt::Display for ComputeDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl FromStr for ComputeDevice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = match text {
            "cpu" => return Ok(Self::Cpu),
            "cuda" => Some(0),
            _ => text.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
        };
        number.map(Self::Cuda).ok_or_else(|| format!("`{text}` is no device (hint: cpu, cuda or cuda:N)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (text, device) in
            [("cpu", ComputeDevice::Cpu), ("cuda", ComputeDevice::Cuda(0)), ("cuda:3", ComputeDevice::Cuda(3))]
        {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "CPU"] {
            assert!(text.parse::<ComputeDevice>().unwrap_err().contains("cuda:N"), "{text}");
        }
    }
}
