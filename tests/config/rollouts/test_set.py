"""Which files are in force, look by look, on a clock of the test's own."""

import pytest

from gateway.config.rollout_file import RolloutFile, content_hash, parse_rollout
from gateway.config.rollout_listing import FileRead, Listing
from gateway.config.rollout_set import GONE_S, FileStatus, RolloutFiles, RolloutSet
from gateway.core.rollout import RolloutSpec, WeightStep
from tests.config.rollouts.texts import SPLIT, rollout

SETTLE_S = 0.25
WALL_S = 1_000_000.0
HERE = (1, 1)


class Folder:
    """A directory's files, looked at whenever the test says so."""

    def __init__(self, fixed: tuple[RolloutFile, ...] = ()) -> None:
        self.set = RolloutSet(settle_s=SETTLE_S, fixed=fixed)
        self.files: dict[str, FileRead] = {}
        self.identity = HERE
        self.error = ""
        self.now_s = 0.0
        self.writes = 0

    def write(self, name: str, text: str, *, age_s: float = 0.0) -> None:
        self.writes += 1
        content = text.encode()
        changed_ns = int((WALL_S + self.now_s - age_s) * 1e9) + self.writes
        stamp = (1, self.writes, len(content), changed_ns, changed_ns)
        self.files[name] = FileRead(content, content_hash(content), "somebody", stamp)

    def look(self, after_s: float = 0.0) -> RolloutFiles:
        self.now_s += after_s
        return self.set.see(
            Listing(dict(self.files), self.identity, self.error), self.now_s, WALL_S + self.now_s
        )

    def settled(self) -> RolloutFiles:
        self.look()
        return self.look(SETTLE_S)


def weights(found: RolloutFiles) -> dict[str, int]:
    """Return name -> weight of the first step."""
    first = {}
    for file in found.specs:
        assert isinstance(file.spec, RolloutSpec)
        step = file.spec.steps[0]
        assert isinstance(step, WeightStep)
        first[file.name] = step.weight_ppm // 10_000
    return first


def status(found: RolloutFiles, path: str) -> FileStatus:
    return next(s for s in found.statuses if s.path == path)


@pytest.fixture
def folder() -> Folder:
    """One with a rollout in force."""
    folder = Folder()
    folder.write("a.yaml", rollout())
    assert weights(folder.settled()) == {"line": 5}
    return folder


def test_a_file_at_rest_is_taken_at_the_first_look() -> None:
    """A start does not wait for what was there long before."""
    folder = Folder()
    folder.write("a.yaml", rollout(), age_s=1.0)
    found = folder.look()
    assert weights(found) == {"line": 5}
    assert found.complete


def test_a_file_just_written_waits_for_a_second_look() -> None:
    """It may be half of what it will be; meanwhile the set does not claim to be complete."""
    folder = Folder()
    folder.write("a.yaml", rollout())
    found = folder.look()
    assert found.specs == ()
    assert not found.complete
    assert folder.set.unsettled
    assert folder.look(SETTLE_S - 0.125).specs == ()
    assert weights(folder.look(0.125)) == {"line": 5}
    assert not folder.set.unsettled


def test_a_file_under_the_writers_hands_is_not_taken(folder: Folder) -> None:
    """Every change starts the wait again, though each state of the file would be valid."""
    for percent in range(6, 12):
        folder.write("a.yaml", rollout(weight=f"{percent}%"))
        assert weights(folder.look(SETTLE_S)) == {"line": 5}
    assert weights(folder.look(SETTLE_S)) == {"line": 11}


def test_a_file_touched_without_a_change_of_content_waits_too(folder: Folder) -> None:
    """Its times tell that somebody writes."""
    folder.write("a.yaml", rollout(weight="6%"))
    folder.look()
    folder.write("a.yaml", rollout(weight="6%"))
    assert weights(folder.look(SETTLE_S)) == {"line": 5}


@pytest.mark.parametrize("text", ["", "kind: [", rollout(weight="5"), "\x00\x01", SPLIT[:40]])
def test_the_last_good_version_stays_whatever_is_wrong(folder: Folder, text: str) -> None:
    """The status says what and where, with both hashes."""
    before = folder.look().specs
    folder.write("a.yaml", text)
    found = folder.settled()
    assert found.specs == before
    assert found.complete
    state = status(found, "a.yaml")
    assert state.error.startswith("a.yaml:")
    assert state.file_hash == content_hash(text.encode())
    assert state.active_hash == before[0].hash
    assert state.since_s == folder.now_s
    folder.write("a.yaml", rollout(weight="7%"))
    found = folder.settled()
    assert weights(found) == {"line": 7}
    assert status(found, "a.yaml").error == ""


def test_a_file_that_never_was_valid_makes_the_set_incomplete(folder: Folder) -> None:
    """Whose file it is nobody can tell: no rollout may be taken for deleted."""
    folder.write("b.yaml", "kind: [")
    found = folder.settled()
    assert weights(found) == {"line": 5}
    assert not found.complete
    assert status(found, "b.yaml").active_hash == ""


def test_a_file_that_cannot_be_read_is_no_deletion(folder: Folder) -> None:
    """Permissions, a dangling link, a file that grew too large."""
    folder.files["a.yaml"] = FileRead(None, error="a.yaml:1: cannot be read: Permission denied")
    folder.settled()
    found = folder.look(10 * GONE_S)
    assert weights(found) == {"line": 5}
    assert status(found, "a.yaml").error == "a.yaml:1: cannot be read: Permission denied"


def test_a_deletion_takes_two_looks(folder: Folder) -> None:
    """A second apart at least, so that a writer that deletes and writes anew is no deletion."""
    file = folder.files.pop("a.yaml")
    assert weights(folder.look()) == {"line": 5}
    assert weights(folder.look(GONE_S - 0.25)) == {"line": 5}
    folder.files["a.yaml"] = file
    assert weights(folder.look(0.5)) == {"line": 5}
    del folder.files["a.yaml"]
    assert weights(folder.look(0.5)) == {"line": 5}
    assert folder.set.unsettled
    found = folder.look(GONE_S)
    assert (found.specs, found.statuses, found.complete) == ((), (), True)


def test_a_missing_directory_deletes_nothing(folder: Folder) -> None:
    """Missing is not empty."""
    files, folder.files = folder.files, {}
    folder.error = "rollouts: cannot be read: No such file or directory"
    for _ in range(5):
        found = folder.look(GONE_S)
        assert weights(found) == {"line": 5}
        assert (found.error, found.complete) == (folder.error, False)
    folder.error, folder.files = "", files
    assert folder.look().complete


def test_looks_at_a_missing_directory_do_not_count_as_looks(folder: Folder) -> None:
    """Both looks of a deletion are at a readable directory."""
    files, folder.files = folder.files, {}
    folder.look()
    folder.error = "away"
    assert weights(folder.look(GONE_S)) == {"line": 5}
    folder.error, folder.files = "", files
    assert weights(folder.look(GONE_S)) == {"line": 5}


def test_an_empty_directory_in_the_place_of_another_deletes_nothing(folder: Folder) -> None:
    """A volume that is not mounted looks like that."""
    folder.files, folder.identity = {}, (2, 2)
    for _ in range(3):
        found = folder.look(GONE_S)
        assert weights(found) == {"line": 5}
        assert "is its volume mounted?" in found.error


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (rollout("other", "m"), "model 'm'"),
        (rollout("line", "n"), "rollout 'line'"),
        (SPLIT, "model 'm'"),
    ],
)
def test_a_second_file_for_one_model_or_name_is_refused(folder: Folder, text: str, what: str) -> None:
    """The first stays in force; both places are named."""
    folder.write("0.yaml", text)
    found = folder.settled()
    assert weights(found) == {"line": 5}
    assert status(found, "0.yaml").error == (
        f"0.yaml:1: {what} is spoken for by a.yaml too; keep one of them"
    )
    assert status(found, "a.yaml").error == ""
    folder.files.pop("a.yaml")
    folder.look()
    found = folder.look(GONE_S)
    assert [s.path for s in found.specs] == ["0.yaml"]
    assert status(found, "0.yaml").error == ""


def test_a_refused_file_does_not_keep_the_one_in_force_from_being_edited(folder: Folder) -> None:
    """Neither its content nor, as by chmod, its times alone."""
    folder.write("0.yaml", rollout("other"))
    folder.settled()
    for percent in ("5%", "6%"):
        folder.write("a.yaml", rollout(weight=percent))
        found = folder.settled()
        assert weights(found) == {"line": int(percent[0])}
        assert status(found, "a.yaml").error == ""
        assert status(found, "0.yaml").error


def test_two_new_files_for_one_model_are_both_refused() -> None:
    """Which is meant nobody can tell."""
    folder = Folder()
    folder.write("a.yaml", rollout("a"))
    folder.write("b.yaml", rollout("b"))
    found = folder.settled()
    assert (found.specs, found.complete) == ((), False)
    assert "by b.yaml too" in status(found, "a.yaml").error
    assert "by a.yaml too" in status(found, "b.yaml").error


def test_files_that_exchange_their_models_in_one_look_do_not_clash(folder: Folder) -> None:
    """What counts is the set as it will be."""
    folder.write("b.yaml", rollout("other", "n", "8%"))
    folder.settled()
    folder.write("a.yaml", rollout("other", "n", "8%"))
    folder.write("b.yaml", rollout())
    found = folder.settled()
    assert [(s.path, s.name) for s in found.specs] == [("a.yaml", "other"), ("b.yaml", "line")]


def test_a_refused_change_does_not_free_what_its_file_speaks_for(folder: Folder) -> None:
    """A wants b's model and is refused, so c cannot have a's; all that is in force stays."""
    folder.write("b.yaml", rollout("b", "n"))
    folder.settled()
    folder.write("a.yaml", rollout("line", "n"))
    folder.write("c.yaml", rollout("c", "m"))
    found = folder.settled()
    assert [(s.path, s.spec.model) for s in found.specs] == [("a.yaml", "m"), ("b.yaml", "n")]
    assert status(found, "a.yaml").error
    assert status(found, "c.yaml").error


def test_what_the_gateways_configuration_says_wins_over_files() -> None:
    """A model split there cannot be rolled out by a file."""
    fixed = parse_rollout(SPLIT.encode(), "gateway.yaml: models.m")
    folder = Folder(fixed=(fixed,))
    folder.write("a.yaml", rollout())
    found = folder.settled()
    assert found.specs == ()
    assert "by gateway.yaml: models.m too" in status(found, "a.yaml").error
