"""Pictures: what a reader needs is on them, they are small, and equal input gives equal bytes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from scresist import figures, keys


def contrast(colour: str, other: str) -> float:
    """Euclidean distance of two colours in CIE Lab (D65), the simplest measure of how far apart they look (CIE 1976)."""

    def lab(text: str) -> np.ndarray:
        rgb = np.array([int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
        matrix = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
        t = np.array(matrix) @ linear / np.array([0.95047, 1, 1.08883])
        f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    return float(np.linalg.norm(lab(colour) - lab(other)))


def test_colours_of_types_differ():
    chosen = list(figures.TYPE_COLOURS.values())
    near = [(a, b) for i, a in enumerate(chosen) for b in chosen[:i] if contrast(a, b) < 15]
    assert near == []


def test_colours_are_fixed_and_distinct():
    made = figures.colours(["NK", "new", "B", "newer"], figures.TYPE_COLOURS)
    assert made["NK"] == figures.TYPE_COLOURS["NK"] and made["B"] == figures.TYPE_COLOURS["B"]
    assert len(set(made.values())) == 4
    assert len(figures.colours([str(i) for i in range(40)])) == 40  # more names than colours: they repeat, none is lost


def test_every_type_of_the_marker_table_has_a_colour(root):
    lines = (root / "assets" / "markers.tsv").read_text(encoding="utf-8").splitlines()
    types = {line.split("\t")[0] for line in lines[1:]}
    assert types | {keys.UNRESOLVED} == set(figures.TYPE_COLOURS)


@pytest.mark.parametrize("n", [1, 2, 500])
def test_cloud_is_a_small_png_with_the_same_bytes_twice(n):
    xy = np.random.default_rng(0).normal(size=(n, 2))
    labels = ["B" if i % 2 else "NK" for i in range(n)]
    first = figures.cloud(xy, labels, {"B": "#332288", "NK": "#44AA99"}, "Types", True)
    assert first == figures.cloud(xy, labels, {"B": "#332288", "NK": "#44AA99"}, "Types", True)
    assert len(first) < 150_000
    with Image.open(io.BytesIO(first)) as image:
        assert image.format == "PNG" and image.mode == "P" and image.size[0] > 800
        assert b"tIME" not in first and b"Software" not in first


def test_rare_colours_survive():
    """A phase with one cell among thousands keeps its colour (an adaptive palette may merge it away)."""
    xy = np.random.default_rng(0).normal(size=(4000, 2))
    labels = ["PRE"] * 2000 + ["POST"] * 1999 + ["RES"]
    content = figures.cloud(xy, labels, {p: figures.PHASE_COLOURS[p] for p in ("PRE", "POST", "RES")}, "Phases")
    with Image.open(io.BytesIO(content)) as image:
        seen = {tuple(rgb) for _, rgb in image.convert("RGB").getcolors(100_000)}
    target = np.array([0x00, 0x9E, 0x73])
    assert min(np.abs(np.array(list(seen)) - target).sum(axis=1)) < 24


def test_small_multiples_of_many_samples_and_of_none():
    xy = np.zeros((60, 2))
    names = [f"S{i}" for i in range(60)]
    assert figures.small_multiples(xy, names, names, {}, "Samples")[:4] == b"\x89PNG"
    assert figures.small_multiples(xy[:0], [], [], {}, "Samples")[:4] == b"\x89PNG"


def test_dot_plot_with_a_gene_that_was_not_measured():
    percent = np.array([[90.0, np.nan], [5.0, np.nan]])
    content = figures.dot_plot(["B", "NK"], [("B", "MS4A1"), ("NK", "GNLY")], percent, percent / 50, "Markers")
    assert content[:4] == b"\x89PNG"


def test_drawing_order_is_a_permutation_and_mixed():
    order = figures.drawing_order(100)
    assert sorted(order) == list(range(100)) and list(order) != list(range(100))
