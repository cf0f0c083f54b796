"""The cases in which the tracker is asked directly, or by something that is no whole client."""

import ipaddress
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .case import Case
from .clients.libtorrent import Libtorrent, start_scrape
from .environment import Environment
from .hosts import LEECHER, SEEDER, Failure, Family, Host
from .programs import Program
from .protocols import Protocol
from .protocols.http import METRICS_PORT, Closed, Dictionary, HttpProbe, peers_of


@dataclass(frozen=True)
class Check(Case):
    """Questions to a tracker; the function asks them in an open environment, and raises `Failure` at a wrong answer."""

    title: str
    ask: Callable[[Environment], None]
    protocol: Protocol
    family: Family = Family.IPV4
    needs: tuple[type[Program], ...] = ()

    @property
    def subject(self) -> str:
        return self.title

    @property
    def cells(self) -> tuple[str, str, str]:
        return (self.title, "", "")

    def programs(self) -> tuple[type[Program], ...]:
        return self.needs

    def run(self, environment: Environment) -> None:
        environment.open(self.protocol, self.family)
        self.ask(environment)


ROUNDS = 5
PEER_PORT = 6881
STRANGER, ANOTHER = "198.18.113.66", "198.18.113.77"
"""Addresses that no host has."""
LIES = tuple(f"{name}{STRANGER}".encode() for name in ("X-Forwarded-For: ", "Forwarded: for=", "X-Real-IP: "))


def own_addresses(environment: Environment) -> None:
    """Two hosts take turns: each is told its own address and handed the other's, whatever it claims to be."""
    info_hash = os.urandom(20)
    for turn in range(ROUNDS):
        for name, other in ((SEEDER, LEECHER), (LEECHER, SEEDER)):
            probe = _probe(environment, name, headers=LIES if turn % 2 else ())
            reply = probe.announce(info_hash, port=PEER_PORT)
            _expect_ip(reply, _address(environment, name))
            expected = {(_address(environment, other), PEER_PORT)} if turn > 0 or name is LEECHER else set()
            if peers_of(reply) != expected:
                raise Failure(f"the {name} is handed {peers_of(reply)} and not {expected}")


def own_addresses_over_few_connections(environment: Environment) -> None:
    """The same, where the proxy must have sent the requests of both hosts over the connections it keeps."""
    before = environment.site.host.accepted_connections()
    own_addresses(environment)
    requests = 2 * ROUNDS
    to_tracker = environment.site.host.accepted_connections() - before - requests
    if to_tracker >= requests / 2:
        raise Failure(f"the proxy opened {to_tracker} connections to the tracker for {requests} requests")


def both_families(environment: Environment) -> None:
    """Hosts that announce over different families are handed each other, and counted together."""
    info_hash = os.urandom(20)
    addresses = {}
    v4, v6 = (SEEDER, Family.IPV4, LEECHER), (LEECHER, Family.IPV6, SEEDER)
    for name, family, other in (v4, v6, v4):
        addresses[name] = environment.hosts[name].addresses[family]
        probe = replace(_probe(environment, name), family=family, address=environment.site.host.addresses[family])
        reply = probe.announce(info_hash, port=PEER_PORT)
        _expect_ip(reply, addresses[name])
        expected = {(addresses[other], PEER_PORT)} if other in addresses else set()
        if peers_of(reply) != expected or reply[b"incomplete"] != len(addresses):
            raise Failure(f"the {name} is handed {dict(reply)} and not {expected}")


HEADERS: Sequence[tuple[str, str | None]] = (
    (f"X-Forwarded-For: {STRANGER}", STRANGER),
    (f"x-forwarded-FOR:{STRANGER}", STRANGER),
    (f"X-Forwarded-For: {ANOTHER}, {STRANGER}", STRANGER),
    (f"X-Forwarded-For: {ANOTHER}\r\nX-Forwarded-For: {STRANGER}", STRANGER),
    (f"X-Forwarded-For: {STRANGER}, @leecher", STRANGER),
    ("X-Forwarded-For: 2001:2::66", "2001:2::66"),
    (f"X-Forwarded-For: {STRANGER}\r\nX-Real-IP: {ANOTHER}", STRANGER),
    (f'Forwarded: for={ANOTHER}, for="[2001:2::66]:4711";proto=https', "2001:2::66"),
    (f"X-Real-IP: {STRANGER}", STRANGER),
    ("X-Unrelated: 1", None),
    ("X-Forwarded-For:", None),
    ("X-Forwarded-For: unknown", None),
    ("X-Forwarded-For: 198.18.113", None),
    (f"X-Forwarded-For: {STRANGER}, \xff\xfe", None),
    (f"Forwarded: proto=https;by={STRANGER}", None),
)
"""What a trusted proxy may send, and whom that names."""


def forwarded_headers(environment: Environment) -> None:
    """The leecher's host is trusted to name clients, and refused where it does not; the seeder's is not trusted."""
    bad = 0
    for line, expected in HEADERS:
        line = line.replace("@leecher", _address(environment, LEECHER))
        reply = _announce(_probe(environment, LEECHER, headers=(line.encode("latin-1"),)))
        if expected is None:
            bad += 1
            if b"failure reason" not in reply:
                raise Failure(f"a trusted proxy that sends {line!r} is answered with {reply}")
        else:
            _expect_ip(reply, expected, f"{line!r} from a trusted proxy")
        reply = _announce(_probe(environment, SEEDER, headers=(line.encode("latin-1"),)))
        _expect_ip(reply, _address(environment, SEEDER), f"{line!r} from a stranger")
    _expect_counted(environment, bad)


def forwarded_headers_or_proxy(environment: Environment) -> None:
    """As above, but where the trusted host names nobody, it is taken for the client itself."""
    for line, expected in HEADERS:
        line = line.replace("@leecher", _address(environment, LEECHER))
        reply = _announce(_probe(environment, LEECHER, headers=(line.encode("latin-1"),)))
        _expect_ip(reply, expected or _address(environment, LEECHER), f"{line!r} from a trusted proxy")
    _expect_counted(environment, sum(expected is None for _, expected in HEADERS))


V2 = b"\r\n\r\n\0\r\nQUIT\n"
V4_PAIR = ipaddress.ip_address(STRANGER).packed + bytes([192, 0, 2, 1]) + b"\x30\x39\x01\xbb"
V6_PAIR = ipaddress.ip_address("2001:2::66").packed + bytes(16) + b"\x30\x39\x01\xbb"
PREFACES: Sequence[tuple[bytes, str]] = (
    (f"PROXY TCP4 {STRANGER} 192.0.2.1 12345 443\r\n".encode(), STRANGER),
    (b"PROXY TCP6 2001:2::66 2001:2::1 12345 443\r\n", "2001:2::66"),
    (V2 + b"\x21\x11\x00\x0c" + V4_PAIR, STRANGER),
    (V2 + b"\x21\x11\x00\x12" + V4_PAIR + b"\x05\x00\x03abc", STRANGER),
    (V2 + b"\x21\x21\x00\x24" + V6_PAIR, "2001:2::66"),
)
"""PROXY protocol headers, and whom they name; the fourth has a detail behind the addresses that is to be skipped."""
NAMELESS: Sequence[bytes] = (b"PROXY UNKNOWN\r\n", V2 + b"\x20\x00\x00\x00")
"""Headers by which a proxy says that it speaks for itself, as in health checks."""
MALFORMED: Sequence[bytes] = (
    b"PROXY TCP4 nobody 192.0.2.1 12345 443\r\n",
    b"PROXY TCP4 198.18.113.66 192.0.2.1 12345 99999\r\n",
    V2 + b"\x31\x11\x00\x0c" + V4_PAIR,
    V2 + b"\x21\x11\x00\x04" + V4_PAIR,
)


def proxy_protocol(environment: Environment) -> None:
    """The leecher's host is trusted to put headers in front of connections, and must; the seeder's host must not."""
    for preface, expected in PREFACES:
        _expect_ip(_announce(_probe(environment, LEECHER, preface=preface, headers=LIES)), expected, f"{preface!r}")
        answer = _probe(environment, SEEDER, preface=preface).get("/health")
        if answer.status != 400:
            raise Failure(f"{preface!r} from a stranger is answered with {answer}")
    for preface in NAMELESS:
        reply = _announce(_probe(environment, LEECHER, preface=preface))
        if b"failure reason" not in reply:
            raise Failure(f"a proxy that sends {preface!r} is answered with {reply}")
    for preface in (b"", *MALFORMED):
        try:
            answer = _probe(environment, LEECHER, preface=preface).get("/health")
        except Closed:
            continue
        raise Failure(f"a trusted proxy that sends {preface!r} is answered with {answer}")
    _expect_ip(_announce(_probe(environment, SEEDER)), _address(environment, SEEDER), "a stranger without a header")
    _expect_counted(environment, len(NAMELESS) + 1 + len(MALFORMED))


def proxy_protocol_or_proxy(environment: Environment) -> None:
    """As above, but without a header the trusted host is taken for the client itself."""
    for preface in (b"", *NAMELESS):
        _expect_ip(
            _announce(_probe(environment, LEECHER, preface=preface)), _address(environment, LEECHER), f"{preface!r}"
        )
    for preface, expected in PREFACES:
        _expect_ip(_announce(_probe(environment, LEECHER, preface=preface)), expected, f"{preface!r}")


TORRENTS = 6


def scrapes(environment: Environment) -> None:
    """Torrents with known numbers of peers, asked for in one request and by libtorrent."""
    probe = environment.probe
    assert isinstance(probe, HttpProbe)
    expected: dict[bytes, dict[bytes, int]] = {}
    for number in range(TORRENTS):
        info_hash = os.urandom(20)
        # The last port of each torrent belongs to a peer that finishes, all before it to seeders or leechers.
        for port in range(1, TORRENTS):
            probe.announce(info_hash, port=port, left=0 if port <= number else 1)
        if number % 2:
            probe.announce(info_hash, port=TORRENTS, left=1)
            probe.announce(info_hash, port=TORRENTS, left=0, event="completed")
        finished = number % 2
        counts = {b"complete": number + finished, b"incomplete": TORRENTS - 1 - number, b"downloaded": finished}
        expected[info_hash] = counts
    unknown = os.urandom(20)
    nothing = {b"complete": 0, b"incomplete": 0, b"downloaded": 0}
    files = probe.scrape([unknown, *expected])
    if files != expected | {unknown: nothing}:
        raise Failure(f"a scrape of all torrents brings {files} and not {expected}")
    shown = _scrape_by_libtorrent(environment, environment.hosts[LEECHER], list(expected))
    for info_hash, counts in expected.items():
        if shown[info_hash.hex()] != {key.decode(): count for key, count in counts.items()}:
            raise Failure(f"libtorrent shows {shown[info_hash.hex()]} and not {counts}")


def _scrape_by_libtorrent(environment: Environment, host: Host, info_hashes: list[bytes]) -> dict[str, dict[str, int]]:
    """What a client shows its user for these torrents, by info hash in hexadecimal."""
    certificates = environment.site.certificates
    results = host.directory / "scrape.json"
    authority = certificates.authority if certificates else None
    process = start_scrape(host, environment.site.family, authority, environment.url, info_hashes, results)
    environment.stack.callback(process.stop)
    environment.wait("libtorrent to scrape all torrents", lambda: process.exit_code() is not None or None)
    if process.exit_code() != 0:
        raise Failure(f"libtorrent ended with exit code {process.exit_code()}")
    return json.loads(results.read_text())


SCRAPES_NEED: tuple[type[Program], ...] = (Libtorrent,)
"""Programs for `scrapes`."""


def _probe(environment: Environment, host: str, headers: tuple[bytes, ...] = (), preface: bytes = b"") -> HttpProbe:
    assert isinstance(environment.probe, HttpProbe)
    return replace(environment.probe, host=environment.hosts[host], headers=headers, preface=preface)


def _announce(probe: HttpProbe) -> Dictionary:
    return probe.announce(os.urandom(20), port=PEER_PORT)


def _address(environment: Environment, host: str) -> str:
    return environment.hosts[host].addresses[environment.site.family]


def _expect_ip(reply: Dictionary, expected: str, what: str = "a request") -> None:
    own = reply.get(b"external ip")
    if not isinstance(own, bytes) or own != ipaddress.ip_address(expected).packed:
        raise Failure(f"{what} is not taken to come from {expected}: {dict(reply)}")


COUNTERS = re.compile(
    r"^aquatic_(?:proxy_client_missing|proxy_headers_unused|connections_refused)(?:_total)?\{.*\} (\d+)$", re.MULTILINE
)


def _expect_counted(environment: Environment, expected: int) -> None:
    """Whatever is refused or guessed has a counter that operators can watch; it may take a moment to show."""
    counted = 0

    def is_counted() -> bool | None:
        nonlocal counted
        connection = environment.site.host.http(METRICS_PORT)
        connection.request("GET", "/metrics")
        counted = sum(map(int, COUNTERS.findall(connection.getresponse().read().decode())))
        connection.close()
        return counted >= expected or None

    try:
        environment.wait(f"the metrics to count {expected} times that a trusted proxy named nobody", is_counted)
    except Failure as failure:
        raise Failure(f"{failure}; they count {counted}") from None
    if counted > expected:
        raise Failure(f"trusted proxies named nobody {expected} times, but the metrics count {counted}")
