//! What GPUs say of their own state.

use std::path::Path;

use nvml_wrapper::{
    Device as Handle,
    enum_wrappers::device::{
        EccCounter, MemoryError, RetirementCause, TemperatureSensor, TemperatureThreshold,
    },
    enums::device::SampleValue,
    error::NvmlError,
    structs::device::FieldId,
    sys_exports::field_id::{NVML_FI_DEV_REMAPPED_FAILURE, NVML_FI_DEV_REMAPPED_PENDING},
};
use serde::{Deserialize, Serialize};

use super::nvml;

/// A GPU's state at one moment. What a model cannot tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub index: u32,
    pub uuid: String,
    /// As the kernel's log names it: `0000:3b:00`.
    pub pci: String,
    /// Errors of its memory since the driver was loaded that could not be corrected.
    pub ecc_uncorrected: Option<u64>,
    /// Pages that are no longer used because of such errors (up to Volta).
    pub retired_pages: Option<u64>,
    /// A page or row waits for a reset of the GPU until it is replaced.
    pub is_repair_pending: Option<bool>,
    /// A row could not be replaced (from Ampere on): the card is to be exchanged.
    pub has_repair_failed: Option<bool>,
    /// In degrees Celsius, and from where on it makes itself slower.
    pub temperature: Option<u32>,
    pub slowdown_temperature: Option<u32>,
    /// Lanes of its link, and how many it could have in this place. Idle links may be slower, but not narrower.
    pub pcie_width: Option<u32>,
    pub pcie_width_max: Option<u32>,
}

/// Of all GPUs that answer, and which do not, in words.
///
/// # Errors
/// There is no driver to ask; in words.
pub fn health(libraries: Option<&[&Path]>) -> Result<(Vec<Health>, Vec<String>), String> {
    let usual = nvml::LIBRARIES.map(Path::new);
    let nvml = nvml::open(libraries.unwrap_or(&usual))?;
    let count = nvml.device_count().map_err(|error| format!("GPUs cannot be counted: {error}"))?;
    let (mut answers, mut silent) = (Vec::new(), Vec::new());
    for index in 0..count {
        match nvml.device_by_index(index).and_then(|handle| ask(index, &handle)) {
            Ok(health) => answers.push(health),
            Err(error) => silent.push(format!("GPU {index} does not answer: {error}")),
        }
    }
    Ok((answers, silent))
}

fn ask(index: u32, handle: &Handle<'_>) -> Result<Health, NvmlError> {
    use TemperatureThreshold::Slowdown;
    let repair = repairs(handle)?;
    let pages_pending = known(handle.are_pages_pending_retired())?;
    Ok(Health {
        index,
        uuid: handle.uuid()?,
        pci: short(&handle.pci_info()?.bus_id),
        ecc_uncorrected: known(
            handle.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile),
        )?,
        retired_pages: known(retired(handle))?,
        is_repair_pending: repair.pending.or(pages_pending),
        has_repair_failed: repair.failed,
        temperature: known(handle.temperature(TemperatureSensor::Gpu))?,
        slowdown_temperature: known(handle.temperature_threshold(Slowdown))?,
        pcie_width: known(handle.current_pcie_link_width())?,
        pcie_width_max: known(handle.max_pcie_link_width())?,
    })
}

/// What this model or driver cannot tell is no fault of the GPU; what it does not answer is.
fn known<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error @ (NvmlError::GpuLost | NvmlError::Uninitialized | NvmlError::Timeout)) => {
            Err(error)
        }
        Err(_) => Ok(None),
    }
}

fn retired(handle: &Handle<'_>) -> Result<u64, NvmlError> {
    let double = handle.retired_pages(RetirementCause::DoubleBitEccError)?;
    let single = handle.retired_pages(RetirementCause::MultipleSingleBitEccErrors)?;
    Ok((double.len() + single.len()) as u64)
}

#[derive(Default)]
struct Repairs {
    pending: Option<bool>,
    failed: Option<bool>,
}

fn repairs(handle: &Handle<'_>) -> Result<Repairs, NvmlError> {
    let fields = [FieldId(NVML_FI_DEV_REMAPPED_PENDING), FieldId(NVML_FI_DEV_REMAPPED_FAILURE)];
    let Some(answers) = known(handle.field_values_for(&fields))? else {
        return Ok(Repairs::default());
    };
    let mut flags = answers.into_iter().map(|answer| flag(answer.ok()?.value.ok()?));
    let (pending, failed) = (flags.next().flatten(), flags.next().flatten());
    Ok(Repairs { pending, failed })
}

fn flag(value: SampleValue) -> Option<bool> {
    match value {
        SampleValue::U32(number) => Some(number != 0),
        SampleValue::U64(number) => Some(number != 0),
        _ => None,
    }
}

/// NVML writes `00000000:3B:00.0`, the kernel's log `0000:3b:00`.
fn short(bus_id: &str) -> String {
    let whole = bus_id.to_ascii_lowercase();
    let place = whole.split('.').next().unwrap_or_default();
    match place.split_once(':') {
        Some((domain, rest)) if domain.len() > 4 => {
            format!("{}:{rest}", &domain[domain.len() - 4..])
        }
        _ => place.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_on_the_bus_is_written_as_the_kernel_does() {
        assert_eq!(short("00000000:3B:00.0"), "0000:3b:00");
        assert_eq!(short("0000:3b:00.0"), "0000:3b:00");
    }
}
