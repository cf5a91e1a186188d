#!/usr/bin/env python3
"""Write docs/parameters.md from nextflow_schema.json, the one description of every parameter. Standard library only.

docs/build_parameters.py            # write
docs/build_parameters.py --check    # exit 1 when the page is stale
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def limits(entry: dict) -> str:
    """What may be given, in words: choices, bounds, form."""
    if "enum" in entry:
        return ", ".join(f"`{word}`" for word in entry["enum"])
    low, high = entry.get("minimum"), entry.get("maximum")
    if low is not None and high is not None:
        return f"{low} to {high}"
    if low is not None:
        return f"{low} or more"
    if high is not None:
        return f"up to {high}"
    return entry.get("errorMessage", "")


def value(entry: dict) -> str:
    """The default as it would be written on the command line."""
    if entry.get("default") is None:
        return ""
    default = entry["default"]
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def cell(text: str) -> str:
    """Text that does not end a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def render(schema: dict) -> str:
    """The page: one table per group of the schema, in its order."""
    lines = [
        "# Parameters",
        "",
        "Made by `make docs` from `nextflow_schema.json`; edit that file. The same text is printed by `nextflow run . --help`.",
        "",
    ]
    for group in schema["$defs"].values():
        lines += [f"## {group['title']}", "", group["description"], ""]
        lines += ["| parameter | type | default | allowed | meaning |", "|---|---|---|---|---|"]
        required = set(group.get("required", []))
        for name, entry in group["properties"].items():
            meaning = " ".join(filter(None, [entry["description"], entry.get("help_text", "")]))
            kind = entry["type"] + (", required" if name in required else "")
            lines.append(f"| `--{name}` | {kind} | {cell(value(entry))} | {cell(limits(entry))} | {cell(meaning)} |")
        lines.append("")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page is stale")
    parser.add_argument("--schema", type=Path, default=ROOT / "nextflow_schema.json", help="schema to read")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "parameters.md", help="page to write")
    args = parser.parse_args(argv)
    text = render(json.loads(args.schema.read_text(encoding="utf-8")))
    now = args.output.read_text(encoding="utf-8") if args.output.exists() else ""
    if args.check:
        if now != text:
            print(f"{args.output.name} is stale: run `make docs`", file=sys.stderr)
            return 1
        return 0
    if now != text:
        args.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
