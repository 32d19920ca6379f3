"""The report's parts lie side by side on the sheet, whatever the maps."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrf
from mrf import report
from mrf.core.arrays import Array

_PARAMETERS = {
    "t1": 1.2,
    "t2": 0.09,
    "b1": 1.0,
    "off_resonance": 20.0,
    "fat_fraction": 0.3,
    "inversion_efficiency": 0.9,
}


def _maps(shape: tuple[int, ...], **more: Any) -> mrf.Maps:
    """A smooth course of every parameter, some of it beyond the scale."""
    course: Array = np.linspace(0.2, 6.0, int(np.prod(shape))).reshape(shape)
    parameters = {name: value * course for name, value in _PARAMETERS.items()}
    nothing = np.zeros(shape)
    return mrf.Maps(
        parameters, 1e5 * course + 0j, nothing + 0.99, nothing.astype(int), nothing.astype(np.uint8), nothing == 0,
        std={name: 0.01 * value for name, value in parameters.items()} | {"pd": course}, **more,
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(64, 64), (20, 96), (96, 20), (3, 40, 56)])
def test_nothing_overlaps(shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"cost_of_leaving_free": {"t1": 1.2, "t2": 2.4}, "known": ["b1"], "motion": [[[0.0, 0.0], [0.003, 0.001]]]}
    drawn: list[Any] = []
    monkeypatch.setattr(report, "save_figure", lambda figure, _: drawn.append(figure))
    report.write_report(_maps(shape, provenance=told), tmp_path / "report.png", title="a $scan_1")
    drawn[0].draw_without_rendering()
    (figure,) = drawn
    heading: Any = figure._suptitle
    assert heading.get_text().count("\n") == 3
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [heading.get_window_extent()]
    assert len(boxes) == 5 * (len(_PARAMETERS) + 1) + 3 + 1  # picture, bar and histogram; SD and its bar; heading
    sheet = figure.bbox
    for box in boxes:
        assert sheet.x0 <= box.x0 < box.x1 <= sheet.x1
        assert sheet.y0 <= box.y0 < box.y1 <= sheet.y1
    touching = [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]
    assert not touching


def test_the_last_bar_is_said_to_hold_what_lies_beyond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(report, "save_figure", lambda figure, _: drawn.append(figure))
    report.write_report(_maps((16, 16)), tmp_path / "report.png")
    said = {axes.get_xlabel(): [text.get_text() for text in axes.texts] for axes in drawn[0].axes}
    assert said["T1 (ms)"] == ["last bar: all above"]
    assert said["Score"] == []
