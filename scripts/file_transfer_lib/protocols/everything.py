"""All protocols of one tracker, on one UDP and one TCP port."""

from enum import Enum

from ..hosts import TRACKER_NAME
from ..proxies import Proxy
from ..sites import Configuration, Setting, Site
from . import listen
from .http import EVERYWHERE_PORT, Http
from .ws import Ws


class AllUrl(Enum):
    """Kinds of announce URLs of a tracker that serves all protocols."""

    UDP = "UDP"
    HTTP = "HTTP"
    NGINX = "nginx"
    """HTTP by way of the proxy."""
    WS = "WS"

    def of_tracker(self, port: int = EVERYWHERE_PORT) -> str:
        """The URL, given the port of the tracker itself."""
        if self is AllUrl.NGINX:
            return f"http://{TRACKER_NAME}/announce"
        return f"{self.value.lower()}://{TRACKER_NAME}:{port}/announce"


class All(Http):
    """UDP and HTTP from one tracker; a proxy may stand before it, and clients may also go past that."""

    subcommand = "all"

    def __init__(self, name: str, proxy: Proxy | None = None) -> None:
        super().__init__(name, proxy)

    def configuration(self, site: Site) -> Configuration:
        # The proxy runs on the tracker's host and connects from the address that it connects to.
        proxies: dict[str, Setting] = {} if self.proxy is None else {"trusted_proxies": [site.address]}
        return {"network": listen(site, port=EVERYWHERE_PORT), "proxies": proxies}


ALL = All("all")


class AllWs(Ws):
    """WebTorrent from a tracker that serves all protocols."""

    subcommand = "all"
