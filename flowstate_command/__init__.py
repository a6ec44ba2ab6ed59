"""Where the ``flowstate`` command begins.

Importing it takes longer than many of its commands run, and Ctrl-C may come meanwhile: that ends
the process without a traceback. It is a package of its own because importing anything in
``flowstate`` imports the kernel first.
"""

from __future__ import annotations

import os

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it: 128 + SIGINT."""

try:
    import signal
except KeyboardInterrupt:
    os._exit(INTERRUPTED)


def main() -> None:
    """The ``flowstate`` command."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, _end)
    from flowstate.cli import main as command  # noqa: PLC0415  (that is what takes so long)

    command()


def _end(number: int, frame: object) -> None:
    """End at once: nothing has been done yet, and an error that is raised in the middle of an
    import may come out as another one."""
    os._exit(INTERRUPTED)
