"""What the benchmarks of all protocols share: programs on cores, our load testers and their reports, tables."""

import argparse
import contextlib
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
RIVAL_VERSION = "0.9.0"
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
STARTS = 3  # of a server that does not answer, before that counts as a failure
OTHER_FILES = 200  # that a tracker may have open besides its connections


# --- Programs ---------------------------------------------------------------------------------------------------------


def on_core(core):
    """For `preexec_fn`: pins the process to a core, or to a set of them, and lets it open as many files as it may,
    before it starts."""

    def prepare():
        os.sched_setaffinity(0, core if isinstance(core, set) else {core})
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    return prepare


class Server:
    """A server in a directory of its own, pinned to a core. Use in a `with` statement, which ends it.

    `command` makes the command that starts it from its directory; `probe` tells whether it answers.
    """

    def __init__(self, name, command, probe, core):
        self.name = name
        self.probe = probe
        self.directory = tempfile.TemporaryDirectory(prefix="bench-")
        directory = Path(self.directory.name)
        # Anyone may own the process's files: some trackers drop privileges when started as root.
        directory.chmod(0o755)
        self.command = command(directory)
        self.core = core
        self.log = (directory / "log").open("w+b")
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self):
        try:
            for _ in range(STARTS):
                self.process = subprocess.Popen(
                    self.command,
                    stdout=self.log,
                    stderr=self.log,
                    stdin=subprocess.DEVNULL,
                    preexec_fn=on_core(self.core),
                )
                if self.comes_to_answer(self.process):
                    return self
                say(f"{self.name} does not answer")
                self.stop()
            raise SystemExit(f"{self.name} was started {STARTS} times and did not answer; it said:\n{self.output()}")
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        self.stop()
        self.log.close()
        self.directory.cleanup()

    def stop(self):
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def comes_to_answer(self, process):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and process.poll() is None:
            if self.probe():
                return True
            time.sleep(0.05)
        return False

    def output(self):
        """What it has said so far."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def cpu(self):
        """User and system time used so far, in seconds."""
        stat = self.proc("stat")
        fields = stat.rpartition(")")[2].split()
        return int(fields[11]) / CLOCK_TICKS, int(fields[12]) / CLOCK_TICKS

    def processor_time(self):
        """Processor time of all its threads so far, in seconds, to the nanosecond."""
        return sum(int(self.proc(f"{task}/schedstat").split()[0]) for task in self.tasks()) / 1e9

    def sleeps(self):
        """How often its threads have gone to sleep so far."""
        pattern = r"^voluntary_ctxt_switches:\s+(\d+)"
        return sum(int(re.findall(pattern, self.proc(f"{task}/status"), re.MULTILINE)[0]) for task in self.tasks())

    def tasks(self):
        """Its threads, as directories in the process's own."""
        if self.process is None:
            raise RuntimeError(f"{self.name} has not been started")
        return [f"task/{task.name}" for task in Path(f"/proc/{self.process.pid}/task").iterdir()]

    def rss(self):
        """Resident memory in bytes."""
        return int(re.findall(r"VmRSS:\s+(\d+) kB", self.proc("status"))[0]) * 1024

    def proc(self, file):
        """A file about the process in /proc."""
        if self.process is None:
            raise RuntimeError(f"{self.name} has not been started")
        return Path(f"/proc/{self.process.pid}/{file}").read_text()


@contextlib.contextmanager
def temporary_directory():
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        yield Path(directory)


class PortServer(Server):
    """A server on 127.0.0.1 with a port of its own, which `command` and `probe` are given, too.

    No port is used twice: servers that do not ask for it cannot take over one that was just in use.
    """

    PORTS = itertools.count(20_000)  # below those that connections are made from

    def __init__(self, name, command, probe, core):
        self.port = next(self.PORTS)
        super().__init__(name, lambda directory: command(directory, self.port), lambda: probe(self.port), core)


TLS_CONFIG = """\
network.enable_tls = true
network.tls_certificate_path = "{directory}/certificate.pem"
network.tls_private_key_path = "{directory}/key.pem"
"""


def any_certificate():
    """A TLS context that trusts every server."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def start_load(command, options, **streams):
    """Starts a load tester on its core; its output is piped unless `streams` say otherwise."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **streams}
    return subprocess.Popen(command, preexec_fn=on_core(options.load_core), **streams)


@contextlib.contextmanager
def ended(process):
    """Kills the process at the end if it has not ended by then."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def measured(server, load, options):
    """Takes the server's CPU time within the measured seconds of a load tester, which has just been started, and waits
    for its end. Returns its output, user and system time per second, and the server's resident memory."""
    margin = 0.5
    with ended(load):
        time.sleep(options.warm_up + margin)
        start, before = time.monotonic(), server.cpu()
        time.sleep(options.seconds - 2 * margin)
        end, after = time.monotonic(), server.cpu()
        rss = server.rss()
        output = load.communicate(timeout=options.seconds + 60)[0].decode(errors="replace")
    user, system = ((b - a) / (end - start) for a, b in zip(before, after, strict=True))
    return output, user, system, rss


def opentracker_command(opentracker, tester, directory, port, settings):
    """Starts opentracker. Builds that serve only torrents on a list, such as Debian's, get one from a load tester."""
    where = ["-i", "127.0.0.1", "-p", str(port), "-P", str(port), "-d", directory]
    usage = subprocess.run([opentracker, "-h"], capture_output=True, text=True, check=False)
    if "-w file" not in usage.stdout + usage.stderr:
        return [opentracker, *where]
    with (directory / "whitelist").open("wb") as whitelist:
        subprocess.run([tester, *setting_flags(settings), "--print-info-hashes"], stdout=whitelist, check=True)
    return [opentracker, *where, "-w", "whitelist"]


def free_ports(count):
    """The first of so many consecutive ports of 127.0.0.1 that nobody uses, neither over UDP nor over TCP."""
    for first in range(random.randrange(20_000, 30_000), 32_000):
        with contextlib.ExitStack() as sockets, contextlib.suppress(OSError):
            for port in range(first, first + count):
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    sockets.enter_context(socket.socket(socket.AF_INET, kind)).bind(("127.0.0.1", port))
            return first
    raise SystemExit("there are no free ports")


def most_files():
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def most_connections(wanted):
    """So many connections, or as many as open files are allowed."""
    count = min(wanted, most_files() - OTHER_FILES)
    if count < wanted:
        say(f"only {count} connections, as no more open files are allowed (ulimit -Hn)")
    return count


def make_certificates(directory, key="ecdsa"):
    """A certificate that names itself, for ECDSA with P-256 or RSA with 2,048 bits."""
    kinds = {"ecdsa": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"], "rsa": ["-newkey", "rsa:2048"]}
    kind = [*kinds[key], "-nodes"]
    where = ["-keyout", directory / "key.pem", "-out", directory / "certificate.pem"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "30"]
    subprocess.run(["openssl", "req", "-x509", *kind, *where, *name], check=True, capture_output=True)
    for file in directory.iterdir():
        file.chmod(0o644)


def until(lines, word):
    """The lines up to one with a word in it."""
    for line in lines:
        yield line
        if word in line:
            return


def missing(programs):
    """Says which programs are not there, each with the package that has it."""
    lacking = {name: package for name, package in programs.items() if not shutil.which(name)}
    for name, package in lacking.items():
        say(f"{name} is missing; the package is {package}")
    return set(lacking)


def build(packages):
    run(["cargo", "build", "--release", *(flag for package in packages for flag in ("-p", package))])


def install_rivals(packages, scratch):
    for package in packages:
        if not (scratch / "bin" / package).exists():
            # Not with --locked: the dependencies published with it do not compile with current Rust.
            run(["cargo", "install", "--version", RIVAL_VERSION, "--root", scratch, package])


def target_directory():
    return Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))


def scratch_directory():
    return Path(os.environ.get("SCRATCH", target_directory() / "bench"))


def has_subcommand(ours, name):
    """Whether the tracker of this repository has a service with this name."""
    return subprocess.run([ours, name, "--help"], capture_output=True, check=False).returncode == 0


def peers_per_address(program, subcommand):
    """The line of a configuration that sets limits.max_peers_per_address of a build of ours to its maximum; nothing for
    a build from before that limit."""
    settings = subprocess.run([program, subcommand, "-p"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return "limits.max_peers_per_address = 1000000\n" if "max_peers_per_address" in settings else ""


def run(command):
    """Runs a command that builds or installs, with the profiles of the packages: figures of a program that was compiled
    with less optimisation, as the environment can ask for, would say nothing."""
    say(" ".join(str(word) for word in command))
    flags = ("CARGO_PROFILE_", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(flags)}
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True)


# --- Our load testers -------------------------------------------------------------------------------------------------


def setting_flags(settings):
    return [flag for key, value in settings.items() for flag in ("--set", f"{key}={value}")]


def population(numbers):
    torrents, peers = numbers
    return {"population.torrents": torrents, "population.peers": peers}


def run_our_tester(command, report, server, core):
    """Runs it to its end and returns its report. Wrong answers of the tracker are part of that, not an error."""
    done = subprocess.run(command, preexec_fn=on_core(core), capture_output=True, check=False)
    return read_report(report, server, done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace"))


def read_report(path, server, output):
    """Reads the report of one of our load testers and says what it found wrong."""
    if not path.exists():
        raise SystemExit(f"the load test of {server.name} failed:\n{output}")
    report = json.loads(path.read_text())
    for phase in report["phases"]:
        for violation in phase["violations"]:
            if violation["count"]:
                say(f"  {server.name}: {violation['name']} ({violation['count']} times)")
    return report


def phase_of(report, name):
    return next(phase for phase in report["phases"] if phase["phase"] == name)


def note(phase, name):
    return next(note["count"] for note in phase["notes"] if note["name"] == name)


@dataclass
class Run:
    """One measurement of one tracker: requests."""

    responses: float  # per second
    user: float  # microseconds per response
    system: float
    rss: int
    busy: float  # share of the core
    idle_share: float | None = None  # of the load tester

    HEADER = ("responses/s", "user us/resp.", "system us/resp.", "RSS MB", "core busy %", "load test idle %")

    @classmethod
    def of(cls, responses, user, system, rss, idle_share=None):
        """From rates per second."""
        per_response = 1e6 / max(responses, 1)
        return cls(responses, user * per_response, system * per_response, rss, user + system, idle_share)

    def figures(self):
        return [self.responses, self.user, self.system, self.rss / 1e6, self.busy * 100]


def row_of(runs):
    """A row of a table: medians of the figures of some runs."""
    idle = [run.idle_share * 100 for run in runs if run.idle_share is not None]
    return medians(run.figures() for run in runs) + ([statistics.median(idle)] if idle else [])


def recorded(runs):
    """Runs by load tester and tracker, for the JSON output."""
    return {
        tester: {name: [asdict(run) for run in taken] for name, taken in by_name.items()}
        for tester, by_name in runs.items()
    }


def peers_per_reply(phase):
    announces = next(kind["answered"] for kind in phase["kinds"] if kind["kind"] == "announce")
    return note(phase, "peers in announce replies") / max(announces, 1)


# --- Output -----------------------------------------------------------------------------------------------------------


def say(text):
    print(text, file=sys.stderr, flush=True)


def medians(rows):
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def print_table(header, rows, formats):
    print(" " * 28 + "".join(f"{title:>18}" for title in header))
    for name, figures in rows.items():
        # Some rows have fewer figures than the header.
        cells = (form.format(figure) for form, figure in zip(formats, figures, strict=False))
        print(f"{name:<28}" + "".join(f"{cell:>18}" for cell in cells))
    sys.stdout.flush()


def print_ratios(header, rows):
    """The first row divided by each of the others."""
    (first, figures), *others = rows.items()
    for name, other in others:
        columns = zip(figures, other, header, strict=False)
        ratios = (mine / its if its else float("nan") for mine, its, _ in columns)
        print(f"{first + ' / ' + name:<28}" + "".join(f"{ratio:>18.2f}" for ratio in ratios))
    sys.stdout.flush()


# --- Options ----------------------------------------------------------------------------------------------------------


def numbers(text):
    torrents, peers = (int(number) for number in text.replace("_", "").split(","))
    return torrents, peers


def option_parser(doc, default_population):
    """A parser with the options of all benchmarks; `doc` is the description of one of them."""
    summary, _, rest = doc.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="runs of each combination")
    parser.add_argument("--seconds", type=int, default=6, help="measured seconds of each run")
    parser.add_argument("--warm-up", type=int, default=2, help="seconds of load before that")
    parser.add_argument("--tracker-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    parser.add_argument("--population", type=numbers, default=default_population, metavar="TORRENTS,PEERS")
    parser.add_argument("--without-ours", action="store_true", help="compare the others only")
    parser.add_argument("--no-build", action="store_true", help="take our programs as they are")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured to a file")
    return parser


def check_options(parser, options):
    if options.seconds < 2:
        parser.error("--seconds must be at least 2")
    cores = os.sched_getaffinity(0)
    if not {options.tracker_core, options.load_core} <= cores or options.tracker_core == options.load_core:
        parser.error(f"two different cores are needed, out of {sorted(cores)}")
    return options
