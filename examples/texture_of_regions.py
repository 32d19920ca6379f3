"""Texture of regions: IBSI features of T1 maps with error bars, and texture around every voxel.

One learns that two regions of the same mean T1 differ in texture, what the noise of the maps alone does to a
feature (its error bar, and its bias), and how a texture map shows where the texture changes.

    python examples/texture_of_regions.py [-o FOLDER] [--small]
"""

import argparse
from pathlib import Path

import numpy as np
import scipy.ndimage
from matplotlib.figure import Figure

import mrf

SHOWN = ("first_order_mean", "first_order_variance", "glcm_contrast", "glcm_correlation", "glcm_joint_entropy")


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """A smooth and a patchy half with the same T1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery"), help="folder of the figure")
    parser.add_argument("--small", action="store_true", help="a small map, few draws")
    told = parser.parse_args(arguments)
    told.output.mkdir(parents=True, exist_ok=True)
    size, draws = (32, 5) if told.small else (96, 50)

    rng = np.random.default_rng(0)
    t1, noise = np.full((size, size), 1.2), 0.03  # s
    right = np.arange(size) >= size // 2
    patches = scipy.ndimage.gaussian_filter(rng.standard_normal((size, size)), 1.5)[:, right]
    t1[:, right] += 0.12 * (patches - patches.mean()) / patches.std()  # the same mean, but for noise
    t1 += noise * rng.standard_normal(t1.shape)
    regions = {"smooth": np.broadcast_to(~right, t1.shape), "patchy": np.broadcast_to(right, t1.shape)}

    found: dict[str, float] = {}
    bins = {"bin_width": 0.06, "value_range": (0.0, 4.0)}  # s: the same for all regions and subjects
    print(f"{'feature':24s}" + "".join(f"{name:>22s}" for name in regions))
    measured = {}
    for name, mask in regions.items():
        features = mrf.texture_features(
            t1, mask, spacing=(1, 1), aggregation="2d_average", std=noise, draws=draws, **bins
        )
        measured[name] = {feature.name: feature for feature in features}
    for feature in measured["smooth"]:
        if feature in SHOWN:
            row = [measured[name][feature] for name in regions]
            found |= {f"{feature} {name}": one.value for name, one in zip(regions, row, strict=True)}
            found |= {f"{feature} std {name}": one.std for name, one in zip(regions, row, strict=True)}
            print(f"{feature:24s}" + "".join(f"{one.value:14.5g} +- {one.std:.1g}".rjust(22) for one in row))

    everywhere = np.ones(t1.shape, bool)
    texture = mrf.texture_map(t1, everywhere, ["glcm_joint_entropy"], radius=3, **bins)["glcm_joint_entropy"]
    found |= {f"map {name}": float(texture[mask].mean()) for name, mask in regions.items()}
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    for axes, (title, image) in zip(
        figure.subplots(1, 2), {"T1 (s)": t1, "joint entropy": texture}.items(), strict=True
    ):
        figure.colorbar(axes.imshow(image), ax=axes)
        axes.set(title=title, xticks=[], yticks=[])
    figure.savefig(told.output / "texture_of_regions.png")
    print(told.output / "texture_of_regions.png")
    return found


if __name__ == "__main__":
    main()
