"""`triptych generate`: one picture in this process, without a server."""

from pathlib import Path

from tqdm import tqdm

from models.flux.text_to_image import TextToImage
from models.load import load_pipeline
from models.presets import get_preset
from worker.contract.jobs import ImageJob
from worker.images import encode_png


def paint(job: ImageJob, device: str, output: Path) -> None:
    """Paint with a progress bar and write a PNG that carries its parameters."""
    pipeline = load_pipeline(job.model, device=device)
    assert isinstance(pipeline, TextToImage), f"this is a bug: {job.model} does not paint"
    limits = get_preset(job.model).image_limits
    assert limits is not None, f"this is a bug: {job.model} has no limits"
    text = pipeline.encode([job.prompt], limits.max_sequence_length)
    size = (job.width, job.height)
    steps = pipeline.denoise(text, job.seeds, *size, job.num_steps, job.guidance_scale)
    for step in tqdm(steps, total=job.num_steps, desc="denoise", unit="step"):
        patches = step.patches
    output.write_bytes(encode_png(pipeline.decode(patches, *size)[0], job, job.seeds[0]))
