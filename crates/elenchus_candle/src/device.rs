//! Opens devices by name; only this file knows which devices a build can have.

use candle_core::Device;
use elenchus_lm::{ComputeDevice, Error, Result};

/// Opens a device.
///
/// # Errors
/// The build or the machine lacks it.
pub fn open_device(device: ComputeDevice) -> Result<Device> {
    match device {
        ComputeDevice::Cpu => Ok(Device::Cpu),
        ComputeDevice::Cuda(_) if !cfg!(feature = "cuda") => Err(Error::Unsupported {
            what: format!("device `{device}`"),
            hint: "this program was built without CUDA; build it with `--features cuda`, or use the device `cpu`"
                .to_owned(),
        }),
        ComputeDevice::Cuda(number) => Device::new_cuda(number).map_err(|error| Error::Unsupported {
            what: format!("device `{device}`"),
            hint: format!("{error} (hint: is there a GPU and a driver? `cpu` always works)"),
        }),
    }
}

#[cfg(test)]
mod tests {
    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_so() {
        let error = super::open_device(elenchus_lm::ComputeDevice::Cuda(0)).unwrap_err().to_string();
        assert!(error.contains("--features cuda"), "{error}");
    }
}
