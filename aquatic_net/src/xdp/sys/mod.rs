//! System calls of AF_XDP: programs and maps of eBPF, sockets with their rings, and facts about interfaces.
#![allow(unsafe_code, reason = "system calls; each block states the fact that makes it sound")]

pub(super) mod bpf;
pub(super) mod interface;
mod mapping;
mod ring;
pub(super) mod socket;
