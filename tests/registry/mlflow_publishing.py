"""Registers versions with an MLflow server by MLflow's own client, as people do."""

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.registry.mlflow.library import set_defaults
from tests.servers.mlflow import MlflowServer


class Publisher:
    """Registers versions.

    Attributes:
        client: MLflow's own.
        server: where.
    """

    def __init__(self, server: MlflowServer) -> None:
        set_defaults(10.0)
        from mlflow import MlflowClient

        self.server = server
        self.client: Any = MlflowClient(server.uri)
        self._models: set[str] = set()

    def model(self, name: str) -> None:
        """Register a model, unless it is."""
        if name not in self._models:
            self.client.create_registered_model(name)
            self._models.add(name)

    def version(self, model: str, files: Mapping[str, bytes], **about: Any) -> str:
        """Log files to a run, register them as the model's next version and return its number."""
        self.model(model)
        run = self.client.create_run("0")
        with tempfile.TemporaryDirectory() as directory:
            for path, content in files.items():
                file = Path(directory) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            self.client.log_artifacts(run.info.run_id, directory, "model")
        source = f"{run.info.artifact_uri}/model"
        return str(self.client.create_model_version(model, source, run.info.run_id, **about).version)

    def directory(self, model: str, version: str) -> Path:
        """Return where the server keeps a version's files."""
        uri: str = self.client.get_model_version_download_uri(model, version)
        return self.server.artifacts / uri.removeprefix("mlflow-artifacts:").lstrip("/")

    # As the contract of registries asks for it.

    async def publish(self, model: str, files: Mapping[str, bytes]) -> str:
        return await asyncio.to_thread(self.version, model, files)

    async def set_alias(self, model: str, alias: str, label: str) -> None:
        await asyncio.to_thread(self.client.set_registered_model_alias, model, alias, label)

    async def delete_alias(self, model: str, alias: str) -> None:
        await asyncio.to_thread(self.client.delete_registered_model_alias, model, alias)

    async def delete_version(self, model: str, label: str) -> None:
        def delete() -> None:
            directory = self.directory(model, label)
            self.client.delete_model_version(model, label)
            shutil.rmtree(directory)

        await asyncio.to_thread(delete)
