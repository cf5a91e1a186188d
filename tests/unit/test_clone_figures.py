"""Pictures of clones: size, bytes, order of rows."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from scresist import clone_figures, clones, figures

PHASES = {"PRE": "#0072B2", "RES": "#009E73", "POST": "#D55E00", "PRE-R": "#CC79A7"}


def size(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as image:
        return image.size


@pytest.mark.parametrize(("n", "n_genes", "n_clones"), [(30, 80, 1), (3000, 900, 3)])
def test_heat_map_stays_small_and_does_not_change(n, n_genes, n_clones):
    rng = np.random.default_rng(0)
    profile = rng.normal(0, 0.05, (n, n_genes))
    clone = np.array([f"P.C{i % n_clones + 1}" for i in range(n)], dtype=object)
    phase = np.array(["PRE", "POST"], dtype=object)[rng.integers(0, 2, n)]
    chromosome = np.repeat([str(i) for i in range(1, 23)], n_genes // 22 + 1)[:n_genes]
    arguments = (profile, clone, phase, rng.normal(0, 0.05, (40, n_genes)), chromosome, ["PRE", "POST"], PHASES, "P: <b>")
    content = clone_figures.heat_map(*arguments)
    assert len(content) < 250_000
    assert size(content)[0] > 900
    assert clone_figures.heat_map(*arguments) == content


def test_rows_are_averaged_within_a_label_only():
    labels = [("C1", "PRE")] * 60 + [("C1", "POST")] * 35 + [("C2", "PRE")] * 5
    parts = clone_figures.groups_of_rows(labels, 20)
    assert np.concatenate(parts).tolist() == list(range(100))
    assert all(len({labels[i] for i in part}) == 1 for part in parts)
    assert [len(part) for part in parts] == [5] * 20
    assert len(clone_figures.groups_of_rows(labels, 100)) == 100
    assert len(clone_figures.groups_of_rows(labels, 2)) == 3  # every label keeps a row


def test_clones_and_phases_share_no_colour():
    names = [f"P.C{i}" for i in range(1, 15)]
    made = clone_figures.clone_colours(names, PHASES)
    assert not set(made.values()) & set(PHASES.values())
    assert len(set(list(made.values())[:8])) == 8
    everything = dict(zip("abcdefghijkl", figures.CYCLE, strict=True))
    assert clone_figures.clone_colours(names[:2], everything) == dict(zip(names[:2], figures.CYCLE[:2], strict=True))


@pytest.mark.parametrize(
    ("cells", "timed", "beside"),
    [
        ({"PRE": (30, 0), "RES": (10, 10), "POST": (0, 60)}, ["PRE", "RES", "POST"], []),
        ({"PRE": (30, 0), "PRE-R": (10, 10)}, ["PRE"], ["PRE-R"]),
        ({"PRE": (30, 5)}, ["PRE"], []),
        ({"PRE": (30, 5), "RES": (0, 0)}, ["PRE", "RES"], []),
    ],
)
def test_flow(cells, timed, beside):
    rows = [(f"P.C{at + 1}", phase) for phase, given in cells.items() for at, n in enumerate(given) for _ in range(n)]
    clone, phase = np.array(rows, dtype=object).T
    shares = clones.shares("P", ["P.C1", "P.C2"], clone, phase, list(cells))
    content = clone_figures.flow(shares, timed, beside, PHASES, "P")
    measured = [p for p, given in cells.items() if sum(given)]
    assert (size(content)[0] > 800) is (len(measured) > 1)  # streams stand beside the intervals
    assert len(content) < 250_000
    assert clone_figures.flow(shares, timed, beside, PHASES, "P") == content


def test_streams_are_level_at_the_phases():
    x = clone_figures.smooth_step(np.array([0.0, 0.5, 1.0]))
    assert x == pytest.approx([0, 0.5, 1])


def test_note():
    assert size(clone_figures.note("P1: no clones were traced. 3 malignant cells."))[1] < 100
