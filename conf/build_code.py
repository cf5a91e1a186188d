#!/usr/bin/env python3
"""Write conf/code.config: for each process a digest over the package modules that its script imports, directly or not.

Nextflow hashes a script in bin/ by itself, but not what that script imports; a process passes `--code ${task.ext.code}`, so
that an edit in the package re-runs exactly the steps that use it. Standard library only, run by `make code`:

  conf/build_code.py            # write
  conf/build_code.py --check    # exit 1 when the file is stale
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "scresist"
DIGEST_LENGTH = 12  # hexadecimal digits, 48 bits: no collision among a few dozen steps
HEADER = (
    "// Made by `make code` from the imports of bin/*.py; do not edit. The digest covers the package modules behind a step.\n"
)


def module_path(folder: Path, name: str) -> Path | None:
    """The file of a dotted module name below `folder` (bin/), or None when it is no module of the package."""
    if name != PACKAGE and not name.startswith(PACKAGE + "."):
        return None
    base = folder.joinpath(*name.split("."))
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def parents(name: str) -> list[str]:
    """`a.b.c` runs a/__init__.py and a/b/__init__.py too."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts) + 1)]


def imported_names(source: str, package: str) -> set[str]:
    """Dotted names that a source text imports anywhere, in functions and under TYPE_CHECKING too.

    Parameters
    ----------
    package
        the package that holds the source, for relative imports; empty for a script.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            names.add(base)
            # `from scresist import io` may name a module or something inside one; what is no module finds no file
            names |= {f"{base}.{alias.name}" for alias in node.names}
            if base.split(".")[0] == PACKAGE and any(alias.name == "*" for alias in node.names):
                raise ValueError(f"`from {base} import *` hides what is imported; name the modules")
    return names


def modules_behind(script: Path) -> list[Path]:
    """The package files that a script loads, directly or through other modules, sorted by path."""
    folder = script.parent
    found: set[Path] = set()
    waiting = [(script, "")]
    while waiting:
        path, package = waiting.pop()
        for name in sorted(imported_names(path.read_text(encoding="utf-8"), package)):
            for part in parents(name):
                module = module_path(folder, part)
                if module and module not in found:
                    found.add(module)
                    waiting.append((module, part if module.name == "__init__.py" else part.rpartition(".")[0]))
    return sorted(found)


def digest(script: Path) -> str:
    """Digest over names and bytes of the modules behind a script; the script itself is hashed by Nextflow."""
    sha = hashlib.sha256()
    for path in modules_behind(script):
        content = path.read_bytes()
        sha.update(f"{path.relative_to(script.parent).as_posix()}\0{len(content)}\0".encode())
        sha.update(content)
    return sha.hexdigest()[:DIGEST_LENGTH]


def render(folder: Path) -> str:
    """The text of conf/code.config for the scripts in `folder`."""
    lines = [HEADER.rstrip("\n"), "", "process {"]
    for script in sorted(folder.glob("*.py")):
        lines.append(f"    withName: '{script.stem.upper()}' {{ ext.code = '{digest(script)}' }}")
    return "\n".join([*lines, "}", ""])


def main(argv: list[str] | None = None) -> int:
    """Write the file, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file is stale")
    parser.add_argument("--bin", type=Path, default=ROOT / "bin", help="folder of the scripts")
    parser.add_argument("--output", type=Path, default=ROOT / "conf" / "code.config", help="file to write")
    args = parser.parse_args(argv)
    text = render(args.bin)
    now = args.output.read_text(encoding="utf-8") if args.output.exists() else ""
    if args.check:
        if now != text:
            old = set(now.splitlines())
            stale = [line.split("'")[1] for line in text.splitlines() if "withName" in line and line not in old]
            print(f"{args.output.name} is stale ({', '.join(stale) or 'a script went away'}): run `make code`", file=sys.stderr)
            return 1
        return 0
    if now != text:
        args.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
