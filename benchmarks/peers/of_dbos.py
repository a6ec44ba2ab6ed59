"""DBOS: a step of an asynchronous workflow. Its result is committed before the next one begins."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from dbos import DBOS, DBOSConfig

from .peer import Steps


def measure(steps: Steps, url: str, flows: int) -> None:
    """The options are DBOS's defaults, but for its log, its admin server and its schema."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    schema = options.pop("schema", "dbos")
    query = "&".join(f"{name}={value}" for name, value in options.items())
    config: DBOSConfig = {
        "name": "peer",
        "system_database_url": urlunsplit(parts._replace(query=query)) if parts.netloc else url,
        "dbos_system_schema": schema,
        "log_level": "ERROR",
    }
    DBOS(config=config)

    @DBOS.step()
    async def nothing(number: int) -> int:
        return number

    @DBOS.workflow()
    async def work(workflow: int) -> int:
        number = 0
        going = True
        while going:
            await nothing(number)
            number += 1
            going = steps.end(workflow)
        return number

    async def run() -> None:
        steps.begin()
        handles = [await DBOS.start_workflow_async(work, number) for number in range(flows)]
        for handle in handles:
            await handle.get_result()

    DBOS.launch()
    try:
        asyncio.run(run())
    finally:
        DBOS.destroy()
