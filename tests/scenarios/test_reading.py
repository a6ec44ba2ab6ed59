"""Reading: one state by id, revision or labels; many states by what their versions were."""

from __future__ import annotations

import pytest

from flowstate import (
    Commit,
    Driver,
    End,
    Engine,
    Pause,
    Query,
    State,
    StateNotFoundError,
    Status,
    Transit,
)
from tests.helpers import to_datetime

from . import next_millisecond

pytestmark = pytest.mark.anyio


async def post_three_mails(engine: Engine) -> list[State]:
    """Two mails to ann and one to bob; the first one is then sent. Four versions."""
    first, second, third = await engine.do(
        Commit(
            Pause(State("mail-1", labels={"queue": "mail", "to": "ann"})),
            Pause(State("mail-2", labels={"queue": "mail", "to": "ann"})),
            Pause(State("mail-3", labels={"queue": "mail", "to": "bob"})),
        )
    )
    (sent,) = await engine.do(Commit(End(first.with_labels(queue="sent"))))
    return [first, second, third, sent]


async def test_get_by_id_gives_the_latest_version(driver: Driver) -> None:
    async with Engine(driver) as engine:
        *_, sent = await post_three_mails(engine)

        assert await engine.get("mail-1") == sent


async def test_get_by_id_and_revision_gives_exactly_that_version(driver: Driver) -> None:
    async with Engine(driver) as engine:
        first, *_ = await post_three_mails(engine)

        assert await engine.get("mail-1", rev=first.rev) == first


async def test_find_by_label_gives_the_newest_state_that_has_it_now(driver: Driver) -> None:
    async with Engine(driver) as engine:
        _, second, third, _ = await post_three_mails(engine)

        assert await engine.find({"queue": "mail"}) == third
        assert await engine.find({"queue": "mail", "to": "ann"}) == second  # the first was sent


async def test_what_is_not_there_is_an_error_that_says_so(driver: Driver) -> None:
    async with Engine(driver) as engine:
        first, second, *_ = await post_three_mails(engine)

        with pytest.raises(StateNotFoundError, match="no state 'mail-9'"):
            await engine.get("mail-9")
        with pytest.raises(StateNotFoundError, match=f"no revision {second.rev} of state 'mail-1'"):
            await engine.get(first.id, rev=second.rev)
        with pytest.raises(StateNotFoundError, match=r"no state matches .*'eve'"):
            await engine.find({"to": "eve"})


async def test_states_by_labels_are_the_versions_that_had_all_of_them(driver: Driver) -> None:
    async with Engine(driver) as engine:
        first, second, *_ = await post_three_mails(engine)

        found = [mail async for mail in engine.states({"queue": "mail", "to": "ann"})]
        assert found == [first, second]


async def test_states_by_any_of_several_label_sets(driver: Driver) -> None:
    async with Engine(driver) as engine:
        _, _, third, sent = await post_three_mails(engine)

        either = Query(labels=[{"to": "bob"}, {"queue": "sent"}])
        assert [mail async for mail in engine.states(either)] == [third, sent]


async def test_states_since_a_revision(driver: Driver) -> None:
    async with Engine(driver) as engine:
        _, second, third, sent = await post_three_mails(engine)

        found = [mail async for mail in engine.states(Query(after=second.rev))]
        assert found == [third, sent]


async def test_states_since_a_time(driver: Driver) -> None:
    async with Engine(driver) as engine:
        await post_three_mails(engine)
        late = await next_millisecond(engine)

        since = Query(since=to_datetime(late.committed_at), id_prefix="clock")
        assert [state async for state in engine.states(since)] == [late]


async def test_states_latest_are_the_current_versions_only(driver: Driver) -> None:
    async with Engine(driver) as engine:
        _, second, third, sent = await post_three_mails(engine)

        found = [mail async for mail in engine.states(Query(latest=True))]
        assert found == [second, third, sent]


async def test_states_from_now_are_none_yet(driver: Driver) -> None:
    async with Engine(driver) as engine:
        await post_three_mails(engine)

        assert [mail async for mail in engine.states(Query(from_now=True))] == []


async def test_states_by_status(driver: Driver) -> None:
    async with Engine(driver) as engine:
        *_, sent = await post_three_mails(engine)

        assert [mail async for mail in engine.states(Query(status=Status.ENDED))] == [sent]


async def test_states_by_id_prefix(driver: Driver) -> None:
    async with Engine(driver) as engine:
        await post_three_mails(engine)
        (parcel,) = await engine.do(Commit(Transit(State("parcel-1"), "ship")))

        assert [state async for state in engine.states(Query(id_prefix="parcel-"))] == [parcel]
