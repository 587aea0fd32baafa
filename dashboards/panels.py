"""The kinds of panel, with what all of a kind share: looks, data source, refIds.

Each panel has a title that asks or says something, and a text for whoever is woken by it: what is
normal, and what to do where it is not. Units are Grafana's: https://grafana.com/docs/grafana
"""

from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Panel: TypeAlias = heatmap.Panel | stat.Panel | statetimeline.Panel | table.Panel | timeseries.Panel
_P = TypeVar("_P", heatmap.Panel, stat.Panel, statetimeline.Panel, table.Panel, timeseries.Panel)

DATA_SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

# What the variables choose, for the braces of a series that has these labels.
OF_INSTANCE: Final = 'instance=~"$instance"'
OF_TASK: Final = f'task=~"$task",{OF_INSTANCE}'
OF_MODEL: Final = f'model=~"$model",{OF_INSTANCE}'
OF_TASK_AND_MODEL: Final = f'task=~"$task",{OF_MODEL}'
# Requests that want something of the service: probes and unknown paths do not.
OF_CLIENTS: Final = f'route!~"/healthz|/readyz|/metrics|other",{OF_INSTANCE}'

SECONDS, BYTES, RATIO, COUNT = "s", "bytes", "percentunit", "short"
REQUESTS_PER_SECOND, PER_SECOND, BYTES_PER_SECOND = "reqps", "cps", "Bps"
PIXELS_PER_SECOND: Final = "suffix: pixels/s"
WATTS, CELSIUS, JOULES = "watt", "celsius", "joule"

_GREEN, _ORANGE, _RED = "green", "orange", "red"


@dataclass(frozen=True, slots=True)
class Query:
    expr: str
    legend: str = ""
    has_exemplars: bool = False  # dots with the ids of traces: from a slow job to what it did


def quantile(share: float, series: str, labels: str, *by: str) -> str:
    """Read a quantile of what happened around each moment from a histogram."""
    groups = ", ".join((*by, "le"))
    rate = f"rate({series}_bucket{{{labels}}}[$__rate_interval])"
    return f"histogram_quantile({share}, sum by ({groups}) ({rate}))"


def rate(series: str, labels: str, *by: str) -> str:
    groups = f" by ({', '.join(by)})" if by else ""
    return f"sum{groups} (rate({series}{{{labels}}}[$__rate_interval]))"


def rate_of_seen(series: str, labels: str, *by: str) -> str:
    """As `rate`, of what happened in the time that is shown: a line of zeros is no news."""
    groups = f"({', '.join(by)})"
    seen = f"sum by {groups} (increase({series}{{{labels}}}[$__range])) > 0"
    return f"{rate(series, labels, *by)} and on {groups} {seen}"


def mean(series: str, labels: str, *by: str) -> str:
    """Average over what happened around each moment, of a histogram or summary."""
    return f"{rate(f'{series}_sum', labels, *by)} / ({rate(f'{series}_count', labels, *by)} > 0)"


def lines(title: str, normal: str, otherwise: str, *queries: Query) -> timeseries.Panel:
    """One line a series over time."""
    panel = _filled(timeseries.Panel(), title, normal, otherwise, *queries)
    panel = panel.height(8).span(8).fill_opacity(8).line_width(2).axis_soft_min(0)
    panel = panel.show_points(common_models.VisibilityMode.NEVER)
    panel = panel.tooltip(
        common.VizTooltipOptions()
        .mode(common_models.TooltipDisplayMode.MULTI)
        .sort(common_models.SortOrder.DESCENDING)
    )
    return panel.legend(
        common.VizLegendOptions()
        .display_mode(common_models.LegendDisplayMode.LIST)
        .placement(common_models.LegendPlacement.BOTTOM)
        .show_legend(True)
    )


def stacked(title: str, normal: str, otherwise: str, *queries: Query) -> timeseries.Panel:
    """Parts of a whole over time."""
    stacking = common.StackingConfig().mode(common_models.StackingMode.NORMAL)
    return lines(title, normal, otherwise, *queries).stacking(stacking).fill_opacity(50)


def with_limit(panel: timeseries.Panel, limit: float) -> timeseries.Panel:
    """Draw where good ends."""
    style = common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
    return panel.thresholds(above(limit)).thresholds_style(style)


def on_the_right(unit: str) -> list[models.DynamicConfigValue]:
    """Give a line an axis of its own, for `override_by_name`."""
    return [
        models.DynamicConfigValue(id_val="unit", value=unit),
        models.DynamicConfigValue(id_val="custom.axisPlacement", value="right"),
    ]


def number(title: str, normal: str, otherwise: str, query: Query) -> stat.Panel:
    """Show one number, now, and its course behind it.

    The last, not the last that there was: a number of an hour ago would pass for one of now.
    """
    panel = _filled(stat.Panel(), title, normal, otherwise, query).no_value("unknown")
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["last"]))
    panel = panel.color_mode(common_models.BigValueColorMode.BACKGROUND)
    return panel.graph_mode(common_models.BigValueGraphMode.AREA).height(4).span(4)


def density(title: str, normal: str, otherwise: str, series: str, labels: str) -> heatmap.Panel:
    """Show how many of a histogram's events fell where, over time."""
    expr = f"sum by (le) (increase({series}_bucket{{{labels}}}[$__rate_interval]))"
    panel = _filled(heatmap.Panel(), title, normal, otherwise)
    panel = panel.with_target(_target(Query(expr, "{{le}}"), "A").format(PromQueryFormat.HEATMAP))
    panel = panel.calculate(False).height(8).span(8)
    return panel.color(
        heatmap.HeatmapColorOptions()
        .mode(heatmap_models.HeatmapColorMode.SCHEME)
        .scheme("Turbo")
        .scale(heatmap_models.HeatmapColorScale.EXPONENTIAL)
        .exponent(0.5)
        .steps(64)
    )


def periods(title: str, normal: str, otherwise: str, query: Query) -> statetimeline.Panel:
    """Show when something was so: one bar a series, 1 or 0."""
    panel = _filled(statetimeline.Panel(), title, normal, otherwise, query)
    return panel.show_value(common_models.VisibilityMode.NEVER).height(8).span(12)


def listing(title: str, normal: str, otherwise: str, query: Query) -> table.Panel:
    """List the series that there are now, one a row, by their labels."""
    panel = _filled(table.Panel(), title, normal, otherwise)
    panel = panel.with_target(_target(query, "A").instant().format(PromQueryFormat.TABLE))
    panel = panel.height(8).span(8)
    hidden = {"Time": True, "Value": True, "__name__": True, "job": True}
    return panel.with_transformation(
        models.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden})
    )


def above(bad: float, worse: float | None = None) -> dashboard.ThresholdsConfig:
    """Good below `bad`; red from it on, or orange from `bad` and red from `worse` on."""
    return _steps((None, _GREEN), (bad, _RED if worse is None else _ORANGE), (worse, _RED))


def below(bad: float, worse: float | None = None) -> dashboard.ThresholdsConfig:
    """Good from `bad` on; red below it, or orange from `worse` to `bad` and red below."""
    return _steps((None, _RED), (worse, _ORANGE), (bad, _GREEN))


def plain() -> dashboard.ThresholdsConfig:
    """No value is better than another."""
    return _steps((None, "blue"))


def words(*of_numbers: str) -> list[models.ValueMapping]:
    """Show the first of the words for 0, the next for 1, and so on."""
    results = {
        str(value): models.ValueMappingResult(text=word, index=value)
        for value, word in enumerate(of_numbers)
    }
    return [models.ValueMap(options=results)]


def _steps(*steps: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    """The first step has no lower end; of the others those without one are left out."""
    first, *others = steps
    kept = [first, *(step for step in others if step[0] is not None)]
    thresholds = [models.Threshold(value=value, color=color) for value, color in kept]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(thresholds)


def _filled(panel: _P, title: str, normal: str, otherwise: str, *queries: Query) -> _P:
    panel = panel.title(title).description(f"Normal: {normal}\n\nOtherwise: {otherwise}")
    panel = panel.datasource(DATA_SOURCE)
    for ref_id, query in zip("ABCDEF", queries, strict=False):
        panel = panel.with_target(_target(query, ref_id))
    return panel


def _target(query: Query, ref_id: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id(ref_id).range()
    if query.has_exemplars:
        target = target.exemplar(True)
    return target.legend_format(query.legend) if query.legend else target
