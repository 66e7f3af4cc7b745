"""A training script: scikit-learn, converted to ONNX, registered with MLflow. Run where MLflow is whole."""

import argparse
import json
import sys

import mlflow
import mlflow.onnx
import numpy as np
from mlflow.data.numpy_dataset import from_numpy
from mlflow.models import infer_signature
from onnx import numpy_helper
from skl2onnx import to_onnx  # type: ignore[import-untyped]  # it has no types
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier


def main() -> None:
    """Register a version, and print its number and what the model answers for the first rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("uri")
    parser.add_argument("name")
    parser.add_argument("--kind", choices=["small", "external", "sklearn"], default="small")
    arguments = parser.parse_args()
    mlflow.set_tracking_uri(arguments.uri)
    features, classes = load_iris(return_X_y=True)
    features = features.astype(np.float32)
    model = (
        MLPClassifier((256,), max_iter=5)
        if arguments.kind == "external"
        else LogisticRegression(max_iter=500)
    )
    model.fit(features, classes)
    converted = to_onnx(model, features[:1], options={"zipmap": False})
    if arguments.kind == "external":
        for tensor in converted.graph.initializer:  # only raw bytes are put beside the model
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    with mlflow.start_run():
        dataset = from_numpy(features, name="iris")
        mlflow.log_input(dataset, context="training")
        signature = infer_signature(features, model.predict(features))
        requirements = ["onnxruntime"]  # said, or MLflow finds out by running the model
        if arguments.kind == "sklearn":
            mlflow.sklearn.log_model(
                model, name="model", registered_model_name=arguments.name, pip_requirements=requirements
            )
        else:
            mlflow.onnx.log_model(
                converted,
                name="model",
                registered_model_name=arguments.name,
                signature=signature,
                pip_requirements=requirements,
            )
    version = mlflow.MlflowClient().search_model_versions(f"name = '{arguments.name}'")[0].version
    answers = model.predict_proba(features[:5]).tolist()
    json.dump({"version": version, "rows": features[:5].tolist(), "probabilities": answers}, sys.stdout)


if __name__ == "__main__":
    main()
