//! Requests and responses of the WebTorrent over WebSocket tracker protocol, as bytes on the wire. Here belong decoding and
//! encoding, for both the tracker's and the client's side, and nothing that knows of sockets, time or swarms. The
//! codec is not built yet: this member only reserves its room in the workspace.
