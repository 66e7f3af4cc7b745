"""A mosec server: one stage of one worker process, bare rows in and out. Run with mosec's options."""
# mypy: ignore-errors
# mosec is installed in its peer's venv alone.

from typing import Any

from mosec import Server, Worker

from loadtests.peers.servers.one_thread import OneThreadModel, body_of, rows_of, settings


class Rows(Worker):
    """Runs whatever mosec's front end has put into a batch."""

    def __init__(self) -> None:
        super().__init__()
        self._model = OneThreadModel(settings()["file"])

    def deserialize(self, data: bytes) -> Any:
        """Return the rows of a body."""
        return rows_of(data)

    def serialize(self, data: Any) -> bytes:
        """Return the body of an answer."""
        return body_of(data)

    def forward(self, data: list[Any]) -> list[Any]:
        """Return the outputs for a batch of inputs."""
        return self._model.run_together(data)


class Row(Rows):
    """The same where mosec batches nothing and hands over one request."""

    def forward(self, data: Any) -> Any:
        """Return the output for one input."""
        return self._model.run(data)


if __name__ == "__main__":
    wanted = settings()
    server = Server()
    largest = wanted["max_batch_rows"]
    server.append_worker(
        Rows if largest > 1 else Row, max_batch_size=largest, max_wait_time=wanted["max_wait_ms"]
    )
    server.run()
