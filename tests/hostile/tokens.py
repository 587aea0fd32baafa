"""Altered signatures, event ids, cursors, ranges and keys, of a job and an image that there are.

`{job}`, `{image}`, `{exp}` and `{sig}` stand for these; `test_corpus.py` fills them in.
"""

from collections.abc import Mapping

from tests.hostile.cases import get, post_json

_SIGNED = "{image}?exp={exp}&sig={sig}"
_JOB = "/v1/jobs/{job}"

_FORGED: Mapping[str, str] = {
    "nothing": "{image}",
    "no_signature": "{image}?exp={exp}",
    "no_time": "{image}?sig={sig}",
    "empty": "{image}?exp=&sig=",
    "swapped": "{image}?exp={sig}&sig={exp}",
    "longer": "{image}?exp={exp}&sig={sig}A",
    "case": "{image}?exp={exp}&sig={SIG}",
    "null": "{image}?exp={exp}&sig=null",
    "array": "{image}?exp={exp}&sig[]={sig}",
    "zeros": "{image}?exp={exp}&sig=" + "0" * 64,
    "of_8_kib": "{image}?exp={exp}&sig=" + "a" * 8192,
    "nul_after": "{image}?exp={exp}&sig={sig}%00",
    "space_after": "{image}?exp={exp}&sig={sig}%20",
    "no_utf_8": "{image}?exp={exp}&sig=%ff%fe",
    "later": "{image}?exp=9999999999&sig={sig}",
    "later_by_a_digit": "{image}?exp={exp}0&sig={sig}",
    "zero_before": "{image}?exp=0{exp}&sig={sig}",
    "plus": "{image}?exp=%2B{exp}&sig={sig}",
    "fraction": "{image}?exp={exp}.0&sig={sig}",
    "exponent": "{image}?exp=1e12&sig={sig}",
    "never": "{image}?exp=inf&sig={sig}",
    "nan": "{image}?exp=nan&sig={sig}",
    "minus": "{image}?exp=-{exp}&sig={sig}",
    "digits_of_nobody": "{image}?exp=%D9%A1%D9%A2%D9%A3&sig={sig}",
    "huge": "{image}?exp=" + "9" * 5000 + "&sig={sig}",
    "another_image": "/v1/images/{job}-1-7.png?exp={exp}&sig={sig}",
    "another_format": "/v1/images/{job}-1-0.webp?exp={exp}&sig={sig}",
    "start_image": "/v1/images/{job}.start.png?exp={exp}&sig={sig}",
}
_EVENT_IDS: tuple[str, ...] = (
    "x",
    "null",
    "-1",
    "0",
    "1-",
    "-1-0",
    "1-0-0",
    "$",
    "+",
    "(1-0",
    "1.5-0",
    "1e3-0",
)
_EVENT_IDS += ("9" * 20 + "-0", "1-" + "9" * 20, "a" * 8192, "0x1-0", "1–0", "1-0;x")
_CURSORS: tuple[str, ...] = (
    "",
    "x",
    "job_",
    "../..",
    "{job}0",
    "%00",
    "%ff",
    "a" * 8192,
    "*",
)
_NO_RANGES: tuple[str, ...] = (
    "bytes",
    "bytes=",
    "bytes=-",
    "bytes=a-b",
    "lines=1-2",
    "bytes=2-1",
    "bytes=1-2,x",
)
_NO_RANGES += ("bytes=--1", "bytes=0x1-2", "bytes=1 -2", "x" * 8192)
_NOT_THERE = ("bytes=99999999-", "bytes=" + "9" * 18 + "-", "bytes=-0")
_QUERIES: tuple[str, ...] = (
    "limit=0",
    "limit=101",
    "limit=-1",
    "limit=x",
    "limit=1.5",
    "limit=" + "9" * 30,
)
_QUERIES += ("status=x", "status=queued,", "type=x", "limit=1&limit=2")

CASES = [
    *(get(f"url_{name}", path, 403, "invalid_signature") for name, path in _FORGED.items()),
    *(
        get(f"event_id_{id_[:20]}", f"{_JOB}/events", 400, "invalid_value", last_event_id=id_)
        for id_ in _EVENT_IDS
    ),
    get("event_id_of_the_future", f"{_JOB}/events", 204, last_event_id="9" * 19 + "-0"),
    *(
        get(f"cursor_{cursor[:20]}", f"/v1/jobs?after={cursor}", 400, "invalid_value")
        for cursor in _CURSORS
    ),
    get("cursor_that_is_not_listed", f"/v1/jobs?after=job_{'0' * 32}", 200),  # an empty page
    *(get(f"list_{query}", f"/v1/jobs?{query}", 400, "invalid_value") for query in _QUERIES),
    get("list_unknown", "/v1/jobs?caller=someone", 400, "unknown_parameter"),
    *(get(f"range_{value[:20]}", _SIGNED, 200, range=value) for value in _NO_RANGES),
    *(
        get(f"range_{value[:20]}", _SIGNED, 416, "range_not_satisfiable", range=value)
        for value in _NOT_THERE
    ),
    get("range_of_all", _SIGNED, 206, range="bytes=0-"),
    get("range_beyond_the_end", _SIGNED, 206, range="bytes=0-" + "9" * 18),
    get("ranges_of_one_byte_1000_times", _SIGNED, 200, range="bytes=" + ",".join(["0-0"] * 1000)),
    get("any_etag", _SIGNED, 304, if_none_match="*"),
    *(
        get(f"etag_{name}", _SIGNED, 200, if_none_match=value)
        for name, value in {"empty": "", "half": '"', "many": '"x",' * 2000, "odd": 'W/"'}.items()
    ),
    *(
        get(f"since_{name}", _SIGNED, 200, if_modified_since=value)
        for name, value in {
            "empty": "",
            "words": "soon",
            "year_0": "Thu, 01 Jan 0000 00:00:00 GMT",
        }.items()
    ),
    *(
        get(f"if_range_{name}", _SIGNED, 200, if_range=value, range="bytes=0-0")
        for name, value in {"other": '"x"', "weak": 'W/"x"', "words": "soon"}.items()
    ),
    *(
        post_json(f"vector_{name}", "/v1/embeddings", {"input": ids}, 400, code)
        for name, ids, code in (
            ("negative", [-1], "invalid_value"),
            ("beyond", [10**9], "invalid_value"),
            ("fraction", [1.5], "invalid_value"),
            ("true", [True], "invalid_value"),
            ("mixed", [1, "x"], "invalid_value"),
            ("empty", [[]], "invalid_value"),
            ("nested", [[[1]]], "invalid_value"),
            ("2_64", [2**64], "invalid_value"),
            ("null", [None], "invalid_value"),
        )
    ),
]
