"""From the SLO model to files: rules, routing, dashboards, runbooks and their tests. Nothing here sees live data."""
