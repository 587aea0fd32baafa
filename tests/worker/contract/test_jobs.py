"""The wire format: what stands in Redis today must be readable tomorrow."""

import pytest

from worker.contract.jobs import (
    JOB,
    RESULT,
    ClassifyJob,
    ClassifyResult,
    EmbeddingsJob,
    EmbeddingsResult,
    Failure,
    FailureCode,
    Image,
    ImageJob,
    ImageResult,
    JobState,
    LoraScale,
    NegativePrompt,
    Prediction,
    StartImage,
    new_job_id,
)
from worker.contract.record import AnyJob, AnyResult

JOBS: list[tuple[AnyJob, str]] = [
    (
        ImageJob(
            id="job_1", model="m", created_at=1.5, prompt="p", seeds=(1, 2), width=64, height=32,
            num_steps=4, guidance_scale=None, quality="low",
        ),
        '{"id":"job_1","model":"m","created_at":1.5,"deadline_at":null,"caller":"",'
        '"priority":"normal","metadata":{},"end_user":null,"request_id":null,"traceparent":null,'
        '"tracestate":null,"task":"images",'
        '"prompt":"p","seeds":[1,2],"width":64,"height":32,"num_steps":4,"guidance_scale":null,'
        '"quality":"low","loras":[],"negative":null,"start":null,"preview_steps":[],'
        '"max_sequence_length":null,"flow_shift":null,"output_format":"png",'
        '"output_compression":100}',
    ),
    (
        ImageJob(
            id="job_1", model="m", created_at=1.5, prompt="p", seeds=(1,), width=64, height=32,
            num_steps=4, guidance_scale=3.5, quality="low",
            loras=(LoraScale(name="ink", scale=0.5),),
            negative=NegativePrompt(prompt="q", true_cfg_scale=2.0),
            start=StartImage(file_name="job_1.start", strength=0.6),
            max_sequence_length=64, flow_shift=3.0, output_format="webp", output_compression=80,
        ),
        '{"id":"job_1","model":"m","created_at":1.5,"deadline_at":null,"caller":"",'
        '"priority":"normal","metadata":{},"end_user":null,"request_id":null,"traceparent":null,'
        '"tracestate":null,"task":"images",'
        '"prompt":"p","seeds":[1],"width":64,"height":32,"num_steps":4,"guidance_scale":3.5,'
        '"quality":"low","loras":[{"name":"ink","scale":0.5}],'
        '"negative":{"prompt":"q","true_cfg_scale":2.0},'
        '"start":{"file_name":"job_1.start","strength":0.6},"preview_steps":[],'
        '"max_sequence_length":64,"flow_shift":3.0,"output_format":"webp",'
        '"output_compression":80}',
    ),
    (
        ClassifyJob(
            id="job_2", model="m", created_at=1.5, deadline_at=2.0, caller="a1", priority="high",
            images=("YQ==",), top_k=5,
        ),
        '{"id":"job_2","model":"m","created_at":1.5,"deadline_at":2.0,"caller":"a1",'
        '"priority":"high","metadata":{},"end_user":null,"request_id":null,"traceparent":null,'
        '"tracestate":null,"task":"classify",'
        '"images":["YQ=="],"top_k":5,"function":"softmax","labels":null,"includes_scores":false}',
    ),
    (
        EmbeddingsJob(id="job_3", model="m", created_at=1.5, texts=("a", (4, 5))),
        '{"id":"job_3","model":"m","created_at":1.5,"deadline_at":null,"caller":"",'
        '"priority":"normal","metadata":{},"end_user":null,"request_id":null,"traceparent":null,'
        '"tracestate":null,"task":"embeddings",'
        '"texts":["a",[4,5]],"pooling":"mean","normalizes":true,"truncates":false,'
        '"truncation_side":"right"}',
    ),
]  # fmt: skip

RESULTS: list[tuple[AnyResult, str]] = [
    (
        ImageResult(
            images=(Image(file_name="a-1-0.png", seed=1, width=64, height=32, num_bytes=9),),
            num_text_tokens=3,
            is_prompt_truncated=False,
            num_patches=8,
        ),
        '{"task":"images","images":[{"file_name":"a-1-0.png","seed":1,"width":64,"height":32,'
        '"num_bytes":9}],"num_text_tokens":3,'
        '"is_prompt_truncated":false,"num_patches":8}',
    ),
    (
        ClassifyResult(predictions=((Prediction(label="red", class_id=0, score=0.5),),)),
        '{"task":"classify","predictions":[[{"label":"red","class_id":0,"score":0.5}]],'
        '"scores":null}',
    ),
    (
        EmbeddingsResult(embeddings=("AACAPw==",), num_tokens=3),
        '{"task":"embeddings","embeddings":["AACAPw=="],"num_tokens":3,"truncated":[]}',
    ),
]


@pytest.mark.parametrize(("job", "text"), JOBS)
def test_the_json_of_each_job_stays_what_it_is(job: AnyJob, text: str) -> None:
    assert job.model_dump_json() == text
    assert JOB.validate_json(text) == job


@pytest.mark.parametrize(
    ("job", "text", "later"),
    [
        (*JOBS[0], ',"loras":[],"negative":null,"start":null'),
        *((*each, ',"end_user":null') for each in JOBS),
    ],
)
def test_a_job_without_the_later_fields_is_readable(job: AnyJob, text: str, later: str) -> None:
    earlier = text.replace(later, "")
    assert len(earlier) < len(text)
    assert JOB.validate_json(earlier) == job


@pytest.mark.parametrize(("result", "text"), RESULTS)
def test_the_json_of_each_result_stays_what_it_is(result: AnyResult, text: str) -> None:
    assert result.model_dump_json() == text
    assert RESULT.validate_json(text) == result


def test_the_json_of_a_failure_stays_what_it_is() -> None:
    failure = Failure(code=FailureCode.INVALID_IMAGE, message="m", param="input[0]")
    assert failure.model_dump_json() == '{"code":"invalid_image","message":"m","param":"input[0]"}'


def test_queued_and_running_are_the_states_that_are_not_final() -> None:
    assert [state for state in JobState if not state.is_final] == ["queued", "running"]


def test_job_ids_are_long_and_fit_rq() -> None:
    first, second = new_job_id(), new_job_id()
    assert first != second
    assert len(first) == len("job_") + 32
    assert first.replace("_", "").isalnum()
