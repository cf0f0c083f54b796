//! What holds for any bytes that a TLS connection may begin with: the fuzz target `tls_hello` and the tests
//! of [`hello`](super::hello) check the same.

use rustls::server::Acceptor;

use super::hello::is_whole;

/// Checks that more bytes never make a message incomplete, and that one which TLS accepts is whole with its
/// last byte: nobody waits for more, and no handshake begins before.
pub(crate) fn check_first_bytes(bytes: &[u8]) {
    let first = (0..=bytes.len()).find(|&len| is_whole(&bytes[..len]));
    let Some(first) = first else {
        return assert!(!accepts(bytes), "a whole message is waited for");
    };
    assert!((first..=bytes.len()).all(|len| is_whole(&bytes[..len])), "whole from {first} on");
    if accepts(bytes) {
        assert!(accepts(&bytes[..first]), "whole with {first} bytes");
        assert!(first > 0 && !accepts(&bytes[..first - 1]), "whole with fewer than {first} bytes");
    }
}

/// Whether TLS takes these bytes for a client's first message.
fn accepts(mut bytes: &[u8]) -> bool {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        if acceptor.read_tls(&mut bytes).is_err() {
            return false;
        }
    }
    matches!(acceptor.accept(), Ok(Some(_)))
}
