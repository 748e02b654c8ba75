"""What `descry serve`, or a container's environment, tells the models: keys, audit log and limits."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

OFF = "off"
MEBIBYTE = 2**20


class SettingsError(RuntimeError):
    """A variable of the environment holds no usable value; the message names it."""


@dataclass(frozen=True)
class ServerSettings:
    """Attributes: all from the variable of the same name, in capitals and with `DESCRY_` before it.

    Attributes:
        keys: file of hashed keys; None asks nobody for a key.
        probe: SHA-256, in hexadecimal, of the key that the server's own health check sends; empty for none.
        audit: file of the audit log; None is `off`. Not set, it lies beside the gallery.
        audit_rotate_bytes: size from which the audit log goes on in a new file.
        largest_image_bytes: an encoded image above it is refused before it is decoded.
        largest_batch: a request with more rows is refused.
    """

    keys: Path | None = None
    probe: str = ""
    audit: Path | None = None
    audit_rotate_bytes: int = 64 * MEBIBYTE
    largest_image_bytes: int = 32 * MEBIBYTE
    largest_batch: int = 1024

    @classmethod
    def read(cls, gallery: Path | None = None, environment: Mapping[str, str] = os.environ) -> "ServerSettings":
        """The settings of this process.

        Args:
            gallery: the gallery file of a model that has one.
            environment: the variables.

        Raises:
            SettingsError: a variable is not a whole number above 0.
        """
        keys, audit = environment.get("DESCRY_KEYS"), environment.get("DESCRY_AUDIT")
        beside = gallery.with_suffix(".audit.jsonl") if gallery else None
        return cls(
            keys=Path(keys) if keys else None,
            probe=environment.get("DESCRY_PROBE", ""),
            audit=None if audit == OFF else Path(audit) if audit else beside,
            audit_rotate_bytes=_whole(environment, "DESCRY_AUDIT_ROTATE_BYTES", cls.audit_rotate_bytes),
            largest_image_bytes=_whole(environment, "DESCRY_LARGEST_IMAGE_BYTES", cls.largest_image_bytes),
            largest_batch=_whole(environment, "DESCRY_LARGEST_BATCH", cls.largest_batch),
        )


def _whole(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f"descry: {name} must be a whole number from 1 on, got {text!r}")
    return int(text)
