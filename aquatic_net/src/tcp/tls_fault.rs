//! Why TLS ends a connection: what its client did, or did not accept.

use std::io;

use rustls::{Error, InvalidMessage};

/// Reason for which a handshake fails, or an encrypted connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsFault {
    /// The client closed the connection during the handshake.
    Closed,
    /// The client sent something other than TLS.
    NotTls,
    /// A message of the client cannot be decoded.
    Malformed,
    /// Client and tracker have no version, cipher or curve in common, or the client asks for another name.
    Incompatible,
    /// The client does not follow the protocol, such as with messages out of order or many empty records.
    Misbehaved,
    /// A record cannot be decrypted: it was changed on its way, or the client has another key.
    Decryption,
    /// The client ended the connection with an alert, mostly because it does not trust the certificate.
    Alert,
    /// Anything else.
    Other,
}

impl TlsFault {
    /// All of them, with the values of the label `reason` in metrics.
    pub(super) const ALL: [(Self, &'static str); 8] = [
        (Self::Closed, "closed"),
        (Self::NotTls, "not_tls"),
        (Self::Malformed, "malformed"),
        (Self::Incompatible, "incompatible"),
        (Self::Misbehaved, "misbehaved"),
        (Self::Decryption, "decryption"),
        (Self::Alert, "alert"),
        (Self::Other, "other"),
    ];

    /// Returns the fault that an error is about. `None` for errors of the socket and for deadlines.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().map(Self::of_tls)
    }

    /// Returns the fault that an error during a handshake is about. `None` for deadlines, which are counted
    /// as such.
    pub(super) fn of_handshake(error: &io::Error) -> Option<Self> {
        let is_closed = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        );
        if is_closed { Some(Self::Closed) } else { Self::of(error) }
    }

    fn of_tls(error: &Error) -> Self {
        if matches!(error, Error::InvalidMessage(InvalidMessage::InvalidContentType)) {
            Self::NotTls
        } else if matches!(error, Error::InvalidMessage(_)) {
            Self::Malformed
        } else if matches!(error, Error::PeerIncompatible(_) | Error::NoApplicationProtocol) {
            Self::Incompatible
        } else if matches!(error, Error::AlertReceived(_)) {
            Self::Alert
        } else if matches!(error, Error::DecryptError) {
            Self::Decryption
        } else if matches!(
            error,
            Error::PeerMisbehaved(_)
                | Error::InappropriateMessage { .. }
                | Error::InappropriateHandshakeMessage { .. }
                | Error::PeerSentOversizedRecord
        ) {
            Self::Misbehaved
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, PeerIncompatible, PeerMisbehaved};

    use super::*;

    fn of(error: Error) -> Option<TlsFault> {
        TlsFault::of(&io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn errors_of_tls_have_a_fault_and_those_of_sockets_none() {
        for (error, fault) in [
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), TlsFault::NotTls),
            (Error::InvalidMessage(InvalidMessage::MessageTooLarge), TlsFault::Malformed),
            (Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon), TlsFault::Incompatible),
            (Error::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments), TlsFault::Misbehaved),
            (Error::PeerSentOversizedRecord, TlsFault::Misbehaved),
            (Error::DecryptError, TlsFault::Decryption),
            (Error::AlertReceived(AlertDescription::UnknownCA), TlsFault::Alert),
            (Error::General("something".to_owned()), TlsFault::Other),
        ] {
            assert_eq!(of(error), Some(fault));
        }
        for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::TimedOut, io::ErrorKind::UnexpectedEof] {
            assert_eq!(TlsFault::of(&kind.into()), None);
        }
        assert_eq!(TlsFault::of_handshake(&io::ErrorKind::UnexpectedEof.into()), Some(TlsFault::Closed));
        assert_eq!(TlsFault::of_handshake(&io::ErrorKind::TimedOut.into()), None);
    }

    #[test]
    fn reasons_are_listed_in_the_order_of_their_numbers() {
        assert!(TlsFault::ALL.iter().enumerate().all(|(nth, (fault, _))| *fault as usize == nth));
    }
}
