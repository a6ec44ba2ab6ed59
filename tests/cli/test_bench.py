"""`flowstate bench` as a person and a CI job use it."""

from __future__ import annotations

import json
import os
import pty
from typing import Any

import pytest
from msgspec.structs import replace

from flowstate.bench import decode, encode

from ..bench import made
from .shell import Shell, finish, interrupt, read_terminal, read_until

FEW = ("bench", "--quick", "--rounds", "1", "--workload", "get")
STEADY = made.run(made.measurement({"commits": [100.0, 101.0, 102.0]}))
SLOW = made.run(made.measurement({"commits": [50.0, 51.0, 52.0]}))


def write(shell: Shell, name: str, run: Any) -> str:
    (shell.directory / name).write_bytes(encode(run))
    return name


def files(shell: Shell) -> set[str]:
    return {path.name for path in shell.directory.iterdir()}


def test_it_measures_memory_and_sqlite_and_leaves_nothing(shell: Shell) -> None:
    before = files(shell)
    done = shell.run(*FEW)
    assert (0, "warming up") == (done.returncode, done.stderr[:10])
    for told in ("memory NONE", "sqlite POWER", "gets/s", "raw limit: bare lookups", "cores"):
        assert told in done.stdout
    assert before == files(shell)


def test_the_store_of_the_environment_is_not_measured(shell: Shell) -> None:
    shell.write("in.jsonl", {"id": "a"})
    shell.run("run", "work.py:flows", "--input", "in.jsonl", "--start", "finish")
    before = shell.store.read_bytes()
    assert 0 == shell.run(*FEW).returncode
    assert before == shell.store.read_bytes()


def test_a_store_that_has_states_is_refused_before_anything_is_measured(shell: Shell) -> None:
    shell.write("in.jsonl", {"id": "a"})
    shell.run("run", "work.py:flows", "--input", "in.jsonl", "--start", "finish")
    done = shell.run(*FEW, "--store", "memory:", "--store", "sqlite:///store.db")
    assert (1, "") == (done.returncode, done.stdout)
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: sqlite:///store.db: has states already")


def test_out_has_every_round_as_json(shell: Shell) -> None:
    done = shell.run(*FEW, "--store", "memory:", "--out", "there/now")
    assert 0 == done.returncode
    run = decode((shell.directory / "there" / "now" / "bench.json").read_bytes(), "it")
    assert ["memory"] == [store.name for store in run.stores]
    assert {1} == {len(one.rounds) for one in run.measurements}


def test_out_has_a_report_too_also_of_an_earlier_run(shell: Shell) -> None:
    write(shell, "now.json", SLOW)
    write(shell, "then.json", STEADY)
    shell.run("bench", "--from", "now.json", "--against", "then.json", "--out", "there")
    page = (shell.directory / "there" / "report.html").read_text()
    assert "Against the run of 2026-01-02T03:04" in page
    assert "<svg" in page
    assert SLOW == decode((shell.directory / "there" / "bench.json").read_bytes(), "it")


def test_a_directory_that_cannot_be_written_to_is_told_before_anything_is_measured(
    shell: Shell,
) -> None:
    (shell.directory / "file").write_text("in the way")
    done = shell.run("bench", "--out", "file/there")
    assert (1, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith("Error: cannot write to file/there")


def test_json_is_the_run_and_nothing_else(shell: Shell) -> None:
    done = shell.run(*FEW, "--store", "memory:", "--json")
    assert {"memory"} == {one["store"] for one in json.loads(done.stdout)["measurements"]}


def test_two_settings_of_a_store_are_measured_beside_each_other(shell: Shell) -> None:
    done = shell.run(
        *FEW, "--store", "sqlite:///a.db", "--store", "sqlite:///a.db?synchronous=normal"
    )
    assert "sqlite POWER" in done.stdout
    assert "sqlite?synchronous=normal PROCESS" in done.stdout


def test_what_got_slower_than_an_earlier_run_is_named_and_fails(shell: Shell) -> None:
    write(shell, "now.json", SLOW)
    write(shell, "then.json", STEADY)
    done = shell.run("bench", "--from", "now.json", "--against", "then.json")
    assert 1 == done.returncode
    (line,) = (line for line in done.stdout.splitlines() if "commit 100, commits/s" in line)
    assert line.split()[-2:] == ["−50%", "worse"]
    assert "1 figure: 1 worse." in done.stdout


def test_what_did_not_get_slower_does_not_fail(shell: Shell) -> None:
    write(shell, "now.json", STEADY)
    write(shell, "then.json", SLOW)
    for name in ("now.json", "then.json"):
        done = shell.run("bench", "--from", "now.json", "--against", name)
        assert (0, "") == (done.returncode, done.stderr)


def test_runs_without_a_common_figure_cannot_be_compared_and_fail(shell: Shell) -> None:
    write(shell, "now.json", STEADY)
    write(shell, "then.json", made.run(made.measurement({"commits": [100.0] * 3}, store="other")))
    done = shell.run("bench", "--from", "now.json", "--against", "then.json")
    assert 1 == done.returncode
    assert "no figure in common" in done.stdout


def test_to_show_a_run_that_was_interrupted_is_no_failure(shell: Shell) -> None:
    write(shell, "now.json", replace(STEADY, is_interrupted=True))
    done = shell.run("bench", "--from", "now.json")
    assert 0 == done.returncode
    assert "Interrupted" in done.stdout


def test_a_tolerance_is_what_may_be_lost(shell: Shell) -> None:
    write(shell, "now.json", SLOW)
    write(shell, "then.json", STEADY)
    both = ("bench", "--from", "now.json", "--against", "then.json")
    assert 0 == shell.run(*both, "--tolerance", "60").returncode


def test_a_store_that_fails_is_told_and_fails(shell: Shell) -> None:
    other = shell.directory / "other"
    other.mkdir()
    done = shell.run(*FEW, "--store", "sqlite:///other/absent/a.db")
    assert (1, "") == (done.returncode, done.stdout)
    assert "absent" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--workload", "nosuch"), "nosuch"),
        (("--against", "absent.json"), "absent.json"),
        (("--from", "now.json", "--quick"), "--from shows a run that was made"),
        (("--rounds", "0"), "--rounds"),
    ],
)
def test_a_wrong_call_is_told(shell: Shell, arguments: tuple[str, ...], told: str) -> None:
    write(shell, "now.json", STEADY)
    done = shell.run("bench", *arguments)
    assert (2, "") == (done.returncode, done.stdout)
    assert told in done.stderr


def test_a_file_that_is_no_run_is_told_before_anything_is_measured(shell: Shell) -> None:
    (shell.directory / "x.json").write_text("{}")
    done = shell.run("bench", "--against", "x.json")
    assert (1, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith("Error: x.json: is not a run")


def test_ctrl_c_ends_it_with_what_there_is_and_leaves_nothing(shell: Shell) -> None:
    before = files(shell)
    process = shell.start("bench", "--quick", "--rounds", "50", "--workload", "get", "--out", "o")
    read_until(process.stderr, "round 2 of 50")
    interrupt(process)
    code, printed, _ = finish(process)
    assert 130 == code
    assert "Interrupted: this is what there is." in printed
    assert "gets/s" in printed
    assert decode((shell.directory / "o" / "bench.json").read_bytes(), "it").is_interrupted
    assert before | {"o"} == files(shell)


def test_sigterm_leaves_nothing_either(shell: Shell) -> None:
    before = files(shell)
    process = shell.start("bench", "--quick", "--rounds", "50", "--workload", "commit")
    read_until(process.stderr, "round 1 of 50")
    process.terminate()
    assert 130 == finish(process)[0]
    assert before == files(shell)


def test_a_terminal_sees_what_remains(shell: Shell) -> None:
    ours, theirs = pty.openpty()
    process = shell.start(*FEW, "--store", "memory:", stderr=theirs)
    os.close(theirs)
    shown = read_terminal(ours).decode()
    assert 0 == finish(process)[0]
    assert "round 1 of 1: get 1 readers, memory" in shown
    assert "left" in shown


@pytest.mark.parametrize("columns", [80, 120])
def test_no_figure_is_cut_on_a_terminal(shell: Shell, columns: int) -> None:
    wide = made.run(
        *(
            made.measurement(
                {"commits": [123_456.0, 234_567.0, 1e6], "p50": [0.00123, 0.01234, 0.1]},
                {"commits": [1e7, 1e7, 1e7]},
                store=store,
            )
            for store in ("sqlite", "postgresql?synchronous=remote_apply")
        )
    )
    write(shell, "run.json", wide)
    ours, theirs = pty.openpty()
    process = shell.start(
        "bench", "--from", "run.json", stdout=theirs, environment={"COLUMNS": str(columns)}
    )
    os.close(theirs)
    shown = read_terminal(ours).decode()
    finish(process)
    assert "…" not in shown
    assert "235,000" in shown
