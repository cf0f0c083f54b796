"""Transfers between browsers, and between browsers and the reference client, over WebSocket with and without TLS."""

from ..case import Case
from ..clients.chromium import Chromium, ChromiumOverIpv6
from ..clients.reference import Reference, ReferenceAfterConformance
from ..hosts import Family
from ..protocols.ws import Ws
from ..proxies import Haproxy, Nginx
from ..tracker import AccessMode
from ..transfer import Transfer

WS = Ws("WS")
WSS = Ws("WSS", encrypted=True)
NGINX = Ws("WS nginx", Nginx())
NGINX_TLS = Ws("WSS nginx", Nginx(encrypts=True))
PROXY_V2_TLS = Ws("WSS PROXY v2", Haproxy(proxy_protocol=2, tracker_encrypts=True), encrypted=True)
WS_BOTH = Ws("WS", everywhere=True)
WSS_BOTH = Ws("WSS", encrypted=True, everywhere=True)

V6 = Family.IPV6


def cases() -> list[Case]:
    """The lines of the table."""
    return [
        Transfer(Chromium, Chromium, WS),
        Transfer(Chromium, Chromium, WSS, V6),
        Transfer(Chromium, ChromiumOverIpv6, WS_BOTH),
        Transfer(Chromium, Reference, WS, V6),
        Transfer(Reference, Chromium, WSS),
        Transfer(Reference, Chromium, NGINX, V6),
        Transfer(Chromium, Chromium, NGINX_TLS),
        Transfer(Chromium, Reference, PROXY_V2_TLS),
        Transfer(Chromium, ReferenceAfterConformance, WS),
        Transfer(Chromium, ReferenceAfterConformance, NGINX_TLS, V6),
        Transfer(Chromium, Reference, WSS_BOTH, restart=True),
        Transfer(Reference, Chromium, WS_BOTH, restart=True),
        *(Transfer(Chromium, Reference, WS, access=mode) for mode in AccessMode),
    ]
