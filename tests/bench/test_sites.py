"""Where stores are made: beside what is named, and gone afterwards."""

from __future__ import annotations

from pathlib import Path

import anyio
import psycopg
import pytest

from flowstate import (
    Commit,
    Engine,
    Pause,
    State,
    StoreError,
    StoreOpenError,
    StoreUrlError,
    connect,
)
from flowstate.bench import BenchError, Site, sites_of
from flowstate.bench.machine import file_system
from flowstate.bench.sites import UnknownSite, store_names
from flowstate.bench.sites.memory import MemorySite
from flowstate.bench.sites.postgres import PostgresSite
from flowstate.bench.sites.sqlite import SQLiteSite
from flowstate.drivers.url import StoreUrl

from ..postgres import Database


def site_of(url: str) -> Site:
    (site,) = sites_of([url]).values()
    return site


async def commit(url: str) -> int:
    async with connect(url) as driver, Engine(driver) as engine:
        (state,) = await engine.do(Commit(Pause(State("order-1"), "work")))
        return state.rev


def unknown(path: Path) -> UnknownSite:
    """A store of which only its driver is known."""
    return UnknownSite(StoreUrl.parse(f"sqlite:///{path}/plugged-in.db"))


def test_each_store_is_new_and_all_are_removed(tmp_path: Path) -> None:
    with site_of(f"sqlite:///{tmp_path}/named.db") as site:
        for _ in range(2):
            with site.fresh() as url:
                assert 1 == anyio.run(commit, url)
        (directory,) = tmp_path.iterdir()  # beside the named one, on the same disk
        assert [] == list(directory.iterdir())
    assert [] == list(tmp_path.iterdir())


def test_stores_in_memory_are_new_each_time() -> None:
    with site_of("memory:") as site:
        for _ in range(2):
            with site.fresh() as url:
                assert 1 == anyio.run(commit, url)


def test_a_store_that_has_states_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    anyio.run(commit, f"sqlite:///{path}")
    before = path.read_bytes()
    with pytest.raises(BenchError, match=r"has states already \(revision 1\).*bench\.db"):
        site_of(f"sqlite:///{path}").check()
    with pytest.raises(BenchError, match=r"has states already.*Name an empty store"):
        UnknownSite(StoreUrl.parse(f"sqlite:///{path}")).check()
    assert before == path.read_bytes()


def test_a_store_that_is_empty_or_not_there_is_not_refused(tmp_path: Path) -> None:
    site_of(f"sqlite:///{tmp_path}/absent.db").check()
    assert [] == list(tmp_path.iterdir())
    unknown(tmp_path).check()
    site_of(f"sqlite:///{tmp_path}/plugged-in.db").check()


@pytest.mark.parametrize("url", ["sqlite:///", "sqlite:///a.db?colour=red", "nosuch://host", "x"])
def test_a_url_that_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(StoreUrlError):
        site_of(url)


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreOpenError, match="absent"),
        site_of(f"sqlite:///{tmp_path}/absent/a.db"),
    ):
        pass


def test_the_options_of_a_url_hold_for_what_is_made(tmp_path: Path) -> None:
    with (
        site_of(f"sqlite:///{tmp_path}/a.db?synchronous=normal&mode=rw") as site,
        site.fresh() as url,
    ):
        assert {"synchronous": "normal", "mode": "rwc"} == StoreUrl.parse(url).options
        assert "normal" == site.facts()["synchronous"]


def test_the_size_of_a_store_is_that_of_its_files(tmp_path: Path) -> None:
    with site_of(f"sqlite:///{tmp_path}/a.db") as site, site.fresh() as url:
        anyio.run(commit, url)
        assert Path(StoreUrl.parse(url).path).stat().st_size == site.size(url)


@pytest.mark.parametrize(
    "url", ["memory:", "sqlite:///{}/a.db", "sqlite:///{}/a.db?synchronous=normal"]
)
def test_a_raw_limit_is_a_number_of_rows_a_second(url: str, tmp_path: Path) -> None:
    with site_of(url.format(tmp_path)) as site:
        raw = site.raw
        assert raw is not None
        assert raw.about
        assert raw.insert(10, 0.0) > 0
        assert raw.lookup(10, 0.0) > 0
        assert raw.payload(1_000, 0.0) is None or isinstance(site, SQLiteSite)
    assert [] == list(tmp_path.iterdir())


def schemas(database: Database) -> set[str]:
    with psycopg.connect(database.url) as connection:
        return {name for (name,) in connection.execute("SELECT nspname FROM pg_namespace")}


def test_each_store_on_a_server_is_a_new_schema_and_all_are_removed(postgres: Database) -> None:
    before = schemas(postgres)
    with site_of(postgres.new_store()) as site:
        for _ in range(2):
            with site.fresh() as url:
                assert 1 == anyio.run(commit, url)
                (made,) = schemas(postgres) - before
                assert made.startswith("flowstate_bench_")
                assert (site.size(url) or 0) > 8_192
    assert before == schemas(postgres)


def test_a_schema_that_has_states_is_refused_and_an_absent_one_is_not_made(
    postgres: Database,
) -> None:
    url = postgres.new_store()
    before = schemas(postgres)
    site_of(url).check()
    assert before == schemas(postgres)
    anyio.run(commit, url)
    with pytest.raises(BenchError, match=r"has states already \(revision 1\).*schema=bench"):
        site_of(url).check()


def test_the_raw_limit_of_a_server_leaves_nothing(postgres: Database) -> None:
    before = schemas(postgres)
    with site_of(postgres.new_store()) as site:
        raw = site.raw
        assert raw is not None
        assert raw.insert(10, 0.0) > 0
        assert raw.lookup(10, 0.0) > 0
        assert (raw.payload(1_000, 0.0) or 0) > 0
    assert before == schemas(postgres)


def test_a_server_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(StoreError, match="nowhere"):
        site_of("postgresql://u:secret@/db?host=/nowhere").check()


def test_what_a_server_is_set_to_is_told_and_no_password_is(postgres: Database) -> None:
    site = site_of(f"{postgres.new_store()}&password=secret")
    facts = site.facts()
    assert {"PostgreSQL", "psycopg", "fsync", "synchronous_commit", "server"} <= facts.keys()
    assert "secret" not in f"{facts} {site.shown}"


def test_a_store_that_offers_no_site_is_measured_as_it_is(tmp_path: Path) -> None:
    with unknown(tmp_path) as site, site.fresh() as first, site.fresh() as second:
        assert first == second == site.url.original
        assert site.raw is None
        assert not site.is_fresh
        assert any("no raw limit is known for sqlite:" in note for note in site.notes())


def test_sites_are_found_by_the_scheme_of_the_url() -> None:
    urls = ["memory:", "sqlite:///a.db", "postgresql://host/db"]
    assert [MemorySite, SQLiteSite, PostgresSite] == [type(s) for s in sites_of(urls).values()]


@pytest.mark.parametrize(
    ("urls", "names"),
    [
        (["memory:", "sqlite:////tmp/a.db"], ["memory", "sqlite"]),
        (["sqlite:///a", "sqlite:///a?mode=rw"], ["sqlite", "sqlite?mode=rw"]),
        (["sqlite:////a/x.db", "sqlite:////b/x.db"], ["sqlite", "sqlite #2"]),
        (["x://u@h/d?a=1&b=2", "x://u@h/d?a=1&b=3"], ["x?b=2", "x?b=3"]),
        (["x://u:secret@h/d"], ["x"]),
    ],
)
def test_names_are_short_and_tell_stores_apart(urls: list[str], names: list[str]) -> None:
    assert names == store_names([StoreUrl.parse(url) for url in urls])


def test_the_file_system_of_a_directory_is_known() -> None:
    if Path("/proc/self/mounts").exists():
        assert "proc" == file_system(Path("/proc/self"))
    else:
        assert "" == file_system(Path("/"))
