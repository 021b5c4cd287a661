"""The same networks behind LitServe and nothing else. ``benchmarks.throughput`` runs
it, with the port and the number of processes.

LitServe compares annotations with classes, so they are not put off here.
"""

import sys
from typing import Any

import litserve
from fastapi import Request

from benchmarks.latency import Networks


class Emotions(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self._networks = Networks()

    def decode_request(self, request: Request) -> bytes:
        return bytes(request["image"].file.read())

    def predict(self, x: bytes) -> list[tuple[float, ...]]:
        return self._networks.probabilities(x)

    def encode_response(self, output: list[tuple[float, ...]]) -> dict[str, Any]:
        return {"probabilities": output}


if __name__ == "__main__":
    server = litserve.LitServer(
        Emotions(), accelerator="cpu", workers_per_device=int(sys.argv[2])
    )
    server.run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False)
