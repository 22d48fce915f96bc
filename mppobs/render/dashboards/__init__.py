"""
The dashboards, one source per audience. `sources.py` lists them, `build.py` turns them into files.

Nothing is imported here, so that naming a panel costs nothing: that is in `mppobs.catalog.panels`.
"""
