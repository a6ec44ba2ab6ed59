"""Ctrl-C while the ``flowstate`` command is still being imported ends it, without a traceback.

That takes longer than many of its commands run. Nothing of the package can be imported before the
package, so it imports this first, which does something only in a process that is the command:
importing a library touches no signal. ``flowstate.cli`` takes over once it is there.
"""

import os
import signal
import sys
import threading
from types import FrameType

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it: 128 + SIGINT."""
COMMANDS = {"flowstate", "flowstate.exe"}


def _end(_number: int, _frame: FrameType | None) -> None:
    """End at once: nothing has been done yet, and an error that is raised in the middle of an
    import may come out as another one."""
    os._exit(INTERRUPTED)


if (
    os.path.basename(sys.argv[0] if sys.argv else "") in COMMANDS  # noqa: PTH119  (pathlib takes long)
    and threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else it is ignored
):
    signal.signal(signal.SIGINT, _end)
