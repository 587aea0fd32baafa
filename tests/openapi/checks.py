"""What schemathesis checks beyond its own checks; its `SCHEMATHESIS_HOOKS` names this module."""

from typing import Any

import schemathesis

# Said of the shape of a body alone, which the description tells in full. What a value may be also
# depends on the model and on other fields.
_MALFORMED = {"invalid_json", "unknown_parameter"}

# The body of these has the shape that the task of the model wants; that no schema can say.
_OF_SEVERAL_SHAPES = {"infer", "infer_by_default"}

_NOT_THE_ROUTES = {404: "not_found", 405: "method_not_allowed"}  # the path, or method, is another


@schemathesis.check
def documented_error_code(
    _: schemathesis.CheckContext, response: schemathesis.Response, case: "schemathesis.Case[Any]"
) -> None:
    """An error's code is one of those that the description lists for its status."""
    status = response.status_code
    if status < 400 or case.method == "HEAD":  # whose answer has no body
        return
    code = response.json()["error"]["code"]
    documented = case.operation.definition.raw["responses"].get(str(status), {})
    codes = documented.get("content", {}).get("application/json", {}).get("examples", {})
    assert code in codes or code == _NOT_THE_ROUTES.get(status), (
        f"{status} {code} is not described; described: {', '.join(codes)}"
    )


@schemathesis.check
def valid_request_is_not_called_malformed(
    _: schemathesis.CheckContext, response: schemathesis.Response, case: "schemathesis.Case[Any]"
) -> None:
    raw, meta = case.operation.definition.raw, case.meta
    if raw["operationId"] in _OF_SEVERAL_SHAPES:
        return
    if response.status_code == 400 and meta and meta.generation.mode.is_positive:
        code = response.json()["error"]["code"]
        assert code not in _MALFORMED, f"a request of the description's shape is refused as {code}"
