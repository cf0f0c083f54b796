"""What the benchmarks of all protocols share: programs on cores, our load testers and their reports, tables."""

import json
import os
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
RIVAL_VERSION = "0.9.0"
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
STARTS = 3  # of a server that does not answer, before that counts as a failure
OTHER_FILES = 200  # that a tracker may have open besides its connections


# --- Programs ---------------------------------------------------------------------------------------------------------


def on_core(core):
    """For `preexec_fn`: pins the process to a core and lets it open as many files as it may, before it starts."""

    def prepare():
        os.sched_setaffinity(0, {core})
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
        # Anyone may own the process's files: some trackers drop privileges when started as root.
        os.chmod(self.directory.name, 0o755)
        self.command = command(Path(self.directory.name))
        self.core = core
        self.log = open(Path(self.directory.name) / "log", "w+b")
        self.process = None

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
                if self.comes_to_answer():
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

    def comes_to_answer(self):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self.process.poll() is None:
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
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return int(fields[11]) / CLOCK_TICKS, int(fields[12]) / CLOCK_TICKS

    def rss(self):
        """Resident memory in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


def measured(server, load, options):
    """Takes the server's CPU time within the measured seconds of a load tester, which has just been started, and waits
    for its end. Returns its output, user and system time per second, and the server's resident memory."""
    margin = 0.5
    try:
        time.sleep(options.warm_up + margin)
        start, before = time.monotonic(), server.cpu()
        time.sleep(options.seconds - 2 * margin)
        end, after = time.monotonic(), server.cpu()
        rss = server.rss()
        output = load.communicate(timeout=options.seconds + 60)[0].decode(errors="replace")
    finally:
        if load.poll() is None:
            load.kill()
            load.wait()
    user, system = ((b - a) / (end - start) for a, b in zip(before, after))
    return output, user, system, rss


def opentracker_command(opentracker, tester, directory, port, settings):
    """Starts opentracker. Builds that serve only torrents on a list, such as Debian's, get one from a load tester."""
    where = ["-i", "127.0.0.1", "-p", str(port), "-P", str(port), "-d", directory]
    usage = subprocess.run([opentracker, "-h"], capture_output=True, text=True, check=False)
    if "-w file" not in usage.stdout + usage.stderr:
        return [opentracker, *where]
    with open(directory / "whitelist", "wb") as whitelist:
        subprocess.run([tester, *setting_flags(settings), "--print-info-hashes"], stdout=whitelist, check=True)
    return [opentracker, *where, "-w", "whitelist"]


def most_files():
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def most_connections(wanted):
    """So many connections, or as many as open files are allowed."""
    count = min(wanted, most_files() - OTHER_FILES)
    if count < wanted:
        say(f"only {count} connections, as no more open files are allowed (ulimit -Hn)")
    return count


def make_certificates(directory):
    """A certificate that names itself, for ECDSA with P-256."""
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    where = ["-keyout", directory / "key.pem", "-out", directory / "certificate.pem"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "30"]
    subprocess.run(["openssl", "req", "-x509", *curve, *where, *name], check=True, capture_output=True)
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


def run(command):
    say(" ".join(str(word) for word in command))
    subprocess.run(command, cwd=REPOSITORY, check=True)


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


def peers_per_reply(phase):
    announces = next(kind["answered"] for kind in phase["kinds"] if kind["kind"] == "announce")
    return note(phase, "peers in announce replies") / max(announces, 1)


# --- Output -----------------------------------------------------------------------------------------------------------


def say(text):
    print(text, file=sys.stderr, flush=True)


def medians(rows):
    return [statistics.median(column) for column in zip(*rows)]


def print_table(header, rows, formats):
    print(" " * 28 + "".join(f"{title:>18}" for title in header))
    for name, figures in rows.items():
        print(f"{name:<28}" + "".join(f"{form.format(figure):>18}" for form, figure in zip(formats, figures)))
    sys.stdout.flush()


def print_ratios(header, rows):
    """The first row divided by each of the others."""
    (first, figures), *others = rows.items()
    for name, other in others:
        ratios = (mine / its if its else float("nan") for mine, its, _ in zip(figures, other, header))
        print(f"{first + ' / ' + name:<28}" + "".join(f"{ratio:>18.2f}" for ratio in ratios))
    sys.stdout.flush()


# --- Options ----------------------------------------------------------------------------------------------------------


def numbers(text):
    torrents, peers = (int(number) for number in text.replace("_", "").split(","))
    return torrents, peers


def add_options(parser, default_population):
    """The options of all benchmarks."""
    parser.add_argument("--rounds", type=int, default=5, help="runs of each combination")
    parser.add_argument("--seconds", type=int, default=6, help="measured seconds of each run")
    parser.add_argument("--warm-up", type=int, default=2, help="seconds of load before that")
    parser.add_argument("--tracker-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    parser.add_argument("--population", type=numbers, default=default_population, metavar="TORRENTS,PEERS")
    parser.add_argument("--without-ours", action="store_true", help="compare the others only")
    parser.add_argument("--no-build", action="store_true", help="take our programs as they are")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured to a file")


def check_options(parser, options):
    if options.seconds < 2:
        parser.error("--seconds must be at least 2")
    cores = os.sched_getaffinity(0)
    if not {options.tracker_core, options.load_core} <= cores or options.tracker_core == options.load_core:
        parser.error(f"two different cores are needed, out of {sorted(cores)}")
    return options
