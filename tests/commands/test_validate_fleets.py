"""`gateway validate` on files that name fleets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.commands.failure import CommandFailed
from gateway.commands.validate import validate

if TYPE_CHECKING:
    from pathlib import Path

WRONG = """\
triton:
  - name: a
    endpoints: [10.0.0.1:8001]
    tls:
      ca_file: missing.pem
    repository: nowhere
  - name: b
    file: endpoints.txt
models:
  - name: digits
    triton: {fleet: a, model: mnist}
"""


def test_what_a_fleet_names_outside_the_file_is_looked_at(tmp_path: Path) -> None:
    """Each complaint has the line that names it; no endpoint is asked."""
    file = tmp_path / "gateway.yaml"
    file.write_text(WRONG)
    (tmp_path / "endpoints.txt").write_text("10.0.0.1:8001\n10.0.0.2\n")
    with pytest.raises(CommandFailed) as caught:
        validate(file)
    assert str(caught.value).splitlines() == [
        f"{file}:5: fleet 'a': {tmp_path}/missing.pem: no such readable file",
        f"{file}:6: fleet 'a': {tmp_path}/nowhere: no such directory, or it may not be written to",
        (
            f"{file}:8: fleet 'b': {tmp_path}/endpoints.txt: line 2: '10.0.0.2' is not host:port"
            " (or [IPv6 host]:port)"
        ),
    ]


def test_a_good_file_names_its_fleets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model of a fleet needs neither path nor repository."""
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "triton: [{name: a, endpoints: ['h:8001'], serve: all}]\nmodels: [{name: m, triton: {}}]\n"
    )
    validate(file)
    assert capsys.readouterr().out == f"{file}: valid; models m; Triton fleets a\n"
