"""Methods by name: a dictionary lookup, one file per method."""

from descry.trainer.methods.asmr import ASMR
from descry.trainer.methods.method import Method
from descry.trainer.methods.multitask import MultiTask
from descry.trainer.methods.par_baseline import PARBaseline

METHODS: dict[str, type[Method]] = {"asmr": ASMR, "multitask": MultiTask, "par_baseline": PARBaseline}

__all__ = ["METHODS", "ASMR", "Method", "MultiTask", "PARBaseline"]
