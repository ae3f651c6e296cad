//! Where a model runs: the one place that knows which devices a build can have.

use std::{fmt, str::FromStr};

use candle_core::Device;

use crate::{Error, Result};

/// A device by name: `cpu`, `cuda`, or `cuda:1` for the second GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ComputeDevice {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU by its number; needs a build with the feature `cuda`.
    Cuda(usize),
}

impl ComputeDevice {
    /// Opens it; an error says whether the build or the machine lacks it.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(_) if !cfg!(feature = "cuda") => Err(Error::Unsupported {
                what: format!("device `{self}`"),
                hint: "this program was built without CUDA; build it with `--features cuda`, or use the device `cpu`"
                    .to_owned(),
            }),
            Self::Cuda(number) => Device::new_cuda(number).map_err(|error| Error::Unsupported {
                what: format!("device `{self}`"),
                hint: format!("{error} (hint: is there a GPU and a driver? `cpu` always works)"),
            }),
        }
    }
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

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_so() {
        let error = ComputeDevice::Cuda(0).open().unwrap_err().to_string();
        assert!(error.contains("--features cuda"), "{error}");
    }
}
