"""Transfers over HTTP and HTTPS, directly and behind proxies, and questions about them."""

from .. import checks
from ..case import Case
from ..checks import Check
from ..clients import ALL, Aria2, Libtorrent, Qbittorrent, Rtorrent, Transmission
from ..hosts import ADDRESSES, LEECHER, Family
from ..protocols.http import Http
from ..proxies import Haproxy, Nginx
from ..sites import Setting
from ..tracker import AccessMode
from ..transfer import Transfer
from .pairs import RING

HTTP = Http("HTTP")
HTTP_BOTH = Http("HTTP", everywhere=True)
HTTPS = Http("HTTPS", encrypted=True)
NGINX = Http("HTTP nginx", Nginx())
NGINX_TLS = Http("HTTPS nginx", Nginx(encrypts=True))
HAPROXY = Http("HTTP haproxy", Haproxy())
NGINX_UNIX = Http("HTTP nginx unix", Nginx(uses_unix_socket=True))
PROXY_V1 = Http("HTTP PROXY v1", Haproxy(proxy_protocol=1))
PROXY_V2 = Http("HTTP PROXY v2", Haproxy(proxy_protocol=2))
PROXY_V2_TLS = Http("HTTPS PROXY v2", Haproxy(proxy_protocol=2, tracker_encrypts=True), encrypted=True)
# The leecher's host plays the proxy where questions are about what proxies may send.
TRUST: dict[str, Setting] = {"trusted_proxies": [ADDRESSES[LEECHER][Family.IPV4]]}
GUESS: dict[str, Setting] = TRUST | {"on_missing_client": "use_proxy_address"}
NAMES: dict[str, Setting] = {"client_headers": ["X-Forwarded-For", "Forwarded", "X-Real-IP"]}
HEADERS = Http("HTTP", proxies=TRUST | NAMES)
HEADERS_GUESS = Http("HTTP", proxies=GUESS | NAMES)
PREFACES = Http("HTTP", proxies=TRUST | {"proxy_protocol": True})
PREFACES_GUESS = Http("HTTP", proxies=GUESS | {"proxy_protocol": True})

V4, V6 = Family.IPV4, Family.IPV6


def cases() -> list[Case]:
    """The lines of the table."""
    return [*_direct(), *_behind_proxies(), *_questions()]


def _direct() -> list[Case]:
    return [
        *(Transfer(client, client, HTTP) for client in ALL),
        *(Transfer(seeder, leecher, HTTP) for seeder, leecher in RING),
        *(Transfer(client, client, HTTP, V6) for client in ALL),
        *(Transfer(client, client, HTTPS) for client in ALL),
        Transfer(Libtorrent, Aria2, HTTPS, V6),
        Transfer(Rtorrent, Qbittorrent, HTTPS, V6),
        *(Transfer(client, client, HTTP, access=mode) for mode in AccessMode for client in ALL),
    ]


def _behind_proxies() -> list[Case]:
    """Each client behind some proxy and each proxy with some clients; the questions below cover the rest."""
    return [
        Transfer(Libtorrent, Aria2, NGINX),
        Transfer(Rtorrent, Transmission, NGINX),
        Transfer(Qbittorrent, Rtorrent, NGINX, V6),
        Transfer(Rtorrent, Libtorrent, NGINX_TLS),
        Transfer(Aria2, Qbittorrent, NGINX_TLS, V6),
        Transfer(Libtorrent, Rtorrent, HAPROXY),
        Transfer(Aria2, Libtorrent, HAPROXY, V6),
        Transfer(Qbittorrent, Aria2, PROXY_V1),
        Transfer(Rtorrent, Qbittorrent, PROXY_V2),
        Transfer(Libtorrent, Transmission, PROXY_V2, V6),
        Transfer(Qbittorrent, Libtorrent, PROXY_V2_TLS),
    ]


def _questions() -> list[Case]:
    few = checks.own_addresses_over_few_connections
    return [
        Check("own address", checks.own_addresses, HTTP),
        Check("own address", checks.own_addresses, HTTPS, V6),
        Check("own address", few, NGINX),
        Check("own address", few, NGINX, V6),
        Check("own address", few, NGINX_TLS),
        Check("own address", checks.own_addresses, NGINX_UNIX),
        Check("own address", few, HAPROXY),
        Check("own address", few, HAPROXY, V6),
        Check("own address", checks.own_addresses, PROXY_V1, V6),
        Check("own address", checks.own_addresses, PROXY_V2),
        Check("own address", checks.own_addresses, PROXY_V2_TLS, V6),
        Check("both families", checks.both_families, HTTP_BOTH),
        Check("headers of proxies", checks.forwarded_headers, HEADERS),
        Check("headers of proxies, guessing", checks.forwarded_headers_or_proxy, HEADERS_GUESS),
        Check("PROXY protocol", checks.proxy_protocol, PREFACES),
        Check("PROXY protocol, guessing", checks.proxy_protocol_or_proxy, PREFACES_GUESS),
        Check("scrapes by libtorrent", checks.scrapes, HTTP, needs=checks.SCRAPES_NEED),
        Check("scrapes by libtorrent", checks.scrapes, NGINX_TLS, V6, needs=checks.SCRAPES_NEED),
    ]
