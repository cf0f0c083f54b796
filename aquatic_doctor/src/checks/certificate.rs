//! The certificate: names, chain, dates. Whether it fits its key, `--check-config` says.

use aquatic_cli_helpers::report::Row;
use aquatic_net::tcp::{Validity, Verdict};

use super::Rows;
use crate::asked::{AcmeAsked, Asked};
use crate::machine::Machine;
use crate::trust::{Chain, roots};

pub(crate) fn check(machine: &Machine, asked: &Asked) -> Vec<Row> {
    let mut rows = Rows::new("certificate");
    let Some(path) = &asked.certificate else { return rows.rows };
    if let Some(acme) = &asked.acme {
        orders(acme, &mut rows);
        if !path.exists() {
            let text = "there is none yet: the tracker obtains it once it runs, and clients that verify refuse it until then";
            rows.advice("certificate", text);
            return rows.rows;
        }
    }
    let renew = if asked.acme.is_some() { RENEWED_BY_TRACKER } else { RENEW };
    let Some(chain) = Chain::read(path) else {
        let text = format!("{} cannot be read as a certificate", path.display());
        rows.fault("certificate", text).run(format!("openssl x509 -noout -text -in {}", path.display()));
        return rows.rows;
    };
    validity(&chain, (machine, renew), &mut rows);
    names(&chain, (machine, asked.acme.is_some()), &mut rows);
    trust(&chain, machine, &mut rows);
    rows.rows
}

/// Advice for certificates that others renew.
const RENEW: &str = "certbot renew    # or the program that renews your certificates";

/// Advice for certificates that the tracker renews.
const RENEWED_BY_TRACKER: &str = "aquatic ctl status    # tells when it is renewed, or why it has not been";

/// What came of the last order.
fn orders(acme: &AcmeAsked, rows: &mut Rows) {
    const CHECK: &str = "certificate_orders";
    let ports: Vec<String> = acme.ports.iter().map(u16::to_string).collect();
    let how = format!("for {}, verified on port {}", acme.names.join(", "), ports.join(" or "));
    match &acme.failure {
        None => rows.ok(CHECK, format!("obtained by the tracker {how}; no order has failed")),
        Some(failure) => rows
            .fault(CHECK, format!("the last order ({how}) failed: {failure}"))
            .run(RENEWED_BY_TRACKER.to_owned()),
    }
}

fn validity(chain: &Chain, (machine, renew): (&Machine, &str), rows: &mut Rows) {
    const CHECK: &str = "certificate_dates";
    let Some(validity) = Validity::of(chain.first()) else {
        rows.advice(CHECK, "its dates cannot be understood");
        return;
    };
    let verdict = validity.at(machine.trials.now);
    match verdict {
        Verdict::Good(_) => rows.ok(CHECK, verdict.to_string()),
        // Those of a few days are renewed halfway through.
        Verdict::EndsSoon(days) if renew == RENEWED_BY_TRACKER => {
            rows.ok(CHECK, format!("is valid for {days} more days; the tracker renews it"));
        }
        Verdict::EndsSoon(_) => rows.advice(CHECK, verdict.to_string()).run(renew.to_owned()),
        Verdict::Ended => rows.fault(CHECK, verdict.to_string()).run(renew.to_owned()),
        Verdict::NotYet => rows.fault(CHECK, verdict.to_string()).run("timedatectl".to_owned()),
    }
}

fn names(chain: &Chain, (machine, is_obtained): (&Machine, bool), rows: &mut Rows) {
    const CHECK: &str = "certificate_names";
    if chain.names.is_empty() {
        let text = "it names no host (subjectAltName), so every client refuses it";
        rows.fault(CHECK, text).run(RENEW.to_owned());
        return;
    }
    let of: Vec<&str> = hosts(machine).collect();
    let missing: Vec<&str> = of.iter().copied().filter(|name| chain.is_for(name) != Some(true)).collect();
    if !missing.is_empty() {
        let text = format!(
            "it is for {}, not for {}: clients refuse it there",
            chain.names_shown(),
            missing.join(", ")
        );
        let run = if is_obtained {
            format!("# network.acme = {of:?}, then: aquatic ctl reload")
        } else {
            format!("certbot certonly -d {}", of.join(" -d "))
        };
        rows.fault(CHECK, text).run(run);
    } else if of.is_empty() {
        rows.ok(
            CHECK,
            format!("{}; --host NAME compares them with that of the announce URL", chain.names_shown()),
        );
    } else {
        rows.ok(CHECK, chain.names_shown());
    }
}

/// Hosts that clients compare with its names. Announce URLs without TLS are of no account.
fn hosts(machine: &Machine) -> impl Iterator<Item = &str> {
    machine.trials.names.iter().filter(|name| name.is_tls).map(|name| name.name.as_str())
}

fn trust(chain: &Chain, machine: &Machine, rows: &mut Rows) {
    const CHECK: &str = "certificate_chain";
    if !chain.in_order {
        let text = "the certificates of the file do not follow one another: first that of the host, then each issuer";
        rows.fault(CHECK, text).run("cat host.pem intermediate.pem > fullchain.pem".to_owned());
        return;
    }
    if chain.is_self_signed {
        let text = "it is signed by itself: browsers, and clients that verify certificates, refuse it";
        rows.advice(CHECK, text).run("certbot certonly -d NAME".to_owned());
        return;
    }
    let roots = roots();
    if roots.is_empty() {
        let text = "this machine has no certificates of authorities to verify it with";
        rows.advice(CHECK, text).run("apt-get install ca-certificates".to_owned());
        return;
    }
    let own = chain.names.iter().map(String::as_str).filter(|name| !name.contains('*'));
    let Some(name) = hosts(machine).chain(own).find(|name| chain.is_for(name) == Some(true)) else {
        rows.ok(
            CHECK,
            format!("{} certificates; not verified, as there is no name without *", chain.length()),
        );
        return;
    };
    match chain.distrust(name, machine.trials.now, roots) {
        None => rows.ok(CHECK, format!("{} certificates, trusted by this machine", chain.length())),
        Some(why) => {
            let text = format!("clients do not trust it: {why}");
            rows.advice(CHECK, text).run("openssl verify -untrusted fullchain.pem fullchain.pem".to_owned());
        }
    }
}
