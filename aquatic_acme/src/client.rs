//! What carries requests to the authority: blocking, and of bounded size and time.

use std::future::{Future, ready};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use aquatic_common::config::AcmeConfig;
use aquatic_common::files;
use aquatic_probe::https::{self, HttpsClient};
use aquatic_probe::{Scheme, Target, response};
use aquatic_runtime::clock::calendar_seconds;
use bytes::Bytes;
use futures_lite::future::block_on;
use http::{Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Longest time for a request and its reply.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum size of the file of root certificates in bytes.
const MAX_ROOTS: u64 = 8 << 20;

/// Type of the documents in which an authority says what it refuses (RFC 7807).
const PROBLEM: &str = "application/problem+json";

/// Why the authority could not be reached, as opposed to what it says.
#[derive(Debug)]
pub(crate) struct Unreachable(String);

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreachable {}

/// Carries requests, and remembers how long the authority wants to be left alone. Copies share this.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    https: HttpsClient,
    retry_after: Arc<Mutex<Option<i64>>>,
}

impl Client {
    /// A client that trusts the authorities of the configuration. Reads files, so it is made before
    /// privileges are dropped.
    ///
    /// # Errors
    /// What is wrong with the file of certificates.
    pub(crate) fn new(config: &AcmeConfig) -> anyhow::Result<Self> {
        let https = HttpsClient::new(roots(config)?, TIMEOUT)?;
        Ok(Self { https, retry_after: Arc::default() })
    }

    /// Removes the pause in seconds that the last refusal asked for.
    pub(crate) fn take_retry_after(&self) -> Option<i64> {
        self.retry_after.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn exchange(&self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let (parts, body) = request.into_parts();
        let target = target(&parts.uri).map_err(|text| Error::Other(text.into()))?;
        // The body is there as a whole.
        let body = block_on(body.collect()).map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let headers: Vec<(&str, &str)> = parts
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .collect();
        let method = match parts.method {
            Method::HEAD => https::Method::Head,
            Method::POST => https::Method::Post,
            _ => https::Method::Get,
        };
        let host = target.host.clone();
        let unreachable = |error: io::Error| {
            let text = format!("{host} cannot be used: {error}.");
            Error::Other(Box::new(Unreachable(text)))
        };
        let reply = self
            .https
            .exchange(&target, &https::Request { method, headers: &headers, body: &body })
            .map_err(unreachable)?;
        let reply = response(reply)?;
        self.note(&reply);
        let is_error = reply.status().is_client_error() || reply.status().is_server_error();
        let kind = reply.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        // The library looks at the status of replies to POST requests only.
        let is_explained =
            method == https::Method::Post && kind.is_some_and(|kind| kind.starts_with(PROBLEM));
        if is_error && !is_explained {
            let text = format!("{host} replied with the status {}.", reply.status());
            return Err(Error::Other(Box::new(Unreachable(text))));
        }
        if reply.status().is_redirection() {
            let text =
                format!("{host} redirects {}, which is not followed; name the URL it leads to", parts.uri);
            return Err(Error::Other(text.into()));
        }
        Ok(BytesResponse::from(reply))
    }

    /// Remembers how long a refusal asks to wait.
    fn note(&self, reply: &Response<Full<Bytes>>) {
        if reply.status().is_success() {
            return;
        }
        let value = reply.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        if let Some(seconds) = value.and_then(|value| seconds_to_wait(value, calendar_seconds())) {
            *self.retry_after.lock().unwrap_or_else(PoisonError::into_inner) = Some(seconds);
        }
    }
}

/// How long a `Retry-After` field asks to wait from now (RFC 9110 section 10.2.3), which it says in seconds
/// or as a date.
fn seconds_to_wait(value: &str, now: i64) -> Option<i64> {
    let value = value.trim();
    value.parse().ok().or_else(|| {
        let date = httpdate::parse_http_date(value).ok()?;
        let date = date.duration_since(UNIX_EPOCH).ok()?.as_secs();
        Some(i64::try_from(date).ok()?.saturating_sub(now))
    })
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(ready(self.exchange(request)))
    }
}

fn response(reply: response::Response) -> Result<Response<Full<Bytes>>, Error> {
    let mut builder = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        builder = builder.header(name.as_str(), value.as_slice());
    }
    Ok(builder.body(Full::new(Bytes::from(reply.body)))?)
}

fn target(uri: &Uri) -> Result<Target, String> {
    let bad = || format!("the authority names {uri}, which is no URL over HTTPS");
    if uri.scheme_str() != Some("https") {
        return Err(bad());
    }
    let host = uri.host().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    Ok(Target { scheme: Scheme::Https, host, port: uri.port_u16().unwrap_or(443), path })
}

fn roots(config: &AcmeConfig) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let path = &config.root_certificates_path;
    if path.as_os_str().is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        anyhow::ensure!(
            !roots.is_empty(),
            "this machine trusts no authority, so that of {} cannot be verified. Install ca-certificates, or set {}",
            config.directory,
            AcmeConfig::root_certificates_path
        );
        return Ok(roots);
    }
    let unusable =
        |what: String| anyhow::anyhow!("{} = {path:?}: {what}", AcmeConfig::root_certificates_path);
    let content = files::read_bounded(path, MAX_ROOTS).map_err(|error| unusable(error.to_string()))?;
    for certificate in CertificateDer::pem_slice_iter(&content) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    anyhow::ensure!(!roots.is_empty(), unusable("there is no certificate in the file".to_owned()));
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_the_authority_are_https() {
        let target = |url: &str| target(&url.parse().unwrap());
        let found = target("https://ca.example/a?b=c").unwrap();
        assert_eq!((found.host.as_str(), found.port, found.path.as_str()), ("ca.example", 443, "/a?b=c"));
        assert_eq!(target("https://[::1]:14000").unwrap().host, "::1");
        for bad in ["http://ca.example/", "/relative", "ftp://ca.example/"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn root_certificates_are_read_or_explained() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("roots.pem");
        let config = AcmeConfig { root_certificates_path: path.clone(), ..AcmeConfig::default() };
        let fault = || roots(&config).unwrap_err().to_string();
        assert!(fault().contains("acme.root_certificates_path"), "{}", fault());
        std::fs::write(&path, "nothing").unwrap();
        assert!(fault().contains("there is no certificate"), "{}", fault());
        let pair = rcgen::generate_simple_self_signed(vec!["ca.example".to_owned()]).unwrap();
        std::fs::write(&path, pair.cert.pem()).unwrap();
        assert_eq!(roots(&config).unwrap().len(), 1);
    }

    #[test]
    fn waiting_times_are_seconds_or_dates() {
        let now = 784_111_777;
        for (value, expected) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(0)),
            ("Sun Nov  6 08:49:36 1994", Some(-1)),
            ("soon", None),
            ("", None),
            ("Sun, 06 Nov 1994", None),
        ] {
            assert_eq!(seconds_to_wait(value, now), expected, "{value:?}");
        }
    }
}
