"""LoRAs of hubs' repositories: the only one, or one by the name of its file."""

import pytest

from tests.models.presets.hubs.conftest import Client
from tests.models.presets.hubs.loopback import Loopback, Repository

STYLES = {
    ".gitattributes": b"",
    "README.md": b"read me",
    "ink.safetensors": b"ink",
    "sub/oil.safetensors": b"oil",
}
PEFT = {".gitattributes": b"", "adapter_config.json": b"{}", "adapter_model.safetensors": b"peft"}
HUBS = ["hf:org/{}", "modelscope:org/{}", "kaggle:org/{}/other/variant"]


@pytest.mark.parametrize("name", HUBS)
def test_the_only_lora_of_a_repository(hubs: Loopback, client: Client, name: str) -> None:
    repository = hubs.add(name.format("styles"), Repository(STYLES))

    file = client.fetch_lora(name.format("styles").replace(":", "://", 1))

    assert (file.name, file.read_bytes()) == ("ink.safetensors", b"ink")
    assert "sub/oil.safetensors" not in repository.num_downloads


@pytest.mark.parametrize("name", HUBS[:2])
@pytest.mark.parametrize("revision", ["", "@v1"])
def test_one_of_several_by_its_file(
    hubs: Loopback, client: Client, name: str, revision: str
) -> None:
    several = STYLES | {"pencil.safetensors": b"pencil"}
    hubs.add(name.format("several"), Repository(several, revisions={"v1": several}))
    handle = name.format("several").replace(":", "://", 1)

    file = client.fetch_lora(f"{handle}/sub/oil.safetensors{revision}")

    assert file.parts[-2:] == ("sub", "oil.safetensors")
    assert file.read_bytes() == b"oil"


@pytest.mark.parametrize("name", HUBS)
def test_pefts_configuration_comes_beside_its_weights(
    hubs: Loopback, client: Client, name: str
) -> None:
    hubs.add(name.format("peft"), Repository(PEFT))

    file = client.fetch_lora(name.format("peft").replace(":", "://", 1))

    assert file.read_bytes() == b"peft"
    assert (file.parent / "adapter_config.json").read_bytes() == b"{}"
