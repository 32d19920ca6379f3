"""From one undersampled frame to coefficient images to maps."""

from pathlib import Path

import numpy as np
from brain_scan import images, maps, scan
from cmcrameri import cm
from plots import canvas, picture, save

import mrf
from mrf.report import relaxometry_norm


def draw(path: Path) -> None:
    """A frame alone and coefficients above; maps and the truth below."""
    one, found = scan(), maps()
    middle = one.trajectory.k.shape[0] // 2
    frame = mrf.Trajectory(one.trajectory.k[middle : middle + 1], one.phantom.shape, one.phantom.field_of_view)
    aliased = mrf.reconstruct(
        one.kspace[:, middle : middle + 1],
        frame,
        np.ones((1, 1), np.float32),
        coils=one.phantom.coils,
        method="gridding",
    )
    figure, axes = canvas(2, 4, 11, 5.6)
    picture(figure, axes[0, 0], np.abs(aliased[0]), "one frame: one arm", cmap="gray")
    for number in range(3):
        title = f"coefficient {number + 1}, {one.kspace.shape[1]} frames"
        picture(figure, axes[0, number + 1], np.abs(images()[number]), title, cmap="gray")
    for column, (name, colours, upper) in enumerate((("t1", cm.lipari, 3000), ("t2", cm.navia, 300))):
        for row, (what, values) in enumerate((("found", getattr(found, name)), ("true", getattr(one.phantom, name)))):
            place = axes[1, 2 * column + row]
            title, unit = f"{name.upper()}, {what}", "ms" if row else ""
            picture(figure, place, 1000 * values, title, unit, cmap=colours, norm=relaxometry_norm(upper))
            place.set_facecolor("#202020")
    save(figure, path)
