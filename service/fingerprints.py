"""Which jobs have the same answer: a digest of everything that it follows from.

Only jobs whose answer is determined have one: classifications, embeddings, and images whose request
names the seed. What is done with it is in `worker/contract/sharing_script`.
"""

import hashlib
import json
from functools import cache

from fastapi import Request

from service.settings import ServiceSettings
from worker.contract.jobs import JOB, RESULT, ClassifyJob, ImageJob
from worker.contract.model_cards import ModelCard
from worker.contract.record import AnyJob
from worker.contract.submission import Reuse

# Who asks, when, how urgently and what for says nothing about the answer; and a start image counts
# by its content.
_NOT_OF_THE_ANSWER: dict[str, bool | set[str]] = {
    **dict.fromkeys(("id", "created_at", "deadline_at", "caller", "priority"), True),
    **dict.fromkeys(("metadata", "end_user", "images"), True),
    **dict.fromkeys(("request_id", "traceparent", "tracestate"), True),
    "start": {"file_name"},
}
_REFUSES_REUSE = frozenset({"no-cache", "no-store"})  # RFC 9111: an answer of its own, please


def reuse_of(
    job: AnyJob,
    card: ModelCard,
    request: Request,
    settings: ServiceSettings,
    start_image: bytes = b"",
) -> Reuse | None:
    """Whose answers the job may have; None where it is to run by itself.

    Images are taken to have a seed that the request named.
    """
    reads_cache, joins_runs = settings.result_cache_bytes > 0, settings.shares_runs
    if not (reads_cache or joins_runs) or _refuses_reuse(request):
        return None
    if card.results_digest is None or (isinstance(job, ImageJob) and job.preview_steps):
        return None
    fingerprint = fingerprint_of(job, card.results_digest, start_image)
    return Reuse(fingerprint, card.results_digest, reads_cache, joins_runs)


def fingerprint_of(job: AnyJob, results_digest: str, start_image: bytes) -> str:
    digest = hashlib.sha256(f"{_wire_format()} {results_digest}\n".encode())
    digest.update(job.model_dump_json(exclude=_NOT_OF_THE_ANSWER).encode())
    if isinstance(job, ClassifyJob):
        # megabytes, which are not to be escaped as JSON; no letter of base64 is a line's end
        for image in job.images:
            digest.update(f"\n{image}".encode())
    digest.update(b"\n" + start_image)
    return digest.hexdigest()


def _refuses_reuse(request: Request) -> bool:
    directives = ",".join(request.headers.getlist("cache-control")).lower().split(",")
    return any(directive.strip() in _REFUSES_REUSE for directive in directives)


@cache
def _wire_format() -> str:
    """What another version of this code writes is not read as if it were this one's."""
    schemas = json.dumps([JOB.json_schema(), RESULT.json_schema()])
    return hashlib.sha256(schemas.encode()).hexdigest()
