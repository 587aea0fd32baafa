"""Who may import whom: DESIGN's arrows, read from the sources."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("benchmarks", "models", "service", "tests", "training", "triptych", "worker")

# Per package: what of ours it may import, and what of others' it must not.
ALLOWED = {
    "service": ("service", "worker.contract", "models.presets"),
    "worker": ("worker", "models"),
    "models": ("models",),
}
FORBIDDEN = {
    "service": ("torch", "diffusers", "transformers"),
    "worker": ("fastapi", "starlette"),
    "worker/contract": ("torch", "diffusers", "transformers", "PIL", "numpy", "models"),
    "models": ("rq", "redis", "fastapi"),
}


def imports_of(package: str) -> Iterator[tuple[str, str]]:
    """File and full dotted name of every import, those inside functions too."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((str(path), alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
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


@pytest.mark.parametrize("family", ["flux", "vit", "fnet"])
def test_families_of_models_never_import_each_other(family: str) -> None:
    others = tuple(f"models.{name}" for name in ("flux", "vit", "fnet") if name != family)
    wrong = [(p, name) for p, name in imports_of(f"models/{family}") if is_within(name, others)]
    assert wrong == []


def test_what_is_known_of_keras_hubs_files_knows_no_family() -> None:
    families = tuple(f"models.{name}" for name in ("flux", "vit", "fnet"))
    wrong = [(p, name) for p, name in imports_of("models/keras") if is_within(name, families)]
    assert wrong == []


def test_the_service_starts_without_torch() -> None:
    program = (
        "import sys, service.main\n"
        "loaded = {'torch', 'diffusers', 'transformers', 'PIL', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {sorted(loaded)}' if loaded else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
