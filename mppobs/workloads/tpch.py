"""The bundled TPC-H queries: real work of several shapes, each with an answer that DuckDB can check."""

from __future__ import annotations

from typing import Final

from mppobs.workloads.tpch_q1 import Q1
from mppobs.workloads.tpch_q3 import Q3
from mppobs.workloads.tpch_q5 import Q5
from mppobs.workloads.tpch_q18 import Q18
from mppobs.workloads.tpch_query import Query

QUERIES: Final = (Q1, Q3)
"""The queries of the demo."""
ALL_QUERIES: Final[tuple[Query, ...]] = (Q1, Q3, Q5, Q18)
"""Every bundled query."""
