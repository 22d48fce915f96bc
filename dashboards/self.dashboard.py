"""
The tool's own dashboard. To extend it, add a section of your own; `docs/dashboards.md` shows how.

`mppobs dashboards build dashboards` writes the JSON beside this file; grafanalib's `generate-dashboard` does too.
"""

from mppobs.render.dashboards import tool

dashboard = tool.dashboard()
