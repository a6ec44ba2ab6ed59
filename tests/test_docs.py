"""Everything that the README and the docs show is run, and every link in them leads somewhere.

A page is read from top to bottom, in an empty directory of its own. What its blocks are:

- ``python``: run in one namespace a page; top-level ``await`` is allowed, on one event loop a page.
  With a file name after the language, it is also added to that file.
- ``console``: each line after ``$`` is run by a shell, except those in ``NOT_RUN``. What goes on in
  the background ends with the page at the latest. ``export`` holds for the rest of the page; a URL
  of PostgreSQL becomes that of the tests' own server. For ``pip install -e .`` what it does is done
  by hand: modules and entry points are found.
- ``output``, or what follows a command in ``console``: what was printed; ``…`` stands for anything.
- ``text`` and whatever else is in ``SHOWN``: not run; with a file name, written to that file.
"""

from __future__ import annotations

import ast
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import CodeType, CoroutineType
from typing import Any, NamedTuple

import anyio.from_thread
import pytest
from markdown_it import MarkdownIt

from .postgres import Database

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page.relative_to(ROOT).as_posix() for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
)
NOT_RUN = re.compile(r"(git|cd|make|pip|\.ci/run|python docs/diagram\.py)\b")
"""Commands that install or build: setting up is what runs these tests, and tests do not run
themselves."""
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
"""A command of a console block, and what is shown below it."""
BACKGROUND = re.compile(r" & ")
"""What a command is followed by that goes on in the background."""
SHOWN = {"json", "jsonl", "sql", "text", "toml", "yaml"}
TIMEOUT_S = 300
"""Longer than any command takes on a busy machine: to fail, not to wait."""


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    file: str
    text: str
    line: int


@pytest.mark.parametrize("page", PAGES)
def test_every_block_does_what_the_page_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "docs" / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    namespace: dict[str, Any] = {"__name__": "page"}
    printed = ""
    with anyio.from_thread.start_blocking_portal() as portal:
        for block in blocks(page):
            where = f"{page}:{block.line}"
            if block.file:
                with Path(block.file).open("a") as file:
                    file.write(block.text)
                monkeypatch.delitem(sys.modules, Path(block.file).stem, raising=False)
            if block.language == "python":
                with redirect_stdout(io.StringIO()) as stdout:
                    result = eval(compiled(block, where), namespace)  # noqa: S307  (our own docs)
                    if isinstance(result, CoroutineType):
                        portal.call(_awaited, result)
                printed = stdout.getvalue()
            elif block.language == "console":
                run_console(block, where, monkeypatch, request)
            elif block.language == "output":
                assert_shown(block.text, printed, where)
            else:
                assert block.language in SHOWN, f"{where}: a block is one of the above"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_within_the_repository_leads_somewhere(page: str) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.exists(), f"{page} links to {target}"
        assert not anchor or anchor in anchors(there), f"{page} links to {target}"


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for token in MarkdownIt().parse((ROOT / page).read_text()):
        if token.type == "fence" and token.map is not None:
            language, _, file = token.info.partition(" ")
            yield Block(language, file, token.content, token.map[0] + 1)


def compiled(block: Block, where: str) -> CodeType:
    """The block as code whose tracebacks name the line of the page."""
    source = "\n" * block.line + block.text
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code: CodeType = compile(source, where, "exec", flags, dont_inherit=True)
    return code


async def _awaited(coroutine: CoroutineType[Any, Any, Any]) -> None:
    await coroutine


def run_console(
    block: Block, where: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Run each command, and compare what it prints with what the page shows below it."""
    assert block.text.startswith("$ "), f"{where}: a console block begins with a command"
    for command, output in COMMAND.findall(block.text):
        if command == "pip install -e .":
            install_here(monkeypatch)
        if NOT_RUN.match(command):
            continue
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            if value.startswith("postgresql:"):
                database: Database = request.getfixturevalue("postgres")
                value = database.url
            monkeypatch.setenv(name, value)
            continue
        with subprocess.Popen(  # noqa: S602  (a shell is what the reader has)
            command,
            shell=True,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        ) as process:
            if BACKGROUND.search(command):
                request.addfinalizer(partial(end_group, process.pid))
            try:
                printed, _ = process.communicate(timeout=TIMEOUT_S)
            finally:
                process.kill()
        assert process.returncode == 0, f"{where}: $ {command}\n{printed}"
        if output.strip():
            assert_shown(output, printed, f"{where}: $ {command}")


def end_group(group: int) -> None:
    """End what a command has left running, whatever became of the page."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def install_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the project in this directory found, also by the commands that follow."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    metadata = Path(f"{project['name'].replace('-', '_')}-{project['version']}.dist-info")
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = project["entry-points"].items()
    (metadata / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
            for group, points in groups
        )
    )
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()), prepend=os.pathsep)


def assert_shown(shown: str, printed: str, where: str) -> None:
    """What a page shows is what was printed, spaces aside; ``…`` stands for anything."""
    pattern = ".*?".join(re.escape(" ".join(part.split())) for part in shown.split("…"))
    assert re.fullmatch(pattern, " ".join(printed.split()), re.DOTALL), (
        f"{where}\nshown:\n{shown}\nprinted:\n{printed}"
    )


def links(page: str) -> Iterator[str]:
    """The targets of the links and images of a page that are not on the web."""
    for token in MarkdownIt().parse((ROOT / page).read_text()):
        for child in token.children or ():
            target = child.attrs.get("href") or child.attrs.get("src")
            if isinstance(target, str) and "://" not in target:
                yield target


def anchors(page: Path) -> set[str]:
    """What the headings of a page can be linked to by."""
    tokens = MarkdownIt().parse(page.read_text())
    headings = (
        inline.content for opened, inline in pairwise(tokens) if opened.type == "heading_open"
    )
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}
