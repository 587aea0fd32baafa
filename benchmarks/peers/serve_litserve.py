"""LitServe: `python -m benchmarks.peers.serve_litserve MODEL PORT MAX_BATCH`.

Images in base64 within JSON and batches as its documentation has them: `max_batch_size` with a
short `batch_timeout`, and its faster queue, which it recommends for many requests a second.
"""

import base64
import sys
from collections.abc import Mapping, Sequence

import litserve

from benchmarks.peers.served_classifier import Prediction, ServedClassifier

_TIMEOUT_S = 300  # 64 clients of a slow model wait longer than its 30 s


class Api(litserve.LitAPI):  # type: ignore[misc]  # not installed where types are checked
    def __init__(self, model: str, max_batch: int) -> None:
        super().__init__(max_batch_size=max_batch, batch_timeout=0.01)
        self.model = model

    def setup(self, device: str) -> None:  # noqa: ARG002
        self.classifier = ServedClassifier(self.model)

    def decode_request(self, request: Mapping[str, str]) -> bytes:
        return base64.b64decode(request["image"])

    def batch(self, inputs: Sequence[bytes]) -> Sequence[bytes]:
        return inputs

    def predict(self, files: Sequence[bytes]) -> list[list[Prediction]]:
        return self.classifier.classify(files)

    def unbatch(self, output: list[list[Prediction]]) -> list[list[Prediction]]:
        return output

    def encode_response(self, predictions: list[Prediction]) -> dict[str, list[Prediction]]:
        return {"predictions": predictions}


if __name__ == "__main__":
    model, port, max_batch = sys.argv[1:]
    server = litserve.LitServer(
        Api(model, int(max_batch)), accelerator="cpu", timeout=_TIMEOUT_S, fast_queue=True
    )
    server.run(host="127.0.0.1", port=int(port), generate_client_file=False, log_level="warning")
