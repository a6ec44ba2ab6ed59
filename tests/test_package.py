"""What is built is what is in the repository, and works where nothing else is installed.

The source distribution is built from the checkout, the wheel from the source distribution, and the
wheel is installed in empty environments.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import pytest

from .postgres import Database

ROOT = Path(__file__).parent.parent
VERSION = version("flowstate-kernel")
NAME = f"flowstate_kernel-{VERSION}"
META = f"{NAME}.dist-info"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the sdist, and the wheel that was built from it."""
    dist = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", dist, ROOT)  # the wheel is made of the sdist
    return dist


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return dist / f"{NAME}-py3-none-any.whl"


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment in which the wheel is installed, without extras."""
    return environment(tmp_path_factory.mktemp("plain"), str(wheel))


@pytest.fixture(scope="module")
def python_with_extras(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with what measuring and testing need."""
    return environment(tmp_path_factory.mktemp("extras"), f"{wheel}[bench,testing]")


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    metadata = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    with zipfile.ZipFile(wheel) as archive:
        found = {info.filename for info in archive.infolist() if not info.is_dir()}
    assert package_files() | {f"{META}/{name}" for name in metadata} == found


def test_the_sdist_holds_the_package_and_what_builds_it(dist: Path) -> None:
    beside = {"CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}
    with tarfile.open(dist / f"{NAME}.tar.gz") as archive:
        found = {member.name for member in archive.getmembers() if not member.isdir()}
    found.discard(f"{NAME}/pyproject.toml.orig")  # some versions of the backend keep it
    assert {f"{NAME}/{name}" for name in package_files() | beside} == found


def test_every_module_that_needs_no_extra_imports_without_extras(python: Path) -> None:
    import_all(python, sorted(modules() - TESTING - POSTGRES - REPORT))


def test_testing_without_its_extra_says_what_to_install(python: Path) -> None:
    install = "pip install 'flowstate-kernel[testing]'"
    assert install in run(python, "-c", "from flowstate.testing import prove", expected=1)
    assert install in run(python.parent / "flowstate", "check", "memory:", expected=1)


def test_measuring_without_its_extra_gives_figures_and_says_what_to_install(
    python: Path, tmp_path: Path
) -> None:
    few = ("--quick", "--rounds", "1", "--workload", "get", "--store", "memory:", "--out", "here")
    told = run(python.parent / "flowstate", "bench", *few, cwd=tmp_path)
    assert "pip install 'flowstate-kernel[bench]'" in told
    assert ["bench.json"] == [path.name for path in (tmp_path / "here").iterdir()]


def test_every_module_imports_with_the_extras(python_with_extras: Path) -> None:
    import_all(python_with_extras, sorted(modules() - POSTGRES))


def test_the_installed_plugin_is_there_in_any_pytest(
    python_with_extras: Path, tmp_path: Path
) -> None:
    """Without a warning, and with its fixtures on both event loops."""
    (tmp_path / "test_it.py").write_text(
        "import pytest\n\n@pytest.mark.anyio\n"
        "async def test_it(flowstate_engine, flowstate_virtual_clock):\n"
        "    assert await flowstate_engine.timers.head() == 0\n"
    )
    told = run(python_with_extras, "-m", "pytest", "-q", "-Werror", "test_it.py", cwd=tmp_path)
    assert "2 passed" in told


def test_the_installed_command_shows_the_values_of_a_broken_law(
    python_with_extras: Path, tmp_path: Path
) -> None:
    """Assertions of the suite are rewritten also where it is installed."""
    (tmp_path / "behind.py").write_text(
        "from flowstate.drivers.memory import MemoryDriver\n\nclass Behind(MemoryDriver):\n"
        "    async def head(self):\n        return max(0, await super().head() - 1)\n"
    )
    flowstate = python_with_extras.parent / "flowstate"
    law = ("--law", "the_head_is_the_newest")
    told = run(flowstate, "check", "behind.py:Behind", *law, expected=1, cwd=tmp_path)
    assert "assert 2 == 3" in told


def test_postgresql_without_its_extra_says_what_to_install(python: Path) -> None:
    program = "import flowstate; flowstate.connect('postgresql://host/database')"
    told = run(python, "-c", program, expected=1)
    assert "pip install 'flowstate-kernel[postgres]'" in told


def test_a_flow_runs_on_postgresql_with_its_extra(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory, postgres: Database
) -> None:
    python = environment(tmp_path_factory.mktemp("postgres"), f"{wheel}[postgres]")
    import_all(python, sorted(modules() - TESTING - REPORT))
    assert "Status.ENDED 3\n" == run(python, "-c", ORDER, postgres.new_store())


def test_the_requirements_of_the_wheel_are_complete_and_agree(python: Path) -> None:
    assert "No broken requirements found" in run(python, "-m", "pip", "check")


def test_the_installed_command_tells_its_version(python: Path) -> None:
    assert f"flowstate {VERSION}\n" == run(python.parent / "flowstate", "--version")


@pytest.mark.parametrize("url", ["memory:", "sqlite:///orders.db"])
def test_a_flow_runs_on_the_installed_drivers(python: Path, url: str, tmp_path: Path) -> None:
    assert "Status.ENDED 3\n" == run(python, "-c", ORDER, url, cwd=tmp_path)


ORDER = """
import sys, anyio
from flowstate import Commit, End, Engine, Flows, State, Transit, connect

flows = Flows()

@flows.flow
async def charge(state, engine):
    return Commit(Transit(state, "ship"))

@flows.flow
def ship(state, engine):
    return Commit(End(state))

async def main():
    async with connect(sys.argv[1]) as driver, Engine(driver, flows) as engine:
        (state,) = await engine.do(Commit(Transit(State("order-1"), "charge")))
        state = await engine.execute(state)
        print(state.transition.status, state.rev)

anyio.run(main)
"""


def package_files() -> set[str]:
    """Every file that belongs to the package, relative to the repository."""
    files = {*ROOT.glob("flowstate/**/*.py"), ROOT / "flowstate" / "py.typed"}
    return {file.relative_to(ROOT).as_posix() for file in files}


def modules() -> set[str]:
    """Every module of the package, by its dotted name."""
    paths = (Path(file) for file in package_files() if file.endswith(".py"))
    names = (path.parent if path.name == "__init__.py" else path.with_suffix("") for path in paths)
    return {".".join(name.parts) for name in names}


TESTING = {name for name in modules() if name.startswith("flowstate.testing")}
POSTGRES = {name for name in modules() if name.startswith("flowstate.drivers.postgres.")}
POSTGRES |= {"flowstate.bench.sites.postgres"}
REPORT = {"flowstate.bench.plots", "flowstate.bench.report"}
"""What needs the extra of that name."""


def environment(directory: Path, requirement: str) -> Path:
    """A new virtual environment with this installed; gives its Python."""
    run(sys.executable, "-m", "venv", directory)
    python = directory / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", requirement)
    return python


def import_all(python: Path, names: Iterable[str]) -> None:
    """Import them in a process that does not see the checkout. Warnings are errors."""
    run(python, "-I", "-W", "error", "-c", "\n".join(f"import {name}" for name in names), cwd="/")


def run(*command: str | Path, expected: int = 0, cwd: str | Path | None = None) -> str:
    """Run a command and give what it printed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert expected == done.returncode, done.stdout
    return done.stdout
