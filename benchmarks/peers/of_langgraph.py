"""LangGraph: a node that leads to itself, with an SQLite checkpointer. With durability="sync" a
checkpoint is stored before the next node runs."""

from __future__ import annotations

import asyncio
from typing import TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

from .peer import Steps


class Values(TypedDict):
    workflow: int
    number: int
    going: bool


def measure(steps: Steps, url: str, flows: int) -> None:
    asyncio.run(_run(steps, url.removeprefix("sqlite:///"), flows))


async def _run(steps: Steps, path: str, flows: int) -> None:
    async def step(values: Values) -> dict[str, object]:
        return {"number": values["number"] + 1, "going": steps.end(values["workflow"])}

    graph = StateGraph(Values)
    graph.add_node("step", step)
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", lambda values: "step" if values["going"] else END)
    async with AsyncSqliteSaver.from_conn_string(path) as saver:
        await saver.setup()
        app = graph.compile(checkpointer=saver)
        steps.begin()
        await asyncio.gather(
            *(
                app.ainvoke(
                    {"workflow": number, "number": 0, "going": True},
                    {"configurable": {"thread_id": str(number)}, "recursion_limit": 10**9},
                    durability="sync",
                )
                for number in range(flows)
            )
        )
