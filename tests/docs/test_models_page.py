"""The page about `models/`: its table is the table of presets, its examples run as they stand."""

import re
from pathlib import Path

import pytest

from models.presets import PRESETS, Preset

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
TEXT = PAGE.read_text(encoding="utf-8")
# The examples that need no network: others are marked "python network".
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def cells(preset: Preset) -> str:
    handle = "bundled" if preset.is_bundled else f"`{preset.handle}`"
    task = preset.task or ""
    count = f"{preset.num_parameters:,}"
    return f"| `{preset.name}` | {task} | {count} | {handle} | {preset.license} |"


def test_the_table_lists_the_presets_that_are_built_in() -> None:
    expected = "\n".join(
        (
            "| Preset | Task | Parameters | Handle | License |",
            "|---|---|---:|---|---|",
            *(cells(preset) for preset in PRESETS.values()),
        )
    )
    assert expected in TEXT, f"docs/models.md: its table should be\n{expected}"


def test_every_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page: dict[str, object] = {}  # what one example defines, the next ones use
    assert len(EXAMPLES) >= 10
    for example in EXAMPLES:
        line = TEXT[: TEXT.index(example)].count("\n")
        exec(compile("\n" * line + example, PAGE, "exec"), page)  # a traceback shows the page


def test_an_example_that_downloads_is_valid_too() -> None:
    for example in re.findall(r"^```python network\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        compile(example, PAGE, "exec")
