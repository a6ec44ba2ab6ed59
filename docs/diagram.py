"""Draws flowstate.transitions.TRANSITIONS: a picture, and a table for docs/concepts.md.

``python docs/diagram.py`` writes both; a test fails when they are not what the table says now.
Which arrows there are and what is written on them comes from the table. Where they run is here:
for a new pair of statuses, give ``ROUTES`` its arrow.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from flowstate import Status
from flowstate.transitions import MOVES, TRANSITIONS

DOCS = Path(__file__).parent
SVG = DOCS / "transitions.svg"
PAGE = DOCS / "concepts.md"
BEGIN = "<!-- the table, written by docs/diagram.py: begin -->"
END = "<!-- the table: end -->"

WIDTH, HEIGHT = 1180, 640
BOX_WIDTH, BOX_HEIGHT = 132, 48
LINE_HEIGHT = 18

BOXES = {
    Status.NEW: (92, 320),
    Status.RUNNING: (430, 320),
    Status.PAUSED: (430, 140),
    Status.DELAYED: (430, 500),
    Status.FAILED: (780, 320),
    Status.ENDED: (1088, 320),
}
"""The centre of each status."""


class Route(NamedTuple):
    """An arrow: its path, and where its label is anchored."""

    path: str
    x: int
    y: int
    anchor: str = "middle"


ROUTES = {
    (Status.NEW, Status.RUNNING): Route("M158,320 H362", 224, 312),
    (Status.NEW, Status.PAUSED): Route("M128,296 Q200,150 362,140", 206, 186, "end"),
    (Status.NEW, Status.DELAYED): Route("M128,344 Q200,490 362,500", 206, 464, "end"),
    (Status.NEW, Status.ENDED): Route("M72,296 C72,-56 1108,-56 1108,294", 590, 26),
    (Status.RUNNING, Status.RUNNING): Route("M440,296 C446,252 488,258 478,294", 488, 276, "start"),
    (Status.RUNNING, Status.PAUSED): Route("M404,296 V166", 396, 236, "end"),
    (Status.RUNNING, Status.DELAYED): Route("M404,344 V474", 396, 400, "end"),
    (Status.RUNNING, Status.FAILED): Route("M496,314 H712", 640, 308),
    (Status.RUNNING, Status.ENDED): Route("M484,344 C620,412 900,412 1040,346", 880, 414, "start"),
    (Status.PAUSED, Status.RUNNING): Route("M424,164 V294", 432, 226, "start"),
    (Status.PAUSED, Status.PAUSED): Route("M400,116 C390,66 470,66 460,114", 476, 78, "start"),
    (Status.PAUSED, Status.DELAYED): Route("M496,158 C590,230 590,410 498,484", 572, 426, "start"),
    (Status.PAUSED, Status.FAILED): Route("M496,148 Q650,180 730,294", 650, 246, "end"),
    (Status.PAUSED, Status.ENDED): Route("M496,132 Q960,130 1074,294", 960, 172, "start"),
    (Status.DELAYED, Status.RUNNING): Route("M424,476 V346", 432, 440, "start"),
    (Status.DELAYED, Status.PAUSED): Route("M364,488 C290,420 290,220 362,152", 302, 262, "end"),
    (Status.DELAYED, Status.DELAYED): Route("M400,524 C390,574 470,574 460,526", 476, 568, "start"),
    (Status.DELAYED, Status.FAILED): Route("M496,492 Q650,460 730,346", 606, 440, "end"),
    (Status.DELAYED, Status.ENDED): Route("M496,512 Q960,510 1074,346", 960, 492, "start"),
    (Status.FAILED, Status.RUNNING): Route("M714,330 H498", 610, 346),
    (Status.FAILED, Status.PAUSED): Route("M770,296 Q720,150 498,140", 722, 190, "start"),
    (Status.FAILED, Status.DELAYED): Route("M770,344 Q720,490 498,500", 722, 470, "start"),
    (Status.FAILED, Status.FAILED): Route("M790,296 C800,246 840,254 826,294", 840, 266, "start"),
    (Status.FAILED, Status.ENDED): Route("M846,320 H1020", 930, 312),
}

STYLE = """
    svg { --ground: #ffffff; --ink: #1f2328; --line: #59636e; --box: #f6f8fa }
    @media (prefers-color-scheme: dark) {
      svg { --ground: #0d1117; --ink: #f0f6fc; --line: #9198a1; --box: #212830 }
    }
    text { font: 14px system-ui, "DejaVu Sans", sans-serif; fill: var(--ink) }
    .status { font-weight: 600; text-anchor: middle }
    .ground { fill: var(--ground) }
    .box { fill: var(--box); stroke: var(--line); stroke-width: 1.5 }
    .arrow { fill: none; stroke: var(--line); stroke-width: 1.5; marker-end: url(#head) }
    .head { fill: var(--line) }
"""


def svg() -> str:
    """The picture."""
    parts = [_arrow(ROUTES[pair], commands) for pair, commands in moves().items()]
    parts += [_box(status) for status in Status]
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">
  <title>What each command makes of a state</title>
  <style>{STYLE}  </style>
  <marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8"
          orient="auto-start-reverse"><path class="head" d="M0,0 L10,5 L0,10 z"/></marker>
  <rect class="ground" width="{WIDTH}" height="{HEIGHT}" rx="8"/>
{"".join(parts)}</svg>
"""


def table() -> str:
    """The same for concepts.md, with the commands that move nothing."""
    commands = list(dict.fromkeys(command for row in TRANSITIONS.values() for command in row))
    lines = [
        "| | " + " | ".join(f"`{command.__name__}`" for command in commands) + " |",
        "|---|" + "---|" * len(commands),
    ]
    for status, row in TRANSITIONS.items():
        cells = [row[command].name if command in row else "illegal" for command in commands]
        lines.append(f"| **{status.name}** | {' | '.join(cells)} |")
    return "\n".join(lines)


def moves() -> dict[tuple[Status, Status], list[str]]:
    """(status, the status that follows) -> the commands that do it."""
    found: dict[tuple[Status, Status], list[str]] = {}
    for status, row in TRANSITIONS.items():
        for command, following in row.items():
            if command in MOVES:
                found.setdefault((status, following), []).append(command.__name__)
    return found


def page() -> str:
    """concepts.md with the table in its place."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def _arrow(route: Route, commands: list[str]) -> str:
    lines = "".join(
        f'<tspan x="{route.x}" dy="{LINE_HEIGHT if number else 0}">{name}</tspan>'
        for number, name in enumerate(commands)
    )
    return (
        f'  <path class="arrow" d="{route.path}"/>\n'
        f'  <text x="{route.x}" y="{route.y}" text-anchor="{route.anchor}">{lines}</text>\n'
    )


def _box(status: Status) -> str:
    x, y = BOXES[status]
    left, top = x - BOX_WIDTH // 2, y - BOX_HEIGHT // 2
    return (
        f'  <rect class="box" x="{left}" y="{top}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}"'
        f' rx="8"/>\n  <text class="status" x="{x}" y="{y + 5}">{status.name}</text>\n'
    )


if __name__ == "__main__":
    SVG.write_text(svg())
    PAGE.write_text(page())
