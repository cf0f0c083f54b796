"""WebTorrent: announces in JSON over WebSocket, with or without TLS and a proxy, for peers that connect by WebRTC."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..hosts import TRACKER_NAME, Failure
from ..sites import Site
from ..websocket import WebSocket
from .http import PORTS, Http, HttpProbe


class Ws(Http):
    """As the tracker or a proxy in front of it speaks it."""

    subcommand = "ws"
    schemes = ("ws", "wss")

    def probe(self, site: Site, announce_url: str) -> "WsProbe":
        url = urlsplit(announce_url)
        authority = site.certificates.authority if site.certificates and url.scheme == "wss" else None
        return WsProbe(site.host, site.family, site.address, url.port or PORTS[url.scheme], authority)


@dataclass(frozen=True)
class WsProbe(HttpProbe):
    """Asks one question per connection."""

    def seeders(self, info_hash: bytes) -> int:
        key = info_hash.decode("latin-1")
        answer = self._exchange({"action": "scrape", "info_hash": key})
        try:
            return answer["files"][key]["complete"]
        except (KeyError, TypeError):
            raise Failure(f"the tracker answered a scrape with {answer}") from None

    def refusal(self, info_hash: bytes) -> str:
        key = info_hash.decode("latin-1")
        peer_id = os.urandom(20).decode("latin-1")
        # A stopping peer: even if the tracker accepts it, it does not become part of the swarm.
        state = {"uploaded": 0, "downloaded": 0, "left": 1, "event": "stopped", "numwant": 0}
        answer = self._exchange({"action": "announce", "info_hash": key, "peer_id": peer_id, **state})
        if "failure reason" not in answer:
            raise Failure(f"the tracker answered the announce of a refused torrent with {answer}")
        # Clients hold an error against the torrent it names, and know what to do by its action.
        if answer.get("info_hash") != key or answer.get("action") != "announce":
            raise Failure(f"the tracker's error does not say what it is about: {answer}")
        return answer["failure reason"]

    def peers(self, _info_hash: bytes) -> set[tuple[str, int]] | None:
        """Nothing: the tracker does not know where peers are, it passes on what they say to each other."""
        return None

    def _exchange(self, question: Mapping[str, object]) -> dict[str, Any]:
        """The answer, once the tracker finds the time."""
        for _ in range(self.ATTEMPTS):
            answer = self._exchange_once(question)
            # On a busy machine one of the tracker's cores may stand still, and the others ask clients to come again.
            if "try again" not in answer.get("failure reason", ""):
                break
            time.sleep(self.ATTEMPT_SECONDS)
        return answer

    def _exchange_once(self, question: Mapping[str, object]) -> dict[str, Any]:
        try:
            with WebSocket(self._connect(), TRACKER_NAME, "/announce") as tracker:
                tracker.send(json.dumps(question))
                return json.loads(tracker.receive())
        except (OSError, ValueError) as error:
            raise Failure(f"the tracker gave no answer to {question}: {error!r}") from None
