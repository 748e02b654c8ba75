"""What every request of a Python model passes: the key at the door, limits, the audit log, metrics and the log.

A model makes one `Desk` in `initialize` and hands its requests to `answer`, so that no model can forget one of them.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal

import numpy as np
from access import Access, Caller
from answers import attempt, failure_of, gallery_path, repository_of, request_id, respond
from audit_entry import entries_of, is_probe, result_counts
from audit_log import AuditError, AuditLog
from gallery_row import InvalidRequest
from served_model import ServedModel
from server_metrics import ServerMetrics
from server_settings import ServerSettings
from spare_memory import SpareMemory

Read = Callable[[Any], list[Any]]
Run = Callable[[list[Any]], Sequence[Any]]
Pack = Callable[[Sequence[Any]], dict[str, np.ndarray]]
PROBE_EVERY_SECONDS = 600
LONGEST_MESSAGE = 200


class Desk:
    """The desk of one model; for one thread at a time.

    Attributes:
        metrics: what this model puts out for Prometheus.
        settings: limits and files, from the environment.
    """

    def __init__(
        self, args: dict[str, str], role: str | None = None, audit: Literal["never", "before", "after"] = "never"
    ) -> None:
        """Open what the environment names.

        Args:
            args: as `initialize` gets them.
            role: what a caller's key needs; None lets every known key in.
            audit: `before` writes what is asked to the audit log before anything is changed, `after` writes it with the
                number of results, before the answer is sent; either refuses what it cannot write.

        Raises:
            SettingsError: a variable of the environment is wrong.
            KeyFileError: the key file cannot be used.
        """
        self.settings = ServerSettings.read(gallery_path(args) if audit != "never" else None)
        self.metrics = ServerMetrics(args["model_name"])
        self._name = args["model_name"]
        self._model = ServedModel.load(repository_of(args))
        self._access = Access(self.settings.keys, self.settings.probe, role)
        log = self.settings.audit and AuditLog(self.settings.audit, self.settings.audit_rotate_bytes)
        self._before = log if audit == "before" else None
        self._after = log if audit == "after" else None
        self._probed = -float("inf")
        self._memory = SpareMemory()

    def answer(self, requests: Sequence[Any], read: Read, run: Run, pack: Pack) -> list[Any]:
        """Read each request into its rows, run the rows of all good requests as one batch, pack each one's results.

        `run` returns one result a row; a result that is an exception fails its own request only.
        """
        self._memory.give_back()
        callers = [attempt(self._caller, request) for request in requests]
        with self._timed("read"):
            rows = [
                caller if isinstance(caller, Exception) else attempt(self._read, read, request)
                for caller, request in zip(callers, requests, strict=True)
            ]
        rows = self._recorded(self._before, requests, callers, rows)
        with self._timed("run"):
            outcome = attempt(run, [row for each in rows if not isinstance(each, Exception) for row in each])
        with self._timed("pack"):
            answers = _shared_out(rows, outcome, pack)
        answers = self._recorded(self._after, requests, callers, answers)
        self._count(answers)
        return [respond(self._name, *each) for each in zip(requests, answers, strict=True)]

    def _caller(self, request: Any) -> Caller:
        return self._access.caller(request.parameters())

    def _read(self, read: Read, request: Any) -> list[Any]:
        rows, most = read(request), self.settings.largest_batch
        if len(rows) > most:
            raise InvalidRequest(f"{len(rows)} rows in one request, above this server's {most}: send fewer at once")
        return rows

    def _recorded(self, log: AuditLog | None, requests: Sequence[Any], callers: list[Any], answers: list[Any]) -> list:
        """The answers once the log holds them; where it cannot be written, the error instead of each good answer."""
        if log is None:
            return answers
        entries = [
            entry for each in zip(requests, callers, answers, strict=True) for entry in self._entries(log, *each)
        ]
        due = not all(entry["action"] == "probe" for entry in entries) or (
            time.monotonic() - self._probed > PROBE_EVERY_SECONDS
        )
        try:
            with self._timed("audit"):
                log.append(entries if due else [])
        except AuditError as error:
            self._probed = -float("inf")  # the next health check must try, and fail, too
            return [answer if isinstance(answer, Exception) else error for answer in answers]
        if due:
            self._probed = time.monotonic()
        return answers

    def _entries(self, log: AuditLog, request: Any, caller: Caller | Exception, answer: Any) -> list[dict[str, Any]]:
        """What the log says of a request: one entry a row, or one for all where it is refused."""
        known = caller if isinstance(caller, Caller) else Caller()
        head = {"who": known.name, **({"user": known.user} if known.user else {}), "action": self._name}
        head["request"] = request_id(request)
        if isinstance(answer, Exception):
            failure = failure_of(answer)
            return [head | {"outcome": failure.outcome, "message": failure.message[:LONGEST_MESSAGE]}]
        asked = entries_of(self._model, {tensor.name(): tensor.as_numpy() for tensor in request.inputs()})
        counts = result_counts(answer) if log is self._after else [None] * len(asked)
        entries = []
        for entry, count in zip(asked, counts, strict=True):
            action = "probe" if is_probe(entry, count) else self._name
            results = {"outcome": "asked"} if count is None else {"outcome": "ok", "results": count}
            entries.append(head | {"action": action} | results | {"asked": entry})
        return entries

    def _count(self, answers: Sequence[Any]) -> None:
        failed = [failure_of(answer).outcome if isinstance(answer, Exception) else "ok" for answer in answers]
        self.metrics.answered(Counter(failed))
        for answer in answers:
            if not isinstance(answer, Exception):
                self.metrics.holds(answer)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.metrics.took(part, time.perf_counter() - started)


def _shared_out(read_rows: Sequence[Any], outcome: Any, pack: Pack) -> list[Any]:
    """Each request's answer, or the exception that is in its way, from the results of all rows in order."""
    results = iter(() if isinstance(outcome, Exception) else outcome)
    answers = []
    for rows in read_rows:
        answer = rows if isinstance(rows, Exception) else outcome
        if not isinstance(answer, Exception):
            answer = attempt(_packed, pack, list(islice(results, len(rows))))
        answers.append(answer)
    return answers


def _packed(pack: Pack, results: list[Any]) -> dict[str, np.ndarray] | Exception:
    """One request's answer, or the first failure among its rows, which is not raised again: see `attempt`."""
    failed = next((result for result in results if isinstance(result, Exception)), None)
    return pack(results) if failed is None else failed
