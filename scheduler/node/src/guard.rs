//! Which GPUs the processes of a control group may open.
//!
//! Version 2 of control groups has no file for devices: a program (BPF_PROG_TYPE_CGROUP_DEVICE) is attached to the
//! group, and the kernel runs it whenever a process inside opens or makes a device file. This one has a dozen
//! instructions, so they are put together here and loaded by bpf(2): libraries for it (aya, libbpf) load compiled
//! object files, and bring an ELF reader and a compiler along.
//!
//! Only the devices of one driver are decided about. Other device files stay under the rights that their modes
//! give: what a job must not have there is a matter of its user, not of placement.

use std::{
    collections::BTreeSet,
    ffi::{CStr, c_long},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use crate::{gpus::Gpu, limits};

/// Of the NVIDIA driver: `/dev/nvidiactl` and `/dev/nvidia-modeset`, which belong to no GPU. All need the first.
const SHARED_MINORS: [u32; 2] = [255, 254];

/// Lets only some devices of one driver be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuGuard {
    major: u32,
    minors: BTreeSet<u32>,
}

impl GpuGuard {
    /// Of all GPUs of the node, only these; also none. `None` if the node has no real ones.
    pub fn of(node: &[Gpu], allowed: &[Gpu]) -> Option<Self> {
        let major = node.iter().find_map(|gpu| gpu.device)?.major;
        let minors = allowed.iter().filter_map(|gpu| gpu.device).map(|device| device.minor);
        Some(Self::new(major, minors.chain(SHARED_MINORS)))
    }

    /// Character devices with this major number are refused, but for those with one of these minor numbers.
    pub fn new(major: u32, minors: impl IntoIterator<Item = u32>) -> Self {
        Self { major, minors: minors.into_iter().collect() }
    }

    /// Whether this process may guard GPUs at all.
    ///
    /// # Errors
    /// The kernel refuses the program: root (or CAP_BPF) may load it.
    pub fn probe() -> io::Result<()> {
        load(&Self::new(0, []).program()).map(drop)
    }

    /// From now on until the group is removed.
    pub(crate) fn attach(&self, group: BorrowedFd<'_>) -> io::Result<()> {
        if self.minors.len() > limits::GPUS_MAX + SHARED_MINORS.len() {
            let why = format!("{} GPUs are more than a guard can hold", self.minors.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        attach(load(&self.program())?.as_fd(), group)
    }

    /// The kernel hands `struct bpf_cgroup_dev_ctx`: access and type, major and minor number, 4 bytes each.
    fn program(&self) -> Vec<Instruction> {
        let mut program = vec![
            Instruction::load(2, 1, 0),
            Instruction::and(2, 0xffff),
            // The last three: refuse, end, allow.
            Instruction::jump_unless(2, BPF_DEVCG_DEV_CHAR, 0),
            Instruction::load(2, 1, 4),
            Instruction::jump_unless(2, self.major, 0),
            Instruction::load(2, 1, 8),
        ];
        program.extend(self.minors.iter().map(|minor| Instruction::jump_if(2, *minor, 0)));
        program.extend([Instruction::set(0, 0), Instruction::exit()]);
        let allow = program.len();
        program.extend([Instruction::set(0, 1), Instruction::exit()]);
        for (place, instruction) in program.iter_mut().enumerate() {
            if instruction.is_jump() {
                // A jump counts from the instruction behind it; GPUS_MAX keeps it small.
                instruction.offset = (allow - place - 1) as i16;
            }
        }
        program
    }
}

const BPF_PROG_LOAD: u32 = 5;
const BPF_PROG_ATTACH: u32 = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Beside what is attached above and below: all of them must allow.
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_DEVCG_DEV_CHAR: u32 = 2;

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x57;
const MOVE: u8 = 0xb7;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// `struct bpf_insn`. The registers' places within their byte follow the machine's order of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: u32,
}

const _: () = assert!(size_of::<Instruction>() == 8);
const _: () = assert!(cfg!(target_endian = "little"), "registers are laid out for these");

impl Instruction {
    const fn new(code: u8, target: u8, source: u8, offset: i16, immediate: u32) -> Self {
        Self { code, registers: target | source << 4, offset, immediate }
    }

    const fn load(target: u8, source: u8, offset: i16) -> Self {
        Self::new(LOAD_WORD, target, source, offset, 0)
    }

    const fn and(target: u8, mask: u32) -> Self {
        Self::new(AND, target, 0, 0, mask)
    }

    const fn set(target: u8, value: u32) -> Self {
        Self::new(MOVE, target, 0, 0, value)
    }

    const fn jump_if(target: u8, value: u32, offset: i16) -> Self {
        Self::new(JUMP_IF_EQUAL, target, 0, offset, value)
    }

    const fn jump_unless(target: u8, value: u32, offset: i16) -> Self {
        Self::new(JUMP_UNLESS_EQUAL, target, 0, offset, value)
    }

    const fn exit() -> Self {
        Self::new(EXIT, 0, 0, 0, 0)
    }

    const fn is_jump(self) -> bool {
        matches!(self.code, JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL)
    }
}

/// The beginning of `union bpf_attr`, as BPF_PROG_LOAD reads it; what is left out is zero for the kernel.
#[repr(C)]
struct LoadRequest {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
}

/// ... as BPF_PROG_ATTACH reads it.
#[repr(C)]
struct AttachRequest {
    target: RawFd,
    program: RawFd,
    kind: u32,
    flags: u32,
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    // No helper function is called, so the kernel has no wish as to the licence.
    const LICENSE: &CStr = c"Apache-2.0";
    let request = LoadRequest {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
    };
    // SAFETY: the request begins as `union bpf_attr` does for this command, and its two addresses are those of an
    // array of so many instructions and of a string with its end, which outlive the call. The kernel only reads.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &request) }?;
    // SAFETY: the kernel has just made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn attach(program: BorrowedFd<'_>, group: BorrowedFd<'_>) -> io::Result<()> {
    let request = AttachRequest {
        target: group.as_raw_fd(),
        program: program.as_raw_fd(),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the request begins as `union bpf_attr` does for this command, and holds no addresses.
    unsafe { bpf(BPF_PROG_ATTACH, &request) }.map(drop)
}

/// # Safety
/// The request is what the command reads, and the addresses in it are valid for it.
unsafe fn bpf<T>(command: u32, request: &T) -> io::Result<c_long> {
    // SAFETY: the kernel reads as many bytes as the request has; the caller vouches for what they mean.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, request, size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does what the kernel does with the program, for an open of this device.
    fn allows(guard: &GpuGuard, kind: u32, major: u32, minor: u32) -> bool {
        const ACCESS: u32 = 2 << 16;
        let (program, context) = (guard.program(), [kind | ACCESS, major, minor]);
        let (mut registers, mut at) = ([0u64; 3], 0usize);
        loop {
            let Instruction { code, registers: used, offset, immediate } = program[at];
            let (target, mut jump) = (usize::from(used & 15), 0);
            match code {
                LOAD_WORD => registers[target] = context[offset as usize / 4].into(),
                AND => registers[target] &= u64::from(immediate),
                MOVE => registers[target] = immediate.into(),
                JUMP_IF_EQUAL if registers[target] == immediate.into() => jump = offset,
                JUMP_UNLESS_EQUAL if registers[target] != immediate.into() => jump = offset,
                JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL => {}
                EXIT => return registers[0] == 1,
                other => panic!("{other:#x} is no instruction of this program"),
            }
            at += 1 + jump as usize;
        }
    }

    #[test]
    fn other_gpus_are_refused_and_other_devices_are_not() {
        let guard = GpuGuard::new(195, [2, 3, 255]);
        for minor in [2, 3, 255] {
            assert!(allows(&guard, 2, 195, minor), "{minor}");
        }
        for minor in [0, 1, 4, 253] {
            assert!(!allows(&guard, 2, 195, minor), "{minor}");
        }
        // Another driver's, and a block device of the same number.
        assert!(allows(&guard, 2, 1, 0));
        assert!(allows(&guard, 1, 195, 0));
    }

    #[test]
    fn a_run_without_gpus_opens_none() {
        let guard = GpuGuard::new(195, []);
        assert!(!allows(&guard, 2, 195, 0));
        assert!(allows(&guard, 2, 1, 3));
    }

    #[test]
    fn fake_gpus_need_no_guard() {
        let fake = crate::gpus::fake(4);
        assert_eq!(GpuGuard::of(&fake, &fake[..1]), None);
    }
}
