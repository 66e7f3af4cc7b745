"""What the manager tells of readiness and names, what it requires, and when it tries a load again."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from gateway.core.errors import BackendUnavailable, ModelLoadError, Unavailable
from gateway.core.types import VersionState
from gateway.models.retrying import may_pass, outer_cause
from gateway.testing import FakeLoadedModel
from tests.models.stage import Stage, wanted

if TYPE_CHECKING:
    from gateway.core.options import LoadOptions
    from gateway.core.types import Artifact
    from gateway.models.manager import ModelManager


class Failing:
    """Makes models, after failing as often as it has errors."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.attempts = 0

    def __call__(self, _artifact: Artifact, _options: LoadOptions) -> FakeLoadedModel:
        self.attempts += 1
        if self.errors:
            raise self.errors.pop(0)
        return FakeLoadedModel()


async def test_change_of_readiness_without_a_transition_is_told(stage: Stage) -> None:
    """Listeners hear of a first empty claim, a failed required model's removal, a change of `required`."""
    stage.backend.failures["bad"] = "corrupt"
    seen: list[bool] = []
    manager: ModelManager
    async with stage.manager(on_change=lambda: seen.append(manager.is_ready())) as manager:
        manager.apply("s", [])
        assert seen == [True]
        bad = wanted("bad", 1, "bad")
        for mended in ([], [wanted("bad", 1, "bad", required=False)]):
            manager.apply("s", [bad])
            await manager.wait_settled()
            assert seen[-1] is False
            manager.apply("s", mended)
            assert seen[-1] is True


async def test_change_of_known_names_is_told(stage: Stage) -> None:
    """Listeners hear of names that are announced for the first time, and not of the same names again."""
    told: list[frozenset[str]] = []
    manager: ModelManager
    async with stage.manager(on_change=lambda: told.append(manager.known())) as manager:
        manager.announce("s", ["a"])
        manager.announce("s", ["a"])
        manager.announce("s", ["a", "b"])
        assert told == [{"a"}, {"a", "b"}]


async def test_problems_are_shown_where_they_matter(stage: Stage) -> None:
    """Why versions cannot be found out is the reason of a bare model, and told beside what serves or did."""
    stage.backend.failures["bad"] = "corrupt"
    down = "resolve: the registry at mlflow:5000 does not answer, stale since 11:02"
    async with stage.manager() as manager:
        manager.require(["required"])
        manager.apply("s", [wanted("served", 1), wanted("failed", 1, "bad"), wanted("gone", 1)])
        await manager.wait_settled()
        manager.apply("s", [wanted("served", 1), wanted("failed", 1, "bad")])
        await manager.wait_settled()
        names = ["bare", "fine", "required", "served", "failed", "gone"]
        manager.announce("s", names, {name: down for name in names if name != "fine"})
        assert {s.id.model: (s.state.value, s.reason) for s in manager.index()} == {
            "bare": ("FAILED", down),
            "failed": ("FAILED", "corrupt"),
            "fine": ("UNLOADED", ""),
            "gone": ("UNLOADED", f"unloaded; {down}"),
            "required": ("FAILED", down),
            "served": ("READY", f"serving; {down}"),
        }
        manager.announce("t", ["bare"], {"bare": "resolve: no such model"})
        assert manager.index()[0].reason == f"{down}; resolve: no such model"
        manager.apply("s", [wanted("served", 1, "bad")])
        await manager.wait_settled()
        (served,) = (s for s in manager.index() if s.id.model == "served")
        assert served.reason == f"serving the version before; reload failed: corrupt; {down}"
        manager.announce("s", names)
        manager.announce("t", [])
        assert "resolve" not in "".join(s.reason for s in manager.index())


async def test_raising_listener_disturbs_nobody(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """A listener to changes that raises is logged and the load goes on."""

    def broken() -> None:
        raise ZeroDivisionError

    async with stage.manager(on_change=broken) as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        assert manager.is_ready()
    assert "ZeroDivisionError" in caplog.text


async def test_required_model_that_nothing_offers_keeps_the_server_unready(stage: Stage) -> None:
    """A required name without a version is not ready, and the index says why, until it is served."""
    told: list[bool] = []
    manager: ModelManager
    async with stage.manager(on_change=lambda: told.append(manager.is_ready())) as manager:
        manager.require(["m"])
        manager.apply("s", [wanted("other", 1)])
        await manager.wait_settled()
        assert not manager.is_ready()
        row = manager.index()[0]
        assert (row.id.model, row.id.number, row.state) == ("m", 0, VersionState.FAILED)
        assert "no repository offers a version" in row.reason
        manager.apply("s", [wanted("other", 1), wanted("m", 1)])
        await manager.wait_settled()
        assert manager.is_ready()
        assert [r.state for r in manager.index()] == [VersionState.READY] * 2
        manager.require(["m", "another"])
        assert told[-2:] == [True, False]


async def test_load_that_failed_for_a_passing_reason_is_tried_again(stage: Stage) -> None:
    """A lost backend is tried again after growing pauses, which the reason says; then the version serves."""
    making = stage.backend.make = Failing(BackendUnavailable("no memory"), BackendUnavailable("no memory"))
    async with stage.manager(retry_pauses_s=(1, 10)) as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        assert manager.index()[0].reason == "no memory; it is tried again in 1 s"
        stage.clock.advance(0.9)
        assert making.attempts == 1
        stage.clock.advance(0.2)
        await manager.wait_settled()
        assert manager.index()[0].reason == "no memory; it is tried again in 10 s"
        stage.clock.advance(10)
        await manager.wait_settled()
        assert manager.is_ready()
        assert stage.clock.next_timer_s() is None


async def test_attempts_are_bounded(stage: Stage) -> None:
    """After the last pause a version that still fails is left alone, with the plain reason."""
    making = stage.backend.make = Failing(*[BackendUnavailable("no memory")] * 9)
    async with stage.manager(retry_pauses_s=(1, 1)) as manager:
        manager.apply("s", [wanted("m", 1)])
        for _ in range(5):
            await manager.wait_settled()
            stage.clock.advance(100)
        assert making.attempts == 3
        assert manager.index()[0].reason == "no memory"


@pytest.mark.parametrize("served", [False, True])
async def test_attempts_are_counted_anew_for_a_version_wanted_again(stage: Stage, served: bool) -> None:
    """After a withdrawal, of a version that failed or that served in the end, the first pause comes first."""
    lost = BackendUnavailable("no memory")
    making = stage.backend.make = Failing(lost, *[] if served else [lost])
    async with stage.manager(retry_pauses_s=(1, 10)) as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        stage.clock.advance(1)
        await manager.wait_settled()
        assert manager.is_model_ready("m") is served
        manager.apply("s", [])
        await manager.wait_settled()
        making.errors = [lost]
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        assert manager.index()[0].reason == "no memory; it is tried again in 1 s"


async def test_fault_of_the_content_is_not_tried_again(stage: Stage) -> None:
    """A load that failed because of the files sets no timer."""
    stage.backend.make = Failing(ModelLoadError("the graph is broken"))
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        assert manager.index()[0].state is VersionState.FAILED
        assert stage.clock.next_timer_s() is None


@pytest.mark.parametrize("end", ["withdrawn", "asked for", "left"])
async def test_planned_attempt_ends_with_its_reason(stage: Stage, end: str) -> None:
    """A version withdrawn, loaded on request, or left behind at the end is not tried again by a timer."""
    making = stage.backend.make = Failing(MemoryError())
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        assert stage.clock.next_timer_s() is not None
        if end == "withdrawn":
            manager.apply("s", [])
        elif end == "asked for":
            manager.apply("s", [wanted("m", 1)], retry="m")
            await manager.wait_settled()
    assert stage.clock.next_timer_s() is None
    assert making.attempts == (2 if end == "asked for" else 1)


def test_reasons_that_may_pass_are_found_behind_others() -> None:
    """The cause of an error counts; a missing file is a fault of the content, a full disk is not."""

    def raised_from(cause: Exception) -> ModelLoadError:
        error = ModelLoadError("warm-up failed")
        error.__cause__ = cause
        return error

    assert may_pass(raised_from(BackendUnavailable("lost")))
    assert may_pass(raised_from(Unavailable("too many files are inspected")))
    assert may_pass(raised_from(OSError(errno.ENOSPC, "full")))
    assert not may_pass(raised_from(FileNotFoundError(errno.ENOENT, "missing")))
    assert not may_pass(ModelLoadError("broken"))


def test_causes_outside_the_files_are_told_without_paths() -> None:
    """Short memory is the backend's; of an error of the file system only its number is kept."""
    error = ModelLoadError("no session")
    assert outer_cause(error) is None
    error.__cause__ = MemoryError("32 GiB")
    assert isinstance(outer_cause(error), BackendUnavailable)
    error.__cause__ = PermissionError(errno.EACCES, "Permission denied", "/secret/model.onnx")
    told = outer_cause(error)
    assert isinstance(told, OSError)
    assert (told.errno, told.filename) == (errno.EACCES, None)
