"""Serves statistics as plain HTTP with JSON, described by a UTCP manual at /utcp. Needs nothing but Python."""

import argparse
import http.server
import json
import math
import re
import signal
import statistics
import threading
import urllib.parse

NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 100_000}

def manual(base: str) -> dict:
    """The tools, at addresses that begin with `base`."""
    return {
        "utcp_version": "1.0.1",
        "manual_version": "1.0.0",
        "tools": [
            {
                "name": "describe",
                "description": "Summarizes numbers: count, mean, standard deviation, quartiles, and outliers (Tukey's fences).",
                "tags": ["statistics"],
                "inputs": {
                    "type": "object",
                    "properties": {"values": {**NUMBERS, "description": "The numbers, at least two"}},
                    "required": ["values"],
                    "additionalProperties": False,
                },
                "outputs": {
                    "type": "object",
                    "properties": {
                        "count": {"type": "integer"},
                        "mean": {"type": "number"},
                        "standard_deviation": {"type": "number"},
                        "quartiles": {"type": "array", "items": {"type": "number"}},
                        "outliers": {"type": "array", "items": {"type": "number"}},
                    },
                },
                "tool_call_template": {"call_template_type": "http", "http_method": "POST", "url": f"{base}/describe"},
            },
            {
                "name": "normal_probability",
                "description": "How likely a value of a normal distribution is to be at most x.",
                "tags": ["statistics"],
                "inputs": {
                    "type": "object",
                    "properties": {
                        "x": {"type": "number"},
                        "mean": {"type": "number", "default": 0},
                        "deviation": {"type": "number", "exclusiveMinimum": 0, "default": 1},
                    },
                    "required": ["x"],
                    "additionalProperties": False,
                },
                "outputs": {"type": "object", "properties": {"probability": {"type": "number"}}},
                "tool_call_template": {"call_template_type": "http", "http_method": "GET", "url": f"{base}/normal/{{x}}"},
            },
        ],
    }


def describe(values: list[float]) -> dict:
    quartiles = statistics.quantiles(values, n=4, method="inclusive")
    reach = 1.5 * (quartiles[2] - quartiles[0])
    return {
        "count": len(values),
        "mean": statistics.fmean(values),
        "standard_deviation": statistics.stdev(values),
        "quartiles": quartiles,
        "outliers": [v for v in values if not quartiles[0] - reach <= v <= quartiles[2] + reach],
    }


def normal_probability(x: float, mean: float, deviation: float) -> dict:
    return {"probability": statistics.NormalDist(mean, deviation).cdf(x)}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/utcp":
            return self.answer(200, manual(f"http://{self.headers['host']}"))
        if url.path == "/healthz":
            return self.answer(200, {"status": "ok"})
        if match := re.fullmatch(r"/normal/([^/]+)", url.path):
            query = dict(urllib.parse.parse_qsl(url.query))
            return self.compute(
                lambda: normal_probability(
                    number(urllib.parse.unquote(match[1])),
                    number(query.get("mean", "0")),
                    number(query.get("deviation", "1")),
                )
            )
        self.answer(404, {"error": {"message": f"there is nothing at {url.path}"}})

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        if not 0 <= length <= 4 << 20:
            return self.answer(413, {"error": {"message": "the body may have at most 4 MiB"}})
        body = self.rfile.read(length)
        if self.path != "/describe":
            return self.answer(404, {"error": {"message": f"there is nothing at {self.path}"}})
        self.compute(lambda: describe([number(value) for value in json.loads(body)["values"]]))

    def compute(self, action) -> None:
        try:
            result = action()
        except (ValueError, TypeError, KeyError, statistics.StatisticsError) as error:
            return self.answer(400, {"error": {"message": str(error)}})
        self.answer(200, result)

    def answer(self, status: int, document: dict) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet: one line a request would drown the address."""


def number(value: object) -> float:
    result = float(value)
    if not math.isfinite(result):
        raise ValueError(f"{value} is not a finite number")
    return result


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--listen", default="127.0.0.1:50054", help="host:port; port 0 chooses a free one")
    host, port = arguments.parse_args().listen.rsplit(":", 1)
    server = http.server.ThreadingHTTPServer((host, int(port)), Handler)
    for stop in (signal.SIGINT, signal.SIGTERM):
        # `shutdown` waits for the loop, which this very thread is in.
        signal.signal(stop, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"listening on http://{host}:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
