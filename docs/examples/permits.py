"""A permit case goes through its tasks, one committed transition a task.

    flowstate run docs/examples/permits.py:flows --input docs/examples/permits.jsonl \
        --start receive --store sqlite:///permits.db

The cases in permits.jsonl are real: applications for environmental permits to a Dutch municipality,
with what was done on each, by whom and when. They are ten out of 1,434 of the event log "Receipt
phase of an environmental permit application process ('WABO'), CoSeLoG project" (J. Buijs, Eindhoven
University of Technology, 2014).
"""

from msgspec import Struct

from flowstate import Commit, End, Engine, Flows, State, Transit


class Task(Struct):
    """What was done, by whom and when."""

    task: str
    resource: str
    group: str
    at: str


flows = Flows()


@flows.flow
async def receive(state: State, engine: Engine) -> Commit:
    """Every case begins here."""
    return await next_task(state, engine)


async def next_task(state: State, engine: Engine) -> Commit:
    """Take the case to the next of its tasks, or end it if that was the last."""
    tasks = await engine.data(state, "tasks", type=list[Task])
    done = int(state.annotations.get("done", "0"))
    if done == len(tasks):
        return Commit(End(state))

    task = tasks[done]
    state = state.with_labels(task=task.task, resource=task.resource)
    state = state.with_annotations(done=str(done + 1))
    return Commit(Transit(state, kind(task), annotations={"at": task.at, "group": task.group}))


def kind(task: Task) -> str:
    """The flow for a task is its verb: "T02 Check confirmation of receipt" is done by "check"."""
    words = task.task.lower().split()
    return next(word for word in words if word in KINDS)


# A flow for each kind of task. Here they all just go on to the next one; in earnest one would
# print a letter, another ask for advice, or pause the case until someone has decided.
KINDS = [
    "confirmation", "check", "adjust", "determine", "print", "create", "draft", "process", "report",
]  # fmt: skip
for name in KINDS:
    flows.add(name, next_task)
