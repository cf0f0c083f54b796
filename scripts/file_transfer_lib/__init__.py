"""Moves files between real BitTorrent clients that know each other only through the tracker.

Every row of the table is one experiment: a tracker, a seeder and a leecher, each on a host of its own. The hosts are
network namespaces joined by a bridge, so clients see ordinary addresses instead of a loopback that many of them refuse,
and nothing they send can leave the machine. A row passes when the leecher ends up with the seeder's bytes (compared by
SHA-256), or, for torrents that the access list refuses, when both clients show the tracker's error text and the leecher
received nothing while the other torrent of the same row was transferred by the same processes.

Modules, from the bottom up:

- `torrent`   bencode, random payloads, torrent files
- `hosts`     processes, and the network namespaces they run in
- `protocols` per tracker protocol: its configuration, its announce URL and a probe that asks the tracker directly
- `tracker`   the tracker under test: its configuration file, its process, its announce URL
- `clients`   one small class per client program
- `rows`      the table
- `runner`    runs one row
- `main`      command line, parallel rows, the printed table

How to extend it:

- A row: add a `Row` to `rows.all_rows`.
- A client: subclass `clients.base.Client` in a module of its own (what to install, how to start it so that it knows
  only the tracker, how to read what the tracker told it), and add it to `rows.CLIENTS`.
- A protocol or scheme (HTTP, TLS, WebTorrent, a reverse proxy): add a `protocols.Protocol` with its subcommand, the
  configuration it needs and a `Probe`, and give rows `protocol=` that. What has to run beside the tracker, such as a
  proxy, belongs into the protocol's `prepare`, which may start further processes on the tracker's host and change the
  announce URL that clients are given.
"""
