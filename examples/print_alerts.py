"""Receive the monitor's alerts and print them, a line each."""

import argparse
import json
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    """Takes the posts of a webhook."""

    def do_POST(self) -> None:
        """Print what is told, and take it."""
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        for alarm in message["alarms"]:
            print(f"{alarm['event']}: {alarm['severity']}: {alarm['summary']}", flush=True)
            print(f"    {alarm['link']}", flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing of requests."""


def main() -> None:
    """Listen until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8099, help="on 127.0.0.1")
    with HTTPServer(("127.0.0.1", parser.parse_args().port), Handler) as server:
        print(f"waiting for alerts on http://127.0.0.1:{server.server_address[1]}/", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
