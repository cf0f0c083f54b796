"""All protocols of several trackers that are nodes of a cluster."""

import os
import shutil

from ..hosts import Process
from ..programs import PATH, Program
from ..proxies import LOOPBACK
from ..sites import Configuration, Site
from . import listen
from .everything import All
from .http import EVERYWHERE_PORT, HttpProbe
from .ws import Ws

NATS_PORT = 4222


class NatsServer(Program):
    """What nodes talk over. NATS_SERVER in the environment says where it is."""

    name = "nats-server"
    package = "nats-server"
    version_command = (os.environ.get("NATS_SERVER") or shutil.which("nats-server", path=PATH) or name, "--version")
    programs = version_command[:1]

    @classmethod
    def remedy(cls) -> str | None:
        return "scripts/test transfer installs it; or set NATS_SERVER to its path" if cls.missing_package() else None


class Node(All):
    """A node, at a port of its own on the tracker's host. The first one brings the NATS server."""

    def __init__(self, port: int, is_of_webtorrent: bool = False) -> None:
        """`is_of_webtorrent` is whether it is WebTorrent that the probe asks for."""
        super().__init__("cluster, WS" if is_of_webtorrent else "cluster")
        self.port = port
        self._webtorrent = Ws(self.name) if is_of_webtorrent else None

    def programs(self) -> tuple[type[Program], ...]:
        return (NatsServer,)

    def configuration(self, site: Site) -> Configuration:
        return super().configuration(site) | {
            "network": listen(site, port=self.port),
            "cluster": {
                "servers": [f"nats://{LOOPBACK}:{NATS_PORT}"],
                "node": f"node-{self.port}",
                "secret_file": str(site.host.directory / "secret"),
            },
        }

    def start_before(self, site: Site) -> list[Process]:
        secret = site.host.directory / "secret"
        secret.write_text("the secret of the nodes of this case\n")
        secret.chmod(0o600)
        command = [*NatsServer.programs, "-a", LOOPBACK, "-p", str(NATS_PORT)]
        return [site.host.start("nats", command)]

    def probe(self, site: Site, announce_url: str) -> HttpProbe:
        return self._webtorrent.probe(site, announce_url) if self._webtorrent else super().probe(site, announce_url)


PORTS = (EVERYWHERE_PORT, EVERYWHERE_PORT + 1)
NODES = tuple(Node(port) for port in PORTS)
WEBTORRENT_NODES = tuple(Node(port, is_of_webtorrent=True) for port in PORTS)
