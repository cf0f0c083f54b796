"""Transmission, as its daemon."""

import json
from collections.abc import Sequence
from typing import Any

from .base import CONTROL_PORT, PEER_PORT, Client, Torrent


class Transmission(Client):
    """Watches no directory and is given torrents over its RPC, which is also where tracker errors are read.

    Quirks of 3.00:
    - Over UDP on IPv6 it reads the peers of a reply as IPv4 ones (6 bytes each), so it cannot be an IPv6 leecher.
    - It cannot look up an IPv6 address in an announce URL, only a name. Without a name server in the system's
      configuration it looks up nothing.
    - It compares the size of a connect reply with 16 for equality.
    - It unchokes leechers every 10 seconds and not in between, so cases in which it seeds take that long.
    - It does not look at certificates unless an environment variable says so.
    - RPC calls need a session id, which a first call without one is refused with.
    """

    name = "transmission"
    package = "transmission-daemon"
    programs = ("transmission-daemon",)
    version_command = ("transmission-daemon", "--version")

    _session_id = ""

    def start(self, torrents: Sequence[Torrent]) -> None:
        configuration = self.host.directory / "transmission"
        (configuration / "torrents").mkdir(parents=True)
        (configuration / "settings.json").write_text(json.dumps(self._settings()))
        # The daemon loads what lies in this folder as torrents that it knows already, so it starts them without a call.
        for torrent in torrents:
            (configuration / "torrents" / torrent.file.name).write_bytes(torrent.file.read_bytes())
        environment = {}
        if self.authority is not None:
            environment = {"TR_CURL_SSL_VERIFY": "1", "CURL_CA_BUNDLE": str(self.authority)}
        command = ["transmission-daemon", "--foreground", "--config-dir", str(configuration), "--log-debug"]
        self.run(command, environment)

    def tracker_message(self, torrent: Torrent) -> str | None:
        fields = {"ids": [torrent.payload.info_hash.hex()], "fields": ["trackerStats"]}
        for known in self._call("torrent-get", fields)["torrents"]:
            for tracker in known["trackerStats"]:
                if tracker["hasAnnounced"] and not tracker["lastAnnounceSucceeded"]:
                    return tracker["lastAnnounceResult"]
        return None

    def _settings(self) -> dict[str, str | int | bool]:
        return {
            "download-dir": str(self.data),
            "dht-enabled": False,
            "lpd-enabled": False,
            "pex-enabled": False,
            "utp-enabled": False,
            "port-forwarding-enabled": False,
            "peer-port": PEER_PORT,
            "rpc-enabled": True,
            "rpc-bind-address": "127.0.0.1",
            "rpc-port": CONTROL_PORT,
            "rpc-whitelist-enabled": False,
            "rpc-host-whitelist-enabled": False,
        }

    def _call(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps({"method": method, "arguments": arguments})
        for _ in range(2):
            connection = self.host.http(CONTROL_PORT)
            connection.request("POST", "/transmission/rpc", body, {"X-Transmission-Session-Id": self._session_id})
            response = connection.getresponse()
            text = response.read()
            connection.close()
            if response.status != 409:
                return json.loads(text)["arguments"]
            self._session_id = response.headers["X-Transmission-Session-Id"]
        raise ConnectionError("transmission keeps refusing the session id it gave")
