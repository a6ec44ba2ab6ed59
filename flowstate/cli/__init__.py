"""The ``flowstate`` command: runs flows over lines of JSON, works, recovers, shows, counts,
moves, forgets and compacts states, checks and measures drivers.

One module a command (``run``, ``work``, ``status``, ``ls``, ``count``, ``show``, ``cat``,
``watch``, ``move``, ``retry``, ``hold``, ``forget``, ``compact``, ``check``, ``bench``); the others
are what they share. Only the public API is used, so this is also an example of it.

Exit codes: 0 all is well, 1 it is not (an unknown id, an illegal command, a store that cannot be
used, a state that did not end well), 2 the command was called wrongly, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

__all__ = ["main"]

MODULES = {
    "run": "run",
    "work": "work",
    "recover": "work",
    "status": "status",
    "ls": "ls",
    "count": "count",
    "show": "show",
    "cat": "cat",
    "watch": "watch",
    "pause": "move",
    "resume": "move",
    "end": "move",
    "transit": "move",
    "retry": "retry",
    "hold": "hold",
    "release": "hold",
    "forget": "forget",
    "compact": "compact",
    "check": "check",
    "bench": "bench",
}
"""command -> the module that it is in"""


class Commands(click.Group):
    """Imports a command once it is asked for: importing all takes longer than most of them run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*MODULES, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in MODULES:
            return super().get_command(ctx, cmd_name)
        module = import_module(f".{MODULES[cmd_name]}", __name__)
        command: click.Command = getattr(module, cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Ctrl-C has the exit code 130, wherever it comes."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(128 + signal.SIGINT) from None

    def main(self, *args: Any, **options: Any) -> Any:
        """An output that cannot be written is an error of one line; a closed one is silence."""
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:
                setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  (it stays)
        try:
            return super().main(*args, **options)
        except OSError as error:  # click has seen to a pipe that nobody reads any more
            where = f"{error.filename}: " if error.filename else "the output: "
            click.echo(f"Error: {where}{error.strerror or error}", err=True)
            sys.stderr.flush()
            os._exit(1)  # what is left to be written would be another error


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="flowstate-kernel", message="flowstate %(version)s")
def main() -> None:
    """Run flows durably, and see and move what they did.

    Every command but check and bench works on a store: --store URL, or
    FLOWSTATE_STORE in the environment.

    \b
    Examples:
      export FLOWSTATE_STORE=sqlite:///orders.db
      flowstate run orders.py:flows --input orders.jsonl --start charge
      flowstate work orders.py:flows
      flowstate status
      flowstate ls --status paused
      flowstate ls --late
      flowstate count --by flow
      flowstate show order-1 --history
      flowstate cat order-1 receipt > receipt.pdf
      flowstate watch --label customer=ann --json
      flowstate resume order-1
      flowstate retry --status failed
      flowstate hold charge --reason "the bank is down"
      flowstate forget order-1 address
      flowstate compact --before 30d
      flowstate check 'sqlite:///{tmp}/store.db'
      flowstate bench --quick
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # until here it ended the process: all is imported now, and what begins is to end well
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a label in letters that the terminal does not have is shown, not a crash
            stream.reconfigure(errors="backslashreplace")
