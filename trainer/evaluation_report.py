"""What evaluations have measured, to be read: aligned text of one, or Markdown tables of several."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from descry.trainer.markdown import markdown_table
from descry.trainer.metrics import SEARCH_METRICS


def format_table(result: dict[str, Any]) -> str:
    """The result as aligned text: one row a distance and set of categories, metrics in percent."""
    protocol, attributes = result["protocol"], result["attributes"]
    lines = [f"queries: {protocol['queries']}; gallery filter: {protocol['gallery_filter']}"]
    if "checkpoint" in result:
        lines = [_format_subject(result), *lines]
    lines.append(f"{'distance':<11}{'categories':<12}{'queries':>8}" + "".join(f"{n:>15}" for n in SEARCH_METRICS))
    for distance, groups in result["search"].items():
        lines += [_format_row(distance, group, metrics) for group, metrics in groups.items()]
    lines += [_format_row("fused", f"PAR x {row['par_weight']:g}", row) for row in result.get("sweep", [])]
    if "reid" in result:
        lines.append(_format_row("embedding", "re-ID", result["reid"]))
    lines += [_format_interval(distance, groups["all"]) for distance, groups in result["intervals"].items()]
    lines += _format_gaps(result["fairness"])
    shown = {"mA": "mA", "group_accuracy": "group accuracy", "element_accuracy": "element accuracy"}
    shown |= {name: name for name in ("accuracy", "precision", "recall", "F1")}
    lines.append("PAR head: " + ", ".join(f"{label} {100 * attributes[name]:.1f}" for name, label in shown.items()))
    return "\n".join(lines)


def _format_subject(result: dict[str, Any]) -> str:
    checkpoint, dataset, model = result["checkpoint"], result["dataset"], result["model"]
    speed = _format_speed(result)
    return (
        f"{checkpoint['directory']} ({checkpoint['method']}) on {dataset['name']}, {dataset['split']}: "
        f"{model['parameters'] / 1e6:.2f} M parameters, {model['megabytes']:.1f} MB, "
        f"{model['gflops']:.2f} GFLOPs a crop" + (f", {speed} images/s" if speed else "")
    )


def _format_speed(result: dict[str, Any]) -> str:
    """Images/s of embedding, reading included; empty where the features were there already."""
    seconds = result["seconds"]["extraction"]
    return f"{result['images'] / seconds:.0f}" if seconds else ""


def _format_row(distance: str, what: str, metrics: dict[str, float]) -> str:
    numbers = "".join(f"{100 * metrics[name]:>15.1f}" for name in SEARCH_METRICS)
    return f"{distance:<11}{what:<12}{metrics['queries']:>8.0f}{numbers}"


def _format_interval(distance: str, bounds: dict[str, tuple[float, float]]) -> str:
    rank1, average = (
        f"{100 * low:.1f} to {100 * high:.1f}" for low, high in (bounds[name] for name in ("rank1", "mAP"))
    )
    return f"95 % interval over the queries, {distance}: rank-1 {rank1}, mAP {average}"


def _format_gaps(fairness: dict[str, Any]) -> list[str]:
    """A line for each value of each protected group: how its people are found (fused distance) and recognized."""
    lines = []
    for name, found in fairness["search"].items():
        recognized = fairness["recognition"][name]
        for value, metrics in found["values"].items():
            low, high = metrics["intervals"]["mAP"]
            images = recognized["values"].get(value, {"images": 0, "group_accuracy": float("nan")})
            lines.append(
                f"{name} {value}: {metrics['queries']:.0f} queries, rank-1 {100 * metrics['rank1']:.1f}, mAP "
                f"{100 * metrics['mAP']:.1f} ({100 * low:.1f} to {100 * high:.1f}); {images['images']} images, group "
                f"accuracy {100 * images['group_accuracy']:.1f}"
            )
    return lines


Column = Callable[[dict[str, Any]], str]


def format_markdown(results: Sequence[dict[str, Any]]) -> str:
    """Tables of several measurements, a line each: search by distance, recognition, re-ID, and what it costs."""
    search = [_search_line(result, distance) for result in results for distance in result["search"]]
    header = ["distance", "rank-1 (95 %)", "rank-5", "rank-10", "mAP (95 %)", "mAP, trapezoid", "mINP"]
    header += ["seen rank-1 / mAP", "unseen rank-1 / mAP"]
    blocks = [
        _protocol_note(results),
        markdown_table(["", "dataset", "queries", *header], search),
        _columns(results, _RECOGNITION),
        _columns([result for result in results if "reid" in result], _REID),
        _columns(results, _COSTS),
    ]
    return "\n\n".join(block for block in blocks if block)


def _name(result: dict[str, Any]) -> str:
    return Path(result["checkpoint"]["directory"]).name


def _protocol_note(results: Sequence[dict[str, Any]]) -> str:
    notes = dict.fromkeys(
        f"queries: {result['protocol']['queries']}; gallery filter: {result['protocol']['gallery_filter']}; "
        f"split: {result['dataset']['split']}"
        for result in results
    )
    return "; ".join(notes) + ". Percent."


def _search_line(result: dict[str, Any], distance: str) -> list[str]:
    groups, bounds = result["search"][distance], result["intervals"][distance]["all"]
    overall = groups["all"]

    def with_interval(name: str) -> str:
        low, high = bounds[name]
        return f"{_percent(overall[name])} ({_percent(low)} to {_percent(high)})"

    return [
        *(_name(result), result["dataset"]["name"], f"{overall['queries']:.0f}", distance, with_interval("rank1")),
        *(_percent(overall["rank5"]), _percent(overall["rank10"]), with_interval("mAP")),
        *(_percent(overall["mAP_trapezoid"]), _percent(overall["mINP"])),
        *(_pair(groups[which]) if which in groups else "" for which in ("seen", "unseen")),
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _pair(metrics: dict[str, float]) -> str:
    return f"{_percent(metrics['rank1'])} / {_percent(metrics['mAP'])}"


def _share(section: str, key: str) -> Column:
    return lambda result: _percent(result[section][key])


_RECOGNITION: dict[str, Column] = {
    "PAR mA": _share("attributes", "mA"),
    **{name: _share("attributes", name) for name in ("accuracy", "precision", "recall", "F1")},
    "group accuracy": _share("attributes", "group_accuracy"),
    "known labels": lambda result: f"{result['attributes']['known']:.0f}",
}
_REID: dict[str, Column] = {
    f"re-ID {label}": _share("reid", name) for name, label in (("rank1", "rank-1"), ("mAP", "mAP"), ("mINP", "mINP"))
}
_COSTS: dict[str, Column] = {
    "parameters": lambda result: f"{result['model']['parameters'] / 1e6:.2f} M",
    "MB": lambda result: f"{result['model']['megabytes']:.1f}",
    "GFLOPs a crop": lambda result: f"{result['model']['gflops']:.2f}",
    "images/s": lambda result: _format_speed(result) or "not timed",
}


def _columns(results: Sequence[dict[str, Any]], columns: dict[str, Column]) -> str:
    lines = [
        [_name(result), result["dataset"]["name"], *(column(result) for column in columns.values())]
        for result in results
    ]  # fmt: skip
    return markdown_table(["", "dataset", *columns], lines) if lines else ""
