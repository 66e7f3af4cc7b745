"""Train a classifier of iris flowers, register it with MLflow as ONNX, and let an alias name the version."""

import argparse

import mlflow
import mlflow.onnx
import numpy as np
from mlflow.models import infer_signature
from skl2onnx import to_onnx  # type: ignore[import-untyped]  # it has no types
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier


def main() -> None:
    """Register a version."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracking-uri", default="http://127.0.0.1:5000")
    parser.add_argument("--name", default="iris", help="of the registered model")
    parser.add_argument("--trees", type=int, default=10, help="more of them make another version")
    parser.add_argument("--alias", help="to be moved to the new version")
    arguments = parser.parse_args()

    features, classes = load_iris(return_X_y=True)
    features = features.astype(np.float32)
    model = RandomForestClassifier(arguments.trees, random_state=0).fit(features, classes)
    mlflow.set_tracking_uri(arguments.tracking_uri)
    with mlflow.start_run():
        logged = mlflow.onnx.log_model(
            to_onnx(model, features[:1], options={"zipmap": False}),
            name="model",
            registered_model_name=arguments.name,
            signature=infer_signature(features, classes),
            pip_requirements=["onnxruntime"],
        )
    version = logged.registered_model_version
    if arguments.alias:
        mlflow.MlflowClient().set_registered_model_alias(arguments.name, arguments.alias, str(version))
    print(f"registered {arguments.name} version {version}, alias {arguments.alias or '-'}")


if __name__ == "__main__":
    main()
