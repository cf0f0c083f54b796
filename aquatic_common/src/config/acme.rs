//! Section `[acme]`: where certificates come from, for the names of `network.acme` (RFC 8555).

use std::net::IpAddr;
use std::path::PathBuf;

use super::network::{ListenerKind, NetworkConfig, TLS_PORT};
use crate::settings::Problem;

/// Maximum number of names in one certificate: that of Let's Encrypt.
const MAX_ACME_NAMES: usize = 100;

/// Directory of Let's Encrypt.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Directory in which Let's Encrypt counts failures apart, and whose certificates nobody trusts.
const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// Value of settings that are chosen by others.
const AUTO: &str = "auto";

/// Port on which authorities look for the HTTP-01 challenge (RFC 8555).
const HTTP_PORT: u16 = 80;

crate::choice! {
    /// Which challenges to answer.
    #[derive(Default)]
    pub enum AcmeChallenges {
        /// Those whose port is listened on.
        #[default]
        Auto = "auto",
        /// TLS-ALPN-01, whatever the ports.
        TlsAlpn = "tls-alpn-01",
        /// HTTP-01, whatever the ports.
        Http = "http-01",
        /// Both, whatever the ports.
        Both = "both",
    }
}

/// How an authority verifies that a name leads to the tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChallengeKind {
    /// By a TLS handshake on port 443 (RFC 8737).
    TlsAlpn01,
    /// By a request over HTTP on port 80 (RFC 8555, 8.3).
    Http01,
}

impl ChallengeKind {
    /// Name, as in the protocol.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }

    /// Port that the authority connects to.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::TlsAlpn01 => TLS_PORT,
            Self::Http01 => HTTP_PORT,
        }
    }
}

crate::settings! {
    /// How the certificate for the names of network.acme is obtained. Not read while that list is empty.
    pub struct AcmeConfig, section "acme" {
        /// URL of the authority's directory. The default is that of Let's Encrypt.
        pub directory: String = LETS_ENCRYPT.to_owned();
        /// URL of a directory for retries after three refusals, so that failures do not count towards the
        /// limits of the other one. "auto" is that of Let's Encrypt for tests if directory has its default,
        /// else none; empty for none.
        pub staging_directory: String = AUTO.to_owned();
        /// Mail address for the authority; empty for none.
        pub contact: String = String::new();
        /// Identifier of an account that was made on the authority's website (RFC 8555, 7.3.4: key identifier
        /// of an external account), for authorities that grant certificates to their customers only; empty
        /// for none. Of no meaning for staging_directory.
        pub external_account_id: String = String::new();
        /// File with the HMAC key of that account, in base64url as the website shows it. Read once, to make
        /// the account of the tracker.
        pub external_account_key_path: PathBuf = PathBuf::new();
        /// Profile of the certificate. "auto" is "shortlived" if one of the names is an IP address and the
        /// authority offers it, as Let's Encrypt asks for, else that of the authority; empty for that of the
        /// authority in any case.
        pub profile: String = AUTO.to_owned();
        /// Ways for the authority to verify the names. "auto" is "tls-alpn-01" if TLS is served on port 443,
        /// "http-01" if plain connections are served on port 80, and both, in turn after failures, if both
        /// are. Name one, or "both", where a router forwards these ports to others.
        pub challenges: AcmeChallenges = AcmeChallenges::Auto;
        /// PEM file with the certificates that the directory's own certificate is verified with, for
        /// authorities of an organisation. If empty, those that the system trusts.
        pub root_certificates_path: PathBuf = PathBuf::new();
    }
}

impl AcmeConfig {
    /// Directory for retries after refusals, if there is one.
    #[must_use]
    pub fn staging(&self) -> Option<&str> {
        match self.staging_directory.as_str() {
            AUTO if self.directory == LETS_ENCRYPT => Some(LETS_ENCRYPT_STAGING),
            AUTO | "" => None,
            url => Some(url),
        }
    }

    /// Whether the profile depends on the names and the authority.
    #[must_use]
    pub fn chooses_profile(&self) -> bool {
        self.profile == AUTO
    }

    /// The challenges that the tracker can answer, in the order in which they are tried.
    #[must_use]
    pub fn challenge_kinds(&self, network: &NetworkConfig) -> Vec<ChallengeKind> {
        let listens = |port, kinds: [ListenerKind; 2]| {
            network
                .tcp_listeners()
                .iter()
                .any(|(address, kind)| address.port() == port && kinds.contains(kind))
        };
        let (tls, http) = match self.challenges {
            AcmeChallenges::Auto => (
                listens(TLS_PORT, [ListenerKind::Tls, ListenerKind::TlsOrPlain]),
                listens(HTTP_PORT, [ListenerKind::Plain, ListenerKind::TlsOrPlain]),
            ),
            AcmeChallenges::TlsAlpn => (true, false),
            AcmeChallenges::Http => (false, true),
            AcmeChallenges::Both => (true, true),
        };
        let kinds = [(tls, ChallengeKind::TlsAlpn01), (http, ChallengeKind::Http01)];
        kinds.into_iter().filter_map(|(is_possible, kind)| is_possible.then_some(kind)).collect()
    }

    /// Reports settings with which no certificate can be obtained.
    pub fn check(&self, network: &NetworkConfig, has_state_directory: bool, problems: &mut Vec<Problem>) {
        if network.acme.is_empty() {
            return;
        }
        let mut add = |key, text: String| problems.push(Problem::new(key, text));
        if !has_state_directory {
            let text =
                "needs state_directory, in which account, key and certificate are kept across restarts"
                    .to_owned();
            add(NetworkConfig::acme, text);
        }
        if network.acme.len() > MAX_ACME_NAMES {
            let text =
                format!("has {} names; a certificate has at most {MAX_ACME_NAMES}", network.acme.len());
            add(NetworkConfig::acme, text);
        }
        for name in &network.acme {
            if let Err(why) = normal_name(name) {
                add(NetworkConfig::acme, format!("{name:?} {why}"));
            }
        }
        let staging = self.staging().map(|url| (Self::staging_directory, url));
        for (key, url) in [(Self::directory, self.directory.as_str())].into_iter().chain(staging) {
            if !is_https(url) {
                add(key, format!("{url:?} is not a URL that begins with \"https://\" and a host"));
            }
        }
        if !self.contact.is_empty() && !is_mail_address(&self.contact) {
            add(
                Self::contact,
                format!("{:?} is not a mail address such as \"admin@example.org\"", self.contact),
            );
        }
        let has_key = !self.external_account_key_path.as_os_str().is_empty();
        let has_id = !self.external_account_id.is_empty();
        if has_key != has_id {
            let (missing, other) = match has_key {
                true => (Self::external_account_id, Self::external_account_key_path),
                false => (Self::external_account_key_path, Self::external_account_id),
            };
            add(missing, format!("is needed with {other}; the authority's website shows both"));
        }
        if self.challenge_kinds(network).is_empty() {
            let text = format!(
                "is \"auto\", but TLS is not served on port {TLS_PORT}, nor are plain connections on port {HTTP_PORT}, \
                 so the authority cannot verify the names; listen there ({}), or name the challenge if a router \
                 forwards one of these ports to the tracker",
                NetworkConfig::tls_address_ipv4
            );
            add(Self::challenges, text);
        }
    }
}

/// A name as certificates have it: in lower case, IP addresses in their shortest form.
///
/// # Errors
/// What is wrong with it.
pub fn normal_name(name: &str) -> Result<String, &'static str> {
    if let Ok(address) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(address.to_canonical().to_string());
    }
    if name.starts_with("*.") {
        return Err("is a wildcard, which is only granted for changes of the DNS; name each host");
    }
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err("is neither a host name, in ASCII and without port, nor an IP address");
    }
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err("is neither a host name nor a complete IP address");
    }
    Ok(name.to_ascii_lowercase())
}

fn is_https(url: &str) -> bool {
    let rest = url.strip_prefix("https://").unwrap_or_default();
    let host = rest.split('/').next().unwrap_or_default();
    !host.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_mail_address(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic() && !b"@,?".contains(&byte))
    };
    text.split_once('@').is_some_and(|(local, domain)| is_word(local) && is_word(domain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Addresses;

    fn network(names: &[&str]) -> NetworkConfig {
        NetworkConfig {
            acme: names.iter().map(|&name| name.to_owned()).collect(),
            ..NetworkConfig::default()
        }
    }

    fn keys(acme: &AcmeConfig, network: &NetworkConfig) -> Vec<String> {
        let mut problems = Vec::new();
        acme.check(network, true, &mut problems);
        problems.into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn a_name_is_all_that_is_needed() {
        let (acme, network) = (AcmeConfig::default(), network(&["tracker.example.org"]));
        assert_eq!(keys(&acme, &network), [""; 0]);
        assert_eq!(acme.challenge_kinds(&network), [ChallengeKind::TlsAlpn01]);
        assert_eq!(acme.staging(), Some(LETS_ENCRYPT_STAGING));
        let mut problems = Vec::new();
        acme.check(&network, false, &mut problems);
        assert!(problems[0].text.contains("state_directory"), "{}", problems[0].text);
        assert_eq!(
            keys(&AcmeConfig { directory: String::new(), ..acme }, &NetworkConfig::default()),
            [""; 0]
        );
    }

    #[test]
    fn names_are_hosts_or_addresses() {
        for (name, normal) in [
            ("Tracker.Example.ORG", "tracker.example.org"),
            ("localhost", "localhost"),
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:DB8:0::1]", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(normal_name(name).as_deref(), Ok(normal));
        }
        for name in
            ["", "*.example.org", "a..b", "-a.org", "a:443", "https://a.org", "ä.org", "10.0.0", "a.1"]
        {
            assert!(normal_name(name).is_err(), "{name}");
            assert_eq!(keys(&AcmeConfig::default(), &network(&[name])), ["network.acme"], "{name}");
        }
        let many = vec!["a.org"; MAX_ACME_NAMES + 1];
        assert_eq!(keys(&AcmeConfig::default(), &network(&many)), ["network.acme"]);
    }

    #[test]
    fn challenges_follow_the_ports() {
        use ChallengeKind::{Http01, TlsAlpn01};
        let on = |plain: &str, tls: &str, more: &dyn Fn(&mut NetworkConfig)| {
            let mut network = network(&["a.org"]);
            network.use_ipv6 = false;
            network.enable_tls = true;
            network.address_ipv4 = Addresses(vec![plain.parse().unwrap()]);
            network.tls_address_ipv4 = Addresses(vec![tls.parse().unwrap()]);
            more(&mut network);
            AcmeConfig::default().challenge_kinds(&network)
        };
        assert_eq!(on("0.0.0.0:80", "0.0.0.0:443", &|_| ()), [TlsAlpn01, Http01]);
        assert_eq!(on("0.0.0.0:80", "0.0.0.0:8443", &|_| ()), [Http01]);
        assert_eq!(on("0.0.0.0:6969", "0.0.0.0:443", &|_| ()), [TlsAlpn01]);
        assert_eq!(on("0.0.0.0:443", "0.0.0.0:80", &|_| ()), []);
        assert_eq!(on("0.0.0.0:443", "0.0.0.0:80", &|network| network.accept_plain = true), [Http01]);
        let mut network = network(&["a.org"]);
        network.enable_tls = true;
        assert_eq!(keys(&AcmeConfig::default(), &network), ["acme.challenges"]);
        let both = AcmeConfig { challenges: AcmeChallenges::Both, ..AcmeConfig::default() };
        assert_eq!(both.challenge_kinds(&network), [TlsAlpn01, Http01]);
    }

    #[test]
    fn other_settings_are_checked() {
        let keys = |change: &dyn Fn(&mut AcmeConfig)| {
            let mut acme = AcmeConfig::default();
            change(&mut acme);
            keys(&acme, &network(&["a.org"]))
        };
        assert_eq!(keys(&|acme| acme.directory = "http://ca.example".to_owned()), ["acme.directory"]);
        assert_eq!(keys(&|acme| acme.staging_directory = "x".to_owned()), ["acme.staging_directory"]);
        assert_eq!(keys(&|acme| acme.staging_directory = String::new()), [""; 0]);
        assert_eq!(keys(&|acme| acme.contact = "me".to_owned()), ["acme.contact"]);
        assert_eq!(keys(&|acme| acme.contact = "me@example.org".to_owned()), [""; 0]);
        let id = |acme: &mut AcmeConfig| acme.external_account_id = "kid-1".to_owned();
        let path = |acme: &mut AcmeConfig| acme.external_account_key_path = "key".into();
        assert_eq!(keys(&id), ["acme.external_account_key_path"]);
        assert_eq!(keys(&path), ["acme.external_account_id"]);
        let both = |acme: &mut AcmeConfig| {
            id(acme);
            path(acme);
        };
        assert_eq!(keys(&both), [""; 0]);
    }
}
