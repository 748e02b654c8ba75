"""Methods by name: a dictionary lookup, one file per method."""

from torch import nn

from descry.trainer.methods.asmr import ASMR

METHODS: dict[str, type[nn.Module]] = {"asmr": ASMR}

__all__ = ["METHODS", "ASMR"]
