//! The certificate: names, chain, dates. Whether it fits its key, `--check-config` says.

use aquatic_cli_helpers::report::Row;
use aquatic_net::tcp::{Validity, Verdict};

use super::Rows;
use crate::asked::Asked;
use crate::machine::Machine;
use crate::trust::{Chain, roots};

pub(crate) fn check(machine: &Machine, asked: &Asked) -> Vec<Row> {
    let mut rows = Rows::new("certificate");
    let Some(path) = &asked.certificate else { return rows.rows };
    let Some(chain) = Chain::read(path) else {
        let text = format!("{} cannot be read as a certificate", path.display());
        rows.fault("certificate", text).run(format!("openssl x509 -noout -text -in {}", path.display()));
        return rows.rows;
    };
    validity(&chain, machine, &mut rows);
    names(&chain, machine, &mut rows);
    trust(&chain, machine, &mut rows);
    rows.rows
}

fn renew() -> String {
    "certbot renew    # or the program that renews your certificates".to_owned()
}

fn validity(chain: &Chain, machine: &Machine, rows: &mut Rows) {
    const CHECK: &str = "certificate_dates";
    let Some(validity) = Validity::of(chain.first()) else {
        rows.advice(CHECK, "its dates cannot be understood");
        return;
    };
    let verdict = validity.at(machine.trials.now);
    match verdict {
        Verdict::Good(_) => rows.ok(CHECK, verdict.to_string()),
        Verdict::EndsSoon(_) => rows.advice(CHECK, verdict.to_string()).run(renew()),
        Verdict::Ended => rows.fault(CHECK, verdict.to_string()).run(renew()),
        Verdict::NotYet => rows.fault(CHECK, verdict.to_string()).run("timedatectl".to_owned()),
    }
}

fn names(chain: &Chain, machine: &Machine, rows: &mut Rows) {
    const CHECK: &str = "certificate_names";
    if chain.names.is_empty() {
        let text = "it names no host (subjectAltName), so every client refuses it";
        rows.fault(CHECK, text).run(renew());
        return;
    }
    let of: Vec<&str> = machine.trials.names.iter().map(|name| name.name.as_str()).collect();
    let missing: Vec<&str> = of.iter().copied().filter(|name| chain.is_for(name) != Some(true)).collect();
    if !missing.is_empty() {
        let text = format!(
            "it is for {}, not for {}: clients refuse it there",
            chain.names_shown(),
            missing.join(", ")
        );
        rows.fault(CHECK, text).run(format!("certbot certonly -d {}", of.join(" -d ")));
    } else if of.is_empty() {
        rows.ok(
            CHECK,
            format!("{}; --host NAME compares them with that of the announce URL", chain.names_shown()),
        );
    } else {
        rows.ok(CHECK, chain.names_shown());
    }
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
    let asked = machine.trials.names.iter().map(|name| name.name.as_str());
    let own = chain.names.iter().map(String::as_str).filter(|name| !name.contains('*'));
    let Some(name) = asked.chain(own).find(|name| chain.is_for(name) == Some(true)) else {
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
