from pathlib import Path

import pytest

from gateway.commands.failure import CommandFailed, Exit
from gateway.commands.serve_config import ServeFlags, build_config, classify_path, model_name
from gateway.config.model_settings import NamedModelSettings
from gateway.config.schema import RepositorySettings

NO_PORTS: dict[str, int | None] = dict.fromkeys(("http", "grpc", "metrics", "admin"))
NO_FLAGS = ServeFlags(ports=NO_PORTS)


def onnx(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not looked into")
    return path


def test_files_become_models_named_by_their_stems(tmp_path: Path) -> None:
    """Each .onnx file is a model; characters that names cannot have are replaced."""
    paths = [onnx(tmp_path / "a.onnx"), onnx(tmp_path / "b c.onnx")]
    config = build_config(paths, None, NO_FLAGS)
    assert [(m.name, m.path) for m in config.models] == [("a", paths[0]), ("b_c", paths[1])]
    assert config.repository is None


def test_relative_paths_are_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths are made absolute at once, whatever directory the server changes to."""
    onnx(tmp_path / "a.onnx")
    monkeypatch.chdir(tmp_path)
    assert build_config([Path("a.onnx")], None, NO_FLAGS).models[0].path == tmp_path / "a.onnx"


def test_directories_are_repositories_or_models(tmp_path: Path) -> None:
    """A directory of models is a repository, a directory of versions is one model of that name."""
    onnx(tmp_path / "digits" / "1" / "model.onnx")
    repository, model = classify_path(tmp_path), classify_path(tmp_path / "digits")
    assert isinstance(repository, RepositorySettings)
    assert repository.path == tmp_path
    assert isinstance(model, NamedModelSettings)
    assert (model.name, model.path) == ("digits", tmp_path / "digits")


@pytest.mark.parametrize(
    ("made", "named", "message"),
    [
        ("m/1/model.onnx", "m/1", r"one version of a model: serve the model with `gateway serve \S*/m`"),
        ("m/model.onnx", "m", r"serve the file with `gateway serve \S*/m/model.onnx`"),
        ("loose/a.onnx", "loose", r"holds a.onnx directly"),
        ("a.onnx", "b.onnx", "no such file or directory"),
        ("a.yaml", "a.yaml", "--config"),
        ("a.txt", "a.txt", r"expected an .onnx file"),
    ],
)
def test_near_misses_get_a_hint(tmp_path: Path, made: str, named: str, message: str) -> None:
    """A path that cannot be served says what to write instead."""
    onnx(tmp_path / made)
    with pytest.raises(CommandFailed, match=message) as caught:
        classify_path(tmp_path / named)
    assert caught.value.code is Exit.USAGE


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """Two files that would be one model are named, both."""
    paths = [onnx(tmp_path / "x" / "m.onnx"), onnx(tmp_path / "y" / "m.onnx")]
    with pytest.raises(CommandFailed, match=r"x/m.onnx and \S*y/m.onnx would both be served as 'm'"):
        build_config(paths, None, NO_FLAGS)


def test_two_repositories_are_refused(tmp_path: Path) -> None:
    """One repository can be served at a time."""
    onnx(tmp_path / "x" / "m" / "1" / "model.onnx")
    onnx(tmp_path / "y" / "m" / "1" / "model.onnx")
    with pytest.raises(CommandFailed, match="one repository"):
        build_config([tmp_path / "x", tmp_path / "y"], None, NO_FLAGS)


def test_nothing_to_serve_shows_the_usage() -> None:
    """No path and no file is a usage error."""
    with pytest.raises(CommandFailed, match="usage: gateway serve") as caught:
        build_config([], None, NO_FLAGS)
    assert caught.value.code is Exit.USAGE


FILE = """
server: {host: 10.0.0.1, ports: {http: 1, grpc: 2}}
repository: {path: models, mode: poll}
models:
  - {name: a, path: old.onnx, required: false}
  - {name: b, path: b.onnx}
telemetry: {log: {level: error, access: true}}
"""


def test_flags_win_over_the_file_and_leave_the_rest(tmp_path: Path) -> None:
    """A flag given replaces the file's value; one not given changes nothing."""
    file = tmp_path / "gateway.yaml"
    file.write_text(FILE)
    flags = ServeFlags(
        host="0.0.0.0",
        ports={**NO_PORTS, "http": 0},
        repository_mode="explicit",
        load_at_start=["a"],
        log_level="debug",
    )
    config = build_config([onnx(tmp_path / "a.onnx")], file, flags)
    assert (config.server.host, config.server.admin_host) == ("0.0.0.0", "127.0.0.1")
    assert config.server.ports.model_dump() == {"http": 0, "grpc": 2, "metrics": 8002, "admin": 8003}
    assert config.repository == RepositorySettings(
        path=tmp_path / "models", mode="explicit", load_at_start=("a",)
    )
    log = config.telemetry.log
    assert (log.level, log.format, log.access) == ("debug", "auto", True)
    by_name = {m.name: m for m in config.models}
    assert by_name["a"].path == tmp_path / "a.onnx"
    assert by_name["a"].required is False
    assert by_name["b"].path == tmp_path / "b.onnx"


def test_a_repository_path_replaces_the_files_and_keeps_its_mode(tmp_path: Path) -> None:
    """The directory named on the command line is served the way the file says."""
    file = tmp_path / "gateway.yaml"
    file.write_text(FILE)
    onnx(tmp_path / "other" / "m" / "1" / "model.onnx")
    config = build_config([tmp_path / "other"], file, NO_FLAGS)
    assert config.repository == RepositorySettings(path=tmp_path / "other", mode="poll")


def test_access_log_can_be_switched_off(tmp_path: Path) -> None:
    """False is a value, not the absence of one."""
    file = tmp_path / "gateway.yaml"
    file.write_text(FILE)
    flags = ServeFlags(ports=NO_PORTS, access_log=False)
    assert build_config([], file, flags).telemetry.log.access is False


@pytest.mark.parametrize(
    "flags",
    [
        ServeFlags(ports=NO_PORTS, repository_mode="poll"),
        ServeFlags(ports=NO_PORTS, load_at_start=["a"]),
    ],
)
def test_repository_flags_need_a_repository(tmp_path: Path, flags: ServeFlags) -> None:
    """A flag that would be without effect is refused."""
    with pytest.raises(CommandFailed, match="need a repository"):
        build_config([onnx(tmp_path / "a.onnx")], None, flags)


def test_loading_by_name_needs_mode_explicit(tmp_path: Path) -> None:
    """In the other modes the list would be without effect."""
    onnx(tmp_path / "m" / "1" / "model.onnx")
    with pytest.raises(CommandFailed, match="--repository-mode explicit"):
        build_config([tmp_path], None, ServeFlags(ports=NO_PORTS, load_at_start=["m"]))


@pytest.mark.parametrize(("stem", "name"), [("ok-1.2_x", "ok-1.2_x"), ("a b/ü", "a_b__"), ("", "model")])
def test_model_names_are_valid(stem: str, name: str) -> None:
    """Whatever a file is called, its model gets a name that the schema takes."""
    assert model_name(stem) == name
    NamedModelSettings(name=name)
