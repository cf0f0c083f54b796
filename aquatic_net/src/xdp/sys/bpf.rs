//! The system call `bpf`: maps, programs, and their link to an interface.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::AtomicU64;

use libc::{c_int, c_long};

use super::mapping::Mapping;
use crate::xdp::assembler::Instruction;

/// Commands of `bpf`.
#[derive(Clone, Copy, Debug)]
enum Command {
    MapCreate = 0,
    MapUpdate = 2,
    MapDelete = 3,
    ProgramLoad = 5,
    #[cfg(test)]
    ProgramTest = 10,
    LinkCreate = 28,
}

/// Type of programs for interfaces.
const PROGRAM_XDP: u32 = 6;
/// Where they are attached.
const ATTACH_XDP: u32 = 37;
/// The maps' entries are allocated when they are added.
const NO_PREALLOC: u32 = 1;
/// Number of times that a program is loaded at most if the kernel is interrupted.
const ATTEMPTS: usize = 20;
/// The map can be mapped.
const MMAPABLE: u32 = 1 << 10;

/// Kinds of maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::xdp) enum MapKind {
    /// Hash table.
    Hash = 1,
    /// Array that can be mapped; keys are positions.
    Array = 2,
    /// Trie of prefixes.
    Trie = 11,
    /// Sockets of queues; keys are positions, values descriptors.
    Sockets = 17,
}

/// Sizes of a map.
#[derive(Clone, Copy, Debug)]
pub(in crate::xdp) struct MapSizes {
    /// Bytes of a key.
    pub(in crate::xdp) key: usize,
    /// Bytes of a value.
    pub(in crate::xdp) value: usize,
    /// Maximum number of entries.
    pub(in crate::xdp) entries: usize,
}

/// A map that programs and this process share.
#[derive(Debug)]
pub(in crate::xdp) struct Map {
    fd: OwnedFd,
    sizes: MapSizes,
}

/// How a program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::xdp) enum Attachment {
    /// The driver of the interface runs it.
    Driver = 1 << 2,
    /// The kernel runs it, for any interface.
    Generic = 1 << 1,
}

/// Zeroed, so that whatever is left out has its default.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
union Attributes {
    map: MapAttributes,
    element: ElementAttributes,
    program: ProgramAttributes,
    #[cfg(test)]
    test: TestAttributes,
    link: LinkAttributes,
    all: [u64; 16],
}

#[derive(Clone, Copy)]
#[repr(C)]
struct MapAttributes {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct ElementAttributes {
    map: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct ProgramAttributes {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_to: u32,
}

#[cfg(test)]
#[derive(Clone, Copy)]
#[repr(C)]
struct TestAttributes {
    program: u32,
    verdict: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct LinkAttributes {
    program: u32,
    interface: u32,
    attach_to: u32,
    flags: u32,
}

/// Calls `bpf`.
///
/// # Safety
/// Addresses in the attributes must be valid for what the command does with them.
unsafe fn call(command: Command, attributes: &mut Attributes) -> io::Result<c_int> {
    // SAFETY: the attributes are readable and writable for their size; the caller answers for what they point
    // to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as c_long,
            std::ptr::from_mut(attributes),
            size_of::<Attributes>() as c_long,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as c_int)
}

/// Calls `bpf` for a new descriptor.
///
/// # Safety
/// As [`call`]; the command must return a descriptor.
unsafe fn open(command: Command, attributes: &mut Attributes) -> io::Result<OwnedFd> {
    // SAFETY: the caller answers for it.
    let fd = unsafe { call(command, attributes) }?;
    // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

const NONE: Attributes = Attributes { all: [0; 16] };

/// A descriptor as attributes have it.
fn number(fd: impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().unsigned_abs()
}

impl Map {
    /// An empty map.
    ///
    /// # Errors
    /// EPERM without CAP_BPF, ENOMEM, and EINVAL for kinds that the kernel does not know.
    pub(in crate::xdp) fn new(kind: MapKind, sizes: MapSizes) -> io::Result<Self> {
        let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let mut attributes = NONE;
        attributes.map = MapAttributes {
            kind: kind as u32,
            key_size: sizes.key.try_into().map_err(too_large)?,
            value_size: sizes.value.try_into().map_err(too_large)?,
            max_entries: sizes.entries.try_into().map_err(too_large)?,
            flags: match kind {
                MapKind::Array => MMAPABLE,
                MapKind::Trie => NO_PREALLOC,
                MapKind::Hash | MapKind::Sockets => 0,
            },
        };
        // SAFETY: the attributes hold no addresses, and the command returns a descriptor.
        let fd = unsafe { open(Command::MapCreate, &mut attributes) }?;
        Ok(Self { fd, sizes })
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// E2BIG or ENOSPC if the map is full, EPERM where the system does not let processes without CAP_BPF use
    /// maps, EINVAL for sizes that are not the map's.
    pub(in crate::xdp) fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if (key.len(), value.len()) != (self.sizes.key, self.sizes.value) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut attributes = self.element(key);
        attributes.element.value = value.as_ptr() as u64;
        // SAFETY: the addresses are those of slices as long as the map's keys and values, which outlive the
        // call and are only read.
        unsafe { call(Command::MapUpdate, &mut attributes) }.map(|_| ())
    }

    /// Removes a key.
    ///
    /// # Errors
    /// As [`set`](Self::set); ENOENT if it is not there.
    pub(in crate::xdp) fn remove(&self, key: &[u8]) -> io::Result<()> {
        if key.len() != self.sizes.key {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut attributes = self.element(key);
        // SAFETY: the address is that of a slice as long as the map's keys, which outlives the call and is
        // only read.
        unsafe { call(Command::MapDelete, &mut attributes) }.map(|_| ())
    }

    fn element(&self, key: &[u8]) -> Attributes {
        let mut attributes = NONE;
        attributes.element = ElementAttributes {
            map: number(&self.fd),
            _padding: 0,
            key: key.as_ptr() as u64,
            value: 0,
            flags: 0,
        };
        attributes
    }

    /// The descriptor, as programs name the map.
    pub(in crate::xdp) fn descriptor(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// The values of an array as numbers of 64 bits.
    ///
    /// # Errors
    /// Those of `mmap`.
    pub(in crate::xdp) fn map_numbers(&self) -> io::Result<Numbers> {
        let bytes = self.sizes.entries * self.sizes.value;
        let page = rustix::param::page_size();
        Ok(Numbers(Mapping::shared(self.fd.as_fd(), bytes.next_multiple_of(page), 0)?))
    }
}

/// The values of an array, mapped.
#[derive(Debug)]
pub(in crate::xdp) struct Numbers(Mapping);

impl Numbers {
    /// The number at a position.
    pub(in crate::xdp) fn at(&self, position: usize) -> Option<&AtomicU64> {
        let address = self.0.at::<AtomicU64>(position.checked_mul(size_of::<AtomicU64>())?)?;
        // SAFETY: the address is aligned, inside the mapping, which `self` keeps, and all use it atomically.
        Some(unsafe { address.as_ref() })
    }
}

/// Has the kernel check and load a program.
///
/// # Errors
/// EPERM without CAP_BPF and CAP_NET_ADMIN. EACCES and EINVAL if the kernel refuses the program; what it says
/// about that is part of the error.
pub(in crate::xdp) fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut no_log = [];
    match uninterrupted(|| load_with(program, &mut no_log)) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EINVAL)) => {
            let mut log = vec![0; 1 << 18];
            let Err(error) = uninterrupted(|| load_with(program, &mut log)) else { return Err(error) };
            let text = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = text.trim_end_matches('\0').trim_end().lines().rev().take(4).collect();
            let last: Vec<&str> = lines.into_iter().rev().collect();
            Err(io::Error::new(error.kind(), format!("{error}: {}", last.join(" / "))))
        }
        result => result,
    }
}

/// Repeats a call that the kernel interrupts: its verifier gives up with EAGAIN when a signal waits for the
/// thread, or something that io_uring has put off. Both are dealt with on the way back.
fn uninterrupted<T>(mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..ATTEMPTS {
        match act() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
    act()
}

fn load_with(program: &[Instruction], log: &mut [u8]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attributes = NONE;
    attributes.program = ProgramAttributes {
        kind: PROGRAM_XDP,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        kernel_version: 0,
        flags: 0,
        name: *b"aquatic_udp\0\0\0\0\0",
        interface: 0,
        attach_to: ATTACH_XDP,
    };
    // SAFETY: program and licence are readable, the log is writable for the given length, all outlive the
    // call, and the command returns a descriptor.
    unsafe { open(Command::ProgramLoad, &mut attributes) }
}

/// Attaches a program to an interface for as long as the returned descriptor is open.
///
/// # Errors
/// EBUSY if another program is attached, EOPNOTSUPP if the driver cannot run programs, EINVAL if the maximum
/// size of packets is too large for that.
pub(in crate::xdp) fn attach(program: &OwnedFd, interface: u32, how: Attachment) -> io::Result<OwnedFd> {
    let mut attributes = NONE;
    attributes.link =
        LinkAttributes { program: number(program), interface, attach_to: ATTACH_XDP, flags: how as u32 };
    // SAFETY: the attributes hold no addresses, and the command returns a descriptor.
    unsafe { open(Command::LinkCreate, &mut attributes) }
}

/// Runs a program on a frame that arrived on the first queue. Returns its verdict.
#[cfg(test)]
pub(in crate::xdp) fn run(program: &OwnedFd, frame: &[u8]) -> io::Result<u32> {
    let mut out = vec![0_u8; frame.len() + 256];
    let mut attributes = NONE;
    attributes.test = TestAttributes {
        program: number(program),
        verdict: 0,
        size_in: frame.len() as u32,
        size_out: out.len() as u32,
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat: 1,
        duration: 0,
        context_size_in: 0,
        context_size_out: 0,
        context_in: 0,
        context_out: 0,
    };
    // SAFETY: the frame is readable and the output writable for the given lengths; both outlive the call.
    unsafe { call(Command::ProgramTest, &mut attributes) }?;
    // SAFETY: this is the member that was set above; any bits are valid.
    Ok(unsafe { attributes.test.verdict })
}

/// A descriptor that is handed to the kernel as the value of a map.
pub(in crate::xdp) fn descriptor_value(fd: BorrowedFd<'_>) -> [u8; 4] {
    fd.as_raw_fd().to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupted_calls_are_repeated_but_not_for_ever() {
        let tried = |interruptions: usize| {
            let mut calls = 0;
            let result = uninterrupted(|| {
                calls += 1;
                let is_interrupted = calls <= interruptions;
                if is_interrupted { Err(io::Error::from_raw_os_error(libc::EAGAIN)) } else { Ok(calls) }
            });
            (result.map_err(|error| error.raw_os_error()), calls)
        };
        assert_eq!(tried(0), (Ok(1), 1));
        assert_eq!(tried(3), (Ok(4), 4));
        assert_eq!(tried(usize::MAX), (Err(Some(libc::EAGAIN)), ATTEMPTS));
        let mut calls = 0;
        let refused: io::Result<()> = uninterrupted(|| {
            calls += 1;
            Err(io::Error::from_raw_os_error(libc::EPERM))
        });
        assert_eq!((refused.unwrap_err().raw_os_error(), calls), (Some(libc::EPERM), 1));
    }
}
