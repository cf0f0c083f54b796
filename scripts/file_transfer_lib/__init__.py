"""Moves files between real BitTorrent clients that know each other only through the tracker.

Every test case has a tracker, a seeder and a leecher, each on a host of its own. The hosts are
network namespaces joined by a bridge, so clients see ordinary addresses instead of a loopback that many of them refuse,
and nothing they send can leave the machine. A case passes when the leecher ends up with the seeder's bytes (compared by
SHA-256) and the tracker hands out where the two are. Torrents that the access list refuses must get both clients to
show the tracker's error text, and the leecher must receive nothing, while the other torrent of the same case is
transferred by the same processes. Some cases have no clients, and ask the tracker, or a proxy before it, directly.

Modules, from the bottom up:

- `torrent`      bencode, random payloads, torrent files
- `hosts`        processes, and the network namespaces they run in
- `programs`     what has to be installed
- `certificates` an authority of the case's own, for encrypted protocols
- `sites`        what is known about a tracker before it runs
- `proxies`      nginx and haproxy, as they stand in front of trackers
- `websocket`    messages over WebSocket, for the probe of WebTorrent and for the control of a browser
- `protocols`    per tracker protocol: its configuration, its announce URL and a probe that asks the tracker directly
- `tracker`      the tracker under test: its configuration file, its process, its announce URL
- `clients`      one small class per client program; those from npm have their JavaScript in `scripts/webtorrent`
- `environment`  hosts, tracker and clients of a case, and its deadline
- `case`         base class of test cases; `transfer` and `checks` are its kinds
- `cases`        all test cases, with a module per protocol
- `runner`       runs one case
- `main`         command line, parallel cases, the printed table

How to extend it:

- A case: add a `Transfer`, or a `Check` with a function that asks questions, to a module of `cases`.
- A client: subclass `clients.base.Client` in a module of its own (what to install, how to start it so that it knows
  only the tracker and trusts the case's authority, how to read what the tracker told it), and use it in cases.
- A protocol or scheme: add a `protocols.Protocol` with its subcommand, the configuration it needs and a `Probe`, and
  give cases that protocol. What has to run beside the tracker, such as a proxy, is started by its `prepare`, which may
  change the announce URL that clients are given.
- A proxy: subclass `proxies.Proxy`.
"""
