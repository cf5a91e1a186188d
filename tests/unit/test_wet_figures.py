"""Pictures of plates and fields: small, equal for equal data, with hostile names and without points."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from scresist import dose_response, wet_figures

NASTY = "$x^{ <b>$" + "y" * 60


def curve(name="a", y=None, zero=True):
    dose = np.repeat([0.0] * zero + [2.0**i for i in range(8)], 2)
    x = dose_response.log_doses(dose)
    y = dose_response.response(x, (5, 100, 1, 1.2)) + np.tile([-1.0, 1.0], len(x) // 2) if y is None else np.full(len(x), y)
    return wet_figures.Curve(name, dose, y, dose_response.estimate([(x, y)])[0], 2, "10 nM (9 to 11)")


def size(content):
    assert content[:4] == b"\x89PNG"
    assert len(content) < 250_000
    with Image.open(io.BytesIO(content)) as image:
        return image.size


def test_curves():
    panels = {"L1": [curve(), curve("flat", 100.0)], "L2": [curve(NASTY, zero=False)]}
    content = wet_figures.dose_curves(panels, NASTY, "$nM", "response (%)", 0.05)
    assert size(content)[0] > 700
    assert content == wet_figures.dose_curves(panels, NASTY, "$nM", "response (%)", 0.05)
    many = {f"L{i:02d}": [curve()] for i in range(12)}
    assert size(wet_figures.dose_curves(many, "X", "nM", "y", 0.05))[1] > 1000
    dose = np.zeros(3)
    nothing = wet_figures.Curve("a", dose, dose, dose_response.estimate([(dose_response.log_doses(dose), dose)])[0], 1, "")
    size(wet_figures.dose_curves({"L": [nothing]}, "X", "nM", "y", 0.05))


@pytest.mark.parametrize("n", [1, 20])
def test_boxes(n):
    rng = np.random.default_rng(0)
    groups = {"PRE": [(f"S{i}", rng.random(5)) for i in range(n)], NASTY: [(NASTY, np.array([0.5]))]}
    content = wet_figures.staining_boxes(groups, {"PRE": "#0072B2"}, NASTY, "share", "unit patient: p 0.03")
    size(content)
    assert content == wet_figures.staining_boxes(groups, {"PRE": "#0072B2"}, NASTY, "share", "unit patient: p 0.03")


def test_short():
    assert wet_figures.short("abc") == "abc"
    assert len(wet_figures.short("y" * 100)) == wet_figures.SHORT
