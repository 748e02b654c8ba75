"""What a model is, how good, and for whom less so: from what the server says, and an evaluation where there is one."""

import json
import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from descry.client import InvalidRequest, ModelInfo
from descry.demo.markup import bar, facts, hint, table
from descry.demo.sentence import plain, spaced

NO_EVALUATION = (
    "The server says nothing of how good the model is. Measure it with <code>python -m descry.trainer.evaluate "
    "CHECKPOINT --json &gt; evaluation.json</code> and start the page with <code>--evaluation evaluation.json</code>: "
    "search, attributes, and the gaps between groups of people then stand here."
)
NO_CALIBRATION = (
    "This model was not calibrated: hits have distances, and the page cannot say “no match”. <code>python -m "
    "descry.trainer.calibrate CHECKPOINT --store</code>, before the export, adds that."
)
PARTS = ("dataset", "search", "intervals", "attributes", "fairness", "fusion", "images")
MEASURES = {"rank1": "first hit is right", "rank5": "right within five", "rank10": "right within ten", "mAP": "mAP"}
# The export carries these from the checkpoint as they were measured: no two trainings give the same.
FINGERPRINT = ("par_weight", "max_par", "max_emb")


def read_evaluation(path: Path) -> Mapping[str, Any]:
    """What `python -m descry.trainer.evaluate --json` printed.

    Raises:
        InvalidRequest: it cannot be read, or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content = content[0] if isinstance(content, list) else content
        return {name: content[name] for name in PARTS}
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InvalidRequest(
            f"{path} is no evaluation ({error!r}); write one with python -m descry.trainer.evaluate --json"
        ) from error


def model_card(model: ModelInfo, evaluation: Mapping[str, Any] | None) -> str:
    """All of it as markup."""
    schema = model.schema
    known = {
        "method": escape(model.method),
        "attributes": f"{len(schema.groups)} groups, {schema.size} values ({escape(schema.name)})",
        "embedding": f"{model.embedding_size} numbers",
        "crops": f"{model.image_size[1]} × {model.image_size[0]} pixels",
        "weight of the attributes": f"{model.par_weight:g}, {escape(model.par_distance)} distance",
        "digest": escape(model.model_digest[:16]),
    }
    quality = f"<h4>Quality</h4>{hint(NO_EVALUATION)}" if evaluation is None else _quality(model, evaluation)
    return facts(known) + _sureness(model.calibration) + quality


def _sureness(calibration: Mapping[str, Any] | None) -> str:
    """When the page says "no match", and how often it is wrong then."""
    if not calibration:
        return f"<h4>Probabilities</h4>{hint(NO_CALIBRATION)}"
    said = f"“No match” below a probability of {calibration['match']['threshold']:.3g}."
    rates = calibration.get("no_match")
    if rates:
        said += (
            f" At this threshold {_share(rates['false_alarms'])} of the searches for somebody who was not there found "
            f"a “match”, and {_share(rates['misses'])} of those for somebody who was there found none (split "
            f"{escape(str(calibration.get('split', 'unknown')))})."
        )
    return f"<h4>Probabilities</h4><p>{said}</p>"


def _quality(model: ModelInfo, evaluation: Mapping[str, Any]) -> str:
    """Search, attributes and gaps, as measured."""
    fusion, dataset = evaluation["fusion"], evaluation["dataset"]
    same = dataset["schema"] == model.schema.name and all(
        math.isclose(fusion[name], getattr(model, name), rel_tol=1e-5) for name in FINGERPRINT
    )
    warning = "" if same else '<p class="bad">This evaluation is of another model than the served one.</p>'
    found, spans = evaluation["search"]["fused"]["all"], evaluation["intervals"]["fused"]["all"]
    searched = [
        (label, bar(found[name]), _share(found[name]), _span(spans.get(name))) for name, label in MEASURES.items()
    ]
    recognised = [
        (escape(plain(name)), bar(value), _share(value))
        for name, value in evaluation["attributes"]["groups"].items()
        if _number(value)
    ]
    images = f"{spaced(evaluation['images'])} images, {found['queries']:.0f} descriptions"
    data = f"{escape(dataset['name'])}, {escape(dataset['split'])} split: {images}"
    return (
        f"{warning}<h4>Search</h4>{hint(data)}"
        f"{table(('measure', '', 'share', '95 %'), searched)}"
        f"<h4>Attributes recognised</h4>{table(('attribute', '', 'share'), recognised)}"
        f"<h4>For whom it works less well</h4>{_gaps(evaluation['fairness'])}"
    )


def _gaps(fairness: Mapping[str, Any]) -> str:
    """How search and recognition differ between groups of people."""
    rows = []
    for name, found in fairness.get("search", {}).items():
        recognition = fairness.get("recognition", {}).get(name, {}).get("values", {})
        for value, numbers in found["values"].items():
            accuracy = recognition.get(value, {}).get("group_accuracy")
            rows.append(
                (
                    escape(f"{plain(name)}: {plain(value)}"),
                    _share(numbers.get("rank1")),
                    _span(numbers.get("intervals", {}).get("rank1")),
                    f"{numbers.get('queries', 0):.0f}",
                    _share(accuracy),
                )
            )
    if not rows:
        return hint("The labels of this data set name no groups of people.")
    return table(("group", "first hit right", "95 %", "descriptions", "attributes right"), rows)


def _share(value: Any) -> str:
    return f"{100 * value:.1f} %" if _number(value) else "–"


def _span(interval: Any) -> str:
    return f"{100 * interval[0]:.0f} to {100 * interval[1]:.0f} %" if interval and all(map(_number, interval)) else "–"


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
