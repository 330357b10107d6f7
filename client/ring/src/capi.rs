//! The C library; `include/ff2_ring.h` documents each function for its users.
//!
//! Functions return 0 or a count, or a negative errno; the sentence of a thread's last failure is kept for
//! [`ff2_ring_error`]. Nothing unwinds into C: the library has no panic but for a caller that breaks a
//! documented rule, and those end the process.

use std::{
    cell::RefCell,
    ffi::{CStr, CString, OsStr, c_char, c_int},
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    ptr,
    time::Duration,
};

use crate::{
    Error, Options, Region, Result, Ring, RingFile,
    layout::{FSYNC, HIGH, LOW, READ, Submission, VERSION, WRITE},
    limits::OPERATION_BYTES_MAX,
};

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// `struct ff2_ring_submission`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CSubmission {
    pub op: u8,
    pub priority: u8,
    pub reserved: u16,
    pub file: u32,
    pub region: u32,
    pub reserved_2: u32,
    pub region_offset: u64,
    pub file_offset: u64,
    pub length: u64,
    pub user_data: u64,
}

/// `struct ff2_ring_completion`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CCompletion {
    pub user_data: u64,
    pub result: i64,
}

fn told<T>(outcome: Result<T>, value: impl FnOnce(T) -> c_int) -> c_int {
    match outcome {
        Ok(done) => value(done),
        Err(error) => {
            let text = CString::new(error.to_string().replace('\0', " ")).unwrap_or_default();
            LAST_ERROR.set(text);
            -error.errno()
        }
    }
}

fn number(count: usize) -> c_int {
    c_int::try_from(count).unwrap_or(c_int::MAX)
}

/// Of the shared memory; programs may compare it with `FF2_RING_VERSION`.
#[unsafe(no_mangle)]
pub extern "C" fn ff2_ring_version() -> u32 {
    VERSION
}

/// What this thread's last failure was; valid until its next one.
#[unsafe(no_mangle)]
pub extern "C" fn ff2_ring_error() -> *const c_char {
    LAST_ERROR.with_borrow(|text| text.as_ptr())
}

/// # Safety
/// `path` is a string; `ring` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff2_ring_connect(
    path: *const c_char,
    entries: u32,
    ring: *mut *mut Ring,
) -> c_int {
    // SAFETY: the caller says that it is a string.
    let path = OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes());
    told(Ring::connect(path, &Options { entries }), |made| {
        // SAFETY: the caller says that it may be written.
        unsafe { *ring = Box::into_raw(Box::new(made)) };
        0
    })
}

/// # Safety
/// `ring` is of [`ff2_ring_connect`] or null, and not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff2_ring_close(ring: *mut Ring) {
    if !ring.is_null() {
        // SAFETY: it was made by `Box::into_raw`, and the caller gives it up.
        drop(unsafe { Box::from_raw(ring) });
    }
}

/// # Safety
/// `ring` is of [`ff2_ring_connect`]; `region` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff2_ring_add_region(
    ring: *mut Ring,
    bytes: usize,
    region: *mut *mut Region,
) -> c_int {
    // SAFETY: the caller says that it is a ring that no other thread uses now.
    let ring = unsafe { &mut *ring };
    told(ring.region(bytes), |made| {
        // SAFETY: the caller says that it may be written.
        unsafe { *region = Box::into_raw(Box::new(made)) };
        0
    })
}

/// # Safety
/// `ring` and `region` are what they say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff2_ring_remove_region(ring: *mut Ring, region: *const Region) -> c_int {
    // SAFETY: the caller says so of both.
    let (ring, region) = unsafe { (&mut *ring, &*region) };
    told(ring.remove_region(region), |()| 0)
}

/// # Safety
/// `region` is of [`ff2_ring_add_region`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff2_region_base(region: *const Region) -> *mut u8 {
    // SAFETY: the caller says so.
    unsafe { &*region }.as_ptr()
}

/// # Safety
/// `region` is of [`ff2_ring_add_region`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff2_region_number(region: *const Region) -> u32 {
    // SAFETY: the caller says so.
    unsafe { &*region }.number()
}

/// # Safety
/// `region` is of [`ff2_ring_add_region`] or null; neither it nor its memory is used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff2_region_free(region: *mut Region) {
    if !region.is_null() {
        // SAFETY: it was made by `Box::into_raw`, and the caller gives it up.
        drop(unsafe { Box::from_raw(region) });
    }
}

/// # Safety
/// `ring` is of [`ff2_ring_connect`]; `file` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff2_ring_add_file(ring: *mut Ring, fd: c_int, file: *mut u32) -> c_int {
    if fd < 0 {
        return told(Err(Error::Invalid(format!("{fd} is no descriptor"))), |()| 0);
    }
    // SAFETY: the caller says that it is a ring that no other thread uses now.
    let ring = unsafe { &mut *ring };
    // SAFETY: it is no negative number, and only lent for the call; one that is not open is refused by the
    // kernel.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    told(ring.file(fd), |added| {
        // SAFETY: the caller says that it may be written.
        unsafe { *file = added.number() };
        0
    })
}

/// # Safety
/// `ring` is of [`ff2_ring_connect`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff2_ring_remove_file(ring: *mut Ring, file: u32) -> c_int {
    // SAFETY: the caller says so.
    told(unsafe { &mut *ring }.remove_file(RingFile(file)), |()| 0)
}

/// # Safety
/// `ring` is of [`ff2_ring_connect`], `submission` points to one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff2_ring_push(ring: *mut Ring, submission: *const CSubmission) -> c_int {
    // SAFETY: the caller says so of both.
    let (ring, asked) = unsafe { (&mut *ring, *submission) };
    told(checked(asked).and_then(|submission| ring.push_raw(submission)), |()| 0)
}

fn checked(asked: CSubmission) -> Result<Submission> {
    let wrong = |why: String| Err(Error::Invalid(why));
    if ![READ, WRITE, FSYNC].contains(&asked.op) {
        return wrong(format!("there is no operation {}", asked.op));
    }
    if ![HIGH, LOW].contains(&asked.priority) {
        return wrong(format!("there is no priority {}", asked.priority));
    }
    if asked.length > OPERATION_BYTES_MAX {
        return wrong(format!(
            "an operation moves at most {OPERATION_BYTES_MAX} bytes: push several"
        ));
    }
    Ok(Submission {
        op: asked.op,
        class: asked.priority,
        file: asked.file,
        region: asked.region,
        region_offset: asked.region_offset,
        file_offset: asked.file_offset,
        length: asked.length,
        user_data: asked.user_data,
    })
}

/// # Safety
/// `ring` is of [`ff2_ring_connect`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff2_ring_submit(ring: *mut Ring) {
    // SAFETY: the caller says so.
    unsafe { &mut *ring }.submit();
}

/// # Safety
/// `ring` is of [`ff2_ring_connect`]; `completions` has room for `max`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff2_ring_reap(
    ring: *mut Ring,
    completions: *mut CCompletion,
    max: u32,
    min: u32,
    timeout_ms: i64,
) -> c_int {
    // SAFETY: the caller says so.
    let ring = unsafe { &mut *ring };
    let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
    let mut found = Vec::new();
    let outcome = ring.reap_into(&mut found, max as usize, min as usize, timeout);
    for (place, completion) in found.iter().enumerate() {
        let (user_data, result) = (completion.user_data(), completion.raw());
        // SAFETY: no more than `max` are found, for which the caller says there is room.
        unsafe { ptr::write(completions.add(place), CCompletion { user_data, result }) };
    }
    told(outcome, number)
}

/// # Safety
/// `ring` is of [`ff2_ring_connect`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff2_ring_bell(ring: *const Ring) -> c_int {
    // SAFETY: the caller says so.
    unsafe { &*ring }.bell().as_raw_fd()
}

/// # Safety
/// `ring` is of [`ff2_ring_connect`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ff2_ring_arm(ring: *mut Ring) -> c_int {
    // SAFETY: the caller says so.
    c_int::from(unsafe { &mut *ring }.arm())
}
