"""Fields for an image that hold a URL: this service fetches none, whatever it is disguised as."""

from tests.hostile.cases import post_json

# All of them are this machine, or what it alone can reach.
_FETCHED = [
    "http://127.0.0.1/x.png",
    "http://127.0.0.1:6379/",
    "http://localhost/x.png",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://0/",
    "http://0.0.0.0/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]/",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "http://localtest.me/",
    "http://127.0.0.1.nip.io/",
    "http://169.254.169.254/latest/meta-data/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://evil.example@127.0.0.1/",
    "http://127.0.0.1#@evil.example/",
    "http://127.0.0.1%00.evil.example/",
    "https://evil.example/redirect?to=http://127.0.0.1/",
    "HTTP://127.0.0.1/",
    "hTTps://127.0.0.1/",
    " http://127.0.0.1/",
    "http:/\\127.0.0.1/",
    "//127.0.0.1/x.png",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "FILE:///etc/passwd",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "dict://127.0.0.1:6379/info",
    "ftp://127.0.0.1/x.png",
    "ldap://127.0.0.1/x",
    "tftp://127.0.0.1/x",
    "jar:http://127.0.0.1!/x",
    "netdoc:///etc/passwd",
    "s3://bucket/x.png",
    "gs://bucket/x.png",
    "unix:///var/run/docker.sock",
    "blob:http://127.0.0.1/x",
    "javascript:alert(1)",
    "/etc/passwd",
    "../../etc/passwd",
    "\\\\127.0.0.1\\share\\x.png",
]
_DATA = [
    "data:",
    "data:,",
    "data:,x",
    "data:image/png,x",
    "data:image/png;base64",
    "data:image/png;base64,",
    "data:image/png;base64,%%%",
    "data:image/png;charset=utf-8,x",
    "data:image/svg+xml;base64,PHN2Zy8+",
    "data:text/html;base64,PGh0bWw+",
    "data:application/x-httpd-php;base64,PD9waHA=",
    "data:image/png;base64,http://127.0.0.1/",
    "DATA:IMAGE/PNG;BASE64,",
    "data:" + "a" * 10_000 + ";base64,",
]

_EDITS, _PAINT, _CLASSIFY = "/v1/images/edits", "/v1/images/generations", "/v1/classify"


def _codes(url: str) -> str:
    if url.lower().startswith(("http://", "https://")):
        return "unsupported_value"
    is_text = url.startswith("data:") and "," in url and ";base64," not in url
    return "invalid_value" if is_text else "invalid_image"


CASES = [
    *(
        post_json(f"classify_{url[:60]}", _CLASSIFY, {"input": url}, 400, _codes(url))
        for url in _FETCHED
    ),
    *(
        post_json(f"classify_{url[:60]}", _CLASSIFY, {"input": [url]}, 400, _codes(url))
        for url in _DATA
    ),
    *(
        post_json(f"paint_{url[:60]}", _PAINT, {"prompt": "x", "image": url}, 400, _codes(url))
        for url in _FETCHED
    ),
    *(
        post_json(
            f"edit_{url[:60]}",
            _EDITS,
            {"prompt": "x", "images": [{"image_url": url}]},
            400,
            _codes(url),
        )
        for url in _FETCHED[::3]
    ),
]
