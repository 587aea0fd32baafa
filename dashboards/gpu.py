"""The GPUs, as NVML and PyTorch see them; empty where there is no NVIDIA GPU."""

from dashboards.board import Board, Row
from dashboards.panels import (
    BYTES,
    CELSIUS,
    COUNT,
    JOULES,
    OF_INSTANCE,
    OF_MODEL,
    RATIO,
    WATTS,
    Query,
    lines,
    rate,
    with_limit,
)


def board() -> Board:
    return Board(
        "gpu",
        "GPU",
        "NVIDIA GPUs; empty where workers run on the CPU. Several workers share a GPU: what is the "
        "GPU's is shown once, what is a process's is added up.",
        (_memory(), _work(), _health()),
    )


def _memory() -> Row:
    return Row(
        "Memory",
        (
            lines(
                "How full is the memory?",
                "used stays below total.",
                "if other programs' memory is in it (more than the next panel shows), move them.",
                Query(_of_gpu("memory_used_bytes"), "{{gpu}} used"),
                Query(_of_gpu("memory_total_bytes"), "{{gpu}} total"),
            ).unit(BYTES),
            lines(
                "How much do our processes hold?",
                "level once all models are there; peak is what a batch needed on top.",
                "a peak near the total: the next larger batch runs out of memory.",
                Query(_of_processes("memory_reserved_bytes"), "{{gpu}} reserved"),
                Query(_of_processes("memory_peak_bytes"), "{{gpu}} peak"),
            ).unit(BYTES),
            lines(
                "Who ran out of memory?",
                "nobody.",
                "runbook: TriptychGpuOutOfMemory.",
                Query(
                    "sum by (model) (increase("
                    f"triptych_gpu_out_of_memory_total{{{OF_MODEL}}}[$__rate_interval]))",
                    "{{model}}",
                ),
            ).unit(COUNT),
        ),
    )


def _work() -> Row:
    watts = _of_gpu("power_watts")
    images = rate("triptych_images_generated_total", OF_INSTANCE)
    return Row(
        "Work",
        (
            lines(
                "How busy are the GPUs?",
                "near 100 % under load.",
                "low while jobs wait: the CPU, the disk or Redis is what they wait for.",
                Query(_of_gpu("utilization_ratio"), "{{gpu}}"),
            )
            .unit(RATIO)
            .max(1),
            lines(
                "How much power do they draw?",
                "near the card's limit under load.",
                "far less at full utilization: small kernels, or a throttled card.",
                Query(watts, "{{gpu}}"),
            ).unit(WATTS),
            lines(
                "What does an image cost?",
                "level for the same sizes and steps. It counts all that the GPUs do.",
                "a rise: idle GPUs, smaller batches, or more pixels and steps an image.",
                Query(
                    "sum(max by (gpu) (rate(triptych_gpu_energy_joules_total"
                    f"{{{OF_INSTANCE}}}[$__rate_interval]))) / ({images} > 0)",
                    "energy an image",
                ),
            ).unit(JOULES),
        ),
    )


def _health() -> Row:
    return Row(
        "Health",
        (
            with_limit(
                lines(
                    "How hot are they?",
                    "below 85 °C (dashed).",
                    "hotter, the card slows itself down: see to its cooling.",
                    Query(_of_gpu("temperature_celsius"), "{{gpu}}"),
                ),
                85,
            )
            .unit(CELSIUS)
            .span(12),
            lines(
                "Has their memory errors?",
                "none.",
                "runbook: TriptychGpuEccErrors.",
                Query(
                    "max by (gpu) (increase("
                    f"triptych_gpu_ecc_errors_total{{{OF_INSTANCE}}}[$__rate_interval]))",
                    "{{gpu}}",
                ),
            )
            .unit(COUNT)
            .span(12),
        ),
    )


def _of_gpu(name: str) -> str:
    return f"max by (gpu) (triptych_gpu_{name}{{{OF_INSTANCE}}})"


def _of_processes(name: str) -> str:
    return f"sum by (gpu) (triptych_gpu_{name}{{{OF_INSTANCE}}})"
