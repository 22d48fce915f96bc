"""
Checks of dashboards that need no Grafana and no Prometheus. `rules.py` lists them, `exclusions.py` what is let through.

They are the seventeen rules of Grafana's dashboard-linter, the checks of Cloudflare's pint that need no server, and
some of our own: units that fit what a query computes, links that lead somewhere, names that the catalogue has.
"""
