"""The ONNX Runtime backend. Importing this package imports neither onnx nor onnxruntime."""
