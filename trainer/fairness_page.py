"""Fills a page with who is searched and recognised worse than others, from kept evaluations.

`python -m descry.trainer.fairness_page docs/responsible_use.md docs/results/evaluations` replaces what stands between
`<!-- table FOLDER/NAME -->` and `<!-- end -->` by the error rates of the evaluation `FOLDER/NAME.json`.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from descry.trainer.comparison_page import ComparisonError, fill_page
from descry.trainer.markdown import markdown_table

HEADER = (
    *("attribute", "value", "descriptions", "first hit wrong (95 %)", "not among ten (95 %)"),
    *("images", "attributes read wrong (95 %)"),
)


def error_table(fairness: Mapping[str, Any]) -> str:
    """The error rates of an evaluation's `fairness`, in percent: one row a value of each protected attribute."""
    rows = []
    for name, searched in fairness["search"].items():
        recognised = fairness["recognition"][name]["values"]
        for value in dict.fromkeys([*searched["values"], *recognised]):
            rows.append((name, value, *_search(searched["values"].get(value)), *_recognition(recognised.get(value))))
    return markdown_table(HEADER, rows)


def _search(found: Mapping[str, Any] | None) -> tuple[str, ...]:
    if found is None:
        return ("0", "", "")
    errors = [_error(found[metric], found["intervals"][metric]) for metric in ("rank1", "rank10")]
    return (f"{found['queries']:.0f}", *errors)


def _recognition(found: Mapping[str, Any] | None) -> tuple[str, ...]:
    return (f"{found['images']:,}", _error(found["group_accuracy"], found["interval"])) if found else ("0", "")


def _error(right: float, interval: tuple[float, float]) -> str:
    """What is left of a share, with the bounds of its interval, in percent."""
    low, high = (100 * (1 - bound) for bound in reversed(interval))
    return f"{100 * (1 - right):.1f} ({low:.1f} to {high:.1f})"


def main(arguments: list[str] | None = None) -> int:
    """Fill one page; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m descry.trainer.fairness_page", description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("evaluations", type=Path, help="folder of kept evaluations")
    options = parser.parse_args(arguments)
    text = options.page.read_text(encoding="utf-8")
    try:
        tables = {}
        for name in re.findall(r"<!-- table (\S+) -->", text):
            content = json.loads((options.evaluations / f"{name}.json").read_text(encoding="utf-8"))
            tables[name] = error_table(content["fairness"])
        options.page.write_text(fill_page(text, tables), encoding="utf-8")
    except (OSError, ValueError, KeyError, ComparisonError) as error:
        print(f"fairness_page: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
