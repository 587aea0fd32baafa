"""The command line as a user types it: what it lists, what it refuses, and how it says so."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from models.presets import PRESETS

ROOT = Path(__file__).parents[2]


def triptych(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "triptych", *arguments],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_models_lists_every_preset() -> None:
    done = triptych("models")
    assert done.returncode == 0
    listed = [line.split()[0] for line in done.stdout.splitlines()]
    assert listed == ["NAME", *PRESETS]


def test_models_says_what_each_preset_is_and_where_it_comes_from() -> None:
    rows = {line.split()[0]: line.split()[1:] for line in triptych("models").stdout.splitlines()}
    assert rows["vit_shapes"] == ["image-classification", "327,648", "apache-2.0", "bundled"]
    assert rows["flux_dev"] == [
        "text-to-image",
        "11,901,408,320",
        "flux-1-dev-non-commercial-license",
        "hf://black-forest-labs/FLUX.1-dev",
    ]
    assert rows["vit_huge_patch14_224_imagenet21k"][0] == "-"


def test_help_names_every_command() -> None:
    done = triptych("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("serve", "api", "worker", "generate", "models"))


def test_serve_refuses_a_taken_port_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = triptych("serve", "--port", port, "--data-dir", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == (
        f"triptych: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    )


def test_a_bad_setting_stops_the_start_with_its_name_and_value() -> None:
    done = triptych("serve", TRIPTYCH_PORT="many")
    assert done.returncode == 2
    assert done.stderr.startswith("triptych: port: got 'many': ")


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_queue_depth", "0"), ("lease_s", "-1"), ("redis_url", "http://somewhere")],
)
def test_a_bad_setting_of_a_child_stops_the_start_too(
    tmp_path: Path, name: str, value: str
) -> None:
    variable = f"TRIPTYCH_{name.upper()}"
    done = triptych("serve", "--data-dir", str(tmp_path / "new"), **{variable: value})
    assert done.returncode == 2
    assert done.stderr.startswith(f"triptych: {name}: got '{value}': ")
    assert not (tmp_path / "new").exists()


def test_a_bad_setting_of_a_child_in_the_file_stops_the_start_too(tmp_path: Path) -> None:
    file = tmp_path / "triptych.toml"
    file.write_text("memory_budget = 0\n")
    done = triptych("serve", "--data-dir", str(tmp_path / "new"), "--config", str(file))
    assert done.returncode == 2
    assert done.stderr.startswith("triptych: memory_budget: got 0: ")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("names", ["nothing", "flux_shapes,vit_base_patch16_224_imagenet21k"])
def test_serve_refuses_a_model_that_it_cannot_serve(tmp_path: Path, names: str) -> None:
    done = triptych("serve", "--data-dir", str(tmp_path / "new"), TRIPTYCH_MODELS=names)
    assert done.returncode == 2
    wrong = names.split(",")[-1]
    assert f"triptych: models: got {names!r}: {wrong!r} is not one of flux_shapes" in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_worker_without_a_model_for_its_queue_says_what_there_is() -> None:
    environment = {"TRIPTYCH_REDIS_URL": "redis://x", "TRIPTYCH_MODELS": "vit_shapes"}
    done = triptych("worker", "--queue", "embeddings", "--data-dir", "unused", **environment)
    assert done.returncode == 1
    assert done.stderr == "triptych: models: got vit_shapes (classify); none is for embeddings\n"


def test_serve_refuses_a_data_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    done = triptych("serve", "--port", port, "--data-dir", str(tmp_path / "file"))
    assert done.returncode == 1
    assert done.stderr == (
        f"triptych: cannot write in data directory {tmp_path / 'file'}: File exists\n"
    )


def test_generate_refuses_a_missing_directory_before_it_paints(tmp_path: Path) -> None:
    done = triptych("generate", "a red circle", "-o", str(tmp_path / "none" / "a.png"))
    assert done.returncode == 2
    assert "does not exist" in done.stderr


def test_a_flag_wins_over_the_environment() -> None:
    done = triptych("serve", "--port", "0", TRIPTYCH_PORT="8000")
    assert done.returncode == 2
    assert done.stderr.startswith("triptych: port: got 0: ")


def test_serve_refuses_devices_and_workers_that_make_no_sense_in_one_line_each() -> None:
    done = triptych("serve", "--device", "gpu", "--workers", "images=0")
    assert done.returncode == 2
    device, workers = done.stderr.splitlines()
    assert device.startswith("triptych: device: got 'gpu': 'gpu' is not auto, cpu or cuda:N, nor")
    assert workers.startswith("triptych: workers.images: got '0': Input should be greater than")


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--device", "cpu,cuda:99"), "device: this host has no 'cuda:99'; it has cpu"),
        (
            ("--workers", "images=2", "--model", "vit_shapes"),
            "workers: no model is served for images; there are models for classify",
        ),
    ],
)
def test_serve_refuses_what_this_host_or_its_models_do_not_fit(
    tmp_path: Path, flags: tuple[str, ...], complaint: str
) -> None:
    done = triptych("serve", "--data-dir", str(tmp_path / "new"), *flags)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"triptych: {complaint}")
    assert not (tmp_path / "new").exists()


def test_a_worker_without_a_redis_url_says_what_is_missing() -> None:
    done = triptych("worker", "--queue", "images", "--data-dir", "unused")
    assert done.returncode == 2
    assert done.stderr == "triptych: redis_url: Field required\n"


def test_generate_refuses_a_size_before_it_loads_anything() -> None:
    done = triptych("generate", "a red circle", "--size", "100x128")
    assert done.returncode == 2
    assert 'size: got "100x128": width 100 is not a multiple of 16' in done.stderr


def test_generate_refuses_a_device_that_is_not_there_in_one_line() -> None:
    done = triptych("generate", "a red circle", "--device", "cuda:99")
    assert done.returncode == 1
    assert done.stderr.startswith("triptych: device: 'cuda:99'")
    assert "Traceback" not in done.stderr


def test_generate_says_in_words_that_weights_are_out_of_reach(tmp_path: Path) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = triptych("generate", "a red circle", "--model", "flux_schnell", **offline)
    assert done.returncode == 1
    assert done.stderr.startswith("triptych: hf://black-forest-labs/FLUX.1-schnell: ")
    assert "Traceback" not in done.stderr
