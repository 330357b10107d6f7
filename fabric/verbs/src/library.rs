//! libibverbs, loaded when it is first wanted and kept.
//!
//! Only what the library exports is looked up here. What its headers define as inline functions (to post and to poll)
//! goes through the table of the opened device, as `rdma-sys` has it.

use std::{
    ffi::{c_char, c_int, c_void},
    fmt,
    sync::OnceLock,
};

use rdma_sys::{
    ibv_async_event, ibv_comp_channel, ibv_context, ibv_cq, ibv_device, ibv_device_attr, ibv_mr,
    ibv_pd, ibv_port_attr, ibv_qp, ibv_qp_attr, ibv_qp_init_attr,
};

use crate::Error;

const NAME: &str = "libibverbs.so.1";

macro_rules! functions {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions by their names without `ibv_`; their contracts are those of the manual pages.
        pub(crate) struct Library {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Library {
            fn load() -> Result<Self, libloading::Error> {
                // SAFETY: libibverbs has no constructor that asks anything of who loads it. It is never unloaded, so
                // what is looked up stays valid.
                let library = unsafe { libloading::Library::new(NAME) }?;
                let library = std::mem::ManuallyDrop::new(library);
                // SAFETY: the types are those of infiniband/verbs.h at the symbols' default version.
                unsafe {
                    Ok(Self {
                        $($name: *library.get(concat!("ibv_", stringify!($name), "\0").as_bytes())?,)*
                    })
                }
            }
        }
    };
}

functions! {
    get_device_list(*mut c_int) -> *mut *mut ibv_device;
    free_device_list(*mut *mut ibv_device);
    get_device_name(*mut ibv_device) -> *const c_char;
    open_device(*mut ibv_device) -> *mut ibv_context;
    close_device(*mut ibv_context) -> c_int;
    query_device(*mut ibv_context, *mut ibv_device_attr) -> c_int;
    query_port(*mut ibv_context, u8, *mut ibv_port_attr) -> c_int;
    get_async_event(*mut ibv_context, *mut ibv_async_event) -> c_int;
    ack_async_event(*mut ibv_async_event);
    alloc_pd(*mut ibv_context) -> *mut ibv_pd;
    dealloc_pd(*mut ibv_pd) -> c_int;
    reg_mr(*mut ibv_pd, *mut c_void, usize, c_int) -> *mut ibv_mr;
    dereg_mr(*mut ibv_mr) -> c_int;
    create_comp_channel(*mut ibv_context) -> *mut ibv_comp_channel;
    destroy_comp_channel(*mut ibv_comp_channel) -> c_int;
    create_cq(*mut ibv_context, c_int, *mut c_void, *mut ibv_comp_channel, c_int) -> *mut ibv_cq;
    destroy_cq(*mut ibv_cq) -> c_int;
    get_cq_event(*mut ibv_comp_channel, *mut *mut ibv_cq, *mut *mut c_void) -> c_int;
    ack_cq_events(*mut ibv_cq, u32);
    create_qp(*mut ibv_pd, *mut ibv_qp_init_attr) -> *mut ibv_qp;
    query_qp(*mut ibv_qp, *mut ibv_qp_attr, c_int, *mut ibv_qp_init_attr) -> c_int;
    modify_qp(*mut ibv_qp, *mut ibv_qp_attr, c_int) -> c_int;
    destroy_qp(*mut ibv_qp) -> c_int;
}

/// The library, or why it cannot be had: that is found out once.
pub(crate) fn library() -> Result<&'static Library, Error> {
    static LOADED: OnceLock<Result<Library, String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| Library::load().map_err(|error| error.to_string()));
    loaded.as_ref().map_err(|why| Error::NoLibrary(why.clone()))
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    /// No other test of this binary opens a device.
    #[test]
    fn it_is_loaded_when_it_is_wanted_and_a_program_runs_without() {
        let is_mapped =
            || std::fs::read_to_string("/proc/self/maps").unwrap().contains("libibverbs");
        assert!(!is_mapped(), "the program is not linked to it");
        match library() {
            Ok(_) => assert!(is_mapped()),
            Err(Error::NoLibrary(why)) => assert!(why.contains(NAME), "{why}"),
            Err(other) => panic!("{other}"),
        }
        assert!(crate::available().is_ok_and(|names| !names.is_empty()) || !has_devices());
    }

    fn has_devices() -> bool {
        std::fs::read_dir("/sys/class/infiniband").is_ok_and(|devices| devices.count() > 0)
    }
}
