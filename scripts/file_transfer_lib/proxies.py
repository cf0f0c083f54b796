"""Proxies that stand between clients and the tracker, on the tracker's host.

They listen where clients look for the tracker and reach it over the loopback interface, so a tracker that took them for
its clients would hand out the loopback address, and no transfer would succeed.
"""

from abc import abstractmethod

from .hosts import Process
from .programs import Program
from .sites import Site

LOOPBACK = "127.0.0.1"


class Proxy(Program):
    """A way to run a proxy program."""

    encrypts: bool
    """Whether it holds the certificate; if not, it passes on what it gets."""
    passes_connections = False
    """Whether it says whom it stands for in front of the connection (PROXY protocol) and not in each request."""
    uses_unix_socket = False
    """Whether it reaches the tracker by a file."""

    @abstractmethod
    def start(self, site: Site, upstream: str) -> Process:
        """Starts it for a tracker at `upstream`, on the ports that URLs need not name."""


class Nginx(Proxy):
    """Passes requests on over connections that it keeps open, and appends the client to X-Forwarded-For.

    Connections that become WebSockets are passed on whole.
    """

    name = "nginx"
    package = "nginx"
    programs = ("nginx",)
    version_command = ("nginx", "-v")

    def __init__(self, encrypts: bool = False, uses_unix_socket: bool = False) -> None:
        self.encrypts = encrypts
        self.uses_unix_socket = uses_unix_socket

    def start(self, site: Site, upstream: str) -> Process:
        directory = site.host.directory / self.name
        directory.mkdir()
        configuration = directory / "nginx.conf"
        configuration.write_text(self._settings(site, upstream))
        return site.host.start(self.name, ["nginx", "-e", "stderr", "-p", str(directory), "-c", str(configuration)])

    def _settings(self, site: Site, upstream: str) -> str:
        listen = f"listen {site.family.authority(site.address)}:80;"
        if self.encrypts:
            assert site.certificates is not None
            listen = f"""listen {site.family.authority(site.address)}:443 ssl;
        ssl_certificate {site.certificates.certificate};
        ssl_certificate_key {site.certificates.key};"""
        paths = "".join(
            f"\n    {kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        # One worker, so that all requests find the connections that are open already. It stays who it is: within a user
        # namespace there may be nobody else to become.
        return f"""daemon off;
user root;
worker_processes 1;
pid nginx.pid;
events {{
    worker_connections 128;
}}
http {{
    access_log /dev/stderr combined;{paths}
    map $http_upgrade $passed_on {{
        default upgrade;
        "" "";
    }}
    upstream tracker {{
        server {upstream};
        keepalive 8;
    }}
    server {{
        {listen}
        location / {{
            proxy_pass http://tracker;
            proxy_http_version 1.1;
            proxy_set_header Connection $passed_on;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""


class Haproxy(Proxy):
    """Passes requests on with X-Forwarded-For, or connections with the PROXY protocol."""

    name = "haproxy"
    package = "haproxy"
    programs = ("haproxy",)
    version_command = ("haproxy", "-v")

    def __init__(self, proxy_protocol: int | None = None, tracker_encrypts: bool = False) -> None:
        """`proxy_protocol` is the version to put in front of whole connections; without one, requests are passed on."""
        self.encrypts = False
        self.passes_connections = proxy_protocol is not None
        self._proxy_protocol = proxy_protocol
        self._port = 443 if tracker_encrypts else 80

    def start(self, site: Site, upstream: str) -> Process:
        configuration = site.host.directory / "haproxy.cfg"
        configuration.write_text(self._settings(site, upstream))
        return site.host.start(self.name, ["haproxy", "-db", "-f", str(configuration)])

    def _settings(self, site: Site, upstream: str) -> str:
        # One thread, and connections to the tracker that all clients share: haproxy shares them only if told that the
        # tracker does not take all requests of a connection to come from one client.
        mode = "mode http\n    option forwardfor\n    http-reuse always"
        option = ""
        if self._proxy_protocol is not None:
            mode = "mode tcp"
            option = {1: " send-proxy", 2: " send-proxy-v2"}[self._proxy_protocol]
        return f"""global
    log stdout format raw local0
    maxconn 128
    nbthread 1
defaults
    log global
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    {mode}
frontend public
    bind {site.address}:{self._port}
    default_backend tracker
backend tracker
    server tracker {upstream}{option}
"""
