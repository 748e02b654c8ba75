"""Reads the configuration of `descry serve`: a YAML file, then flags over it. An unknown key fails, with its line."""

import argparse
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from descry.client.serve_config import ServeConfig
from descry.client.triton_wheel import INSTALL, ServerError

SECTIONS: dict[str, Any] = {section.name: section.type for section in fields(ServeConfig)}
WORDS = {bool: "true or false", int: "a whole number", str: "a text", Path: "a path", NoneType: "null"}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """One flag a setting; a setting that is not given stays out of the parsed options."""
    for section, kind in SECTIONS.items():
        group = parser.add_argument_group(section, kind.__doc__)
        for each in fields(kind):
            kinds = get_args(each.type) or (each.type,)
            default = "" if each.default in (MISSING, None) else f" ({each.default})"
            options: dict[str, Any] = {"dest": f"{section}.{each.name}", "default": argparse.SUPPRESS}
            options["help"] = each.metadata["help"] + default
            if bool in kinds:
                options["action"] = argparse.BooleanOptionalAction
            else:
                options["type"] = next(kind for kind in kinds if kind is not NoneType)
                options["metavar"] = {Path: "PATH", int: "N", str: "TEXT"}[options["type"]]
            group.add_argument(_flag(section, each.name), **options)


def load_serve_config(path: Path | None, options: argparse.Namespace) -> ServeConfig:
    """Read a YAML file, if one is named, and put the flags of `add_flags` over it.

    Raises:
        ServerError: the file cannot be read, or a key or a value is wrong; the message names file and line.
    """
    given = dict(_read(path)) if path else {}
    for name, value in vars(options).items():
        section, _, key = name.partition(".")
        if key:
            given[name] = (value, _flag(section, key))
    sections = {}
    for section, kind in SECTIONS.items():
        values = {}
        for each in fields(kind):
            name = f"{section}.{each.name}"
            if name in given:
                values[each.name] = _converted(each, *given[name])
            elif each.default is MISSING:
                raise ServerError(
                    f"{name} is missing: give it in the file of --config or as {_flag(section, each.name)}"
                )
        sections[section] = kind(**values)
    return ServeConfig(**sections)


def _flag(section: str, name: str) -> str:
    return "--" + (name if section == "server" else f"{section}-{name}").replace("_", "-")


def _read(path: Path) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Each setting of a YAML file: its name, and its value with where it stands."""
    try:
        import yaml
    except ImportError as error:
        raise ServerError(f"--config needs PyYAML: {INSTALL}") from error
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ServerError(f"cannot read {path}: {error}") from error
    except yaml.YAMLError as error:
        raise ServerError(f"{path} is not YAML: {error}") from error
    for section, content, line in _pairs(root, f"{path}", "the file"):
        where = f"{path}:{line}"
        if section not in SECTIONS:
            raise ServerError(f"{where}: unknown section {section!r}; valid: {', '.join(SECTIONS)}")
        valid = [each.name for each in fields(SECTIONS[section])]
        for name, value, line in _pairs(content, where, section):
            if name not in valid:
                raise ServerError(f"{path}:{line}: unknown key {section}.{name}; valid: {', '.join(valid)}")
            yield f"{section}.{name}", (yaml.SafeLoader("").construct_object(value, deep=True), f"{path}:{line}")


def _pairs(node: Any, where: str, what: str) -> Iterator[tuple[str, Any, int]]:
    """Key, value and line number of each entry of a YAML mapping."""
    if node is None or node.tag == "tag:yaml.org,2002:null":
        return
    if node.id != "mapping":
        raise ServerError(f"{where}: {what} must hold `key: value` lines")
    for key, value in node.value:
        yield str(key.value), value, key.start_mark.line + 1


def _converted(setting: Field, value: Any, where: str) -> Any:
    kinds = get_args(setting.type) or (setting.type,)
    if Path in kinds and isinstance(value, str):
        return Path(value)
    if type(value) in kinds or (Path in kinds and isinstance(value, Path)):
        return value
    wanted = " or ".join(WORDS[kind] for kind in kinds)
    raise ServerError(f"{where}: {setting.name} must be {wanted}, got {value!r}")
