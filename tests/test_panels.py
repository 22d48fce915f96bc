"""The numbers of panels: what alerts and links hold on to."""

from __future__ import annotations

from enum import IntEnum

import pytest

from mppobs.catalog.alerts import ALERTS, Alert
from mppobs.catalog.panels import ALERT_PANELS, DASHBOARDS, dashboard_of, panel_path


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_has_a_panel_on_its_own_dashboard(alert: Alert) -> None:
    """The panel that shows what an alert is about is on the dashboard that the alert names."""
    assert dashboard_of(ALERT_PANELS[alert.name]) == alert.dashboard
    assert panel_path(alert.name) == f"/d/{alert.dashboard}?viewPanel={ALERT_PANELS[alert.name].value}"


def test_every_alert_has_a_panel_and_no_panel_an_unknown_one() -> None:
    """Alerts and their panels are one table with the catalogue."""
    assert {alert.name for alert in ALERTS} == ALERT_PANELS.keys()


@pytest.mark.parametrize("panels", DASHBOARDS.values(), ids=list(DASHBOARDS))
def test_numbers_are_unique_and_rows_are_hundreds(panels: type[IntEnum]) -> None:
    """No number stands for two panels, and a row has the round number before its panels."""
    values = [member.value for member in panels.__members__.values()]

    assert len(values) == len(set(values))
    assert {member.value for member in panels if member.name.endswith("_ROW")} == {
        value for value in values if value % 100 == 0
    }
