//! Session descriptions, made once. Between the parts that never change stands a label that says when and by whom it
//! was sent.

use aquatic_load_engine::clock::Nanos;

use crate::decode::Description;
use crate::ids::{read_hex, write_hex};

/// Digits of a label: time, connection, number of the offer.
const LABEL_LENGTH: usize = 16 + 8 + 8;
/// What stands before the label in the text of a session description.
const BEFORE: &str = "v=0\r\no=- ";
/// What stands behind it, up to the candidates.
const MIDDLE: &str = " 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=extmap-allow-mixed\r\n\
    a=msid-semantic: WMS\r\nm=application 50411 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 192.0.2.10\r\n";
/// What stands at the end.
const END: &str = "a=ice-ufrag:Zk3q\r\na=ice-pwd:9HhIbUuVnXcW2sB7eYdLkTqR\r\na=ice-options:trickle\r\n\
    a=fingerprint:sha-256 0F:52:9B:C1:6A:77:E0:3D:18:B4:2C:95:DE:41:8F:63:AA:07:F9:5E:34:C8:71:1D:E6:90:4B:2F:BD:58:\
    13:A6\r\na=setup:actpass\r\na=mid:0\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n";

/// What a session description says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// When it was meant to be sent.
    pub(crate) time: Nanos,
    /// Who sent it.
    pub(crate) connection: u32,
    /// The number of the offer that it is, or that it answers.
    pub(crate) sequence: u32,
}

/// All session descriptions of a kind: a JSON object before and behind its label.
pub(crate) struct Template {
    kind: &'static str,
    before: String,
    behind: String,
    /// The session description itself behind its label.
    sdp_behind: String,
}

impl Template {
    /// Those of a kind, `offer` or `answer`, each of this many bytes or a few more.
    pub(crate) fn new(kind: &'static str, length: usize) -> Self {
        let mut sdp_behind = MIDDLE.to_owned();
        for number in 0.. {
            if BEFORE.len() + LABEL_LENGTH + sdp_behind.len() + END.len() >= length {
                break;
            }
            let (priority, host, port) = (2_113_937_151 - number, number % 250, 50_000 + number % 10_000);
            sdp_behind += &format!(
                "a=candidate:{number} 1 udp {priority} 198.51.100.{host} {port} typ host generation 0 network-cost 50\r\n"
            );
        }
        sdp_behind += END;
        let escaped = |text: &str| text.replace("\r\n", "\\r\\n");
        Self {
            kind,
            before: format!("{{\"type\":\"{kind}\",\"sdp\":\"{}", escaped(BEFORE)),
            behind: format!("{}\"}}", escaped(&sdp_behind)),
            sdp_behind,
        }
    }

    /// Bytes that [`Self::write`] appends.
    pub(crate) fn length(&self) -> usize {
        self.before.len() + LABEL_LENGTH + self.behind.len()
    }

    /// Appends one.
    pub(crate) fn write(&self, label: Label, out: &mut String) {
        let mut digits = [0; LABEL_LENGTH];
        write_hex(&mut digits[..16], label.time);
        write_hex(&mut digits[16..24], label.connection.into());
        write_hex(&mut digits[24..], label.sequence.into());
        out.push_str(&self.before);
        out.extend(digits.map(char::from));
        out.push_str(&self.behind);
    }

    /// Label of a session description, if it is one of these to the last character.
    pub(crate) fn read(&self, Description { kind, sdp }: Description<'_>) -> Option<Label> {
        if kind != self.kind {
            return None;
        }
        let (digits, rest) = sdp.strip_prefix(BEFORE)?.split_at_checked(LABEL_LENGTH)?;
        if rest == self.sdp_behind { read_label(digits.as_bytes()) } else { None }
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

    /// Text of a description, and its SDP as another decoder reads it.
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
    fn changes_are_noticed() {
        let (template, _, sdp) = written("offer", 1000);
        let read = |sdp: &[u8]| template.read(Description { kind: "offer", sdp: str::from_utf8(sdp).ok()? });
        for place in 0..sdp.len() {
            let mut changed = sdp.clone().into_bytes();
            changed[place] ^= 1;
            assert_ne!(read(&changed), Some(LABEL), "{place}");
        }
        assert_eq!(read(&sdp.as_bytes()[..sdp.len() - 1]), None);
        assert_eq!(read(b""), None);
        assert_eq!(template.read(Description { kind: "answer", sdp: &sdp }), None);
    }
}
