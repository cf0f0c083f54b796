//! The program's verdicts about made-up frames, by the kernel's test run. Needs root.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::*;
use crate::xdp::endpoints::{LocalAddress, endpoints, network_key};
use crate::xdp::setup::Maps;
use crate::xdp::sys::bpf;

/// Verdict for frames that would go to a socket, if there was one: `XDP_TX`, which the program never says.
const TAKEN: u32 = 3;

const V4_TO: [u8; 4] = [192, 0, 2, 1];
const PORT: u16 = 6969;
/// Hardware address of the interface.
const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 1];

struct Loaded {
    program: OwnedFd,
    maps: Maps,
    switches: bpf::Numbers,
}

/// The program, with endpoints on port 6969 and an open switch; `None` without root.
fn load() -> Option<Loaded> {
    let maps = match Maps::new(1) {
        Ok(maps) => maps,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "needs to be root: {error}");
            return None;
        }
    };
    let program = bpf::load(&program(maps.descriptors(), HARDWARE, TAKEN)).unwrap();
    let listeners: Vec<SocketAddr> =
        [format!("0.0.0.0:{PORT}"), format!("[::]:{PORT}")].map(|text| text.parse().unwrap()).to_vec();
    let local = |ip: &str, tags| LocalAddress { ip: ip.parse().unwrap(), tags };
    let addresses = [
        local("192.0.2.1", [0, 0]),
        local("2001:db8::1", [0, 0]),
        local("192.0.2.1", [5, 0]),
        local("192.0.2.1", [5, 6]),
    ];
    for endpoint in endpoints(&listeners, &addresses) {
        maps.endpoints.set(&endpoint.key(), &[0; 4]).unwrap();
    }
    let switches = maps.switches.map_numbers().unwrap();
    let loaded = Loaded { program, maps, switches };
    loaded.switch(SWITCH_ON);
    Some(loaded)
}

impl Loaded {
    fn switch(&self, bits: u64) {
        self.switches.at(0).unwrap().store(bits, std::sync::atomic::Ordering::Relaxed);
    }

    fn verdict(&self, frame: &[u8]) -> u32 {
        bpf::run(&self.program, frame).unwrap()
    }
}

/// An Ethernet header with tags.
fn ethernet(tags: &[(u16, u16)], ethertype: u16) -> Vec<u8> {
    let mut frame = [HARDWARE, [2, 0, 0, 0, 0, 2]].concat();
    for (kind, tag) in tags {
        frame.extend(kind.to_be_bytes());
        frame.extend(tag.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame
}

fn udp(port: u16, payload: usize) -> Vec<u8> {
    let length = (UDP + payload) as u16;
    let mut datagram = [[0x1a, 0xe1], port.to_be_bytes(), length.to_be_bytes(), [0; 2]].concat();
    datagram.resize(usize::from(length), 7);
    datagram
}

fn v4_packet(payload: usize) -> Vec<u8> {
    let datagram = udp(PORT, payload);
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0, 198, 51, 100, 7];
    packet.extend(V4_TO);
    packet.extend(datagram);
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet
}

fn v4(payload: usize) -> Vec<u8> {
    [ethernet(&[], 0x0800), v4_packet(payload)].concat()
}

fn v6(payload: usize) -> Vec<u8> {
    let datagram = udp(PORT, payload);
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 17, 64];
    packet[4..6].copy_from_slice(&(datagram.len() as u16).to_be_bytes());
    packet.extend("2001:db8:5::9".parse::<std::net::Ipv6Addr>().unwrap().octets());
    packet.extend("2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    [ethernet(&[], 0x86dd), packet, datagram].concat()
}

/// A frame with some bytes replaced.
fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

#[test]
fn plain_requests_are_taken() {
    let Some(loaded) = load() else { return };
    for payload in [0, 16, 98, 1400] {
        assert_eq!(loaded.verdict(&v4(payload)), TAKEN, "{payload}");
        assert_eq!(loaded.verdict(&v6(payload)), TAKEN, "{payload}");
    }
    assert_eq!(loaded.verdict(&[v4(0), vec![0; 18]].concat()), TAKEN, "padding");
    assert_eq!(loaded.verdict(&with(v4(16), 20, &[0, 0])), TAKEN, "may be fragmented");
    assert_eq!(loaded.verdict(&with(v6(16), 14, &[0x6f, 0xff, 0xff, 0xff])), TAKEN, "flow label");
}

#[test]
fn what_is_for_others_is_passed() {
    let Some(loaded) = load() else { return };
    let pass = |what: &str, frame: Vec<u8>| assert_eq!(loaded.verdict(&frame), PASS, "{what}");
    pass("other port", with(v4(16), 36, &[0, 53]));
    pass("other port", with(v6(16), 56, &[0, 53]));
    pass("other address", with(v4(16), 33, &[9]));
    pass("other address", with(v6(16), 53, &[9]));
    pass("TCP", with(v4(16), 23, &[6]));
    pass("TCP", with(v6(16), 20, &[6]));
    pass("ARP", with(v4(16), 12, &[8, 6]));
    pass("broadcast", with(v4(16), 0, &[0xff; 6]));
    for (at, byte) in HARDWARE.into_iter().enumerate() {
        pass("other interface", with(v4(16), at, &[byte ^ 0x10]));
    }
    pass("from a group", with(v4(16), 6, &[1]));
}

#[test]
fn what_is_odd_is_passed() {
    let Some(loaded) = load() else { return };
    let pass = |what: &str, frame: Vec<u8>| assert_eq!(loaded.verdict(&frame), PASS, "{what}");
    pass("options", with(v4(16), 14, &[0x46]));
    pass("version", with(v4(16), 14, &[0x55]));
    pass("version", with(v6(16), 14, &[0x40]));
    pass("first fragment", with(v4(16), 20, &[0x20, 0]));
    pass("later fragment", with(v4(16), 20, &[0, 1]));
    pass("last fragment", with(v4(16), 20, &[0x1f, 0xff]));
    pass("reserved flag", with(v4(16), 20, &[0x80, 0]));
    for header in [0, 43, 44, 60] {
        pass("extension header", with(v6(16), 20, &[header]));
    }
    pass("lengths differ", with(v4(16), 38, &[0, 23]));
    pass("lengths differ", with(v4(16), 16, &[0, 43]));
    pass("lengths differ", with(v6(16), 18, &[0, 23]));
    pass("no room for UDP", with(with(v4(16), 16, &[0, 27]), 38, &[0, 7]));
    pass("no room for UDP", with(with(v6(16), 18, &[0, 7]), 58, &[0, 7]));
    pass("longer than the frame", with(with(v4(16), 16, &[0, 45]), 38, &[0, 25]));
    pass("longer than the frame", with(with(v6(16), 18, &[0, 25]), 58, &[0, 25]));
    pass("longest length", with(with(v4(16), 16, &[0xff, 0xff]), 38, &[0xff, 0xeb]));
    for first in [0, 127, 224, 240, 255] {
        pass("source", with(v4(16), 26, &[first]));
    }
    for first in [[0, 0], [0xff, 2], [0xfe, 0x80], [0xfe, 0xbf]] {
        pass("source", with(v6(16), 22, &first));
    }
    pass("too long", v4(1751));
    assert_eq!(loaded.verdict(&v4(1750)), TAKEN);
}

#[test]
fn short_frames_are_passed() {
    let Some(loaded) = load() else { return };
    // The test run takes frames from the length of an Ethernet header on.
    for (frame, headers) in [(v4(0), ETHERNET + V4 + UDP), (v6(0), ETHERNET + V6 + UDP)] {
        assert_eq!((frame.len(), loaded.verdict(&frame)), (headers, TAKEN));
        for length in ETHERNET..headers {
            assert_eq!(loaded.verdict(&frame[..length]), PASS, "{length}");
        }
    }
    let tagged = [ethernet(&[(VLAN, 5), (VLAN, 6)], 0x0800), v4_packet(0)].concat();
    assert_eq!(loaded.verdict(&tagged), TAKEN);
    for length in ETHERNET..tagged.len() {
        assert_eq!(loaded.verdict(&tagged[..length]), PASS, "{length}");
    }
}

#[test]
fn tags_belong_to_the_endpoint() {
    let Some(loaded) = load() else { return };
    let verdict = |tags: &[(u16, u16)]| loaded.verdict(&[ethernet(tags, 0x0800), v4_packet(16)].concat());
    assert_eq!(verdict(&[(VLAN, 5)]), TAKEN);
    assert_eq!(verdict(&[(PROVIDER_VLAN, 5)]), TAKEN);
    assert_eq!(verdict(&[(VLAN, 0xe005)]), TAKEN, "priority");
    assert_eq!(verdict(&[(PROVIDER_VLAN, 5), (VLAN, 6)]), TAKEN);
    assert_eq!(verdict(&[(VLAN, 6)]), PASS);
    assert_eq!(verdict(&[(VLAN, 0)]), PASS, "priority only");
    assert_eq!(verdict(&[(VLAN, 6), (VLAN, 5)]), PASS);
    assert_eq!(verdict(&[(VLAN, 5), (VLAN, 6), (VLAN, 7)]), PASS);
    assert_eq!(loaded.verdict(&[ethernet(&[(VLAN, 5)], 0x86dd), v6(16)[ETHERNET..].to_vec()].concat()), PASS);
}

#[test]
fn blocked_sources_are_dropped_and_counted() {
    let Some(loaded) = load() else { return };
    for network in ["198.51.100.0/24", "2001:db8:5::/48"] {
        loaded.maps.blocked.set(&network_key(network.parse().unwrap()), &[0; 4]).unwrap();
    }
    assert_eq!(loaded.verdict(&v4(16)), TAKEN, "not looked up");
    loaded.switch(SWITCH_ON | SWITCH_BLOCKS);
    let dropped = || loaded.switches.at(1).unwrap().load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((loaded.verdict(&v4(16)), loaded.verdict(&v6(16)), dropped()), (DROP, DROP, 2));
    assert_eq!(loaded.verdict(&with(v4(16), 28, &[101])), TAKEN);
    assert_eq!(loaded.verdict(&with(v6(16), 27, &[6])), TAKEN);
    assert_eq!(loaded.verdict(&with(v4(16), 36, &[0, 53])), PASS, "not the tracker's port");
    assert_eq!(dropped(), 2);
    loaded.maps.blocked.remove(&network_key("198.51.100.0/24".parse().unwrap())).unwrap();
    assert_eq!(loaded.verdict(&v4(16)), TAKEN);
    for network in ["::/1", "::/8", "::/80"] {
        loaded.maps.blocked.set(&network_key(network.parse().unwrap()), &[0; 4]).unwrap();
        assert_eq!(loaded.verdict(&v4(16)), TAKEN, "{network} has no addresses of IPv4");
    }
}

#[test]
fn a_closed_switch_passes_everything() {
    let Some(loaded) = load() else { return };
    loaded.switch(SWITCH_BLOCKS);
    assert_eq!(loaded.verdict(&v4(16)), PASS);
}

#[test]
fn frames_of_a_queue_without_a_socket_are_passed() {
    let Some(Loaded { maps, .. }) = load() else { return };
    let program = bpf::load(&program(maps.descriptors(), HARDWARE, PASS)).unwrap();
    assert_eq!(bpf::run(&program, &v4(16)).unwrap(), PASS);
}

/// The parser agrees with the program about what is taken, for frames with one byte changed.
#[test]
fn what_the_program_takes_can_be_parsed() {
    let Some(loaded) = load() else { return };
    let tagged = [ethernet(&[(PROVIDER_VLAN, 5), (VLAN, 6)], 0x0800), v4_packet(20)].concat();
    let mut taken = 0;
    for frame in [v4(20), v6(20), tagged] {
        for at in 0..frame.len() {
            for value in [0, 1, 0x40, 0x46, 0x60, 0x81, 0xff] {
                let frame = with(frame.clone(), at, &[value]);
                if loaded.verdict(&frame) == TAKEN {
                    taken += 1;
                    assert!(crate::xdp::frame::parse(&frame).is_some(), "{frame:?}");
                }
            }
        }
    }
    assert!(taken > 200, "{taken}");
}
