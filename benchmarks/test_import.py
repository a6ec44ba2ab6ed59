"""What `import flowstate` costs."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from .conftest import Row

NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
PROGRAM = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def seconds_to_import(modules: str) -> float:
    # an installed package has its bytecode; an environment may forbid a checkout to keep its own
    environment = {key: value for key, value in os.environ.items() if key != NO_BYTECODE}
    printed = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(modules)],
        check=True,
        capture_output=True,
        env=environment,
        text=True,
    )
    return float(printed.stdout)


def test_import(figure: Callable[[Row], None], benchmark: Any, tiny: bool) -> None:
    """A fresh interpreter imports the package, beside its dependencies alone."""
    ours: list[float] = []
    theirs: list[float] = []

    def one_round() -> None:
        theirs.append(seconds_to_import("attrs, msgspec, anyio, anyio.to_thread"))
        ours.append(seconds_to_import("flowstate"))

    benchmark.pedantic(one_round, rounds=1 if tiny else 15, warmup_rounds=1)
    assert min(ours) > 0
    figure(
        Row(
            "import flowstate",
            "ms",
            "60 ms",
            statistics.median(ours) * 1000,
            statistics.median(theirs) * 1000,
            "its dependencies",
            f"{min(ours) * 1000:.0f}–{max(ours) * 1000:.0f}",
        )
    )
