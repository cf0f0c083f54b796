//! What answers the challenges of an authority while an order is under way.

use std::net::IpAddr;

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate for a handshake of the TLS-ALPN-01 challenge: for the name, with the digest of the key
/// authorization (RFC 8737, 3).
///
/// # Errors
/// A name that a certificate cannot have.
pub(crate) fn certificate(
    name: &str,
    digest: &[u8],
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into())))
}

/// A certificate that nobody trusts, for the names of the tracker, until there is one.
///
/// # Errors
/// Names that a certificate cannot have.
pub(crate) fn placeholder(
    names: &[String],
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error> {
    let params = CertificateParams::new(names.to_vec())?;
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into())))
}

/// Name that the authority asks for in the handshake: that of the host, or of the reverse DNS of an address
/// (RFC 8738, 6).
pub(crate) fn server_name(name: &str) -> String {
    match name.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Ok(IpAddr::V6(address)) => {
            let nibbles = address.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).chain(["ip6.arpa".to_owned()]).collect()
        }
        Err(_) => name.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use x509_parser::parse_x509_certificate;

    use super::*;

    #[test]
    fn addresses_are_asked_for_by_their_reverse_names() {
        assert_eq!(server_name("Tracker.example"), "tracker.example");
        assert_eq!(server_name("192.0.2.45"), "45.2.0.192.in-addr.arpa");
        assert_eq!(
            server_name("2001:db8::567:89ab"),
            "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
            "RFC 3596, 2.5"
        );
    }

    #[test]
    fn the_digest_is_in_a_critical_extension() {
        for name in ["tracker.example", "192.0.2.1"] {
            let (certificate, _) = certificate(name, &[7; 32]).unwrap();
            let (_, parsed) = parse_x509_certificate(&certificate).unwrap();
            let extension = parsed
                .extensions()
                .iter()
                .find(|extension| extension.oid.to_id_string() == "1.3.6.1.5.5.7.1.31")
                .unwrap();
            assert!(extension.critical);
            assert_eq!(extension.value, [&[4, 32][..], &[7; 32]].concat());
            assert_eq!(parsed.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
        }
    }
}
