"""BentoML: `python -m benchmarks.peers.serve_bentoml MODEL PORT MAX_BATCH`.

An image is a file of a form and batches are its adaptive ones, as its documentation has them: an
API that takes a list and is called with one.
"""

import os
import sys
from pathlib import Path

import bentoml

from benchmarks.peers.served_classifier import Prediction, ServedClassifier

_MODEL, _MAX_BATCH = (
    "PEER_MODEL",
    "PEER_MAX_BATCH",
)  # it imports this module in a process of its own
_TIMEOUT_S = 300


@bentoml.service(workers=1, traffic={"timeout": _TIMEOUT_S}, resources={"cpu": "2"})
class Classifier:
    def __init__(self) -> None:
        self.classifier = ServedClassifier(os.environ[_MODEL])

    # not installed where types are checked
    @bentoml.api(  # type: ignore[untyped-decorator]
        batchable=True, max_batch_size=int(os.environ.get(_MAX_BATCH, "32"))
    )
    def classify(self, images: list[Path]) -> list[list[Prediction]]:
        return self.classifier.classify([image.read_bytes() for image in images])


if __name__ == "__main__":
    model, port, max_batch = sys.argv[1:]
    arguments = ("serve", "benchmarks.peers.serve_bentoml:Classifier", "--host", "127.0.0.1")
    command = [sys.executable, "-m", "bentoml", *arguments, "--port", port]
    os.execve(sys.executable, command, {**os.environ, _MODEL: model, _MAX_BATCH: max_batch})
