"""The page's scripts as TypeScript sees them, by the types in their comments."""

import shutil
from pathlib import Path

from service.playground_files import FOLDER
from tests.node import type_errors

NODE_MODULES = Path(__file__).parent / "node_modules"
OPTIONS = (
    *("--allowJs", "--checkJs"),
    *("--noUnusedLocals", "--noUnusedParameters", "--noImplicitReturns"),
    *("--target", "es2023", "--lib", "es2023,dom,dom.iterable,dom.asynciterable"),
    *("--module", "esnext", "--moduleResolution", "bundler"),
)


def complaints(folder: Path) -> str:
    return type_errors(NODE_MODULES, *OPTIONS, *sorted(map(str, folder.glob("*.js"))))


def test_the_scripts_keep_their_types() -> None:
    assert complaints(FOLDER) == ""


MISTAKES = {  # by file: what is right, and what is not
    "read.js": ("mapCard(texts, vectors, query)", "mapCard(texts, query)"),
    "see.js": ('byId("see-top-k", HTMLInputElement).max', 'byId("see-top-k", HTMLElement).max'),
    "api.js": ("this.status = status", "this.status = param"),
}


def test_wrong_types_are_found(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    for file, (right, wrong) in MISTAKES.items():
        text = (FOLDER / file).read_text()
        assert right in text
        (tmp_path / file).write_text(text.replace(right, wrong))
    said = complaints(tmp_path)
    assert [file for file in MISTAKES if f"{file}(" not in said] == []
