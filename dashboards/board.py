"""A dashboard: rows of panels, the variables that they use, and the way to other dashboards."""

import json
import re
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from dashboards.panels import DATA_SOURCE, Panel

_TAG: Final = "triptych"

# Of each variable: what it is called, and where Prometheus finds its values.
_VARIABLES: Final = {
    "task": ("Task", "label_values(triptych_queue_depth, task)"),
    "model": ("Model", "label_values(triptych_model_info, model)"),
    "instance": ("Instance", 'label_values(up{job=~"triptych-.+"}, instance)'),
}


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """`name` is the file's, and with `triptych-` before it the address in Grafana."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]
    since: str = "now-6h"

    def to_json(self) -> str:
        built = self._builder().build()
        for number, panel in enumerate(built.panels or (), 1):
            panel.id_val = number  # a link to a panel stays true
        return json.dumps(built, cls=JSONEncoder, indent=1, ensure_ascii=False) + "\n"

    def _builder(self) -> dashboard.Dashboard:
        board = dashboard.Dashboard(f"Triptych: {self.title}").uid(address(self.name))
        board = board.description(self.description).tags([_TAG]).readonly()
        board = board.time(self.since, "now").refresh("30s").timezone("browser")
        board = board.tooltip(models.DashboardCursorSync.CROSSHAIR)
        board = board.link(_other_dashboards()).annotation(_firing_alerts())
        for row in self.rows:
            board = board.with_row(dashboard.Row(row.title))
            for panel in row.panels:
                board = board.with_panel(panel)
        return board.variables([_data_source(), *map(_variable, self._used_variables())])

    def _used_variables(self) -> list[str]:
        built = [panel.build() for row in self.rows for panel in row.panels]
        text = json.dumps(built, cls=JSONEncoder)
        return [name for name in _VARIABLES if re.search(rf"\${name}\b", text)]


def address(name: str) -> str:
    """The uid of a dashboard, which is its address as well."""
    return f"{_TAG}-{name}"


def more(name: str, title: str) -> list[Builder[models.DashboardLink]]:
    """The way from a panel to the dashboard that says more, for the same time and variables."""
    url = f"/d/{address(name)}?${{__url_time_range}}&${{__all_variables}}"
    return [dashboard.DashboardLink(title).type(models.DashboardLinkType.LINK).url(url)]


def _other_dashboards() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("Triptych").type(models.DashboardLinkType.DASHBOARDS)
    return link.tags([_TAG]).as_dropdown(True).include_vars(True).keep_time(True)


def _firing_alerts() -> dashboard.AnnotationQuery:
    query = dashboard.AnnotationQuery().name("Alerts").datasource(DATA_SOURCE).enable(True)
    query = query.expr('ALERTS{alertname=~"Triptych.+",alertstate="firing"}')
    return query.icon_color("red")


def _data_source() -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _variable(name: str) -> dashboard.QueryVariable:
    label, query = _VARIABLES[name]
    everything = models.VariableOption(selected=True, text="All", value="$__all")
    variable = dashboard.QueryVariable(name).label(label).query(query).datasource(DATA_SOURCE)
    variable = variable.multi(True).include_all(True).all_value(".*").current(everything)
    variable = variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
    return variable.sort(models.VariableSort.ALPHABETICAL_ASC)
