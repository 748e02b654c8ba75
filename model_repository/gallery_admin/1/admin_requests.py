"""The JSON requests of `gallery_admin`, checked and carried out. Importable without a server."""

from collections.abc import Callable

from gallery_row import InvalidRequest, json_object, utc_time, whole_text
from upkeep import Json, Upkeep

MOST_ROWS = 1000


class AdminRequests:
    """Answers requests as docs/wire.md says."""

    def __init__(self, upkeep: Upkeep) -> None:
        """Answer for one gallery."""
        self._upkeep = upkeep
        self._actions: dict[str, Callable[[Json], Json]] = {
            "prune": self._prune,
            "compact": lambda request: upkeep.compact(),
            "backup": lambda request: upkeep.backup(),
            "check_file": lambda request: upkeep.check_file(),
            "check_rows": lambda request: upkeep.check_rows(_number(request, "after", 0)),
            "rows": self._rows,
        }

    def answer(self, text: str) -> Json:
        """What one request is answered.

        Raises:
            InvalidRequest: the request is wrong.
            GalleryError: it could not be carried out.
        """
        request = json_object("request", text)
        action = request.get("do")
        if not isinstance(action, str) or action not in self._actions:
            raise InvalidRequest(f"'do' {action!r} is not known; valid: {', '.join(self._actions)}")
        return self._actions[action](request)

    def _prune(self, request: Json) -> Json:
        camera, older_than = (
            None if request.get(key) is None else whole_text(repr(key), request[key])
            for key in ("camera", "older_than")
        )
        if camera is None and not older_than:
            raise InvalidRequest("prune needs 'camera', 'older_than' (ISO 8601) or both")
        return self._upkeep.prune(camera, utc_time(older_than), _flag(request, "dry_run"))

    def _rows(self, request: Json) -> Json:
        until = None if request.get("until") is None else _number(request, "until", 0)
        count = _number(request, "count", MOST_ROWS)
        if not 1 <= count <= MOST_ROWS:
            raise InvalidRequest(f"'count' must be 1 to {MOST_ROWS}, got {count}")
        return self._upkeep.rows(_number(request, "after", 0), until, count, _flag(request, "vectors"))


def _number(request: Json, key: str, default: int) -> int:
    """A whole number from 0 on of the request."""
    value = request.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**62:
        raise InvalidRequest(f"{key!r} must be a whole number from 0 on, got {value!r}")
    return value


def _flag(request: Json, key: str) -> bool:
    """A truth value of the request; False where it has none."""
    value = request.get(key, False)
    if not isinstance(value, bool):
        raise InvalidRequest(f"{key!r} must be true or false, got {value!r}")
    return value
