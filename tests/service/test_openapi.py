"""`openapi.yaml` is the app's own description; `make openapi` writes it."""

from service.openapi import DEFAULT_PATH, render


def test_the_file_equals_the_app() -> None:
    assert DEFAULT_PATH.read_text(encoding="utf-8") == render(), "run `make openapi`"


def test_errors_are_described_by_the_envelope() -> None:
    text = render()
    assert "ErrorEnvelope" in text
    assert "HTTPValidationError" not in text
