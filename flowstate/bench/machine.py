"""What kind of machine this is, as far as it tells."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

from .results import Machine

PACKAGES = {"flowstate": "flowstate-kernel", "anyio": "anyio", "msgspec": "msgspec"}
"""Whose versions the figures depend on, by name; a store adds its own."""
IN_MEMORY = frozenset({"tmpfs", "ramfs"})
"""File systems that keep nothing: a sync costs nothing there, and saves nothing."""


def machine() -> Machine:
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cores(),
        memory_gb=_memory_gb(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        versions={name: version(package) for name, package in PACKAGES.items()},
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
    )


def file_system(directory: Path) -> str:
    """The kind of file system that a directory is on, e.g. "ext4"; empty if the system does not
    tell."""
    mounts = _read("/proc/self/mounts")
    best, kind = "", ""
    place = f"{directory.resolve()}/"
    for line in mounts.splitlines():
        _, mounted, found, *_ = line.split(" ")
        mounted = mounted.replace("\\040", " ").rstrip("/") + "/"
        if place.startswith(mounted) and len(mounted) >= len(best):
            best, kind = mounted, found
    return kind


def _cpu() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def _cores() -> int:
    return os.cpu_count() or 1


def _memory_gb() -> float:
    found = re.search(r"^MemTotal:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    return round(int(found[1]) * 1024 / 1e9, 1) if found else 0.0


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
