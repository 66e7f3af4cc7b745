"""The runtime class that MLServer loads: it comes with none for ONNX Runtime."""
# mypy: ignore-errors
# mlserver is installed in its peer's venv alone.

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from loadtests.peers.servers.one_thread import OneThreadModel


class OnnxModel(MLModel):
    """Runs what MLServer's adaptive batching has merged."""

    async def load(self) -> bool:
        """Open the model that the settings name."""
        self._model = OneThreadModel(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the output for a request, perhaps merged from many."""
        rows = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        output = NumpyCodec.encode_output(self._model.output_name, self._model.run(rows))
        return InferenceResponse(model_name=self.name, outputs=[output])
