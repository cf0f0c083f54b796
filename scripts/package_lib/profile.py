"""A profile of the program under load, from which the compiler sees what to make fast (profile-guided optimization)."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .build import REPOSITORY, CannotPackage, Release, build, run

START_S = 20
STOP_S = 30

CONFIG = """\
workers = {workers}
[network]
address_ipv4 = "127.0.0.1:{port}"
address_ipv6 = "[::1]:{port}"
use_ipv6 = {use_ipv6}
enable_tls = true
accept_plain = true
tls_certificate_path = "{directory}/certificate.pem"
tls_private_key_path = "{directory}/key.pem"
[ws.client]
max_message_rate = 0
# The profile is written into a directory that a tracker has nothing to do with.
[privileges]
filter_system_calls = false
"""

MANY = {"population.torrents": "10000", "population.peers": "60000"}
SWARMS = {"population.torrents": "100"}
TLS = {"tls.enable": "true"}


def at(rate: int) -> dict[str, str]:
    """Open loop, in which requests come alone or in small batches."""
    return {"mode": "open", "open.rate": str(rate)}


LOADS: list[tuple[str, dict[str, str]]] = [
    ("udp", MANY),
    ("udp", MANY | at(2000)),
    ("http", MANY | {"connections.count": "128"}),
    ("http", MANY | {"connections.count": "16"} | at(2000)),
    ("http", MANY | {"connections.count": "64", "connections.requests": "1"}),
    ("http", MANY | {"connections.count": "64"} | TLS),
    ("ws", SWARMS),
    ("ws", SWARMS | TLS),
]
"""Load tests by their protocol, with settings. What they do not ask for is compiled to be small."""


def llvm_profdata() -> Path:
    """LLVM's own tool, of the version that the compiler has."""
    host = run("rustc", "--print", "host-tuple").strip()
    tool = Path(run("rustc", "--print", "sysroot").strip()) / "lib/rustlib" / host / "bin/llvm-profdata"
    if not tool.exists():
        raise CannotPackage(f"{tool} is missing: rustup component add llvm-tools")
    return tool


def make(made: Release, seconds: int, target_directory: Path, profile: Path) -> None:
    """Builds the program with counters, has it serve for so many seconds per load, and writes what was counted."""
    tool = llvm_profdata()
    counters = target_directory / "counters"
    counters.mkdir(parents=True, exist_ok=True)
    for old in counters.iterdir():
        old.unlink()
    program = build(made, REPOSITORY, target_directory / "counting", [f"-Cprofile-generate={counters}"])
    testers = [f"--package=aquatic_{name}_load_test" for name in ("udp", "http", "ws")]
    run("cargo", "build", "--release", "--locked", *testers)
    places = [("127.0.0.1", 1)]
    if (os.cpu_count() or 1) > 1:
        # Requests for torrents of another core.
        places.append(("127.0.0.1", 2))
    if has_ipv6():
        places.append(("[::1]", 1))
    for host, workers in places:
        with serving(program, workers, target_directory, counters) as port:
            for protocol, settings in LOADS:
                load(protocol, f"{host}:{port}", settings, seconds)
    found = sorted(counters.glob("*.profraw"))
    if len(found) < len(places):
        raise CannotPackage(f"the program has written {len(found)} profiles into {counters}, not {len(places)}")
    profile.parent.mkdir(parents=True, exist_ok=True)
    # With functions that were never called: what is not known to be cold is not made small.
    run(tool, "merge", "-o", profile, *found)


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def serving(program: Path, workers: int, directory: Path, counters: Path) -> Iterator[int]:
    """Runs the tracker with so many workers, and ends it so that it writes its profile."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"]
    run("openssl", "req", "-x509", *key, "-keyout", directory / "key.pem", "-out", directory / "certificate.pem")
    port = free_port()
    config, log = directory / "tracker.toml", directory / "tracker.log"
    config.write_text(CONFIG.format(workers=workers, port=port, directory=directory, use_ipv6=str(has_ipv6()).lower()))
    environment = os.environ | {"LLVM_PROFILE_FILE": str(counters / "%p.profraw")}
    with (
        log.open("wb") as output,
        subprocess.Popen([program, "all", "-c", config], env=environment, stdout=output, stderr=output) as process,
    ):
        try:
            deadline = time.monotonic() + START_S
            while b"ready: " not in log.read_bytes():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise CannotPackage(f"the tracker does not start:\n{log.read_text(errors='replace')}")
                time.sleep(0.1)
            yield port
            process.send_signal(signal.SIGTERM)
            if process.wait(STOP_S) != 0:
                raise CannotPackage(f"the tracker has not ended well:\n{log.read_text(errors='replace')}")
        finally:
            process.kill()


def load(protocol: str, address: str, settings: dict[str, str], seconds: int) -> None:
    program = (
        Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target") / f"release/aquatic_{protocol}_load_test"
    )
    own = {"server_address": address, "warm_up": "1", "duration": str(seconds), "log_level": "error"}
    run(program, *(f"--set={key}={value}" for key, value in (own | settings).items()))
