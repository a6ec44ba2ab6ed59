"""A query: what of it is left once reading has begun, and what it is told of compaction."""

from __future__ import annotations

from typing import Any

import pytest

from flowstate import Query, Status

CONDITIONS: dict[str, Any] = {
    "labels": [{"queue": "mail"}],
    "id": "order-1",
    "id_prefix": "order",
    "status": [Status.PAUSED],
    "flow": ["charge"],
    "leaving": True,
    "since": 5,
}
STARTS: dict[str, Any] = {"after": 7, "from_now": True, "latest": True}


def test_every_field_of_a_query_is_a_condition_or_says_where_to_start() -> None:
    """A new one has to be put among the one or the other here."""
    assert {*CONDITIONS, *STARTS} == set(Query.__struct_fields__)


@pytest.mark.parametrize("field", CONDITIONS)
def test_a_live_query_keeps_each_condition(field: str) -> None:
    query = Query(**{field: CONDITIONS[field]})
    assert Query() != query
    assert query == query.live()


@pytest.mark.parametrize("field", STARTS)
def test_a_live_query_does_not_start_anywhere(field: str) -> None:
    assert Query(**CONDITIONS) == Query(**CONDITIONS, **{field: STARTS[field]}).live()


@pytest.mark.parametrize(
    ("since", "expected"),
    [(0, 40), (999, 40), (1_000, 40), (1_001, 0)],
    ids=["ever", "before", "that very millisecond", "after"],
)
def test_a_page_tells_of_compaction_unless_all_that_is_gone_is_too_old_to_be_asked_for(
    since: int, expected: int
) -> None:
    """The newest version that was removed is revision 40, committed at 1,000 ms."""
    assert expected == Query(since=since).compacted(40, 1_000)


def test_a_page_tells_of_nothing_where_nothing_was_compacted() -> None:
    assert 0 == Query().compacted(0, 0)
