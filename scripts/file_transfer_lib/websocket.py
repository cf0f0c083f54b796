"""WebSocket messages (RFC 6455) over a connected socket, for the probe and for the control of a browser."""

import base64
import hashlib
import os
import socket
import struct

from .hosts import Failure

ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
FINAL = 0x80
MASKED = 0x80
MAX_HEAD_BYTES = 8192


class WebSocket:
    """The client's side of one connection; closes the socket when it is left as a context manager."""

    def __init__(self, connection: socket.socket, authority: str, path: str) -> None:
        self._connection = connection
        self._received = b""
        key = base64.b64encode(os.urandom(16))
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key.decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        connection.sendall(request.encode())
        head = self._take_head()
        expected = base64.b64encode(hashlib.sha1(key + ACCEPT_GUID).digest()).decode()
        if not head.startswith("HTTP/1.1 101 ") or expected not in head:
            raise Failure(f"{authority} refuses to speak WebSocket: {head!r}")

    def __enter__(self) -> "WebSocket":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def send(self, text: str) -> None:
        """Sends one text message."""
        self._send(TEXT, text.encode())

    def receive(self) -> str:
        """Waits for the next text message, and answers pings meanwhile."""
        message = b""
        while True:
            first, length = self._take(2)
            if length == 126:
                (length,) = struct.unpack(">H", self._take(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", self._take(8))
            payload = self._take(length)
            kind = first & 0x0F
            if kind == PING:
                self._send(PONG, payload)
            elif kind == CLOSE:
                raise ConnectionError(f"the other side closed the WebSocket: {payload[:2].hex()} {payload[2:]!r}")
            elif kind != PONG:
                message += payload
                if first & FINAL:
                    return message.decode()

    def _send(self, kind: int, payload: bytes) -> None:
        head = bytes([FINAL | kind])
        if len(payload) < 126:
            head += bytes([MASKED | len(payload)])
        elif len(payload) < 1 << 16:
            head += struct.pack(">BH", MASKED | 126, len(payload))
        else:
            head += struct.pack(">BQ", MASKED | 127, len(payload))
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self._connection.sendall(head + mask + masked)

    def _take_head(self) -> str:
        while b"\r\n\r\n" not in self._received and len(self._received) < MAX_HEAD_BYTES:
            if not (data := self._connection.recv(4096)):
                break
            self._received += data
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        return head.decode(errors="replace")

    def _take(self, length: int) -> bytes:
        while len(self._received) < length:
            if not (data := self._connection.recv(1 << 16)):
                raise ConnectionError("the other side closed the connection in the middle of a message")
            self._received += data
        taken, self._received = self._received[:length], self._received[length:]
        return taken
