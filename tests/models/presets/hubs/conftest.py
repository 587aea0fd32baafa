"""The loopback hubs, and clients of them: each a process with an environment of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from models.presets.handles import Part
from tests.models.presets.hubs import protocols
from tests.models.presets.hubs.loopback import TOKEN, Loopback

ROOT = Path(__file__).parents[4]
MAX_FILE_BYTES = "MAX_FILE_BYTES"  # read by `fetching`
NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody listens
READ_BY_CLIENTS = ("HF_", "HUGGING", "KAGGLE", "MODELSCOPE", "XDG_", "http", "HTTP", "no_", "NO_")


class Client:
    """A process that fetches; started by the first fetch."""

    def __init__(self, home: Path, url: str, settings: Mapping[str, str]) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(READ_BY_CLIENTS)}
        self._environment = kept | _environment(home, url) | dict(settings)
        self._process: subprocess.Popen[str] | None = None

    def load(self, preset: str, load_weights: bool = True) -> dict[str, str]:
        """Load a backbone; give its class, and the SHA-256 of all its parameters."""
        return self._ask({"load": preset, "load_weights": load_weights})

    def fetch(self, preset: str, part: Part = Part.BACKBONE) -> Path:
        answer = self._ask({"preset": preset, "part": part})
        assert "path" in answer, answer
        return Path(answer["path"])

    def fetch_lora(self, source: str) -> Path:
        answer = self._ask({"lora": source})
        assert "path" in answer, answer
        return Path(answer["path"])

    def progress(self, preset: str, part: Part) -> str:
        """Fetch; give what was told last on the way, as DONE/TOTAL bytes."""
        return self._ask({"preset": preset, "part": part})["progress"]

    def fail(self, preset: str, part: Part = Part.BACKBONE) -> tuple[str, str]:
        """Fetch what cannot be fetched; give the name of the error and its message."""
        answer = self._ask({"preset": preset, "part": part})
        assert "error" in answer, answer
        return answer["error"], answer["message"]

    def _ask(self, question: Mapping[str, object]) -> dict[str, str]:
        if self._process is None:
            command = [sys.executable, "-m", "tests.models.presets.hubs.fetching"]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdin=pipe, stdout=pipe, text=True
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer: dict[str, str] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()


def _environment(home: Path, url: str) -> dict[str, str]:
    return {
        "HOME": str(home),
        "PYTHONWARNINGS": "error",
        "TQDM_DISABLE": "1",
        "HF_ENDPOINT": url,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_VERBOSITY": "error",
        # Kaggle's client knows no address but its own and http://localhost: the hub is its proxy.
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "HTTP_PROXY": url,
        "NO_PROXY": "127.0.0.1",
        "KAGGLEHUB_VERBOSITY": "critical",
        "MODELSCOPE_ENDPOINT": url,
        "MODELSCOPE_LOG_LEVEL": "CRITICAL",
        "MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS": "1",
    }


@pytest.fixture(scope="session")
def hubs() -> Iterator[Loopback]:
    with Loopback((protocols.hugging_face, protocols.kaggle, protocols.modelscope)) as loopback:
        yield loopback


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all clients have their caches."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def client(hubs: Loopback, home: Path) -> Iterator[Client]:
    client = Client(home, hubs.url, {})
    yield client
    client.close()


@pytest.fixture(scope="session")
def client_with_token(hubs: Loopback, home: Path) -> Iterator[Client]:
    names = ("HF_TOKEN", "KAGGLE_API_TOKEN", "MODELSCOPE_API_TOKEN")
    client = Client(home, hubs.url, dict.fromkeys(names, TOKEN))
    yield client
    client.close()


@pytest.fixture(scope="session")
def client_without_network(home: Path) -> Iterator[Client]:
    client = Client(home, NOWHERE, {})
    yield client
    client.close()


@pytest.fixture(scope="session")
def offline_client(hubs: Loopback, home: Path) -> Iterator[Client]:
    """HF_HUB_OFFLINE with the hub there: a request would show."""
    client = Client(home, hubs.url, {"HF_HUB_OFFLINE": "1"})
    yield client
    client.close()


@pytest.fixture
def client_on_a_small_disk(hubs: Loopback, tmp_path: Path) -> Iterator[Client]:
    client = Client(tmp_path, hubs.url, {MAX_FILE_BYTES: "50000"})
    yield client
    client.close()
