"""Measurements of training steps, each in a process of its own: how memory is kept is a setting of the process."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch

from descry.trainer.machine import has_native_bfloat16


def read_options(description: str, measure: Callable[[argparse.Namespace, Any], Any]) -> argparse.Namespace:
    """The command line of such a script; in the process of one measurement, print its result as JSON and exit."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options, json.loads(options.measure))))
        sys.exit()
    print(f"{options.backbone}, {options.height} x {options.width}, batch {options.batch}")
    print(f"{torch.get_num_threads()} threads; bfloat16 in hardware: {has_native_bfloat16()}")
    return options


def measure_apart(what: Any) -> Any:
    """What this very script measures of `what`, in a process of its own."""
    command = [sys.executable, *sys.argv, "--measure", json.dumps(what)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
