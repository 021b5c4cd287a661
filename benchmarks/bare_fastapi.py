"""The same networks behind FastAPI and nothing else, as one would write it in an
afternoon: no database, no queue, no stored photo. ``benchmarks.throughput`` runs it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, UploadFile

from benchmarks.latency import Networks

app = FastAPI()
networks = Networks()


@app.post("/predict")  # type: ignore[untyped-decorator]
def predict(image: UploadFile) -> dict[str, Any]:
    return {"probabilities": networks.probabilities(image.file.read())}
