"""Law 4, isolation: what a caller holds and what is stored share no mutable memory."""

from __future__ import annotations

from typing import Any

import pytest

from ...commands import Transit
from ...data import DataRef
from ...driver import Driver
from ...query import Query
from ...state import RetryPolicy, State
from .base import Laws, put, read_all


class IsolationLaws(Laws):
    async def test_what_is_given_out_cannot_be_changed(self, driver: Driver) -> None:
        """States from a commit, get, find, read and due refuse every change in place."""
        (committed,) = await put(driver, Transit(_full_state(), "work"))
        got = await driver.get("full")
        found = await driver.find(Query(labels={"queue": "mail"}))
        (read,) = await read_all(driver)
        for state in (committed, got, found, read):
            assert state is not None
            _refuses_changes(state)
            _refuses_changes(state.stacked["caller"])

    async def test_attempts_to_change_leave_the_store_alone(self, driver: Driver) -> None:
        """After attempts to change what was given out, the store gives the same as before."""
        (committed,) = await put(driver, Transit(_full_state(), "work"))
        _refuses_changes(committed)
        got = await driver.get("full")
        assert got is not None
        assert got.labels == {"queue": "mail"}
        assert got.annotations == {"note": "x"}
        assert set(got.data) == {"order"}
        assert set(got.stacked) == {"caller"}

    async def test_a_labels_dict_that_changes_later_is_not_what_was_stored(
        self, driver: Driver
    ) -> None:
        """A state keeps what the caller's dict held when the state was made."""
        labels = {"queue": "mail"}
        state = State("a", labels=labels)
        (committed,) = await put(driver, Transit(state, "work"))
        labels["queue"] = "changed"
        got = await driver.get("a")
        assert got is not None
        assert committed.labels == got.labels == {"queue": "mail"}
        assert await driver.find(Query(labels={"queue": "changed"})) is None

    async def test_a_bytearray_that_changes_later_is_not_what_was_stored(
        self, driver: Driver
    ) -> None:
        """A payload is what the caller's buffer held when it was attached."""
        content = bytearray(b"pears")
        (committed,) = await put(driver, Transit(State("a").attach("order", content), "work"))
        content[:] = b"plums"
        ref = committed.data["order"]
        assert isinstance(ref, DataRef)
        assert await driver.load(ref) == b"pears"


def _full_state() -> State:
    return State(
        "full",
        labels={"queue": "mail"},
        annotations={"note": "x"},
        stacked={"caller": State("caller", labels={"a": "b"}, annotations={"c": "d"})},
        retry=RetryPolicy(lease=5),
    ).attach("order", {"item": "pears"})


def _refuses_changes(state: State) -> None:
    for field in ("labels", "annotations", "data", "stacked"):
        mapping: Any = getattr(state, field)
        with pytest.raises(TypeError):
            mapping["new"] = "x"
        with pytest.raises(TypeError):
            mapping.clear()
        with pytest.raises(AttributeError):
            setattr(state, field, {})
    annotations: Any = state.transition.annotations
    with pytest.raises(TypeError):
        annotations["new"] = "x"
