"""Who may import whom: DESIGN's arrows, read from the sources."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from models.presets.handles import HUBS
from models.presets.table import FAMILIES
from worker.contract.tracing import EXPORTING

ROOT = Path(__file__).parents[1]
OURS = ("benchmarks", "dashboards", "models", "service", "tests", "training", "triptych", "worker")

# Per package: what of ours it may import, and what of others' it must not.
ALLOWED = {
    "dashboards": ("dashboards",),
    "service": ("service", "worker.contract"),
    "worker": ("worker", "models"),
    "models": ("models",),
}
FORBIDDEN = {
    "service": ("torch", "diffusers", "transformers"),
    "worker": ("fastapi", "starlette"),
    "worker/contract": ("torch", "diffusers", "transformers", "PIL", "numpy", "models"),
    "models": ("rq", "redis", "fastapi"),
}
# The parts of `models`, from those that everything may use upwards; `__init__` is for users.
LEVELS = (
    ("errors",),
    ("layers",),
    ("execution",),
    ("checkpoints",),
    ("keras",),
    ("presets",),
    ("backbone",),
    ("flux", "vit", "fnet"),
    ("load",),
)
FAMILIES_LEVEL = LEVELS[7]


def imports_of(package: str) -> Iterator[tuple[str, str]]:
    """File and full dotted name of every import, those inside functions too."""
    file = (ROOT / package).with_suffix(".py")
    for path in [file] if file.is_file() else sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((str(path), alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                yield from ((str(path), f"{node.module}.{alias.name}") for alias in node.names)


def is_within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_of_ours_only_what_the_arrows_allow(package: str) -> None:
    wrong = [
        (path, name)
        for path, name in imports_of(package)
        if is_within(name, OURS) and not is_within(name, ALLOWED[package])
    ]
    assert wrong == []


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_stays_free_of_what_it_must_not_know(package: str) -> None:
    wrong = [(p, name) for p, name in imports_of(package) if is_within(name, FORBIDDEN[package])]
    assert wrong == []


@pytest.mark.parametrize("family", FAMILIES_LEVEL)
def test_families_of_models_never_import_each_other(family: str) -> None:
    others = tuple(f"models.{name}" for name in FAMILIES_LEVEL if name != family)
    wrong = [(p, name) for p, name in imports_of(f"models/{family}") if is_within(name, others)]
    assert wrong == []


def test_models_import_only_downwards() -> None:
    wrong = []
    for i, level in enumerate(LEVELS):
        allowed = tuple(f"models.{name}" for lower in LEVELS[: i + 1] for name in lower)
        imports = [found for name in level for found in imports_of(f"models/{name}")]
        wrong += [
            (path, name)
            for path, name in imports
            if is_within(name, ("models",)) and not is_within(name, allowed)
        ]
    assert wrong == []


def test_every_part_of_models_has_its_level() -> None:
    files = (ROOT / "models").rglob("*.py")
    parts = {path.relative_to(ROOT / "models").parts[0].removesuffix(".py") for path in files}
    assert parts - {"__init__"} == {name for level in LEVELS for name in level}


def test_what_is_imported_by_name_exists() -> None:
    readers = re.findall(r'"(models\.[\w.]+)"', (ROOT / "models/presets/formats.py").read_text())
    hubs = [module for module, _ in HUBS.values()]
    assert len(readers) == 4
    for module in (*readers, *hubs, *FAMILIES.values()):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file(), module


@pytest.mark.parametrize("package", OURS)
def test_no_file_imports_itself_through_others(package: str) -> None:
    modules = {name_of(path) for path in (ROOT / package).rglob("*.py")}
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for path, name in imports_of(package):
        target = name if name in modules else name.rpartition(".")[0]
        if target in modules:
            graph[name_of(Path(path))].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_what_sends_spans_is_imported_by_tracing_alone() -> None:
    senders = {
        (name_of(Path(path)), is_within(name, ("opentelemetry",)))
        for package in ("models", "service", "triptych", "worker")
        for path, name in imports_of(package)
        if is_within(name, ("opentelemetry", EXPORTING))
    }
    assert senders == {(EXPORTING, True), ("worker.contract.tracing", False)}


@pytest.mark.parametrize(
    ("process", "not_needed"),
    [
        ("service.main", {"torch", "diffusers", "transformers", "PIL", "numpy", EXPORTING}),
        ("models.flux.text_to_image", {"diffusers", "transformers", "torch._dynamo"}),
        (
            "triptych.supervisor",
            {"torch", "numpy", "fastapi", "prometheus_client", "httpx", "huggingface_hub"},
        ),
    ],
)
def test_a_process_starts_without_what_it_does_not_need(process: str, not_needed: set[str]) -> None:
    program = (
        f"import sys, {process}\n"
        f"loaded = {not_needed} & set(sys.modules)\n"
        "sys.exit(f'loaded: {sorted(loaded)}' if loaded else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
