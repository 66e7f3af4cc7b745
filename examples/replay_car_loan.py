"""Send applications for a loan to a gateway, as they came or as they come later, and post who repaid."""

import argparse
import contextlib
import http.client
import json
import random
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.parquet as pq

DATA = Path(__file__).resolve().parent.parent / "build" / "car_loan" / "later.parquet"
DRIFT_FROM = 25_000
"""Row of the data from which on applications are others than those that the model learned from."""
NUMBERS = ("car_value", "debt_to_income_ratio", "loan_length", "driver_tenure")
CATEGORIES = ("salary_range", "repaid_loan_on_prev_car", "size_of_downpayment")
POST_ROWS = 500


def main() -> None:
    """Send requests until time is up, a line of figures every other second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:8000", help="of the gateway's HTTP port")
    parser.add_argument("--monitor", default="http://127.0.0.1:8010", help="of the monitor's pages")
    parser.add_argument("--drifted", action="store_true", help="applications as they came later")
    parser.add_argument("--labels", action="store_true", help="also post which loans were repaid")
    parser.add_argument("--rate", type=float, default=50.0, help="requests per second")
    parser.add_argument("--rows", type=int, default=4, help="applications in a request")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long")
    arguments = parser.parse_args()

    rows = pq.read_table(DATA).to_pylist()
    rows = rows[DRIFT_FROM:] if arguments.drifted else rows[:DRIFT_FROM]
    connection = http.client.HTTPConnection(arguments.address)
    began_s = told_s = time.monotonic()
    number, counts, labels = 0, Counter[str](), list[dict[str, Any]]()
    while (due_s := began_s + number / arguments.rate) < began_s + arguments.seconds:
        time.sleep(max(0.0, due_s - time.monotonic()))
        number += 1
        sent = random.choices(rows, k=arguments.rows)  # noqa: S311 - a sample, no secret
        request_id = str(uuid.uuid4())
        counts[ask(connection, request_id, sent)] += len(sent)
        labels += [{"key": request_id, "row": i, "label": row["repaid"]} for i, row in enumerate(sent)]
        if arguments.labels and len(labels) >= POST_ROWS:
            counts[post(arguments.monitor, labels)] += len(labels)
            labels.clear()
        if time.monotonic() - told_s >= 2:
            print("   ".join(f"{who}: {count}" for who, count in sorted(counts.items())), flush=True)
            told_s, counts = time.monotonic(), Counter()


def ask(connection: http.client.HTTPConnection, request_id: str, rows: list[dict[str, Any]]) -> str:
    """Send applications under an id; return who answered, `stable, version 1`, or `error 503`."""
    shape = [len(rows), 1]
    inputs = [
        {"name": name, "datatype": "FP32", "shape": shape, "data": [row[name] for row in rows]}
        for name in NUMBERS
    ]
    inputs += [
        {"name": name, "datatype": "BYTES", "shape": shape, "data": [row[name] for row in rows]}
        for name in CATEGORIES
    ]
    headers = {"content-type": "application/json", "x-user-id": request_id}
    body = json.dumps({"id": request_id, "inputs": inputs})
    connection.request("POST", "/v2/models/car_loan/infer", body, headers)
    response = connection.getresponse()
    document = json.loads(response.read())
    if response.status != http.HTTPStatus.OK:
        return f"error {response.status}"
    arm = response.headers.get("x-gateway-arm") or "no rollout"
    return f"{arm}, version {document['model_version']}"


def post(monitor: str, labels: list[dict[str, Any]]) -> str:
    """Tell the monitor which loans were repaid; return `labels posted`, or what went wrong."""
    where = urlsplit(monitor)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
    try:
        body = json.dumps({"model": "car_loan", "labels": labels})
        connection.request("POST", "/v1/labels", body, {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
    except OSError as error:
        return f"labels: {error}"
    finally:
        connection.close()
    return "labels posted" if response.status == http.HTTPStatus.OK else f"labels: error {response.status}"


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
