"""A BitTorrent client made of nothing but a libtorrent session; started by `libtorrent.py`, controlled by signals.

Its only argument is a JSON object: `listen`, `data`, `torrents`, and `messages`, the file it keeps the last tracker
error of each torrent in. It runs until it is terminated.
"""

import json
import sys
from pathlib import Path

import libtorrent


def main() -> None:
    """Adds the torrents and follows the session's alerts forever."""
    settings = json.loads(sys.argv[1])
    session = open_session(settings["listen"])
    for path in settings["torrents"]:
        session.add_torrent({"ti": libtorrent.torrent_info(path), "save_path": settings["data"]})
    messages: dict[str, str] = {}
    while True:
        session.wait_for_alert(1000)
        for alert in session.pop_alerts():
            print(type(alert).__name__, alert.message(), flush=True)
            if isinstance(alert, libtorrent.tracker_error_alert):
                messages[str(alert.handle.info_hash())] = f"{alert.error.message()}: {alert.error_message()}"
                write(settings["messages"], messages)


def open_session(listen: str) -> libtorrent.session:
    """A session that learns of peers from trackers only; without flags it loads no peer exchange plugin either."""
    categories = libtorrent.alert.category_t
    settings = {
        "listen_interfaces": listen,
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
        "alert_mask": categories.tracker_notification
        | categories.error_notification
        | categories.status_notification
        | categories.connect_notification,
    }
    return libtorrent.session(settings, flags=0)


def write(path: str, messages: dict[str, str]) -> None:
    """Replaces the file in one step, since it is read while this program runs."""
    new = Path(f"{path}.new")
    new.write_text(json.dumps(messages), encoding="utf-8")
    new.replace(path)


main()
