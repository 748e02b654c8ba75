"""Methods by name: a dictionary lookup, one file per method."""

from descry.trainer.methods.asmr import ASMR
from descry.trainer.methods.method import Method

METHODS: dict[str, type[Method]] = {"asmr": ASMR}

__all__ = ["METHODS", "ASMR", "Method"]
