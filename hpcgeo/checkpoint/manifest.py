"""The manifest of a checkpoint: what it is of, and bytes and SHA-256 of every file."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt, StringConstraints

from hpcgeo.checkpoint.rank_files import FILES, FileEntry


class Manifest(BaseModel):
    """What step.json says."""

    model_config = ConfigDict(extra="forbid")
    step: NonNegativeInt
    global_batch: int
    data: str
    run: dict[str, str] = {}
    save_s: float
    files: dict[Annotated[str, StringConstraints(pattern=FILES)], FileEntry]
    digest: str


def sealed(manifest: Mapping[str, Any]) -> str:
    """Return the text of a manifest, with its own SHA-256 as the last entry."""
    entries = {name: value for name, value in manifest.items() if name != "digest"}
    digest = hashlib.sha256(json.dumps(entries).encode()).hexdigest()
    return json.dumps({**entries, "digest": digest})


def opened(text: str) -> Manifest:
    """Return the manifest in a text.

    Raises:
        ValueError: it is none, or not as it was written.
    """
    manifest = Manifest.model_validate_json(text)
    if sealed(json.loads(text)) != text:
        raise ValueError("other bytes than were written (checksum)")
    return manifest
