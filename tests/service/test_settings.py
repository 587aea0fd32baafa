"""A bad setting stops the start and says what is allowed."""

import pytest
from pydantic import ValidationError

from service.settings import ServiceSettings


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPTYCH_MAX_QUEUE_DEPTH", "9")
    monkeypatch.setenv("TRIPTYCH_MODEL_ALIASES", '{"gpt-image-1": "flux_shapes"}')
    settings = ServiceSettings()
    assert settings.max_queue_depth == 9
    assert settings.model_aliases == {"gpt-image-1": "flux_shapes"}


def test_an_alias_may_be_a_default() -> None:
    aliases = {"gpt-image-1": "flux_shapes"}
    settings = ServiceSettings(model_aliases=aliases, default_image_model="gpt-image-1")
    assert settings.default_image_model == "gpt-image-1"


def test_models_are_a_list_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPTYCH_MODELS", "flux_dev, f_net_shapes,flux_dev")
    assert ServiceSettings().models == ("flux_dev", "f_net_shapes")


def test_a_default_must_be_served() -> None:
    with pytest.raises(ValidationError, match="'flux_shapes' is not one of flux_dev"):
        ServiceSettings(models=("flux_dev",), default_image_model="flux_shapes")


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("models", "nothing", "'nothing' is not one of flux_shapes"),
        ("models", "vit_huge_patch14_224_imagenet21k", "imagenet21k' is not one of flux_shapes"),
        ("models", "", "at least 1 item"),
        ("model_aliases", {"x": "flux_dev"}, "'flux_dev' is not one of flux_shapes, vit_shapes"),
        ("model_aliases", {"x": "nothing"}, "'nothing' is not one of flux_shapes"),
        ("model_aliases", {"vit_shapes": "flux_shapes"}, "already the name of a preset"),
        ("default_image_model", "vit_shapes", "'vit_shapes' is not one of flux_shapes"),
        ("default_embeddings_model", "x", "'x' is not one of f_net_shapes"),
        ("max_queue_depth", 0, "greater than or equal to 1"),
        ("port", 70000, "less than or equal to 65535"),
        ("colour", "red", "not permitted"),
    ],
)
def test_a_bad_setting_is_refused(field: str, value: object, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ServiceSettings.model_validate({field: value})
