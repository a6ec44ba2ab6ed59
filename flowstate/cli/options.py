"""Options of every command that runs flows."""

from __future__ import annotations

import click

grace_option = click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long running flows may take to finish after Ctrl-C.",
)
