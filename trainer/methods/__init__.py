"""Methods by name: a dictionary lookup, one file per method."""

from descry.trainer.methods.asmr import ASMR
from descry.trainer.methods.cerberus import Cerberus
from descry.trainer.methods.descry import Descry
from descry.trainer.methods.method import Method
from descry.trainer.methods.multitask import MultiTask
from descry.trainer.methods.par_baseline import PARBaseline
from descry.trainer.methods.sal import SAL

METHODS: dict[str, type[Method]] = {
    "asmr": ASMR,
    "cerberus": Cerberus,
    "descry": Descry,
    "multitask": MultiTask,
    "par_baseline": PARBaseline,
    "sal": SAL,
}

__all__ = ["METHODS", "ASMR", "SAL", "Cerberus", "Descry", "Method", "MultiTask", "PARBaseline"]
