//! Session descriptions. Between constant parts they contain a label with the send time and the sender, which
//! verifies a relay and measures its latency.

use aquatic_load_engine::clock::Nanos;

use crate::decode::Description;
use crate::ids::{read_hex, write_hex};

/// Length of a label in hexadecimal digits: time, connection, sequence number.
const LABEL_LENGTH: usize = 16 + 8 + 8;
/// SDP before the label.
const BEFORE: &str = "v=0\r\no=- ";
/// SDP between the label and the candidates.
const MIDDLE: &str = " 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=extmap-allow-mixed\r\n\
    a=msid-semantic: WMS\r\nm=application 50411 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 192.0.2.10\r\n";
/// SDP after the candidates.
const END: &str = "a=ice-ufrag:Zk3q\r\na=ice-pwd:9HhIbUuVnXcW2sB7eYdLkTqR\r\na=ice-options:trickle\r\n\
    a=fingerprint:sha-256 0F:52:9B:C1:6A:77:E0:3D:18:B4:2C:95:DE:41:8F:63:AA:07:F9:5E:34:C8:71:1D:E6:90:4B:2F:BD:58:\
    13:A6\r\na=setup:actpass\r\na=mid:0\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n";

/// Label of a session description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// Intended send time.
    pub(crate) time: Nanos,
    /// Number of the sending connection.
    pub(crate) connection: u32,
    /// Sequence number of the offer, or of the answered offer.
    pub(crate) sequence: u32,
}

/// Template of the session descriptions of a kind.
pub(crate) struct Template {
    kind: &'static str,
    before: String,
    after: String,
    /// SDP after the label, unescaped.
    sdp_after: String,
}

impl Template {
    /// Creates a template for a kind, `offer` or `answer`, with an SDP of at least `length` bytes.
    pub(crate) fn new(kind: &'static str, length: usize) -> Self {
        let mut sdp_after = MIDDLE.to_owned();
        for number in 0.. {
            if BEFORE.len() + LABEL_LENGTH + sdp_after.len() + END.len() >= length {
                break;
            }
            let (priority, host, port) = (2_113_937_151 - number, number % 250, 50_000 + number % 10_000);
            sdp_after += &format!(
                "a=candidate:{number} 1 udp {priority} 198.51.100.{host} {port} typ host generation 0 network-cost 50\r\n"
            );
        }
        sdp_after += END;
        let escaped = |text: &str| text.replace("\r\n", "\\r\\n");
        Self {
            kind,
            before: format!("{{\"type\":\"{kind}\",\"sdp\":\"{}", escaped(BEFORE)),
            after: format!("{}\"}}", escaped(&sdp_after)),
            sdp_after,
        }
    }

    /// Number of bytes that [`Self::write`] appends.
    pub(crate) fn length(&self) -> usize {
        self.before.len() + LABEL_LENGTH + self.after.len()
    }

    /// Appends a description as a JSON object.
    pub(crate) fn write(&self, label: Label, out: &mut String) {
        let mut digits = [0; LABEL_LENGTH];
        write_hex(&mut digits[..16], label.time);
        write_hex(&mut digits[16..24], label.connection.into());
        write_hex(&mut digits[24..], label.sequence.into());
        out.push_str(&self.before);
        out.extend(digits.map(char::from));
        out.push_str(&self.after);
    }

    /// Label of a description, if it matches the template exactly.
    pub(crate) fn read(&self, Description { kind, sdp }: Description<'_>) -> Option<Label> {
        if kind != self.kind {
            return None;
        }
        let (digits, rest) = sdp.strip_prefix(BEFORE)?.split_at_checked(LABEL_LENGTH)?;
        if rest == self.sdp_after { read_label(digits.as_bytes()) } else { None }
    }
}

fn read_label(digits: &[u8]) -> Option<Label> {
    let number = |range| read_hex(digits.get(range)?);
    Some(Label {
        time: number(0..16)?,
        connection: u32::try_from(number(16..24)?).ok()?,
        sequence: u32::try_from(number(24..32)?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: Label = Label { time: 123_456_789_012, connection: 999_999, sequence: u32::MAX };

    /// Template, description, and its SDP as read by another decoder.
    fn written(kind: &'static str, length: usize) -> (Template, String, String) {
        let (template, mut object) = (Template::new(kind, length), String::new());
        template.write(LABEL, &mut object);
        let sdp = aquatic_ws_protocol::Description::parse(&object).unwrap().sdp().unwrap().into_owned();
        (template, object, sdp)
    }

    #[test]
    fn descriptions_have_the_requested_length_and_a_label() {
        for (kind, length) in [("offer", 600), ("answer", 4000)] {
            let (template, object, sdp) = written(kind, length);
            assert!((length..length + 120).contains(&sdp.len()), "{}", sdp.len());
            assert!(object.contains(kind) && sdp.ends_with("\r\n"));
            assert_eq!(template.read(Description { kind, sdp: &sdp }), Some(LABEL));
        }
    }

    #[test]
    fn modified_descriptions_are_rejected() {
        let (template, _, sdp) = written("offer", 1000);
        let read = |sdp: &[u8]| template.read(Description { kind: "offer", sdp: str::from_utf8(sdp).ok()? });
        for index in 0..sdp.len() {
            let mut changed = sdp.clone().into_bytes();
            changed[index] ^= 1;
            assert_ne!(read(&changed), Some(LABEL), "{index}");
        }
        assert_eq!(read(&sdp.as_bytes()[..sdp.len() - 1]), None);
        assert_eq!(read(b""), None);
        assert_eq!(template.read(Description { kind: "answer", sdp: &sdp }), None);
    }
}
