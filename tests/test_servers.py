"""The servers that other tests lean on start, answer and stop."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests import servers


def test_prometheus_scrapes_its_targets(tmp_path: Path) -> None:
    """A started Prometheus scrapes a Pushgateway and answers queries about it."""
    with servers.pushgateway(tmp_path / "gateway") as gateway:
        httpx.put(f"{gateway}/metrics/job/test", content="tried_total 7\n").raise_for_status()
        with servers.prometheus(tmp_path / "prometheus", [gateway.removeprefix("http://")]) as prometheus:
            servers.wait_until("the first scrape", lambda: prometheus.query("tried_total"))

            assert prometheus.query("tried_total")[0]["value"][1] == "7"
    assert not servers.answers(gateway)


def test_alertmanager_takes_alerts(tmp_path: Path) -> None:
    """A started Alertmanager accepts an alert and lists it."""
    with servers.alertmanager(tmp_path, "http://127.0.0.1:9/") as url:
        httpx.post(f"{url}/api/v2/alerts", json=[{"labels": {"alertname": "Test"}}]).raise_for_status()
        servers.wait_until("the alert", lambda: httpx.get(f"{url}/api/v2/alerts").json())

        assert [alert["labels"] for alert in httpx.get(f"{url}/api/v2/alerts").json()] == [{"alertname": "Test"}]


def test_missing_program_is_a_skip_or_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing program skips and names its package; where servers are required it fails."""
    monkeypatch.delenv("REQUIRE_SERVERS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install some-package"):
        servers.require("no-such-program", "some-package")

    monkeypatch.setenv("REQUIRE_SERVERS", "1")
    with pytest.raises(pytest.fail.Exception, match="apt-get install some-package"):
        servers.require("no-such-program", "some-package")
