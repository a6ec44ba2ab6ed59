"""``MODULE:FLOWS``: finding the flows that a command is to run."""

from __future__ import annotations

import importlib
import sys
import traceback
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from operator import attrgetter
from pathlib import Path
from types import ModuleType

import click

import flowstate
from flowstate import Flows

from . import output

_PACKAGE = str(Path(flowstate.__file__).parent)


class FlowsParam(click.ParamType[Flows]):
    """A dotted module or the path of a .py file, a colon, and the name of a ``Flows`` in it."""

    name = "MODULE:FLOWS"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Flows:
        if isinstance(value, Flows):
            return value
        try:
            return load(str(value))
        except LoadError as error:
            self.fail(output.plain(str(error)), param, ctx)


class LoadError(Exception):
    """A module or a name in it cannot be loaded; the message says why."""


def load(reference: str) -> Flows:
    """The flows of ``package.module:flows`` or ``path/to/file.py:flows``. Raises ``LoadError``."""
    module_name, name = split(reference, "MODULE:FLOWS", "orders.py:flows or shop.orders:flows")
    module = load_module(module_name)
    try:
        flows = attrgetter(name)(module)
    except AttributeError:
        raise LoadError(f"{module_name} has no {name!r} ({_flows_in(module)})") from None
    if not isinstance(flows, Flows):
        kind = type(flows).__name__
        raise LoadError(f"{reference} is of type {kind}, not Flows ({_flows_in(module)})")
    return flows


def split(reference: str, form: str, examples: str) -> tuple[str, str]:
    """The module and the name in it that a reference is made of. Raises ``LoadError``."""
    module_name, _, name = reference.rpartition(":")
    if not module_name or not name:
        raise LoadError(f"{reference!r} is not of the form {form}, e.g. {examples}")
    return module_name, name


def load_module(name: str) -> ModuleType:
    """The module of a dotted name or the path of a .py file. Raises ``LoadError``."""
    return _load_file(name) if name.endswith(".py") else _load_module(name)


def where(error: BaseException) -> str:
    """`` (file.py:12, in function)``: where in the user's code an error was raised; empty if it was
    raised elsewhere."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((_PACKAGE, "<")):
            return f" ({Path(frame.filename).name}:{frame.lineno}, in {frame.name})"
    return ""


def _load_module(name: str) -> ModuleType:
    _make_importable(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise LoadError(f"there is no module {name!r} here or installed") from None
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _load_file(path: str) -> ModuleType:
    file = Path(path).resolve()
    if not file.is_file():
        raise LoadError(f"there is no file {path}")
    _make_importable(file.parent)  # as if it were run as a script
    loader = SourceFileLoader(file.stem, str(file))
    module = module_from_spec(ModuleSpec(file.stem, loader, origin=str(file)))
    sys.modules[file.stem] = module
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _broken(path, error) from error
    return module


def _make_importable(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))


def _broken(module: str, error: BaseException) -> LoadError:
    return LoadError(f"{module} cannot be imported: {type(error).__name__}: {error}{where(error)}")


def _flows_in(module: ModuleType) -> str:
    names = sorted(name for name, value in vars(module).items() if isinstance(value, Flows))
    return f"its flows: {', '.join(names)}" if names else "it has no flows"
