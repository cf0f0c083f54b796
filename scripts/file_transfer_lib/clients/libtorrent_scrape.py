"""A libtorrent session that only scrapes; started by `libtorrent.py`.

Its only argument is a JSON object: `listen`, `announce_url`, `info_hashes`, `data`, and `results`, the file it writes
the counts of each torrent to before it ends.
"""

import json
import sys
from pathlib import Path

import libtorrent


def main() -> None:
    """Adds all torrents to one session, has each scraped, and waits for all answers."""
    settings = json.loads(sys.argv[1])
    alerts = libtorrent.alert.category_t
    session = libtorrent.session(
        {
            "listen_interfaces": settings["listen"],
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "alert_mask": alerts.tracker_notification | alerts.error_notification | alerts.status_notification,
        },
        flags=0,
    )
    waiting = set(settings["info_hashes"])
    for info_hash in settings["info_hashes"]:
        torrent = libtorrent.add_torrent_params()
        torrent.info_hashes = libtorrent.info_hash_t(libtorrent.sha1_hash(bytes.fromhex(info_hash)))
        torrent.trackers = [settings["announce_url"]]
        torrent.save_path = settings["data"]
        # Without this it would announce, and count itself.
        torrent.flags = libtorrent.torrent_flags.paused
        session.add_torrent(torrent).scrape_tracker()
    results = {}
    while waiting:
        session.wait_for_alert(1000)
        for alert in session.pop_alerts():
            print(type(alert).__name__, alert.message(), flush=True)
            if isinstance(alert, libtorrent.scrape_failed_alert):
                sys.exit("a scrape failed")
            if isinstance(alert, libtorrent.scrape_reply_alert):
                info_hash = str(alert.handle.info_hash())
                waiting.discard(info_hash)
                results[info_hash] = {
                    "complete": alert.complete,
                    "incomplete": alert.incomplete,
                    "downloaded": downloads(alert.handle),
                }
    Path(settings["results"]).write_text(json.dumps(results), encoding="utf-8")


def downloads(torrent: libtorrent.torrent_handle) -> int:
    """How often a torrent was downloaded, which the alert does not say."""
    endpoints = [endpoint for tracker in torrent.trackers() for endpoint in tracker["endpoints"]]
    print(endpoints, flush=True)
    return max(endpoint["info_hashes"][0]["scrape_downloaded"] for endpoint in endpoints)


main()
