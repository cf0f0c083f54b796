//! One order: from the account to the certificate (RFC 8555, 7).

use std::collections::BTreeSet;
use std::time::Duration;

use aquatic_common::config::{AcmeConfig, ChallengeKind};
use aquatic_net::tcp::Tls;
use aquatic_web::HttpChallenges;
use futures_lite::future::block_on;
use instant_acme::{
    Account, AccountCredentials, AuthorizationHandle, AuthorizationStatus, CertificateIdentifier,
    ChallengeType, Error, Identifier, NewAccount, NewOrder, Order, OrderStatus, Problem,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::challenge;
use crate::client::{Client, Unreachable};
use crate::external_account::ExternalAccount;
use crate::failure::{About, Fault, Reason, advice, reason_of_problem};
use crate::pause::sleep;
use crate::store::Store;

/// Times between two looks at an order, which is given up after the last.
const LOOKS: [u64; 14] = [1, 1, 2, 2, 3, 3, 5, 5, 10, 10, 15, 15, 30, 30];

/// Profile of short-lived certificates, the one that Let's Encrypt grants for IP addresses.
const SHORT_LIVED: &str = "shortlived";

/// Type of the problem that an authority has when it does not know an account.
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// What orders are made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Orders<'a> {
    pub(crate) client: &'a Client,
    pub(crate) external_account: Option<&'a ExternalAccount>,
    pub(crate) store: &'a Store,
    pub(crate) config: &'a AcmeConfig,
    pub(crate) tls: &'a Tls,
    pub(crate) http: &'a HttpChallenges,
}

/// What to order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) directory: &'a str,
    pub(crate) names: &'a BTreeSet<String>,
    pub(crate) challenge: ChallengeKind,
    /// Identifier of the certificate that is replaced (RFC 9773, 5).
    pub(crate) replaces: Option<&'a str>,
}

/// Removes what answers challenges when an order ends, however it ends.
struct Answers<'a>(Orders<'a>);

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        self.0.http.clear();
        // Without challenges nothing can fail that did not fail when the certificate was installed.
        let _ = self.0.tls.set_challenges(Vec::new());
    }
}

impl Orders<'_> {
    /// The account at a directory. One is made the first time.
    pub(crate) fn account(&self, directory: &str) -> Result<Account, Fault> {
        let builder = || Account::builder_with_http(Box::new(self.client.clone()));
        if let Some(text) = self.store.account(directory) {
            match serde_json::from_str::<AccountCredentials>(&text) {
                Ok(credentials) => {
                    return block_on(builder().from_credentials(credentials)).map_err(|error| fault(&error));
                }
                Err(error) => {
                    log::warn!(
                        "ACME: the account at {directory} cannot be read, so another one is made: {error}"
                    )
                }
            }
        }
        let contact = format!("mailto:{}", self.config.contact);
        let contacts = [contact.as_str()];
        let new = NewAccount {
            contact: if self.config.contact.is_empty() { &[] } else { &contacts },
            // The setting says that naming hosts agrees to them.
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let external = self.external_account.filter(|_| directory == self.config.directory);
        let key = external.map(ExternalAccount::key);
        let (account, credentials) = block_on(builder().create(&new, directory.to_owned(), key.as_ref()))
            .map_err(|error| fault(&error))?;
        let text = serde_json::to_string(&credentials)
            .map_err(|error| Fault::new(Reason::Storage, format!("the account cannot be kept: {error}")))?;
        self.store.keep_account(directory, Some(text))?;
        log::info!("ACME: made an account at {directory}");
        Ok(account)
    }

    /// Orders a certificate. Returns it with its key, as PEM.
    pub(crate) fn run(&self, wish: &Wish<'_>) -> Result<String, Fault> {
        let account = self.account(wish.directory)?;
        let mut order = match self.begin(&account, wish) {
            Err(Error::Api(problem)) if problem.r#type.as_deref() == Some(NO_ACCOUNT) => {
                self.store.keep_account(wish.directory, None)?;
                let account = self.account(wish.directory)?;
                self.begin(&account, wish)
            }
            begun => begun,
        }
        .map_err(|error| fault(&error))?;
        self.prove(&mut order, wish)?;
        self.finish(&mut order, wish)
    }

    fn begin(&self, account: &Account, wish: &Wish<'_>) -> Result<Order, Error> {
        let identifiers: Vec<Identifier> = wish.names.iter().map(|name| identifier(name)).collect();
        let offers = |name: &str| account.profiles().any(|profile| profile.name == name);
        let has_address = identifiers.iter().any(|identifier| matches!(identifier, Identifier::Ip(_)));
        let profile = match self.config.profile.as_str() {
            "" => None,
            _ if !self.config.chooses_profile() => Some(self.config.profile.as_str()),
            _ => (has_address && offers(SHORT_LIVED)).then_some(SHORT_LIVED),
        };
        let order = || {
            let order = NewOrder::new(&identifiers);
            if let Some(profile) = profile { order.profile(profile) } else { order }
        };
        if let Some((authority, serial)) = wish.replaces.and_then(|id| id.split_once('.')) {
            let replaced =
                CertificateIdentifier { authority_key_identifier: authority.into(), serial: serial.into() };
            match block_on(account.new_order(&order().replaces(replaced))) {
                Ok(order) => return Ok(order),
                // An authority that does not know the certificate, or has seen it replaced, may still grant
                // one.
                Err(error) => {
                    log::debug!("ACME: an order that replaces the former certificate was refused: {error}");
                    if !may_order_without_replacing(&error) {
                        return Err(error);
                    }
                }
            }
        }
        block_on(account.new_order(&order()))
    }

    /// Answers the challenge of each name, and waits until the authority has verified them.
    fn prove(&self, order: &mut Order, wish: &Wish<'_>) -> Result<(), Fault> {
        let port = wish.challenge.port();
        let _answers = Answers(*self);
        let mut certificates = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = block_on(authorizations.next()) {
            let mut authorization = authorization.map_err(|error| fault(&error))?;
            if authorization.status == AuthorizationStatus::Pending {
                self.answer(&mut authorization, wish, &mut certificates)?;
            }
        }
        let mut unanswered = None;
        for pause in looks() {
            unanswered = match block_on(order.refresh()) {
                Ok(state) => match state.status {
                    OrderStatus::Pending => None,
                    OrderStatus::Invalid => return Err(refused(order, port)),
                    OrderStatus::Ready | OrderStatus::Processing | OrderStatus::Valid => return Ok(()),
                },
                Err(error) if is_transient(&error) => Some(fault(&error)),
                Err(error) => return Err(fault(&error)),
            };
            sleep(pause);
        }
        if let Some(fault) = unanswered {
            return Err(fault);
        }
        let text = format!(
            "the authority has not verified the names within {} s; the next attempt uses another challenge if there is \
             one.",
            LOOKS.iter().sum::<u64>()
        );
        Err(Fault::new(Reason::Challenge, text))
    }

    /// Has a challenge answered, and tells the authority so.
    fn answer<'a>(
        &self,
        authorization: &'a mut AuthorizationHandle<'a>,
        wish: &Wish<'_>,
        certificates: &mut Vec<(String, CertificateDer<'static>, PrivateKeyDer<'static>)>,
    ) -> Result<(), Fault> {
        let name = authorization.identifier().to_string();
        let kind = match wish.challenge {
            ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
            ChallengeKind::Http01 => ChallengeType::Http01,
        };
        let mut challenge = authorization.challenge(kind).ok_or_else(|| {
            let text = format!("the authority does not offer {} for {name}.", wish.challenge.name());
            Fault::new(Reason::Challenge, text)
        })?;
        let key = challenge.key_authorization();
        match wish.challenge {
            ChallengeKind::Http01 => self.http.add(&challenge.token, key.as_str()),
            ChallengeKind::TlsAlpn01 => {
                let unusable = |error: String| Fault::new(Reason::Certificate, format!("{name}: {error}"));
                let (certificate, private) = challenge::certificate(&name, key.digest().as_ref())
                    .map_err(|error| unusable(error.to_string()))?;
                certificates.push((challenge::server_name(&name), certificate, private));
                let all = certificates.iter().map(|(name, certificate, private)| {
                    (name.clone(), certificate.clone(), private.clone_key())
                });
                self.tls.set_challenges(all.collect()).map_err(|error| unusable(error.to_string()))?;
            }
        }
        block_on(challenge.set_ready()).map_err(|error| fault(&error))
    }

    /// Asks for the certificate and waits for it.
    fn finish(&self, order: &mut Order, wish: &Wish<'_>) -> Result<String, Fault> {
        let unusable = |error: rcgen::Error| Fault::new(Reason::Certificate, error.to_string());
        let names: Vec<String> = wish.names.iter().cloned().collect();
        let mut params = CertificateParams::new(names).map_err(unusable)?;
        params.distinguished_name = DistinguishedName::new();
        let key = KeyPair::generate().map_err(unusable)?;
        let request = params.serialize_request(&key).map_err(unusable)?;
        let failed = |error: &Error| fault(error);
        block_on(order.finalize_csr(request.der())).map_err(|error| failed(&error))?;
        for pause in looks() {
            match block_on(order.certificate()) {
                Ok(Some(chain)) => return Ok(format!("{}\n{}", chain.trim_end(), key.serialize_pem())),
                Ok(None) => {}
                // Given up, the certificate would be issued in vain, and another one be ordered.
                Err(error) if is_transient(&error) => {
                    log::debug!("ACME: the certificate is asked for again: {error}");
                }
                Err(error) => return Err(failed(&error)),
            }
            sleep(pause);
        }
        let text = format!("the certificate was not ready within {} s.", LOOKS.iter().sum::<u64>());
        Err(Fault::new(Reason::Connection, text))
    }
}

/// Pauses after each look at an order, none after the last.
fn looks() -> impl Iterator<Item = Duration> {
    LOOKS.into_iter().chain([0]).map(Duration::from_secs)
}

fn identifier(name: &str) -> Identifier {
    match name.parse() {
        Ok(address) => Identifier::Ip(address),
        Err(_) => Identifier::Dns(name.to_owned()),
    }
}

/// Whether an order may be fulfilled that says nothing of the former certificate.
fn may_order_without_replacing(error: &Error) -> bool {
    if let Error::Api(problem) = error {
        return !matches!(reason(problem, About::Request), Reason::RateLimited | Reason::BadNonce)
            && problem.r#type.as_deref() != Some(NO_ACCOUNT);
    }
    unreachable(error).is_none()
}

/// What kept the authority from replying, if nothing came of it.
fn unreachable(error: &Error) -> Option<&Unreachable> {
    if let Error::Other(other) = error { other.downcast_ref() } else { None }
}

/// Whether the same request may succeed a little later.
fn is_transient(error: &Error) -> bool {
    fault(error).reason == Reason::Connection
}

fn reason(problem: &Problem, about: About) -> Reason {
    match problem.r#type.as_deref() {
        Some(kind) => reason_of_problem(kind, about),
        None => Reason::Refused,
    }
}

/// What an error means.
pub(crate) fn fault(error: &Error) -> Fault {
    if let Some(unreachable) = unreachable(error) {
        return Fault::new(Reason::Connection, unreachable.to_string());
    }
    if let Error::Api(problem) = error {
        return of_problem(problem, "", About::Request);
    }
    let text = if matches!(error, Error::Json(_)) {
        format!("the authority's reply is not ACME ({error}). Check acme.directory.")
    } else {
        format!("{error}.")
    };
    Fault::new(Reason::InvalidReply, text)
}

fn of_problem(problem: &Problem, name: &str, about: About) -> Fault {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let short = kind.rsplit(':').next().unwrap_or_default();
    let said = problem.detail.as_deref().unwrap_or("no details").trim_end_matches('.');
    let subject = if name.is_empty() { String::new() } else { format!("{name}: ") };
    let subproblems: Vec<String> = problem.subproblems.iter().map(|problem| format!("; {problem}")).collect();
    let advice = advice(kind, about);
    let advice = if advice.is_empty() { advice } else { format!(" {advice}.") };
    let text = format!("{subject}{said} ({short}){}.{advice}", subproblems.concat());
    Fault::new(reason(problem, about), text)
}

/// Why an order was refused: what the authority says of the first challenge that failed.
fn refused(order: &mut Order, port: u16) -> Fault {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = block_on(authorizations.next()) {
        let name = authorization.identifier().to_string();
        let Ok(state) = block_on(authorization.refresh()) else { continue };
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return Fault { reason: Reason::Challenge, ..of_problem(problem, &name, About::Challenge(port)) };
        }
    }
    match &order.state().error {
        Some(problem) => of_problem(problem, "", About::Challenge(port)),
        None => Fault::new(Reason::Challenge, "the authority could not verify a name, and does not say why."),
    }
}
