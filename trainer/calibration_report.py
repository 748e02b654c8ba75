"""What a calibration has measured, to be read: aligned text."""

from collections.abc import Mapping
from typing import Any

from descry.trainer.calibration import FEWEST, FORMS
from descry.trainer.match_metrics import RATES


def format_calibration(result: dict[str, Any]) -> str:
    """Tables of the attributes and of the searches, in percent, and the operating point."""
    checkpoint, fit, test = (result[name] for name in ("checkpoint", "fit", "test"))
    sizes = (f"{one['split']} ({one['images']} images, {one['descriptions']} descriptions)" for one in (fit, test))
    title = (
        f"{checkpoint['directory']} ({checkpoint['method']}) on {result['dataset']}: fitted on {{}}, measured on {{}}"
    )
    return "\n\n".join((title.format(*sizes), _format_attributes(result), _format_searches(result)))


def _format_attributes(result: dict[str, Any]) -> str:
    measured = result["attributes"]
    elements = measured["elements"]
    width = max(map(len, elements)) + 2
    lines = [f"{'ECE':<{width}}{'known':>8}{'positive':>10}{'T':>8}" + "".join(f"{form:>14}" for form in FORMS)]
    for name, element in elements.items():
        temperature = f"{element['temperature']:.2f}" if element["fitted"] else "kept"
        counts = f"{element['known']:>8}{element['positives']:>10}{temperature:>8}"
        lines.append(f"{name:<{width}}{counts}{_errors(element['error'])}")
    lines.append(f"{'mean':<{width + 26}}{_errors(measured['error'])}")
    if not all(element["fitted"] for element in elements.values()):
        split = result["fit"]["split"]
        lines.append(f"kept: fewer than {FEWEST} positives or negatives in {split}, so scores are left as they are")
    return "\n".join(lines)


def _errors(errors: Mapping[str, float]) -> str:
    return "".join(f"{100 * errors[form]:>14.1f}" for form in FORMS)


def _format_searches(result: dict[str, Any]) -> str:
    match = result["match"]
    columns = ("searches", "matches", "predicted", "ECE", "Brier (95 %)", "AUROC", "equal error", "by distance")
    widths = (10, 9, 11, 7, 23, 8, 13, 13)
    header = "".join(f"{name:>{width}}" for name, width in zip(columns, widths, strict=True))
    lines = [f"{'stated':<8}{header}{'false alarms (95 %)':>24}{'misses (95 %)':>24}"]
    lines += [_format_row(name, row, widths) for name, row in match["test"].items()]
    curve, fit = match["curves"]["all descriptions"], match["fit"]
    misses = ", ".join(f"{100 * curve.misses_at(rate):.1f} at {100 * rate:g}" for rate in RATES)
    return "\n".join(
        [
            *lines,
            f"misses at a rate of false alarms: {misses}",
            f"no match below a probability of {match['threshold']:.3f}; on {result['fit']['split']}: "
            f"{100 * fit['false_alarms']:.1f} false alarms, {100 * fit['misses']:.1f} misses",
        ]
    )


def _format_row(name: str, row: Mapping[str, float], widths: tuple[int, ...]) -> str:
    cells = [f"{row['searches']:.0f}", *(f"{100 * row[key]:.1f}" for key in ("matches", "probability", "error"))]
    cells += [_with_bounds(row, "brier")]
    cells += [f"{100 * row[key]:.1f}" for key in ("auroc", "equal_error", "equal_error_distance")]
    numbers = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"{name:<8}{numbers}{_with_bounds(row, 'false_alarms'):>24}{_with_bounds(row, 'misses'):>24}"


def _with_bounds(row: Mapping[str, float], key: str) -> str:
    return f"{100 * row[key]:.1f} ({100 * row[f'{key}_low']:.1f} to {100 * row[f'{key}_high']:.1f})"
