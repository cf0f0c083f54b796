"""A certificate authority of the case's own, and the certificate it signs for the tracker.

Clients are told to trust the authority each in its own way (environment, command line, configuration file), so the
trust store of this machine is neither changed nor needed.
"""

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .hosts import Failure
from .programs import Program

DAYS = "2"
"""How long certificates are valid; a case takes a minute."""
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Openssl(Program):
    """Makes keys and certificates."""

    name = "openssl"
    package = "openssl"
    programs = ("openssl",)
    version_command = ("openssl", "version")


@dataclass(frozen=True)
class Certificates:
    """Files in PEM format."""

    authority: Path
    """The certificate that clients are to trust."""
    certificate: Path
    key: Path

    @classmethod
    def issue(cls, directory: Path, name: str, addresses: Iterable[str]) -> "Certificates":
        """Makes an authority, and a certificate for a host name and its addresses."""
        authority, authority_key = directory / "authority.pem", directory / "authority-key.pem"
        certificate, key = directory / "certificate.pem", directory / "key.pem"
        _request("file_transfer authority", authority, authority_key, "basicConstraints=critical,CA:TRUE")
        alternatives = ",".join([f"DNS:{name}", *(f"IP:{address}" for address in addresses)])
        signer = ("-CA", str(authority), "-CAkey", str(authority_key))
        extensions = ("basicConstraints=critical,CA:FALSE", f"subjectAltName={alternatives}")
        _request(name, certificate, key, *extensions, signer=signer)
        return cls(authority, certificate, key)


def _request(name: str, certificate: Path, key: Path, *extensions: str, signer: tuple[str, ...] = ()) -> None:
    command = ["openssl", "req", "-x509", *KEY, "-days", DAYS, "-subj", f"/CN={name}", *signer]
    for extension in extensions:
        command += ["-addext", extension]
    command += ["-keyout", str(key), "-out", str(certificate)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode != 0:
        raise Failure(f"openssl makes no certificate for {name}: {result.stderr.strip()}")
