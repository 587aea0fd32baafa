"""Paths that try to leave where names lie, and methods that no route has."""

from tests.hostile.cases import Case, get

_JOB = "job_" + "0" * 32

# As the client sends them. What is decoded to a slash makes a path of its own, which is none.
_TRAVERSALS = {
    "dots": "..%2f..%2f..%2fetc%2fpasswd",
    "dots_doubled": "....%2f%2f....%2f%2fetc%2fpasswd",
    "escaped_twice": "%252e%252e%252fetc%252fpasswd",
    "escaped_dots": "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "backslashes": "..%5c..%5cwindows%5cwin.ini",
    "overlong": "%c0%ae%c0%ae%c0%afetc%c0%afpasswd",
    "full_width": "%ef%bc%8e%ef%bc%8e%ef%bc%8fetc",
    "division_slash": "..%e2%88%95..%e2%88%95etc",
    "nul": "x%00",
    "absolute": "%2fetc%2fpasswd",
    "drive": "c:%5cwindows",
    "url": "file:%2f%2f%2fetc%2fpasswd",
    "newline": "x%0d%0aset-cookie:a=b",
    "tab": "x%09y",
    "no_utf_8": "%ff%fe",
    "surrogate": "%ed%a0%80",
    "percent": "100%25",
    "half_an_escape": "x%2",
    "wildcard": "*",
    "redis_key": "triptych:job:*",
    "star_star": "**%2f*",
    "semicolon": "x;jsessionid=1",
    "tilde": "~root",
    "device": "%2fdev%2fzero",
    "proc": "%2fproc%2fself%2fenviron",
    "of_8_kib": "x" * 8192,
}
_SLASHES = {
    *("dots", "dots_doubled", "escaped_dots", "absolute", "url", "star_star", "device", "proc"),
}


def _missing(name: str, code: str) -> str:
    return "not_found" if name in _SLASHES else code


CASES = [
    *(
        get(f"job_{name}", f"/v1/jobs/{path}", 404, _missing(name, "job_not_found"))
        for name, path in _TRAVERSALS.items()
    ),
    *(
        get(f"events_{name}", f"/v1/jobs/{path}/events", 404, _missing(name, "job_not_found"))
        for name, path in _TRAVERSALS.items()
    ),
    *(
        get(f"model_{name}", f"/v1/models/{path}", 404, "model_not_found")
        for name, path in _TRAVERSALS.items()
        if name != "newline"
    ),
    *(
        get(f"image_{name}", f"/v1/images/{path}.png", 403, "invalid_signature")
        for name, path in _TRAVERSALS.items()
        if name not in _SLASHES
    ),
    *(
        get(f"image_{name}", f"/v1/images/{path}.png", 404, "not_found")
        for name, path in _TRAVERSALS.items()
        if name in _SLASHES
    ),
    *(
        Case(f"cancel_{name}", "POST", f"/v1/jobs/{_JOB}{tail}", 404, code)
        for name, tail, code in (
            ("unknown", "/cancel", "job_not_found"),
            ("slash_after", "/cancel/", "not_found"),
            ("slash_twice", "//cancel", "not_found"),
            ("upper_case", "/CANCEL", "not_found"),
        )
    ),
    *(
        Case(f"method_{method}", method, "/v1/models", 405, "method_not_allowed")
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
    ),
    *(
        get(f"path_{name}", path, 404, "not_found")
        for name, path in {
            "git": "/.git/config",
            "environment": "/.env",
            "double_slash": "//v1/models",
            "upper_case": "/V1/MODELS",
            "slash_after": "/healthz/",
            "newline": "/v1/models/x%0d%0aset-cookie:a=b",
            "admin": "/admin",
            "php": "/index.php?x=/etc/passwd",
            "asterisk": "/*",
            "of_16_kib": "/" + "a" * 16_384,
        }.items()
    ),
]
