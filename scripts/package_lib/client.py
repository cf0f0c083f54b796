"""Announces over each protocol to a tracker on this machine; a program of its own, to be run where the tracker is.

Prints, for each protocol, the number of peers without anything left to download that the tracker knows of the torrent.
"""

import base64
import json
import os
import re
import socket
import struct
import sys
import urllib.parse
import urllib.request

HOST, PORT = "127.0.0.1", 6969
SECONDS = 10.0
MAGIC = 0x41727101980
"""Protocol number of BEP 15."""


def over_udp(info_hash: bytes, peer_port: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(SECONDS)
        client.connect((HOST, PORT))
        client.send(struct.pack(">QII", MAGIC, 0, 1))
        (connection,) = struct.unpack_from(">Q", client.recv(16), 8)
        amounts = struct.pack(">QQQIIIiH", 0, 0, 0, 2, 0, 0, -1, peer_port)
        client.send(struct.pack(">QII", connection, 1, 2) + info_hash + b"-AQ0001-udp-udp-udp-" + amounts)
        action, transaction, _interval, _leechers, seeders = struct.unpack_from(">IIIII", client.recv(2048))
        if (action, transaction) != (1, 2):
            raise ValueError(f"UDP: action {action}, transaction {transaction}")
        return int(seeders)


def over_http(info_hash: bytes, peer_port: int) -> int:
    query = f"info_hash={urllib.parse.quote(info_hash)}&peer_id=-AQ0001-http-http-ht&port={peer_port}&left=0"
    with urllib.request.urlopen(f"http://{HOST}:{PORT}/announce?{query}", timeout=SECONDS) as reply:
        complete = re.search(rb"8:completei(\d+)e", reply.read())
    if complete is None:
        raise ValueError("HTTP: no number of seeders")
    return int(complete[1])


def over_websocket(info_hash: bytes) -> int:
    key = base64.b64encode(os.urandom(16)).decode()
    announce = {
        "action": "announce",
        "info_hash": info_hash.decode("latin-1"),
        "peer_id": "-AQ0001-ws-ws-ws-ws-",
        "left": 0,
        "event": "started",
        "offers": [],
    }
    message = json.dumps(announce).encode()
    with socket.create_connection((HOST, PORT), timeout=SECONDS) as client:
        client.sendall(
            f"GET / HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        # One masked frame with text; the mask is zero.
        client.sendall(b"\x81" + struct.pack(">BH", 0x80 | 126, len(message)) + b"\0" * 4 + message)
        received = b""
        while (complete := re.search(rb'"complete": ?(\d+)', received)) is None:
            more = client.recv(4096)
            if not more:
                raise ValueError(f"WebSocket: closed after {received!r}")
            received += more
    return int(complete[1])


if __name__ == "__main__":
    torrent = sys.argv[1].encode()
    print("udp", over_udp(torrent, 6881))
    print("http", over_http(torrent, 6882))
    print("ws", over_websocket(torrent))
