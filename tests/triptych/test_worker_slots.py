"""Which workers are started where, as a table of pretended hosts."""

from collections.abc import Mapping, Sequence

import pytest

from triptych.errors import DeviceError, WorkersError
from triptych.host_devices import Gpu, Host
from triptych.worker_slots import WorkerSlot, plan_workers
from worker.contract.jobs import Task
from worker.model_specs import ModelSpec

GB = 10**9
SIZES = {"flux": 24 * GB, "vit": 1 * GB, "fnet": 2 * GB}
SPECS = (
    ModelSpec(name="flux", handle="./flux", task=Task.IMAGES),
    ModelSpec(name="vit", handle="./vit", task=Task.CLASSIFY),
    ModelSpec(name="fnet", handle="./fnet", task=Task.EMBEDDINGS),
)


def host(*free_gb: float | None, num_cores: int = 16) -> Host:
    """A host with a GPU for each number of free gigabytes; None: nvidia-smi cannot tell."""
    gpus = (
        Gpu(i, f"GPU-{i}", "NVIDIA H100", None if free is None else int(free * GB))
        for i, free in enumerate(free_gb)
    )
    return Host(tuple(gpus), num_cores)


def layout(
    on: Host,
    devices: Sequence[str] | None = None,
    num_workers: Mapping[Task, int] | None = None,
    specs: Sequence[ModelSpec] = SPECS,
    sizes: Mapping[str, int] = SIZES,
) -> dict[str, str]:
    """The device of each worker by name, such as images-0."""
    return {s.name: s.device for s in plan_workers(on, specs, sizes, devices, num_workers)}


def slot(slots: Sequence[WorkerSlot], name: str) -> WorkerSlot:
    return next(each for each in slots if each.name == name)


def test_without_a_gpu_each_task_has_one_worker_on_the_cpu() -> None:
    assert layout(host()) == {"images-0": "cpu", "classify-0": "cpu", "embeddings-0": "cpu"}


def test_one_gpu_with_room_for_all_has_all_workers() -> None:
    slots = plan_workers(host(80), SPECS, SIZES)
    assert {each.device for each in slots} == {"cuda:0"}
    assert [each.shortage for each in slots] == [None, None, None]


@pytest.mark.parametrize("free_gb", [24, 27])  # the second has room for one of the two
def test_small_models_go_to_the_cpu_where_the_images_models_leave_no_room(free_gb: int) -> None:
    slots = plan_workers(host(free_gb), SPECS, SIZES)
    assert slot(slots, "images-0").device == "cuda:0"
    embeddings = slot(slots, "embeddings-0")
    assert embeddings.device == "cpu"
    assert embeddings.shortage is not None
    assert embeddings.shortage.startswith("its models need 3.0 GB and the most that is free is ")
    assert slot(slots, "classify-0").device == ("cuda:0" if free_gb == 27 else "cpu")


def test_each_gpu_has_an_images_worker() -> None:
    assert layout(host(80, 80)) == {
        "images-0": "cuda:0",
        "images-1": "cuda:1",
        "classify-0": "cuda:0",
        "embeddings-0": "cuda:1",  # where more is left by then
    }
    eight = layout(host(*[80.0] * 8))
    assert [eight[f"images-{i}"] for i in range(8)] == [f"cuda:{i}" for i in range(8)]
    assert len(eight) == 10


def test_small_models_lie_where_most_is_free() -> None:
    uneven = layout(host(40, 141, 80))
    assert (uneven["classify-0"], uneven["embeddings-0"]) == ("cuda:1", "cuda:1")


def test_small_models_never_lie_where_they_do_not_fit_while_another_gpu_has_room() -> None:
    counts = {Task.CLASSIFY: 3}
    uneven = layout(host(24, 80), num_workers=counts)
    assert {uneven[f"classify-{i}"] for i in range(3)} == {"cuda:1"}


def test_a_gpu_whose_free_memory_is_not_told_is_taken_to_have_room() -> None:
    assert set(layout(host(None)).values()) == {"cuda:0"}


def test_a_model_of_unknown_size_counts_as_what_every_worker_needs() -> None:
    slots = plan_workers(host(1.9), SPECS, {})
    assert slot(slots, "images-0").device == "cuda:0"
    shortage = slot(slots, "classify-0").shortage
    assert shortage == "its models need 1.0 GB and the most that is free is 0.9 GB on cuda:0"


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (("cuda:3", "cuda:0"), {"cuda:0", "cuda:3"}),
        (("cuda:2",), {"cuda:2"}),
        (("cpu",), {"cpu"}),
    ],
)
def test_only_the_devices_that_were_given_are_used(
    devices: tuple[str, ...], expected: set[str]
) -> None:
    used = layout(host(80, 80, 80, 80), devices)
    assert set(used.values()) == expected
    assert [d for name, d in used.items() if name.startswith("images")] == list(devices)


def test_given_gpus_alone_the_cpu_is_not_used_and_the_shortage_is_told() -> None:
    slots = plan_workers(host(16, 24), SPECS, SIZES, devices=("cuda:0", "cuda:1"))
    classify = slot(slots, "classify-0")
    assert classify.device == "cuda:1"
    assert (
        classify.shortage == "its models need 2.0 GB and the most that is free is 0.0 GB on cuda:1"
    )


def test_given_the_cpu_beside_a_gpu_it_is_the_last_resort_alone() -> None:
    assert layout(host(24, 80), devices=("cuda:0", "cpu")) == {
        "images-0": "cuda:0",
        "classify-0": "cpu",
        "embeddings-0": "cpu",
    }


def test_workers_of_a_task_go_round_the_gpus() -> None:
    counts = {Task.IMAGES: 5, Task.CLASSIFY: 4}
    used = layout(host(80, 141, 80), num_workers=counts)
    assert [used[f"images-{i}"][-1] for i in range(5)] == ["0", "1", "2", "0", "1"]
    assert sorted(used[f"classify-{i}"][-1] for i in range(4)) == ["0", "1", "1", "2"]


def test_fewer_images_workers_than_gpus_leave_the_others_to_small_models() -> None:
    used = layout(host(80, 80), num_workers={Task.IMAGES: 1})
    assert used == {"images-0": "cuda:0", "classify-0": "cuda:1", "embeddings-0": "cuda:1"}


def test_images_workers_leave_the_memory_that_their_neighbours_need() -> None:
    slots = plan_workers(host(80, 80), SPECS, SIZES, num_workers={Task.CLASSIFY: 2})
    assert slot(slots, "classify-0").device == "cuda:0"
    assert slot(slots, "embeddings-0").device == "cuda:0"
    assert slot(slots, "images-0").share_bytes == (80 - 2 - 3) * GB
    assert slot(slots, "images-1").share_bytes == (80 - 2) * GB
    assert slot(slots, "classify-0").share_bytes is None
    assert {each.share_bytes for each in plan_workers(host(), SPECS, SIZES)} == {None}


def test_images_workers_of_one_gpu_divide_what_the_others_leave() -> None:
    slots = plan_workers(host(80), SPECS, SIZES, num_workers={Task.IMAGES: 3})
    shares = [slot(slots, f"images-{i}").share_bytes for i in range(3)]
    assert shares == [(80 - 2 - 3) * GB // 3] * 3


def test_an_images_worker_alone_on_its_gpu_takes_what_it_finds() -> None:
    slots = plan_workers(host(80), SPECS[:1], SIZES)
    assert slot(slots, "images-0").share_bytes is None


def test_images_models_that_take_turns_leave_the_gpu_to_the_others_as_well() -> None:
    three = [ModelSpec(name=f"flux {i}".replace(" ", "-"), handle="./x", task=Task.IMAGES)
             for i in range(3)]  # fmt: skip
    sizes = {**SIZES, **{spec.name: 34 * GB for spec in three}}
    slots = plan_workers(host(80), (*three, *SPECS[1:]), sizes)
    assert {each.device for each in slots} == {"cuda:0"}


def test_a_task_without_a_model_has_no_worker() -> None:
    assert layout(host(), specs=SPECS[1:2]) == {"classify-0": "cpu"}


def test_a_model_with_a_device_of_its_own_is_loaded_by_the_first_worker_alone() -> None:
    oil = ModelSpec(name="oil", handle="./oil", task=Task.IMAGES, device="cuda:1")
    slots = plan_workers(host(80, 80), (*SPECS, oil), {**SIZES, "oil": 24 * GB})
    assert slot(slots, "images-0").models == ("flux", "oil")
    assert slot(slots, "images-1").models == ("flux",)
    assert slot(slots, "classify-0").device == "cuda:0"  # oil takes its share of the other


def test_a_task_whose_default_model_has_a_device_has_one_worker_there() -> None:
    oil = ModelSpec(name="oil", handle="./oil", task=Task.IMAGES, device="cuda:1")
    slots = plan_workers(host(80, 80), (oil, *SPECS), {**SIZES, "oil": 24 * GB})
    images = [each for each in slots if each.task is Task.IMAGES]
    assert [(s.device, s.models) for s in images] == [("cuda:1", ("oil", "flux"))]
    assert slot(slots, "classify-0").device == "cuda:0"
    with pytest.raises(WorkersError, match="images=2, but the default model oil is for one worker"):
        plan_workers(host(80, 80), (oil, *SPECS), SIZES, num_workers={Task.IMAGES: 2})


def test_a_task_whose_models_all_have_devices_has_one_worker_that_follows_the_first() -> None:
    pinned = tuple(
        ModelSpec(name=name, handle="./x", task=Task.IMAGES, device=device)
        for name, device in (("a", "cuda:1"), ("b", "cuda:0"))
    )
    slots = plan_workers(host(80, 80), pinned, {})
    assert [(s.name, s.device, s.models) for s in slots] == [("images-0", "cuda:1", ("a", "b"))]
    two = plan_workers(host(80, 80), pinned, {}, num_workers={Task.IMAGES: 2})
    assert [each.models for each in two] == [("a", "b"), ("a", "b")]


@pytest.mark.parametrize(
    ("num_cores", "counts", "of_images", "of_others"),
    [
        (1, {}, 1, 1),
        (2, {}, 2, 2),
        (4, {}, 2, 2),
        (16, {}, 8, 4),
        (16, {Task.IMAGES: 2}, 4, 4),
        (16, {Task.IMAGES: 3}, 2, 4),
        (8, {Task.CLASSIFY: 6}, 4, 2),
        (2, {Task.IMAGES: 4}, 1, 2),
    ],
)
def test_the_images_workers_share_half_of_the_cores_and_the_others_the_other_half(
    num_cores: int, counts: Mapping[Task, int], of_images: int, of_others: int
) -> None:
    slots = plan_workers(host(num_cores=num_cores), SPECS, SIZES, num_workers=counts)
    assert {each.num_threads for each in slots if each.task is Task.IMAGES} == {of_images}
    assert {each.num_threads for each in slots if each.task is not Task.IMAGES} == {of_others}
    num_threads = sum(each.num_threads for each in slots)
    assert {each.shares_cores for each in slots} == {num_threads > num_cores}


def test_a_device_that_the_host_has_not_is_refused_with_those_that_it_has() -> None:
    with pytest.raises(
        DeviceError, match=r"^device: this host has no 'cuda:2'; it has cpu, cuda:0"
    ):
        plan_workers(host(80, 80), SPECS, SIZES, devices=("cuda:0", "cuda:2"))


def test_a_model_on_a_device_that_the_host_has_not_is_refused_by_name() -> None:
    vit = ModelSpec(name="vit", handle="./vit", task=Task.CLASSIFY, device="cuda:5")
    with pytest.raises(
        DeviceError, match=r"model vit: device: this host has no 'cuda:5'; it has cpu"
    ):
        plan_workers(host(), (vit,), SIZES)


def test_workers_for_a_task_without_models_are_refused() -> None:
    with pytest.raises(WorkersError, match="no model is served for images; there are models for"):
        plan_workers(host(), SPECS[1:], SIZES, num_workers={Task.IMAGES: 2})
