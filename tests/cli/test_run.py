"""`flowstate run`: lines become states, each is run until it rests, and the exit code is honest."""

from __future__ import annotations

import json
import os
import pty
import signal
from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from flowstate import Commit, Engine, RetryPolicy, State, Transit, connect

from .shell import Shell, finish, interrupt, read_terminal, read_until, wait_for

WELL = 0
NOT_WELL = 1


def run(shell: Shell, start: str, *records: object, options: tuple[str, ...] = ()) -> Any:
    file = shell.write("in.jsonl", *records)
    return shell.run("run", "work.py:flows", "--input", file, "--start", start, *options)


def test_a_line_becomes_a_state_with_all_that_it_holds(shell: Shell) -> None:
    line = {"id": "a", "labels": {"k": "v"}, "annotations": {"n": "é"}, "data": {"d": [1]}}

    done = run(shell, "finish", line)

    assert (done.returncode, done.stderr) == (WELL, "")
    begun, ended = shell.history("a")
    assert (begun["rev"], ended["rev"]) == (1, 2)
    assert begun["transition"] == {"to": "finish", "status": "running"}
    assert ended["transition"] == {"status": "ended"}
    for version in (begun, ended):
        assert (version["labels"], version["annotations"]) == ({"k": "v"}, {"n": "é"})
        assert version["data"]["d"]["content_type"] == "application/json"


VALUES = [None, True, 0, -1.5, 2**70, "", "a\nb\u0000ü😀", [], [1, [2]], {}, {"a": {"b": None}}]


def test_any_json_value_is_stored_as_data(shell: Shell) -> None:
    data = {f"d{index}": value for index, value in enumerate(VALUES)}
    run(shell, "finish", {"id": "a", "data": data})

    async def load() -> dict[str, object]:
        async with connect(f"sqlite:///{shell.store}") as driver, Engine(driver) as engine:
            state = await engine.get("a")
            return {name: await engine.data(state, name) for name in state.data}

    assert anyio.run(load) == data


@pytest.mark.parametrize(
    ("start", "code", "status", "reason"),
    [
        ("finish", WELL, "ended", ""),
        ("two_steps", WELL, "ended", ""),
        ("decline", WELL, "ended", "declined"),
        ("fork", WELL, "ended", ""),
        ("fail", NOT_WELL, "failed", "gave up after 2 attempts: ValueError: no luck with a"),
        ("fail_once", NOT_WELL, "ended", ""),
        ("delay_a_little", WELL, "ended", ""),
        ("fork_that_fails_once", WELL, "ended", ""),
        ("fail_for_good", NOT_WELL, "failed", "gave up after 1 attempt: ValueError"),
        ("wait_for_someone", NOT_WELL, "paused", "needs a person"),
        ("delay", NOT_WELL, "delayed", "at finish"),
        ("end_in_memory", NOT_WELL, "running", "at end_in_memory"),
        ("leave", NOT_WELL, "running", "at leave"),
        ("go_nowhere", NOT_WELL, "running", "at of another engine"),
    ],
)
def test_the_exit_code_is_0_only_if_all_ended_well(
    shell: Shell, start: str, code: int, status: str, reason: str
) -> None:
    done = run(shell, start, {"id": "a"})

    assert done.returncode == code, done.stderr
    (row,) = (line for line in done.stdout.splitlines() if line.startswith(f" {status} "))
    assert reason in row
    assert row.split()[-1] == "1"
    assert "Traceback" not in done.stderr


def test_the_summary_counts_by_status_and_reason(shell: Shell) -> None:
    run(shell, "wait_for_someone", {"id": "p"})
    run(shell, "decline", {"id": "d1"}, {"id": "d2"})
    done = run(
        shell,
        "fail",
        *({"id": id} for id in ("p", "d1", "d2", "x")),
        "nonsense",
        options=("--on-error", "skip"),
    )

    assert done.returncode == NOT_WELL
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(" ")]
    assert ["ended", "declined", "2"] in rows
    assert ["paused", "needs", "a", "person", "1"] in rows
    assert "failed gave up after 2 attempts: ValueError: no luck with x 1" in {
        " ".join(row) for row in rows
    }
    assert ["rejected", "is", "not", "JSON:"] in [row[:4] for row in rows]
    assert "5 lines: 2 ended well, 2 of them before; " in done.stdout


REJECTED: Mapping[str, tuple[str, str]] = {
    "not JSON": ("{", "is not JSON"),
    "two values": ('{"id": "b"} {"id": "c"}', "is not JSON"),
    "not an object": ('["b"]', "Expected `object`"),
    "no id": ('{"labels": {}}', "missing required field `id`"),
    "id of a wrong type": ('{"id": 1}', "Expected `str`, got `int` - at `$.id`"),
    "id empty": ('{"id": ""}', "state id: may not be empty"),
    "id too long": (json.dumps({"id": "b" * 513}), "is 513 bytes; the limit is 512"),
    "id with a NUL": ('{"id": "b\\u0000"}', "NUL"),
    "label of a wrong type": ('{"id": "b", "labels": {"k": 1}}', "Expected `str`, got `int`"),
    "labels of a wrong type": ('{"id": "b", "labels": []}', "at `$.labels`"),
    "label key empty": ('{"id": "b", "labels": {"": "v"}}', "labels: a key may not be empty"),
    "label with a NUL": ('{"id": "b", "labels": {"k": "\\u0000"}}', "NUL"),
    "annotation of a wrong type": ('{"id": "b", "annotations": {"k": null}}', "got `null`"),
    "data of a wrong type": ('{"id": "b", "data": [1]}', "at `$.data`"),
    "data name empty": ('{"id": "b", "data": {"": 1}}', "data: a key may not be empty"),
    "unknown key": ('{"id": "b", "lables": {}}', "unknown field `lables`; a line has id, labels"),
    "unknown key that is long": (
        json.dumps({"id": "b", "x" * 1_000_000: 1}),
        f"unknown field `{'x' * 99}…; a line has id",
    ),
    "unknown key that controls terminals": ('{"id": "b", "\\u001b[2J": 1}', r"`\x1b[2J`"),
    "nested too deeply": (
        '{"id": "b", "data": {"d": ' + "[" * 100_000 + "]" * 100_000 + "}}",
        "nested too deeply",
    ),
    "state too large": (
        json.dumps({"id": "b", "annotations": {"a": "x" * (1 << 20)}}),
        "the limit is 1,048,576",
    ),
    "data too large": (
        json.dumps({"id": "b", "data": {"d": "x" * (16 << 20)}}),
        "the limit is 16,777,216",
    ),
    "line too long": (f'{{"id": "b"{" " * (64 << 20)}}}', "the limit is 67,108,864"),
}


@pytest.mark.parametrize("kind", REJECTED)
def test_a_malformed_line_is_named_and_nothing_of_it_is_stored(shell: Shell, kind: str) -> None:
    line, reason = REJECTED[kind]
    done = run(shell, "finish", {"id": "a"}, line, {"id": "c"}, options=("--on-error", "skip"))

    assert done.returncode == NOT_WELL
    (told,) = done.stderr.splitlines()
    assert told.startswith("line 2 rejected, nothing of it is stored: ")
    assert reason in told
    assert [state["id"] for state in shell.states()] == ["a", "c"]


def test_a_line_that_is_not_utf8_is_named(shell: Shell) -> None:
    (shell.directory / "in.jsonl").write_bytes(b'{"id": "\xff"}\n')
    done = shell.run("run", "work.py:flows", "--input", "in.jsonl", "--start", "finish")
    assert (done.returncode, done.stderr.startswith("line 1 rejected")) == (NOT_WELL, True)
    assert "is not UTF-8" in done.stderr


@pytest.mark.parametrize("start", ["finish", "hold"])
def test_on_error_stop_takes_no_line_after_a_bad_one_and_lets_the_others_finish(
    shell: Shell, start: str
) -> None:
    shell.write("in.jsonl", {"id": "a"}, "nonsense", {"id": "c"})
    process = shell.start("run", "work.py:flows", "--input", "in.jsonl", "--start", start)
    read_until(process.stderr, "line 2 rejected")
    (shell.directory / "go").touch()

    code, stdout, _ = finish(process)

    assert code == NOT_WELL
    assert "Stopped after an error" in stdout
    assert [state["id"] for state in shell.states("--status", "ended")] == ["a"]


def test_on_error_stop_takes_no_line_after_a_flow_that_raised(shell: Shell) -> None:
    options = ("--concurrency", "1", "--on-error", "stop")
    done = run(shell, "fail", {"id": "a"}, {"id": "b"}, {"id": "c"}, options=options)

    assert done.returncode == NOT_WELL
    assert "line 1, state 'a': ValueError: no luck with a (work.py:" in done.stderr
    assert "c" not in {state["id"] for state in shell.states()}


def test_on_error_skip_goes_on(shell: Shell) -> None:
    done = run(shell, "fail", {"id": "a"}, {"id": "b"}, options=("--on-error", "skip"))
    assert done.returncode == NOT_WELL
    first, second, *retries = done.stderr.splitlines()
    assert first.startswith("line 1, state 'a': ValueError: no luck with a (work.py:")
    assert second.startswith("line 2, state 'b': ValueError: no luck with b (work.py:")
    assert len(retries) == 2
    assert [state["id"] for state in shell.states("--status", "failed")] == ["a", "b"]


def test_blank_lines_line_breaks_and_a_byte_order_mark_are_no_errors(shell: Shell) -> None:
    content = '\ufeff{"id": "a"}\r\n\r\n  \n{"id": "b"}\n\nnonsense\n{"id": "c"}'
    (shell.directory / "in.jsonl").write_text(content, newline="")
    options = ("--start", "finish", "--on-error", "skip")
    done = shell.run("run", "work.py:flows", "--input", "in.jsonl", *options)
    assert done.stderr.startswith("line 6 rejected")
    assert [state["id"] for state in shell.states()] == ["a", "b", "c"]


def test_an_empty_input_is_well(shell: Shell) -> None:
    done = run(shell, "finish")
    assert done.returncode == WELL
    assert "0 lines: 0 ended well" in done.stdout


def test_a_device_can_be_the_input(shell: Shell) -> None:
    done = shell.run("run", "work.py:flows", "--input", "/dev/null", "--start", "finish")
    assert done.returncode == WELL


def test_a_pipe_is_read_as_it_is_written(shell: Shell) -> None:
    process = shell.start("run", "work.py:flows", "--input", "-", "--start", "finish")
    assert process.stdin
    process.stdin.write('{"id": "a"}\n{"id": ')
    process.stdin.flush()
    wait_for(lambda: shell.status("a") == "ended")
    process.stdin.write('"b"}\n')
    process.stdin.flush()
    wait_for(lambda: shell.status("b") == "ended")

    code, stdout, _ = finish(process)
    assert code == WELL
    assert "2 lines: 2 ended well" in stdout


def test_as_many_states_run_at_the_same_time_as_asked_for_and_no_more(shell: Shell) -> None:
    ids = [f"s{index}" for index in range(7)]
    shell.write("in.jsonl", *({"id": id, "labels": {"limit": "3"}} for id in ids))
    process = shell.start(
        *("run", "work.py:flows", "--input", "in.jsonl", "--start", "hold_a_few"),
        *("--concurrency", "3"),
    )
    wait_for(lambda: all((shell.directory / f"{id}.begun").exists() for id in ids[:3]))
    (shell.directory / "go").touch()
    assert finish(process)[0] == WELL


# ---------------------------------------------------------------- again


def test_running_it_again_starts_nothing_twice(shell: Shell) -> None:
    first = run(shell, "two_steps", {"id": "a"}, {"id": "b"})
    before = shell.states()
    second = run(shell, "two_steps", {"id": "a"}, {"id": "b"})

    assert (first.returncode, second.returncode) == (WELL, WELL)
    assert shell.states() == before
    assert "2 lines: 2 ended well, 2 of them before; 0 transitions committed" in second.stdout


def test_the_same_id_twice_is_one_state(shell: Shell) -> None:
    done = run(shell, "two_steps", *[{"id": "a"}] * 20, {"id": "b"})
    assert done.returncode == WELL
    assert [len(shell.history(id)) for id in ("a", "b")] == [3, 3]


def test_a_state_that_was_left_running_goes_on_where_it_is(shell: Shell) -> None:
    async def leave_running() -> None:
        async with connect(f"sqlite:///{shell.store}") as driver, Engine(driver) as engine:
            (state,) = await engine.do(Commit(Transit(State("a"), "fail")))
            await engine.do(Commit(Transit(state, "two_steps")))

    anyio.run(leave_running)
    done = run(shell, "fail", {"id": "a"})

    assert (done.returncode, done.stderr) == (WELL, "")
    flows = [version["transition"].get("to") for version in shell.history("a")]
    assert flows == ["fail", "two_steps", "finish", None]


def test_it_does_not_wait_for_a_state_that_comes_to_a_flow_of_others(shell: Shell) -> None:
    """More lines than run at a time: each makes room for the next."""
    lines = [{"id": f"s{n}"} for n in range(6)]
    done = run(shell, "go_nowhere", *lines, options=("--concurrency", "2"))
    assert (done.returncode, done.stderr) == (NOT_WELL, "")
    again = run(shell, "go_nowhere", *lines, options=("--concurrency", "2"))
    assert (again.returncode, again.stderr) == (NOT_WELL, "")
    assert "6 lines: 0 ended well; 0 transitions" in again.stdout


@pytest.mark.parametrize("start", ["wait_for_someone", "delay", "fail", "fail_for_good"])
def test_what_rests_without_having_ended_well_is_left_and_counted(shell: Shell, start: str) -> None:
    run(shell, start, {"id": "a"})
    before = shell.history("a")
    done = run(shell, start, {"id": "a"}, {"id": "a"})

    assert (done.returncode, done.stderr) == (NOT_WELL, "")
    assert shell.history("a") == before


def test_a_resumed_state_is_run(shell: Shell) -> None:
    run(shell, "wait_for_someone", {"id": "a"})
    shell.run("transit", "a", "finish")
    assert run(shell, "wait_for_someone", {"id": "a"}).returncode == WELL
    assert shell.status("a") == "ended"


# ---------------------------------------------------------------- Ctrl-C


def begin(shell: Shell, start: str, *records: object, options: tuple[str, ...] = ()) -> Any:
    """Start a run of one state at a time, and wait until the first is inside its flow."""
    shell.write("in.jsonl", *records)
    process = shell.start(
        *("run", "work.py:flows", "--input", "in.jsonl", "--start", start),
        *("--concurrency", "1", *options),
    )
    wait_for((shell.directory / "a.begun").exists)
    return process


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_lets_running_flows_finish_and_takes_no_more_lines(
    shell: Shell, name: str
) -> None:
    process = begin(shell, "hold", {"id": "a"}, {"id": "b"})
    process.send_signal(getattr(signal, name))
    told = read_until(process.stderr, "\n")
    (shell.directory / "go").touch()
    code, stdout, stderr = finish(process)

    assert told.startswith(f"{name}: taking no new lines; the flows of 1 running state have 10 s")
    assert (code, stderr) == (130, "")
    assert "Interrupted. Run the same command again to go on." in stdout
    assert {state["id"]: state["transition"]["status"] for state in shell.states()} == {
        "a": "ended"
    }

    again = run(shell, "hold", {"id": "a"}, {"id": "b"})
    assert again.returncode == WELL
    assert [len(shell.history(id)) for id in ("a", "b")] == [2, 2]


def test_after_an_interrupt_a_state_is_left_between_two_flows(shell: Shell) -> None:
    process = begin(shell, "hold", {"id": "a", "labels": {"then": "finish"}})
    interrupt(process)
    read_until(process.stderr, "taking no new lines")
    (shell.directory / "go").touch()
    code, stdout, _ = finish(process)

    assert code == 130
    assert "at finish" in stdout
    assert shell.status("a") == "running"
    assert run(shell, "hold", {"id": "a"}).returncode == WELL
    assert len(shell.history("a")) == 3


@pytest.mark.parametrize("start", ["hold", "hold_a_thread"])
def test_a_flow_that_does_not_finish_is_left_after_the_grace_period(
    shell: Shell, start: str
) -> None:
    process = begin(shell, start, {"id": "a"}, options=("--grace", "0.1"))
    interrupt(process)
    code, _, stderr = finish(process)

    assert code == 130
    assert "have 0.1 s to finish" in stderr
    assert "Traceback" not in stderr
    assert shell.status("a") == "running"


@pytest.mark.parametrize("start", ["hold", "hold_a_thread"])
def test_a_second_interrupt_stops_at_once(shell: Shell, start: str) -> None:
    process = begin(shell, start, {"id": "a"}, options=("--grace", "3600"))
    interrupt(process)
    read_until(process.stderr, "again: stop at once")
    interrupt(process)
    code, _, stderr = finish(process)

    assert (code, stderr) == (130, "Stopped at once. Run the same command again to go on.\n")
    assert shell.status("a") == "running"


def test_two_interrupts_stop_even_a_flow_that_holds_up_the_event_loop(shell: Shell) -> None:
    process = begin(shell, "hold_the_loop", {"id": "a"})
    interrupt(process)
    while process.poll() is None:  # bounded by the shell; two in one may count as one
        interrupt(process)
    code, _, stderr = finish(process)
    assert (code, stderr) == (130, "Stopped at once. Run the same command again to go on.\n")


def test_an_interrupt_while_waiting_for_input_is_heeded(shell: Shell) -> None:
    process = shell.start("run", "work.py:flows", "--input", "-", "--start", "finish")
    assert process.stdin
    process.stdin.write('{"id": "a"}\n')
    process.stdin.flush()
    wait_for(lambda: shell.status("a") == "ended")
    interrupt(process)
    assert process.wait(timeout=60) == 130
    finish(process)


# ---------------------------------------------------------------- what is called wrongly


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("work.py",), "not of the form MODULE:FLOWS"),
        (("work.py:",), "not of the form MODULE:FLOWS"),
        (("absent.py:flows",), "there is no file absent.py"),
        (("absent:flows",), "there is no module 'absent'"),
        (("work.absent:flows",), "there is no module 'work.absent'"),
        (("work.py:absent",), "work.py has no 'absent' (its flows: flows)"),
        (("work:not_flows",), "is of type int, not Flows (its flows: flows)"),
        (("broken.py:flows",), "broken.py cannot be imported: ZeroDivisionError: division by zero"),
        (("broken:flows",), "(broken.py:2, in <module>)"),
        (("needy:flows",), "needy cannot be imported: ModuleNotFoundError: No module named 'absen"),
        (
            ("work.py:flows", "--start", "absent"),
            "there is no flow 'absent' (flows: circle, decline,",
        ),
        (("work.py:flows", "--input", "absent.jsonl"), "absent.jsonl"),
        (("work.py:flows", "--concurrency", "0"), "--concurrency"),
        (("work.py:flows", "--grace", "-1"), "--grace"),
        (("work.py:flows", "--on-error", "retry"), "--on-error"),
    ],
)
def test_a_wrong_call_is_one_clear_error_and_makes_no_store(
    shell: Shell, arguments: tuple[str, ...], told: str
) -> None:
    shell.write("in.jsonl", {"id": "a"})
    shell.write("broken.py", "flows = 1", "1 / 0")
    shell.write("needy.py", "import absent_too")
    done = shell.run("run", "--input", "in.jsonl", "--start", "finish", *arguments)

    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not shell.store.exists()


@pytest.mark.parametrize(
    "reference", ["work:flows", "work.py:flows", "sub/work.py:flows", "pkg.work:flows"]
)
def test_flows_are_found_by_module_and_by_file(shell: Shell, reference: str) -> None:
    source = (shell.directory / "work.py").read_text()
    for directory in ("sub", "pkg"):
        (shell.directory / directory).mkdir()
        (shell.directory / directory / "work.py").write_text(source)
    shell.write("in.jsonl", {"id": "a"})
    done = shell.run("run", reference, "--input", "in.jsonl", "--start", "finish")
    assert done.returncode == WELL, done.stderr


def test_a_nested_name_is_found(shell: Shell) -> None:
    shell.write("in.jsonl")
    done = shell.run("run", "work:other.flows", "--input", "in.jsonl", "--start", "finish")
    assert done.returncode == 2
    assert "there is no flow 'finish' (flows: none)" in done.stderr


def test_a_file_finds_the_modules_beside_it(shell: Shell) -> None:
    (shell.directory / "sub").mkdir()
    (shell.directory / "sub" / "main.py").write_text("from beside import flows")
    (shell.directory / "sub" / "beside.py").write_text((shell.directory / "work.py").read_text())
    shell.write("in.jsonl", {"id": "a"})
    done = shell.run("run", "sub/main.py:flows", "--input", "in.jsonl", "--start", "finish")
    assert done.returncode == WELL, done.stderr


def test_a_module_that_goes_elsewhere_takes_neither_input_nor_store_with_it(shell: Shell) -> None:
    """Relative paths mean the directory in which the command was called."""
    (shell.directory / "sub").mkdir()
    source = (shell.directory / "work.py").read_text()
    (shell.directory / "sub" / "away.py").write_text(
        f"import os\n{source}os.chdir('/')\n".replace("from __future__ import annotations\n", "")
    )
    shell.write("in.jsonl", {"id": "a"})
    done = shell.run("run", "sub/away.py:flows", "--input", "in.jsonl", "--start", "finish")
    assert done.returncode == WELL, done.stderr
    assert ["a"] == [state["id"] for state in shell.states()]


def test_memory_is_a_store_too(shell: Shell) -> None:
    done = run(shell, "finish", {"id": "a"}, options=("--store", "memory:"))
    assert done.returncode == WELL
    assert not shell.store.exists()


def test_progress_is_shown_on_a_terminal_only(shell: Shell) -> None:
    ours, theirs = pty.openpty()
    shell.write("in.jsonl", *({"id": f"s{index}"} for index in range(50)))
    process = shell.start(
        *("run", "work.py:flows", "--input", "in.jsonl", "--start", "finish"), stderr=theirs
    )
    os.close(theirs)
    shown = read_terminal(ours)
    code, stdout, _ = finish(process)

    assert code == WELL
    assert b"100%" in shown
    assert b"50 states" in shown
    assert b"/s" in shown
    assert "\x1b" not in stdout
    assert run(shell, "finish", {"id": "s1"}).stderr == ""


def test_a_store_that_cannot_be_used_is_one_clear_error(shell: Shell) -> None:
    shell.store.write_bytes(b"no database" * 1000)
    done = run(shell, "finish", {"id": "a"})
    assert done.returncode == NOT_WELL
    assert done.stderr.startswith("Error: store.db: ")
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------- what becomes due


def test_a_run_recovers_what_its_flows_made_too(shell: Shell) -> None:
    assert run(shell, "fork_that_fails_once", {"id": "a"}).returncode == WELL
    assert shell.status("a/child") == "ended"


def test_a_flow_that_raised_is_retried_and_does_not_stop_a_run_that_skips(shell: Shell) -> None:
    done = run(shell, "fail_once", {"id": "a"}, {"id": "b"}, options=("--on-error", "skip"))
    assert done.returncode == WELL, done.stderr
    assert [version["transition"].get("attempt", 0) for version in shell.history("a")] == [
        *(0, 1, 1, 0),
    ]


def test_a_delay_that_is_over_after_the_wait_is_left(shell: Shell) -> None:
    done = run(shell, "delay", {"id": "a"}, options=("--wait", "0.1"))
    assert (done.returncode, shell.status("a")) == (NOT_WELL, "delayed")


def test_what_a_killed_run_left_running_goes_on_in_the_next_without_its_line(shell: Shell) -> None:
    """Once its lease has run out."""
    policy = RetryPolicy(lease=1)

    async def die_running() -> None:
        async with connect(f"sqlite:///{shell.store}") as driver, Engine(driver) as engine:
            await engine.do(Commit(Transit(State("a", retry=policy), "finish")))
            await driver.claim({"finish": 1}, 1, "gone", "its claim", engine.clock.now())

    anyio.run(die_running)
    process = shell.start("run", "work.py:flows", "--input", "-", "--start", "finish")
    wait_for(lambda: shell.status("a") == "ended")
    assert finish(process)[0] == WELL
    assert shell.history("a")[1]["transition"]["cause"] == "lost"


def test_a_run_works_too(shell: Shell) -> None:
    """What is ready for its flows is run at once and without an attempt, whoever left it so; what
    is for others stays ready."""

    async def submit() -> None:
        async with connect(f"sqlite:///{shell.store}") as driver, Engine(driver) as engine:
            await engine.do(Commit(Transit(State("a"), "two_steps")))
            await engine.do(Commit(Transit(State("b"), "of another engine")))

    anyio.run(submit)
    done = run(shell, "finish", {"id": "c"})
    assert (done.returncode, done.stderr) == (WELL, "")
    assert "1 line: 1 ended well; " in done.stdout
    assert [version["transition"].get("cause") for version in shell.history("a")] == [None] * 3
    assert shell.status("b") == "running"


def test_a_run_ends_when_what_it_was_to_run_is_no_longer_in_line(shell: Shell) -> None:
    """Also where one state runs at a time."""

    async def submit() -> None:
        async with connect(f"sqlite:///{shell.store}") as driver, Engine(driver) as engine:
            await engine.do(Commit(*(Transit(State(f"s{n}"), "two_steps") for n in range(20))))

    anyio.run(submit)
    assert run(shell, "finish", options=("--concurrency", "1")).returncode == WELL
    assert len(shell.states("--status", "ended")) == 20


def test_two_runs_of_the_same_lines_run_each_state_once(shell: Shell) -> None:
    """The second waits for what the first runs, and counts it too."""
    file = shell.write("in.jsonl", *({"id": f"s{n}"} for n in range(4)))
    command = ("run", "work.py:flows", "--input", file, "--start", "hold")
    first = shell.start(*command)
    wait_for(lambda: all((shell.directory / f"s{n}.begun").exists() for n in range(4)))
    second = shell.start(*command, "--on-error", "skip")
    (shell.directory / "go").touch()
    for process in (first, second):
        code, stdout, stderr = finish(process)
        assert (code, stderr) == (WELL, "")
        assert "4 lines: 4 ended well" in stdout
    assert [len(shell.history(f"s{n}")) for n in range(4)] == [2] * 4


def test_a_run_in_which_nothing_is_due_commits_nothing_of_its_own(shell: Shell) -> None:
    run(shell, "finish", {"id": "a"})
    assert [state["id"] for state in shell.states("--all")] == ["a"]
