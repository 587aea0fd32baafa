"""Ray Serve: `python -m benchmarks.peers.serve_ray MODEL PORT MAX_BATCH`.

An image is the request's body and batches are `serve.batch`'s, as its documentation has them, with
as many ongoing requests as there are clients; one replica with all cores.
"""

import os
import signal
import sys
from collections.abc import Sequence

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

from benchmarks.peers.served_classifier import Prediction, ServedClassifier

_MAX_ONGOING = 256
_NUM_CORES = os.cpu_count() or 1


class Classifier:
    def __init__(self, model: str, max_batch: int) -> None:
        self.classifier = ServedClassifier(model)
        batching = serve.batch(max_batch_size=max_batch, batch_wait_timeout_s=0.01)
        self.classify = batching(self.classify_batch)

    async def classify_batch(self, files: Sequence[bytes]) -> list[list[Prediction]]:
        return self.classifier.classify(files)

    async def __call__(self, request: Request) -> JSONResponse:
        # a response of its own has a length; a bare value would be sent in chunks
        return JSONResponse({"predictions": await self.classify(await request.body())})


if __name__ == "__main__":
    model, port, max_batch = sys.argv[1:]
    ray.init(num_cpus=_NUM_CORES, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    deployment = serve.deployment(
        Classifier,
        max_ongoing_requests=_MAX_ONGOING,
        ray_actor_options={"num_cpus": _NUM_CORES},
    )
    serve.run(deployment.bind(model, int(max_batch)), route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
