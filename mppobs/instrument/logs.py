"""Log fields: job, pipeline, stage, shard, attempt, trace and span on every record that is logged inside an attempt."""

from __future__ import annotations

import json
import logging
import time
from typing import Final

from mppobs.instrument.attempt import NOTHING, current_attempt
from mppobs.instrument.run import current_run

FIELDS: Final = ("pipeline", "job_id", "stage", "shard", "attempt", "trace_id", "span_id")
"""The attributes that a record gets. IDs are hexadecimal text, as OpenTelemetry and exemplars write them."""


class LogFields(logging.Filter):
    """
    Gives every log record the attributes `FIELDS`, empty outside an attempt. It holds nothing back.

    Add it to a handler, so that it sees the records of every logger:

    >>> handler = logging.StreamHandler()
    >>> handler.addFilter(LogFields())
    >>> handler.setFormatter(logging.Formatter("%(job_id)s %(stage)s/%(shard)s %(message)s"))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Set the attributes that the record does not have yet; let it pass."""
        for name, value in log_fields().items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class JsonFormatter(logging.Formatter):
    """
    One JSON object per line: time, level, logger, message, the fields of `FIELDS` that are known, and `extra` ones.

    It needs no `LogFields` beside it.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        seconds, millis = divmod(round(record.created * 1000), 1000)
        line: dict[str, object] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{millis:03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in log_fields().items() if value != ""}
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD and value != ""}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return json.dumps(line, default=str, ensure_ascii=False)


_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def log_fields() -> dict[str, object]:
    """
    Return the fields of the attempt, or at least of the job, that runs here; empty texts for what is not known.

    >>> log_fields()["job_id"]
    ''
    """
    attempt = current_attempt.get()
    if attempt is not NOTHING:
        trace, span = f"{attempt.trace_id:032x}", f"{attempt.span_id:016x}"
        values = (attempt.pipeline, attempt.job_id, attempt.stage, attempt.shard, attempt.attempt, trace, span)
        return dict(zip(FIELDS, values, strict=True))
    run = current_run.get()
    if run is None:
        return dict.fromkeys(FIELDS, "")
    known = {"pipeline": run.context.pipeline, "job_id": run.context.job_id, "trace_id": f"{run.trace_id:032x}"}
    return {**dict.fromkeys(FIELDS, ""), **known}
