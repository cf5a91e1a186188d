"""Pictures of survival: small, the same at every drawing, made of any text."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scresist import survival, survival_figures
from scresist.survival_figures import Panel


def panel(title="MUC3A (cut: median)", groups=("low", "high"), n=40):
    rng = np.random.default_rng(1)
    times = [rng.exponential(10, n) for _ in groups]
    curves = [survival.kaplan_meier(t, (rng.random(n) < 0.7).astype(float))[0] for t in times]
    return Panel(title, "log-rank p = 0.01, n = 80", groups, curves, times)


def size(content):
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        return image.size


def ratios(n):
    rows = [(f"gene {i}", "univariate" if i % 2 else "adjusted", 1.5, 1.1, 2.0, 300, 150, 0.01) for i in range(n)]
    return pd.DataFrame(rows, columns=["name", "model", "hr", "ci_low", "ci_high", "n", "events", "p"])


def test_twelve_panels_stay_small_and_equal():
    many = [panel() for _ in range(14)]
    page = survival_figures.kaplan_meier_page(many, "cohort", "time (months)", "PFS")
    assert len(page) < 250_000
    assert page == survival_figures.kaplan_meier_page(many[:12], "cohort", "time (months)", "PFS")
    assert size(page)[1] > size(survival_figures.kaplan_meier_page(many[:2], "cohort", "time (months)", "PFS"))[1]


@pytest.mark.parametrize("text", ["$x^", "<b>$", "a" * 90, "μ_{1}"])
def test_any_text_is_drawn(text):
    assert size(survival_figures.kaplan_meier_page([panel(text, (text, "b"))], text, "time (days)", text))
    assert size(survival_figures.forest(ratios(1).assign(name=text), text))
    assert size(survival_figures.nothing(text, text))


def test_nothing_to_draw_is_said():
    assert size(survival_figures.kaplan_meier_page([], "cohort", "t", "OS"))
    assert size(survival_figures.forest(ratios(0), "cohort"))
    assert size(survival_figures.forest(ratios(2).assign(hr=np.nan), "cohort"))


def test_forest_rows_are_limited_and_wide_intervals_cut():
    assert survival_figures.forest(ratios(60), "c") == survival_figures.forest(ratios(40), "c")
    assert size(survival_figures.forest(ratios(3).assign(ci_high=1e9), "c"))
    assert len(survival_figures.forest(ratios(40), "c")) < 250_000


def test_names_are_shortened_in_the_middle():
    assert survival_figures.short("x" * 10) == "x" * 10
    made = survival_figures.short("HALLMARK_" + "A" * 60 + "_SIGNALING")
    assert len(made) <= 44
    assert made.startswith("HALLMARK_")
    assert made.endswith("SIGNALING")
