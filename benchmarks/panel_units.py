"""Numbers as Grafana writes them: https://grafana.com/docs/grafana, standard options, unit."""

from collections.abc import Sequence
from typing import Final

_SI: Final = ((1e9, " G"), (1e6, " M"), (1e3, " k"))
_SHORT: Final = ((1e9, " Bil"), (1e6, " Mil"), (1e3, " K"))
_IEC: Final = ((2**40, " TiB"), (2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"))
_TIMES: Final = (
    *((86400, " d"), (3600, " h"), (60, " min"), (1, " s"), (1e-3, " ms"), (1e-6, " µs")),
)
_SUFFIXES: Final = {
    "reqps": " req/s",
    "cps": " /s",
    "Bps": "B/s",
    "watt": "W",
    "joule": "J",
    "celsius": " °C",
}


def written(value: float, unit: str | None, decimals: int | None = None) -> str:
    """A value with its unit; without `decimals` with as many digits as say something."""
    match unit:
        case "percentunit":
            return f"{_digits(100 * value, decimals)}%"
        case "s":
            return _scaled(value, _TIMES, decimals) if value else "0 s"
        case "bytes":
            return _scaled(value, _IEC, decimals, " B")
        case "short" | "none" | None:
            return _scaled(value, _SHORT, decimals)
    if unit.startswith("suffix:"):
        return _scaled(value, _SHORT, decimals) + f" {unit.removeprefix('suffix:').strip()}"
    scale = _SI if unit in ("Bps", "watt", "joule") else _SHORT
    small = " " if unit in ("Bps", "watt", "joule") else ""
    return _scaled(value, scale, decimals, small) + _SUFFIXES.get(unit, f" {unit}")


def _scaled(
    value: float, scale: Sequence[tuple[float, str]], decimals: int | None, small: str = ""
) -> str:
    for factor, name in scale:
        if abs(value) >= factor:
            return _digits(value / factor, decimals) + name
    return _digits(value, decimals) + small


def _digits(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
