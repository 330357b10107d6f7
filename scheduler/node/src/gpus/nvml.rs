//! Questions to NVML: which GPUs there are.

use std::path::Path;

use nvml_wrapper::{Device as Handle, Nvml, error::NvmlError};

use super::{Found, Gpu, device, files};

/// Its names: drivers install the second, packages for development the first.
pub(super) const LIBRARIES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

pub(super) fn find(libraries: &[&Path]) -> Found {
    match open(libraries) {
        Ok(nvml) => ask(&nvml),
        Err(why) => Found { gpus: Vec::new(), driver: None, why: Some(why) },
    }
}

/// # Errors
/// Why NVML cannot be used, in words.
pub(super) fn open(libraries: &[&Path]) -> Result<Nvml, String> {
    let mut why = "no library of NVIDIA's driver is named".to_owned();
    for library in libraries {
        match Nvml::builder().lib_path(library.as_os_str()).init() {
            Ok(nvml) => return Ok(nvml),
            Err(NvmlError::LibloadingError(_)) => {
                why = format!("NVIDIA's driver is not installed: no {}", library.display());
            }
            // It is there, and says what is wrong.
            Err(error) => return Err(format!("NVIDIA's driver does not answer: {error}")),
        }
    }
    Err(why)
}

fn ask(nvml: &Nvml) -> Found {
    let driver = nvml.sys_driver_version().ok();
    let count = match nvml.device_count() {
        Ok(count) => count,
        Err(error) => {
            let why = format!("GPUs cannot be counted: {error}");
            return Found { gpus: Vec::new(), driver, why: Some(why) };
        }
    };
    let mut gpus = Vec::new();
    let mut broken = Vec::new();
    for index in 0..count {
        match nvml.device_by_index(index).and_then(|handle| describe(index, &handle)) {
            Ok(gpu) => gpus.push(gpu),
            Err(error) => broken.push(format!("GPU {index} does not answer: {error}")),
        }
    }
    if count == 0 {
        broken.push("the driver knows of no GPU".into());
    }
    Found { gpus, driver, why: (!broken.is_empty()).then(|| broken.join("; ")) }
}

fn describe(index: u32, handle: &Handle<'_>) -> Result<Gpu, NvmlError> {
    let own = format!("/dev/nvidia{}", handle.minor_number()?);
    let own = Path::new(&own);
    Ok(Gpu {
        index,
        uuid: handle.uuid()?,
        name: handle.name()?,
        memory_mib: handle.memory_info().map_or(0, |memory| memory.total >> 20),
        device: device(own),
        files: files(own),
    })
}
