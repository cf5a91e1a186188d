"""Who computed what: step, unit, parameters, seed and package versions, as one small JSON per task.

The report's methods text and software table are made from these files. The digest of our own code stands in
pipeline_info/params.json and not here: an edit that changes no result must leave every output, and so the steps that
read it, as they were.
"""

from __future__ import annotations

import platform
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import scresist
from scresist import io

# Options that say where files lie or how the task ran, not what was computed.
_NOT_PARAMETERS = {"code", "threads", "seed"}


def parameters(args: Namespace) -> dict[str, Any]:
    """The options of a script that shape its result; files by name only, so that no path leaves the machine."""
    values = {}
    for name, value in sorted(vars(args).items()):
        if name in _NOT_PARAMETERS or name.startswith("_"):
            continue
        if isinstance(value, Path):
            value = value.name
        elif isinstance(value, list | tuple):
            value = [item.name if isinstance(item, Path) else item for item in value]
        values[name] = value
    return values


def record(step: str, unit: str, args: Namespace, packages: list[str], **more: Any) -> dict[str, Any]:
    """The provenance of one task.

    Parameters
    ----------
    packages
        distribution names whose versions shaped the result.
    more
        further facts for the reader, e.g. `device="cpu"` or digests of models.
    """
    return {
        "step": step,
        "unit": unit,
        "scresist": scresist.__version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in sorted(packages)},
        "parameters": parameters(args),
        "seed": getattr(args, "seed", None),
        "threads": getattr(args, "threads", None),
        **more,
    }


def write(entry: dict[str, Any], folder: Path = Path()) -> Path:
    """Write `<step>.<unit>.provenance.json` and return its path."""
    path = Path(folder) / f"{entry['step']}.{entry['unit']}.provenance.json"
    io.write_json(entry, path)
    return path
