"""Each alert fires where it should and is silent where not, and says what to do."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from service.settings import ServiceSettings
from tests.dashboards.expressions import RULES, Rule, rules
from tests.dashboards.promtool import promtool
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
CASES = sorted((Path(__file__).parent / "rules").glob("*.yml"))
TESTS = [
    test
    for case in CASES
    for group in yaml.safe_load(case.read_text())["tests"]
    for test in group["promql_expr_test"]
]
ALERTS = [rule for rule in rules() if rule.is_alert]
each_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)


def cases_of(alert: Rule) -> list[Mapping[str, object]]:
    """What promtool is to find of an alert."""
    return [test for test in TESTS if f'"{alert.name}"' in str(test["expr"])]


def test_prometheus_reads_the_rules() -> None:
    promtool("check", "rules", *sorted(RULES.glob("*.yml")))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_the_rules_do_what_their_cases_say(case: Path) -> None:
    promtool("test", "rules", case)


@each_alert
def test_an_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_silent(alert: Rule) -> None:
    assert {bool(test["exp_samples"]) for test in cases_of(alert)} == {True, False}


@each_alert
def test_an_alert_says_what_it_is_and_how_urgent(alert: Rule) -> None:
    assert set(alert.labels) == {"severity"}
    assert alert.labels["severity"] in {"page", "ticket"}
    assert set(alert.annotations) == {"summary", "description", "runbook_url"}


@each_alert
def test_an_alert_has_a_section_in_the_runbook_with_its_severity(alert: Rule) -> None:
    file, _, anchor = alert.annotations["runbook_url"].partition("#")
    assert anchor == alert.name.lower()
    section = (ROOT / file).read_text(encoding="utf-8").partition(f"### {alert.name}\n\n")[2]
    assert section.startswith(f"**{alert.labels['severity'].capitalize()}.** ")


@each_alert
def test_the_words_of_an_alert_name_labels_that_it_has(alert: Rule) -> None:
    fired = str([test["exp_samples"] for test in cases_of(alert)])
    named = set(re.findall(r"\$labels\.(\w+)", str(alert.annotations)))
    assert named <= set(re.findall(r'(\w+)="', fired))


def test_the_runbook_has_sections_of_alerts_alone() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) == {alert.name for alert in ALERTS}


def test_the_settings_that_the_runbook_names_exist() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    named = {name.lower() for name in re.findall(r"TRIPTYCH_([A-Z_]+)", text)}
    assert named
    assert named <= {*ServiceSettings.model_fields, *WorkerSettings.model_fields}


def test_what_the_runbook_names_of_the_dashboards_is_there() -> None:
    text = " ".join((ROOT / "docs" / "runbook.md").read_text(encoding="utf-8").split())
    panels = "".join(file.read_text() for file in (ROOT / "dashboards/grafana").glob("*.json"))
    questions = re.findall(r"\*([A-Z][^*]+\?)\*", text)
    assert len(questions) > 10
    assert [title for title in questions if f'"title": "{title}"' not in panels] == []
