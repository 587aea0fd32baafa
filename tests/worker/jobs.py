"""Jobs as the service would submit them, with what a test does not care about filled in."""

import base64
import io
import time

from PIL import Image

from worker.contract.jobs import ClassifyJob, EmbeddingsJob, ImageJob, new_job_id


def image_job(
    prompt: str = "a red circle",
    seeds: tuple[int, ...] = (7,),
    num_steps: int = 4,
    deadline_at: float | None = None,
) -> ImageJob:
    return ImageJob(
        id=new_job_id(),
        model="flux_shapes",
        created_at=time.time(),
        deadline_at=deadline_at,
        prompt=prompt,
        seeds=seeds,
        width=64,
        height=96,
        num_steps=num_steps,
        guidance_scale=None,
        quality="medium",
    )


def with_fields(job: ImageJob, **fields: object) -> ImageJob:
    return job.model_copy(update=fields)


def classify_job(*images: str, top_k: int = 3) -> ClassifyJob:
    return ClassifyJob(
        id=new_job_id(), model="vit_shapes", created_at=time.time(), images=images, top_k=top_k
    )


def embeddings_job(*texts: str, deadline_at: float | None = None) -> EmbeddingsJob:
    return EmbeddingsJob(
        id=new_job_id(),
        model="f_net_shapes",
        created_at=time.time(),
        deadline_at=deadline_at,
        texts=texts,
    )


def image(
    colour: tuple[int, int, int] = (250, 10, 10), width: int = 8, file_format: str = "PNG"
) -> str:
    """An encoded image of one colour, in base64."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, 8), colour).save(buffer, file_format)
    return base64.b64encode(buffer.getvalue()).decode()
