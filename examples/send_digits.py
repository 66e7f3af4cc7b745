"""Send handwritten digits to a gateway as its users would, and print who answered, how fast, and how well."""

import argparse
import contextlib
import http.client
import json
import random
import statistics
import time
from collections import Counter, defaultdict

from sklearn.datasets import load_digits

USERS = 10_000


def main() -> None:
    """Send requests until time is up, a line of figures every other second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:8000", help="of the gateway's HTTP port")
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long")
    arguments = parser.parse_args()

    digits = load_digits()
    samples = list(zip(digits.data.tolist(), digits.target.tolist(), strict=True))
    connection = http.client.HTTPConnection(arguments.address)
    began_s = time.monotonic()
    told_s, number, answers, right, latencies_ms = (
        began_s,
        0,
        Counter[str](),
        Counter[str](),
        defaultdict(list),
    )
    while (due_s := began_s + number / arguments.rate) < began_s + arguments.seconds:
        time.sleep(max(0.0, due_s - time.monotonic()))
        number += 1
        pixels, digit = random.choice(samples)  # noqa: S311 - a sample, no secret
        who, guess = ask(connection, pixels, f"user-{random.randrange(USERS)}")  # noqa: S311 - likewise
        answers[who] += 1
        right[who] += guess == digit
        latencies_ms[who].append((time.monotonic() - due_s) * 1000)
        if time.monotonic() - told_s >= 2:
            tell(answers, right, latencies_ms)
            told_s, answers, right, latencies_ms = time.monotonic(), Counter(), Counter(), defaultdict(list)


def ask(connection: http.client.HTTPConnection, pixels: list[float], user: str) -> tuple[str, int]:
    """Return who answered, `stable, version 1`, and which digit it saw; -1 where it failed."""
    tensor = {"name": "pixels", "datatype": "FP32", "shape": [1, len(pixels)], "data": pixels}
    headers = {"content-type": "application/json", "x-user-id": user}
    connection.request("POST", "/v2/models/digits/infer", json.dumps({"inputs": [tensor]}), headers)
    response = connection.getresponse()
    document = json.loads(response.read())
    if response.status != http.HTTPStatus.OK:
        return f"error {response.status}", -1
    probabilities = document["outputs"][0]["data"]
    arm = response.headers.get("x-gateway-arm") or "no rollout"
    return f"{arm}, version {document['model_version']}", probabilities.index(max(probabilities))


def tell(answers: Counter[str], right: Counter[str], latencies_ms: dict[str, list[float]]) -> None:
    """Print who answered how many requests, how many of them right, and in which time."""
    parts = [
        f"{who}: {count} ({right[who] / count:.0%} right, {statistics.median(latencies_ms[who]):.1f} ms)"
        for who, count in sorted(answers.items())
    ]
    print("   ".join(parts), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
