"""URLs of PostgreSQL, and what is there without its extra."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import psycopg
import pytest

from flowstate import (
    StoreUrlError,
    connect,
)

from ..postgres import target


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("postgresql://h/d?schema=", "schema takes a name of 1 to 63 bytes"),
        (f"postgresql://h/d?schema={'ü' * 32}", "schema takes a name of 1 to 63 bytes"),
        ("postgresql://h/d?schema=pg_temp", "PostgreSQL's own"),
        ("postgresql://h/d?notify=maybe", "notify takes on or off, not 'maybe'"),
        ("postgresql://h/d?presence=maybe", "presence takes on or off, not 'maybe'"),
        ("postgresql://h/d?synchronous=full", "synchronous takes on or off or local"),
        ("postgresql://h/d?reconnect=soon", "reconnect takes seconds, not 'soon'"),
        ("postgresql://h/d?colour=red", "has no option 'colour'"),
        ("postgresql://u:secret/lock@h/d", "%2F"),
        ("postgresql://[u:secret@h/d", "is no URL"),
        (
            "postgresql://h/d?password=secret&sslpassword=secret&colour=red",
            "has no option 'colour'",
        ),
        ("postgresql://h/d?p%61ssword=secret&colour=red", "has no option 'colour'"),
    ],
)
def test_a_bad_url_says_what_is_wrong(bad: str, problem: str) -> None:
    """Nothing is opened under a URL that was misunderstood, and no password is shown."""
    with pytest.raises(StoreUrlError) as caught:
        connect(bad)
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "lock" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p%40ss@h:5433/d", ("u", "p@ss", "h", "5433", "d")),
        ("postgres://h1:1,h2:2/d", (None, None, "h1,h2", "1,2", "d")),
        ("postgresql://u@[::1]:5433/d", ("u", None, "::1", "5433", "d")),
        ("postgresql:///d?host=/run/pg&password=x", (None, "x", "/run/pg", None, "d")),
        ("postgresql://%2Frun%2Fpg/d", (None, None, "/run/pg", None, "d")),
    ],
)
def test_urls_are_read_as_libpq_reads_them(url: str, expected: tuple[str | None, ...]) -> None:
    parameters = target(url).parameters
    names = ("user", "password", "host", "port", "dbname")
    assert expected == tuple(parameters.get(name) for name in names)
    theirs: Mapping[str, Any] = psycopg.conninfo.conninfo_to_dict(url)
    assert {**theirs} == {name: parameters.get(name) for name in theirs}


def test_without_psycopg_the_error_says_what_to_install() -> None:
    """``connect`` does not need it before such a URL is given; ``import flowstate`` never does."""
    program = (
        "import sys; sys.modules['psycopg'] = None; import flowstate\n"
        "try: flowstate.connect('postgresql://me:secret@host/db')\n"
        "except flowstate.StoreUrlError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "pip install 'flowstate-kernel[postgres]'" in done.stdout
    assert "secret" not in done.stdout


def test_importing_flowstate_does_not_import_psycopg() -> None:
    program = "import sys, flowstate; print(*(name for name in sys.modules if 'psycopg' in name))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "\n" == done.stdout
