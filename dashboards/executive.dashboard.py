"""
The executive dashboard. To extend it, add a section of your own; `docs/dashboards.md` shows how.

`mppobs dashboards build dashboards` writes the JSON beside this file; grafanalib's `generate-dashboard` does too.
"""

from mppobs.render.dashboards import executive

dashboard = executive.dashboard()
