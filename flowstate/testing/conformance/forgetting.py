"""Forgetting: the content of a payload goes, and nothing else."""

from __future__ import annotations

import pytest

from ...commands import End, Pause, Transit
from ...driver import Driver
from ...errors import DataForgottenError, DataNotFoundError
from ...state import State
from ..store import Store
from .base import Laws, keyed, move, plan, put, read_all
from .runs import EVERYTHING, WITH_ENDED, compact, ref

NEVER = (1, "0" * 64)
"""The key of a payload that was never stored."""


class ForgetLaws(Laws):
    async def test_what_was_forgotten_is_told(self, driver: Driver) -> None:
        """A forgotten payload raises ``DataForgottenError`` wherever it is referred to from; other
        payloads of the same state, commit and content are as they were, and so are all versions."""
        a, b = await put(
            driver,
            Transit(State("a").attach("card", b"1234").attach("order", b"pears"), "x"),
            Transit(State("b").stack("caller", State("a").attach("card", b"1234")), "x"),
        )
        (same,) = await put(driver, Transit(State("c").attach("card", b"1234"), "x"))
        a = await move(driver, a)
        log = await read_all(driver)
        card = ref(a, "card")
        assert await driver.forget("a", [(card.rev, card.checksum), NEVER]) == 1
        with pytest.raises(DataForgottenError):
            await driver.load(card)
        with pytest.raises(DataForgottenError):
            await driver.load(ref(b.stacked["caller"], "card"))
        assert await driver.load(ref(a, "order")) == b"pears"
        assert await driver.load(ref(same, "card")) == b"1234"
        assert await read_all(driver) == log
        assert await driver.head() == log[-1].rev

    async def test_forgetting_again_changes_nothing(self, driver: Driver) -> None:
        """What was forgotten can be forgotten again, and tells again how many others refer to it;
        what was never stored is passed by, and stays unknown."""
        (a,) = await put(driver, Transit(State("a").attach("card", b"1234"), "x"))
        card = ref(a, "card")
        others = [State(id).attach("copy", card) for id in ("b", "c")]
        others = list(await put(driver, *(Pause(other) for other in others)))
        await put(driver, *(Pause(other.detach("copy")) for other in others))
        for _ in range(2):
            assert await driver.forget("a", [(card.rev, card.checksum)]) == 2
        assert await driver.forget("b", [(card.rev, card.checksum)]) == 2
        assert await driver.forget("a", []) == 0
        assert await driver.forget("a", [NEVER]) == 0
        for key in (NEVER, (card.rev + 1, card.checksum), (card.rev, NEVER[1])):
            with pytest.raises(DataNotFoundError) as missing:
                await driver.load(type(card)(key[0], 4, "text/plain", key[1]))
            assert not isinstance(missing.value, DataForgottenError)

    async def test_what_has_ended_can_be_forgotten(self, driver: Driver) -> None:
        """Also the payloads of a state that has ended, of versions that were superseded."""
        (a,) = await put(driver, Transit(State("a").attach("card", b"1234"), "x"))
        await put(driver, End(a.detach("card")))
        card = ref(a, "card")
        assert await driver.forget("a", [(card.rev, card.checksum)]) == 0
        with pytest.raises(DataForgottenError):
            await driver.load(card)

    async def test_what_was_forgotten_is_stored_anew_if_it_is_attached_again(
        self, driver: Driver
    ) -> None:
        """A commit that attaches the same content again finds it gone, and stores it."""
        (a,) = await put(driver, Transit(State("a").attach("card", b"1234"), "x"))
        old = ref(a, "card")
        await driver.forget("a", [(old.rev, old.checksum)])
        (a,) = await put(driver, Transit(a.attach("card", b"1234"), "x"))
        assert ref(a, "card").rev == a.rev
        assert await driver.load(ref(a, "card")) == b"1234"
        with pytest.raises(DataForgottenError):
            await driver.load(old)

    async def test_an_outcome_is_as_it_was_stored_though_something_of_it_was_forgotten(
        self, driver: Driver
    ) -> None:
        """A commit that keeps the reference to what is stored, and is done again once that was
        forgotten, gives what it wrote the first time, also under an id of its caller's."""
        (a,) = await put(driver, Transit(State("a").attach("card", b"1234"), "x"))
        old = ref(a, "card")
        again = plan(Transit(a.attach("card", b"1234"), "x"))
        other = keyed("pay", Transit(State("b").stack("payer", a.attach("card", b"1234")), "x"))
        written = [await driver.commit(again), await driver.commit(other)]
        await driver.forget("a", [(old.rev, old.checksum)])
        assert [await driver.commit(again), await driver.commit(other)] == written
        assert ref(written[0][0], "card") == old

    async def test_what_was_forgotten_goes_with_the_last_version(
        self, store: Store, driver: Driver
    ) -> None:
        """What is left of a forgotten payload is removed with the last version that refers to it,
        counted as a payload of no bytes, dry or not."""
        (a,) = await put(driver, Transit(State("a").attach("card", b"1234" * 1_000), "x"))
        card = ref(a, "card")
        await driver.forget("a", [(card.rev, card.checksum)])
        await put(driver, Transit(a.detach("card"), "x"))
        assert (await driver.compact(EVERYTHING, 0, 10, dry_run=True)).payloads == 1
        total = await compact(driver, EVERYTHING)
        assert (total.versions, total.payloads) == (1, 1)
        assert total.size < 1_000
        assert store.raw_payloads() == []
        with pytest.raises(DataNotFoundError) as missing:
            await driver.load(card)
        assert not isinstance(missing.value, DataForgottenError)

    async def test_what_was_forgotten_stays_so(self, persistent_store: Store) -> None:
        """Another driver on the same store knows that it was forgotten."""
        async with persistent_store.driver() as driver:
            (a,) = await put(driver, Transit(State("a").attach("card", b"1234"), "x"))
            card = ref(a, "card")
            await driver.forget("a", [(card.rev, card.checksum)])
        async with persistent_store.driver() as driver:
            with pytest.raises(DataForgottenError):
                await driver.load(card)
            await put(driver, Pause(State("b")), End(State("a", rev=a.rev)))
            await compact(driver, WITH_ENDED)
