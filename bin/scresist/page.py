"""The chapters as one MultiQC page, offline and the same for every user: MultiQC as a library, native plots, no network."""

from __future__ import annotations

import base64
import html
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scresist import io
from scresist.layout import Bar, Box, Chapter, Heat, Line, Section


def isolate(folder: Path) -> None:
    """Keep MultiQC from settings of the user or the site, so that a report does not depend on who makes it.

    MultiQC reads `~/.multiqc_config.yaml`, the XDG folder and every MULTIQC_* variable. Call before it is imported.
    """
    for name in [name for name in os.environ if name.startswith("MULTIQC_")]:
        del os.environ[name]
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["HOME"] = os.environ["XDG_CONFIG_HOME"] = str(folder)


def label(text: Any) -> str:
    """Text for a plot: Plotly reads a few HTML tags in labels, so they are escaped there too."""
    return html.escape(str(text), quote=False)


def prose(text: str) -> str:
    """Plain text with `code` as HTML."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def plot(section: Section, name: str) -> Any:
    """The MultiQC plot of a section's specification, or None."""
    from multiqc.plots import bargraph, box, heatmap, linegraph  # imported late: `isolate` has to come first

    made = section.plot
    base = {"id": f"{section.id}_plot", "title": f"{name}: {made.title}" if made else "", "save_data_file": False}
    if isinstance(made, Bar):
        if not made.data:
            return None
        data = {label(group): {label(cat): value for cat, value in values.items()} for group, values in made.data.items()}
        cats = {label(cat): {"name": label(text), "color": colour} for cat, (text, colour) in made.cats.items()}
        return bargraph.plot(
            data,
            cats,
            {
                **base,
                "ylab": made.unit,
                "sort_samples": False,
                "hide_zero_cats": False,
                "cpswitch": made.unit == "cells",
                "cpswitch_counts_label": f"Number of {made.unit}",
                "cpswitch_c_active": not made.start_in_percent,
                "stacking": "normal",
            },
        )
    if isinstance(made, Box):
        tabs = list(made.data)
        data = [{label(sample): dict(values) for sample, values in made.data[tab].items()} for tab in tabs]
        return box.plot(
            data,
            {
                **base,
                "sort_samples": False,
                "xlab": made.units[tabs[0]],
                "data_labels": [
                    {"name": label(tab), "xlab": made.units[tab], "title": f"{name}: {made.title}, {tab.lower()}"} for tab in tabs
                ],
            },
        )
    if isinstance(made, Line):
        tabs = list(made.data)
        data = [{label(series): dict(points) for series, points in made.data[tab].items()} for tab in tabs]
        config = {
            **base,
            "xlab": made.x_unit,
            "ylab": made.y_unit,
            "colors": {label(series): colour for series, colour in made.colours.items()},
            "ymin": 0 if len(tabs) > 1 else None,
            "showlegend": False if len(data[0]) == 1 else None,
        }
        if len(tabs) > 1:
            config["data_labels"] = [{"name": label(tab), "xlab": made.x_unit, "ylab": made.y_unit} for tab in tabs]
        return linegraph.plot(data, {key: value for key, value in config.items() if value is not None})
    if isinstance(made, Heat):
        return heatmap.plot(
            [list(row) for row in made.values],
            [label(text) for text in made.columns],
            [label(text) for text in made.rows],
            {
                **base,
                "xlab": made.x_unit,
                "ylab": made.y_unit,
                "zlab": made.z_unit,
                "cluster_rows": False,
                "cluster_cols": False,
                "xcats_samples": False,
                "square": False,
            },
        )
    return None


def ids(chapters: Sequence[Chapter]) -> list[str]:
    """Ids of chapters and sections in the order of the page."""
    return [name for chapter in chapters for name in (chapter.id, *(section.id for section in chapter.sections))]


def section_order(chapters: Sequence[Chapter]) -> dict[str, dict[str, int]]:
    """MultiQC's `report_section_order` for the order given: higher chapters first, lower sections first within one.

    MultiQC places ids without an entry where it likes, so every id gets one.
    """
    places: dict[str, dict[str, int]] = {}
    for at, chapter in enumerate(chapters):
        places[chapter.id] = {"order": 10 * (len(chapters) - at) + 1000}
        places.update({section.id: {"order": place} for place, section in enumerate(chapter.sections, start=1)})
    return places


def write(chapters: Sequence[Chapter], title: str, config: Path, style: Path, out: Path, version: str) -> None:
    """Write the page.

    Raises
    ------
    RuntimeError
        when MultiQC's own checks (strict) find fault, or it wrote no page.
    """
    import multiqc
    from multiqc import config as settings
    from multiqc import report as store

    multiqc.reset()
    out = Path(out)
    multiqc.load_config(config)
    for chapter in chapters:
        module = multiqc.BaseMultiqcModule(name=html.escape(chapter.title), anchor=chapter.id, autoformat=False)
        module.intro = chapter.intro  # HTML made by chapters.py, already escaped
        for section in chapter.sections:
            reading = f'<p class="sc-reading">{prose(section.reading)}</p>'
            module.add_section(
                name=html.escape(section.title),
                anchor=section.id,
                id=section.id,
                description=reading,
                content_before_plot=section.before,
                plot=plot(section, chapter.title),
                content=section.after,
                autoformat=False,
            )
        store.modules.append(module)
    intro = (
        "Single-cell cohort followed through therapy: what was done, what was found, what cannot be said. "
        f"Made by scresist {html.escape(version)}; every table of this page is also a file in the result folder."
    )
    settings_file = Path.cwd() / ".cache" / "multiqc_run.yml"
    own = {
        "intro_text": intro,
        "custom_css_files": [str(Path(style).resolve())],
        "report_section_order": section_order(chapters),
    }
    io.write_json(own, settings_file)
    multiqc.write_report(
        title=html.escape(title),
        output_dir=str(out.parent.resolve()),
        filename=out.name,
        force=True,
        make_data_dir=False,
        no_version_check=True,
        no_megaqc_upload=True,
        strict=True,
        quiet=True,
        no_ansi=True,
        config_files=[str(settings_file)],
    )
    if store.lint_errors:
        raise RuntimeError("MultiQC's checks found fault: " + "; ".join(store.lint_errors))
    if not out.is_file():
        raise RuntimeError(f"MultiQC wrote no {out.name}")
    if settings.no_version_check is not True or not settings.no_ai:
        raise RuntimeError("MultiQC would look for newer versions or offer AI features: assets/multiqc_config.yml was not read")
    tidy(out)


UNIQUE = re.compile(r'(reportUuid = )"[0-9a-f-]{36}"')
DATED = re.compile(r'(configCreationDate = )"[^"]*"')


PACKED = re.compile(r'(id="mqc_compressed_plotdata">)([A-Za-z0-9+/]{12})')
GZIP_TIME = slice(4, 8)  # bytes of a gzip header that hold the time of packing (RFC 1952)


def _untimed(match: re.Match[str]) -> str:
    """The first nine bytes of the packed plot data (twelve base64 digits) with the time of packing set to none."""
    head = bytearray(base64.b64decode(match.group(2)))
    head[GZIP_TIME] = bytes(4)
    return match.group(1) + base64.b64encode(bytes(head)).decode("ascii")


# MultiQC repeats every section, pictures included, for the AI features that are switched off here: nearly half of the page.
REPEATED = re.compile(r'(aiReportMetadataBase64 = )"[A-Za-z0-9+/=]*"')
NOTHING_REPEATED = base64.b64encode(b'{"tools": {}, "sections": {}}').decode("ascii")


def tidy(out: Path) -> None:
    """Take the random id, the dates and the repetition of all sections out of the page: equal input gives an equal page."""
    text = PACKED.sub(_untimed, out.read_text(encoding="utf-8"))
    text = REPEATED.sub(rf'\1"{NOTHING_REPEATED}"', text)
    text = DATED.sub(r'\1""', UNIQUE.sub(r'\1"scresist"', text))
    io.write_atomically(out, lambda path: path.write_text(text, encoding="utf-8"))
