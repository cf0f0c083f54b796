//! The XDP program: for each frame that the interface receives, whether it goes to the tracker's AF_XDP
//! socket, to the network stack, or nowhere.
//!
//! The program is the same for every configuration. What differs is in maps: the endpoints, the sockets, a
//! switch for each queue, and blocked networks. Whatever it does not know well goes to the network stack,
//! where the ordinary sockets are: fragments, options, extension headers, sources that the network stack
//! would refuse, and all frames of a queue that has no socket or whose switch is off.

use super::assembler::{
    Assembler, FRAME, If, Instruction, Label, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, Size,
};
use super::frame::{ETHERNET, MAX_FRAME, MAX_TAGS, TAG, UDP, V4, V6};

/// Verdict: the frame is dropped.
pub(super) const DROP: u32 = 1;
/// Verdict: the frame goes to the network stack.
pub(super) const PASS: u32 = 2;

/// Bit of a queue's switch: frames go to its socket.
pub(super) const SWITCH_ON: u64 = 1;
/// Bit of a queue's switch: sources are looked up among the blocked networks.
pub(super) const SWITCH_BLOCKS: u64 = 2;

/// Size of what the map of switches holds for each queue: the switch, and the number of frames that were
/// dropped because their source is blocked. Both have 64 bits.
pub(super) const SWITCH_SIZE: usize = 16;
const BLOCKED_OFFSET: i16 = 8;

/// Size of a key of the map of endpoints: address (16 bytes, IPv4 mapped into IPv6), port, VLAN tags from the
/// outermost on, in the order of the network, 0 for none, and two bytes of zero.
pub(super) const ENDPOINT_KEY: usize = 24;

/// Size of a key of the map of blocked networks: the number of leading bits of what follows, the family, and
/// the address. Without the family, networks of IPv6 that include mapped IPv4 would hold for IPv4.
pub(super) const NETWORK_KEY: usize = 24;
/// Number of bits of a family in such a key.
pub(super) const FAMILY_BITS: u32 = 32;
/// The families in such a key, in the order of the network.
pub(super) const FAMILY_V4: u32 = 4;
/// See [`FAMILY_V4`].
pub(super) const FAMILY_V6: u32 = 6;

/// Where things are on the stack of the program.
const ENDPOINT: i16 = -24;
const ENDPOINT_PORT: i16 = ENDPOINT + 16;
const ENDPOINT_TAGS: i16 = ENDPOINT + 18;
const SOURCE: i16 = -48;
const SOURCE_FAMILY: i16 = SOURCE + 4;
const SOURCE_ADDRESS: i16 = SOURCE + 8;
const QUEUE: i16 = -56;

/// Functions of the kernel.
const MAP_LOOKUP: i32 = 1;
const REDIRECT_MAP: i32 = 51;

/// Offsets in `struct xdp_md`.
const CONTEXT_DATA: i16 = 0;
const CONTEXT_DATA_END: i16 = 4;
const CONTEXT_QUEUE: i16 = 16;

/// Descriptors of the maps that the program uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct MapDescriptors {
    /// Hash table of endpoints.
    pub(super) endpoints: i32,
    /// Array of switches, by queue.
    pub(super) switches: i32,
    /// Trie of blocked networks.
    pub(super) blocked: i32,
    /// Sockets, by queue.
    pub(super) sockets: i32,
}

/// A number as the program reads it from a frame: two bytes in the order of the network.
fn network_order(number: u16) -> i32 {
    i32::from(number.to_be())
}

/// The program for an interface with this hardware address. `otherwise` is the verdict for frames of a queue
/// that has no socket: [`PASS`], other than in tests.
pub(super) fn program(maps: MapDescriptors, hardware_address: [u8; 6], otherwise: u32) -> Vec<Instruction> {
    let mut assembler = Assembler::default();
    let labels = Labels {
        pass: assembler.label(),
        v4: assembler.label(),
        v6: assembler.label(),
        known: assembler.label(),
    };
    check_ethernet(&mut assembler, &labels, hardware_address);
    check_v4(&mut assembler, &labels);
    check_v6(&mut assembler, &labels);
    look_up(&mut assembler, &labels, maps, otherwise);
    assembler.place(labels.pass);
    assembler.set(R0, PASS as i32);
    assembler.exit();
    assembler.finish()
}

struct Labels {
    pass: Label,
    v4: Label,
    v6: Label,
    /// The keys are complete.
    known: Label,
}

/// Register that holds the context.
const CONTEXT: u8 = R6;
/// Register that holds the beginning of the frame, moved on by each VLAN tag: what follows the Ethernet
/// header is always at the same offset.
const DATA: u8 = R7;
/// Register that holds the end of the frame.
const END: u8 = R8;

const IP: i16 = ETHERNET as i16;
const VLAN: u16 = 0x8100;
const PROVIDER_VLAN: u16 = 0x88a8;

/// From the beginning of the frame to its IP header.
fn check_ethernet(assembler: &mut Assembler, labels: &Labels, hardware_address: [u8; 6]) {
    assembler.copy(CONTEXT, R1);
    assembler.load(Size::Word, DATA, (R1, CONTEXT_DATA));
    assembler.load(Size::Word, END, (R1, CONTEXT_DATA_END));
    assembler.store_number(Size::Double, (FRAME, ENDPOINT_PORT), 0);
    // Longer frames do not fit a buffer.
    assembler.copy(R2, DATA);
    assembler.add_number(R2, MAX_FRAME as i32);
    assembler.jump_if_register(R2, If::Less, END, labels.pass);
    need(assembler, ETHERNET, labels.pass);
    // For others, as an interface in promiscuous mode sees them; broadcast and multicast.
    for (at, bytes) in (0..).step_by(2).zip(hardware_address.as_chunks::<2>().0) {
        assembler.load(Size::Half, R3, (DATA, at));
        assembler.jump_if(R3, If::Different, network_order(u16::from_be_bytes(*bytes)), labels.pass);
    }
    // From a group.
    assembler.load(Size::Byte, R3, (DATA, 6));
    assembler.jump_if(R3, If::AnyBit, 1, labels.pass);
    assembler.load(Size::Half, R3, (DATA, IP - 2));
    let untagged = assembler.label();
    for tag in 0..MAX_TAGS as i16 {
        let is_tagged = assembler.label();
        assembler.jump_if(R3, If::Equal, network_order(VLAN), is_tagged);
        assembler.jump_if(R3, If::Different, network_order(PROVIDER_VLAN), untagged);
        assembler.place(is_tagged);
        need(assembler, ETHERNET + TAG, labels.pass);
        assembler.load(Size::Half, R3, (DATA, IP));
        assembler.and(R3, network_order(0x0fff));
        // A tag with a priority only.
        assembler.jump_if(R3, If::Equal, 0, labels.pass);
        assembler.store(Size::Half, (FRAME, ENDPOINT_TAGS + 2 * tag), R3);
        assembler.add_number(DATA, TAG as i32);
        assembler.load(Size::Half, R3, (DATA, IP - 2));
    }
    assembler.place(untagged);
    assembler.jump_if(R3, If::Equal, network_order(0x0800), labels.v4);
    assembler.jump_if(R3, If::Equal, network_order(0x86dd), labels.v6);
    assembler.jump(labels.pass);
}

/// Leaves frames to the network stack that are shorter.
fn need(assembler: &mut Assembler, length: usize, pass: Label) {
    assembler.copy(R2, DATA);
    assembler.add_number(R2, length as i32);
    assembler.jump_if_register(R2, If::Greater, END, pass);
}

/// Leaves frames to the network stack that end before the IP packet, whose length is in a register.
fn need_packet(assembler: &mut Assembler, length: u8, pass: Label) {
    assembler.jump_if(length, If::Greater, (MAX_FRAME - ETHERNET) as i32, pass);
    assembler.copy(R2, DATA);
    assembler.add_number(R2, ETHERNET as i32);
    assembler.add_register(R2, length);
    assembler.jump_if_register(R2, If::Greater, END, pass);
}

fn check_v4(assembler: &mut Assembler, labels: &Labels) {
    let pass = labels.pass;
    let udp = IP + V4 as i16;
    assembler.place(labels.v4);
    need(assembler, ETHERNET + V4 + UDP, pass);
    // Version 4, a header of five words.
    assembler.load(Size::Byte, R3, (DATA, IP));
    assembler.jump_if(R3, If::Different, 0x45, pass);
    assembler.load(Size::Half, R3, (DATA, IP + 6));
    // All but "do not fragment".
    assembler.jump_if(R3, If::AnyBit, network_order(0xbfff), pass);
    assembler.load(Size::Byte, R3, (DATA, IP + 9));
    assembler.jump_if(R3, If::Different, libc::IPPROTO_UDP, pass);
    assembler.load(Size::Half, R4, (DATA, IP + 2));
    assembler.swap_half(R4);
    assembler.load(Size::Half, R5, (DATA, udp + 4));
    assembler.swap_half(R5);
    assembler.add_number(R5, V4 as i32);
    assembler.jump_if_register(R4, If::Different, R5, pass);
    assembler.jump_if(R4, If::Less, (V4 + UDP) as i32, pass);
    need_packet(assembler, R4, pass);
    // "This network", loopback, multicast, reserved and broadcast.
    assembler.load(Size::Byte, R3, (DATA, IP + 12));
    assembler.jump_if(R3, If::Equal, 0, pass);
    assembler.jump_if(R3, If::Equal, 127, pass);
    assembler.jump_if(R3, If::AtLeast, 224, pass);
    assembler.store_number(Size::Word, (FRAME, SOURCE_FAMILY), FAMILY_V4.to_be() as i32);
    for (key, address) in [(SOURCE_ADDRESS, IP + 12), (ENDPOINT, IP + 16)] {
        assembler.store_number(Size::Word, (FRAME, key), 0);
        assembler.store_number(Size::Word, (FRAME, key + 4), 0);
        assembler.store_number(Size::Word, (FRAME, key + 8), 0x0000_ffff_u32.to_be() as i32);
        assembler.load(Size::Word, R3, (DATA, address));
        assembler.store(Size::Word, (FRAME, key + 12), R3);
    }
    assembler.load(Size::Half, R3, (DATA, udp + 2));
    assembler.store(Size::Half, (FRAME, ENDPOINT_PORT), R3);
    assembler.jump(labels.known);
}

fn check_v6(assembler: &mut Assembler, labels: &Labels) {
    let pass = labels.pass;
    let udp = IP + V6 as i16;
    assembler.place(labels.v6);
    need(assembler, ETHERNET + V6 + UDP, pass);
    assembler.load(Size::Byte, R3, (DATA, IP));
    assembler.and(R3, 0xf0);
    assembler.jump_if(R3, If::Different, 0x60, pass);
    assembler.load(Size::Byte, R3, (DATA, IP + 6));
    assembler.jump_if(R3, If::Different, libc::IPPROTO_UDP, pass);
    assembler.load(Size::Half, R4, (DATA, IP + 4));
    assembler.load(Size::Half, R5, (DATA, udp + 4));
    assembler.jump_if_register(R4, If::Different, R5, pass);
    assembler.swap_half(R4);
    assembler.jump_if(R4, If::Less, UDP as i32, pass);
    assembler.add_number(R4, V6 as i32);
    need_packet(assembler, R4, pass);
    // Unspecified, loopback and embedded IPv4; multicast; link-local, which needs an interface with it.
    assembler.load(Size::Half, R3, (DATA, IP + 8));
    assembler.jump_if(R3, If::Equal, 0, pass);
    assembler.copy(R4, R3);
    assembler.and(R4, network_order(0xffc0));
    assembler.jump_if(R4, If::Equal, network_order(0xfe80), pass);
    assembler.and(R3, network_order(0xff00));
    assembler.jump_if(R3, If::Equal, network_order(0xff00), pass);
    assembler.store_number(Size::Word, (FRAME, SOURCE_FAMILY), FAMILY_V6.to_be() as i32);
    for (key, address) in [(SOURCE_ADDRESS, IP + 8), (ENDPOINT, IP + 24)] {
        for word in (0..16).step_by(4) {
            assembler.load(Size::Word, R3, (DATA, address + word));
            assembler.store(Size::Word, (FRAME, key + word), R3);
        }
    }
    assembler.load(Size::Half, R3, (DATA, udp + 2));
    assembler.store(Size::Half, (FRAME, ENDPOINT_PORT), R3);
    assembler.place(labels.known);
}

/// From the keys to the verdict.
fn look_up(assembler: &mut Assembler, labels: &Labels, maps: MapDescriptors, otherwise: u32) {
    let pass = labels.pass;
    let find = |assembler: &mut Assembler, map, key: i16| {
        assembler.set_map(R1, map);
        assembler.copy(R2, FRAME);
        assembler.add_number(R2, i32::from(key));
        assembler.call(MAP_LOOKUP);
    };
    find(assembler, maps.endpoints, ENDPOINT);
    assembler.jump_if(R0, If::Equal, 0, pass);
    assembler.load(Size::Word, R3, (CONTEXT, CONTEXT_QUEUE));
    assembler.store(Size::Word, (FRAME, QUEUE), R3);
    find(assembler, maps.switches, QUEUE);
    assembler.jump_if(R0, If::Equal, 0, pass);
    let redirect = assembler.label();
    assembler.copy(R9, R0);
    assembler.load(Size::Double, R3, (R9, 0));
    assembler.copy(R4, R3);
    assembler.and(R4, SWITCH_ON as i32);
    assembler.jump_if(R4, If::Equal, 0, pass);
    assembler.and(R3, SWITCH_BLOCKS as i32);
    assembler.jump_if(R3, If::Equal, 0, redirect);
    assembler.store_number(Size::Word, (FRAME, SOURCE), FAMILY_BITS as i32 + 128);
    find(assembler, maps.blocked, SOURCE);
    assembler.jump_if(R0, If::Equal, 0, redirect);
    assembler.set(R1, 1);
    assembler.atomic_add((R9, BLOCKED_OFFSET), R1);
    assembler.set(R0, DROP as i32);
    assembler.exit();
    assembler.place(redirect);
    assembler.set_map(R1, maps.sockets);
    assembler.load(Size::Word, R2, (CONTEXT, CONTEXT_QUEUE));
    assembler.set(R3, otherwise as i32);
    assembler.call(REDIRECT_MAP);
    assembler.exit();
}

#[cfg(test)]
mod tests;
