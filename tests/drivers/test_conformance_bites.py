"""The conformance suite can fail: each driver that breaks a law is caught by the law's test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from flowstate import RevMismatchError
from flowstate.plan import RecordedError
from flowstate.testing import DriverMachine, Store

from . import broken, broken_places, broken_reading

CRASH = re.compile(r" - (Attribute|Index|Key|Name|Type|Value)Error")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says of all broken drivers, each run against the test that must catch it."""
    site = tmp_path_factory.mktemp("site")
    metadata = site / "broken-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    where = f"{broken_places.__name__}:{broken_places.ClaimsInTwoSteps.__name__}.from_url"
    (metadata / "entry_points.txt").write_text(f"[flowstate.drivers]\ntwosteps = {where}\n")
    path = Path(broken.__file__)
    tests = [f"{path}::Test{driver.__name__}::{test}" for driver, test in broken.CAUGHT_BY.items()]
    options = ["-q", "-rA", "--tb=no", "-p", "no:cacheprovider", "-k", "asyncio"]
    paths = filter(None, [os.environ.get("PYTHONPATH")])
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        capture_output=True,
        check=False,
        cwd=path.parents[2],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *paths])},
        text=True,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    ("driver", "test"),
    broken.CAUGHT_BY.items(),
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_driver_that_breaks_a_law_is_caught(
    report: str, driver: broken.Broken, test: str
) -> None:
    """The test that states the law fails on the driver that breaks it; not because that crashes."""
    told = [line for line in report.splitlines() if f"::Test{driver.__name__}::{test}" in line]
    failures = [line for line in told if line.startswith("FAILED")]
    assert failures, "\n".join(told) or report
    assert [] == [line for line in failures if CRASH.search(line)]


@pytest.mark.parametrize(
    "driver",
    [
        broken.TellsOneConflict,
        broken.IgnoresRequirements,
        broken.LosesAWrite,
        broken.WritesWhatItCan,
        broken.ForgetsNotes,
        broken.GivesTheNewestAsOutcome,
        broken.ForgetsOutcomes,
        broken.SkipsAVersion,
        broken.FindsTheOldest,
        broken.FindsThePast,
        broken_places.ClaimsByRevision,
        broken_places.ServesTheLongestWaiting,
        broken_places.AddsUpRoom,
        broken_places.RemembersAnswers,
        broken_places.TakesFromOthers,
        broken_places.GivesWhatIsDue,
        broken_places.KeepsTheFirstEnd,
        broken_places.RenewsInSilence,
        broken_places.ReleasesByOwner,
        broken_places.ForgetsAlarms,
        broken_places.EndsWhatHasNoEnd,
        broken_places.NamesWhoClaimed,
        broken_places.LeavesPlaces,
        broken_places.CarriesPlacesOn,
        broken_places.NamesTheLastInLine,
        broken_places.LinesUpAgain,
        broken_places.DueInAnyOrder,
        broken_places.LooksAgainForWhatIsToCome,
        broken.KeepsOneTooFew,
        broken.RemovesEndedStatesUnasked,
        broken.RemovesTheHead,
        broken.NeverFrees,
        broken.FreesTooEarly,
        broken.GuessesWhenDry,
        broken.TakesItAll,
        broken.NeverTells,
        broken.GivesWhatIsLeftAsOutcome,
        broken_reading.DerivesWhatWasBefore,
        broken_reading.CutsThenTurns,
        broken_reading.CountsHistory,
        broken_reading.CountsNothingToo,
        broken_reading.ForgetsWhatIsEqual,
        broken_reading.AsksWhoRefersNow,
        broken_reading.ForgetsWhatIsCurrent,
        broken_reading.KeepsTheReference,
        broken_reading.KeepsTheMark,
        broken.RecordsNothing,
        broken.LooksAtRecordsLast,
        broken.RecordsWhatItRefuses,
        broken.TellsItsOwnOf,
        broken.ForgetsRecordsWithVersions,
        broken.ForgetsTheVeryMillisecond,
    ],
)
def test_the_machine_finds_a_driver_that_breaks_a_law(driver: broken.Broken) -> None:
    """Random operations come upon what the driver does differently from the model."""

    class BrokenMachine(DriverMachine):
        def new_store(self, path: Path) -> Store:
            return broken.store_of(driver, path)

    # it is enough to find a difference; the same ones each time, and no search for shorter ones.
    # The rarest takes some 2,000 examples: what is drawn changes with the machine's code
    quick = settings(
        BrokenMachine.TestCase.settings,
        database=None,
        derandomize=True,
        max_examples=4_000,
        phases=[Phase.generate],
    )
    with pytest.raises((AssertionError, RevMismatchError, RecordedError)):
        run_state_machine_as_test(BrokenMachine, settings=quick)
