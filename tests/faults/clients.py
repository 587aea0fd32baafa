"""Clients that send a mixed load by HTTP and write down what they were promised.

Some wait for their results, some ask again and again, some cancel, some leave; inputs repeat. What
the service says while a part of it is dead is counted and tried again later; what it accepted has
to be done. Knows nothing of processes.
"""

import base64
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from tests.worker.jobs import image

_PAUSE_S = 0.1  # of a client that was not served
_LONGEST_THOUGHT_S = 0.4  # between two requests
_PATIENCE_S = 90.0  # of one that was promised a result
_LEAVES_AFTER_S = 0.3
_LEFT_STEPS = 50  # of the job that it leaves, each slow: nobody who is asked to stop does them all
_ASYNC = {"prefer": "respond-async"}
_UNFINISHED = ("queued", "running")
_PNG_END = b"IEND\xaeB`\x82"
# What a service says of which a part is dead.
_TEMPORARY = frozenset({429, 502, 503, 504})


@dataclass(slots=True)
class Ledger:
    """What was promised, and what came of it; all clients write in one."""

    target: int  # of promises
    promised: dict[str, str] = field(default_factory=dict)  # job to what the client did with it
    ended: dict[str, float] = field(default_factory=dict)  # job to when a client saw its end
    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    left: dict[str, float] = field(default_factory=dict)  # prompt to when its client was gone
    longest_wait_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_full(self) -> bool:
        return len(self.promised) >= self.target

    def promise(self, job_id: str, kind: str) -> None:
        with self._lock:
            self.promised[job_id] = kind

    def note_end(self, job_id: str) -> None:
        with self._lock:
            self.ended[job_id] = time.time()

    def note(self, answer: str) -> None:
        with self._lock:
            self.answers[answer] += 1

    def leave(self, prompt: str) -> None:
        with self._lock:
            self.left[prompt] = time.time()

    def note_wait(self, seconds: float) -> None:
        with self._lock:
            self.longest_wait_s = max(self.longest_wait_s, seconds)

    def blame(self, fault: str) -> None:
        with self._lock:
            self.faults.append(fault)


@dataclass(frozen=True, slots=True)
class Load:
    path: str
    body: Mapping[str, object]


class Client:
    """One request at a time, each chosen by its own sequence of random numbers."""

    def __init__(self, urls: Sequence[str], ledger: Ledger, seed: int) -> None:
        self._urls = itertools.cycle(urls)
        self._ledger = ledger
        self._choice = random.Random(seed)
        self._kinds: Mapping[Callable[[], None], int] = {
            self._wait_for_result: 6,
            self._ask_for_result: 6,
            self._cancel: 2,
            self._leave: 1,
        }

    def run(self) -> None:
        self._http = self._connect()
        try:
            while not self._ledger.is_full:
                time.sleep(self._choice.random() * _LONGEST_THOUGHT_S)
                act = self._choice.choices([*self._kinds], [*self._kinds.values()])[0]
                try:
                    act()
                except httpx.TransportError as error:
                    self._ledger.note(type(error).__name__)
                    time.sleep(_PAUSE_S)
        finally:
            self._http.close()

    def _connect(self) -> httpx.Client:
        return httpx.Client(timeout=_PATIENCE_S, trust_env=False)

    def _wait_for_result(self) -> None:
        load = self._load()
        started = time.monotonic()
        answer = self._post(load)
        self._ledger.note(f"waited: {answer.status_code}")
        if answer.status_code == httpx.codes.OK:
            self._ledger.promise(answer.headers["x-job-id"], "waited")
            self._ledger.note_wait(time.monotonic() - started)
            self._look_at(load, answer.json())
        else:
            self._expect_temporary(answer)

    def _ask_for_result(self) -> None:
        load = self._load()
        job_id = self._submit(load, "asked")
        if job_id is None:
            return
        started = time.monotonic()
        while time.monotonic() < started + _PATIENCE_S:
            job = self._job(job_id)
            if job is not None and job["status"] not in _UNFINISHED:
                self._ledger.note_end(job_id)
                self._ledger.note(f"asked: {job['status']}")
                self._ledger.note_wait(time.monotonic() - started)
                return
            time.sleep(0.02)
        self._ledger.blame(f"{job_id}: not over after {_PATIENCE_S:g} s")

    def _cancel(self) -> None:
        job_id = self._submit(self._load(), "canceled")
        if job_id is not None:
            time.sleep(self._choice.random() * 0.02)
            answer = self._http.post(f"{next(self._urls)}/v1/jobs/{job_id}/cancel")
            self._ledger.note(f"cancel: {answer.status_code}")
            if answer.is_success and answer.json()["status"] not in _UNFINISHED:
                self._ledger.note_end(job_id)

    def _leave(self) -> None:
        """Close the connection before the answer is there; nobody else asks for the same."""
        prompt = f"slow image {self._choice.getrandbits(64)}"
        body = {
            "prompt": prompt, "seed": 20, "size": "64x64", "num_inference_steps": _LEFT_STEPS
        }  # fmt: skip
        try:
            self._post(Load("/v1/images/generations", body), timeout=_LEAVES_AFTER_S)
        except httpx.TimeoutException:
            self._http.close()
            self._http = self._connect()
            self._ledger.leave(prompt)
            self._ledger.note("left")

    def _submit(self, load: Load, kind: str) -> str | None:
        answer = self._post(load, headers=_ASYNC)
        self._ledger.note(f"submit: {answer.status_code}")
        if answer.status_code != httpx.codes.ACCEPTED:
            self._expect_temporary(answer)
            return None
        job_id: str = answer.json()["id"]
        self._ledger.promise(job_id, kind)
        return job_id

    def _job(self, job_id: str) -> Mapping[str, object] | None:
        """None where the service does not answer now."""
        try:
            answer = self._http.get(f"{next(self._urls)}/v1/jobs/{job_id}")
        except httpx.TransportError:
            time.sleep(_PAUSE_S)
            return None
        if answer.status_code == httpx.codes.OK:
            job: Mapping[str, object] = answer.json()
            return job
        self._expect_temporary(answer)
        return None

    def _expect_temporary(self, answer: httpx.Response) -> None:
        if answer.status_code not in _TEMPORARY:
            self._ledger.blame(f"{answer.request.url}: {answer.status_code} {answer.text[:200]}")
        time.sleep(_PAUSE_S)

    def _post(
        self,
        load: Load,
        headers: Mapping[str, str] | None = None,
        timeout: float = _PATIENCE_S,
    ) -> httpx.Response:
        url = f"{next(self._urls)}{load.path}"
        return self._http.post(url, json=load.body, headers=headers, timeout=timeout)

    def _load(self) -> Load:
        kind = self._choice.randrange(3)
        number = self._choice.randrange(200)  # so that inputs repeat
        if kind == 0:
            return Load("/v1/classify", {"input": image((10 + number, 250, 10))})
        if kind == 1:
            return Load("/v1/embeddings", {"input": [f"text {number}", "and another"]})
        body = {
            "prompt": f"{'slow ' if number % 3 else ''}image {number % 5}",
            "seed": 20 + number,  # 13 cannot be decoded
            "n": 1 + number % 3,
            "size": "64x64",
            "num_inference_steps": 2 + number % 40,
            "response_format": "b64_json" if number % 2 else "url",
        }
        return Load("/v1/images/generations", body)

    def _look_at(self, load: Load, answer: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
        """Whether the result is whole."""
        found = answer["data"]
        wanted = {"/v1/embeddings": 2, "/v1/classify": 1}.get(load.path, load.body.get("n"))
        if len(found) != wanted:
            self._ledger.blame(f"{load.path}: {len(found)} results, not {wanted}")
        for each in found:
            if "b64_json" in each and not base64.b64decode(each["b64_json"]).endswith(_PNG_END):
                self._ledger.blame(f"{load.path}: an image without its end")


def send_load(urls: Sequence[str], num_clients: int, ledger: Ledger, seed: int) -> None:
    """Return once as many jobs are promised as the ledger wants."""
    clients = [Client(urls, ledger, seed * 1000 + i) for i in range(num_clients)]
    with ThreadPoolExecutor(num_clients) as pool:
        for future in [pool.submit(client.run) for client in clients]:
            future.result()
