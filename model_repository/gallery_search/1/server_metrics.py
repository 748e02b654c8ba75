"""Descry's own Prometheus metrics, put out by Triton beside its own on the metrics port."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
# Outputs whose values are counted: what became of a written row, what a search says of its first hit.
WRITTEN, VERDICT = "status", "verdict"


class ServerMetrics:
    """The metrics of one model; models share a metric's name and are told apart by the label `model`."""

    def __init__(self, model: str) -> None:
        """Register the metrics; each label's value appears on the port with its first event."""
        self._model = model
        # Triton puts it there when the model is set up, after the imports.
        kind = pb_utils.MetricFamily
        self._families = {
            name: kind(name, description, type)
            for name, description, type in (
                ("descry_requests_total", "Requests by model and outcome", kind.COUNTER),
                ("descry_rows_written_total", "Rows written, by what became of them", kind.COUNTER),
                ("descry_searches_total", "Searches by verdict: match, no match, uncalibrated", kind.COUNTER),
                ("descry_seconds", "Seconds that a part of the work took for one batch", kind.HISTOGRAM),
                ("descry_gallery_rows", "Rows that a search ranks", kind.GAUGE),
            )
        }
        self._metrics: dict[tuple[str, ...], Any] = {}

    def took(self, part: str, seconds: float) -> None:
        """A part of a batch's work is done: `read`, `run`, `pack` or `audit`."""
        self._metric("descry_seconds", {"part": part}, buckets=list(SECONDS)).observe(seconds)

    def rows(self, count: int) -> None:
        """The gallery holds `count` rows."""
        self._metric("descry_gallery_rows", {}).set(count)

    def answered(self, outcomes: Mapping[str, int]) -> None:
        """Requests were answered: how many with which outcome."""
        for outcome, count in outcomes.items():
            self._metric("descry_requests_total", {"outcome": outcome}).increment(count)

    def holds(self, outputs: Mapping[str, np.ndarray]) -> None:
        """A request's answer is about to be sent: its rows' statuses and verdicts count."""
        for name, family in ((WRITTEN, "descry_rows_written_total"), (VERDICT, "descry_searches_total")):
            if name in outputs:
                for value, count in Counter(cell.decode() for cell in outputs[name].ravel()).items():
                    self._metric(family, {name: value}).increment(count)

    def _metric(self, family: str, labels: dict[str, str], **options: Any) -> Any:
        key = (family, *labels.values())
        if key not in self._metrics:
            self._metrics[key] = self._families[family].Metric(labels={"model": self._model, **labels}, **options)
        return self._metrics[key]
