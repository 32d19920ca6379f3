"""MRD files that hold images: kinds, frames, slices, geometry, what is left out and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.io.mrd_image_groups import holds_images_only, read_image_groups
from mrf.io.mrd_images import read_mrd_images

from .test_cartesian import random
from .test_mrd_images import CENTRE, DIRECTIONS, PIXEL, header_of, written

NZ, NY, NX = 2, 6, 5
TRUTH = random(3, NZ, NY, NX)  # frames of two slices
KINDS: dict[str, Callable[[Array], Array]] = {
    "MAGNITUDE": np.abs, "PHASE": np.angle, "REAL": np.real, "IMAG": np.imag, "COMPLEX": lambda values: values,
}  # fmt: skip


def image(data: Array, kind: str, frame: int, z: int, counter: str = "contrast", **meta: float) -> Any:
    volume = data if data.ndim == 3 else data[None]
    one = ismrmrd.Image.from_array(np.ascontiguousarray(volume[None]), transpose=False)
    one.image_type = getattr(ismrmrd, f"IMTYPE_{kind}")
    one.slice = z
    setattr(one, counter, frame)
    for axis in range(3):
        one.field_of_view[axis] = (NX * PIXEL[2], NY * PIXEL[1], PIXEL[0])[axis]
        one.position[axis] = (CENTRE + 4.0 * z * DIRECTIONS[2])[axis]
        for number, name in enumerate(("read_dir", "phase_dir", "slice_dir")):
            getattr(one, name)[axis] = DIRECTIONS[number, axis]
    one.meta = ismrmrd.Meta({key: str(value) for key, value in meta.items()})
    return one


def stored(path: Path, *groups: list[Any], **told: Any) -> Path:
    with ismrmrd.File(str(path), mode="w") as file:
        file["dataset"].header = header_of(1, 3, **told)
        for number, images in enumerate(groups):
            file[f"dataset/image_{number}"].images = images
    return path


def all_of(kind: str, counter: str = "contrast") -> list[Any]:
    """Every frame and slice of the truth as images of one kind, the last first."""
    made = [
        image(
            KINDS[kind](TRUTH[frame, z]).astype(np.complex64 if kind == "COMPLEX" else np.float32),
            kind,
            frame,
            z,
            counter,
        )
        for frame in range(3)
        for z in range(NZ)
    ]
    return made[::-1]


@pytest.mark.parametrize(
    ("kinds", "kind", "made"),
    [
        (["MAGNITUDE"], "magnitude", np.abs),
        (["REAL"], "signed", np.real),
        (["COMPLEX"], "complex", lambda values: values),
        (["REAL", "IMAG"], "complex", lambda values: values),
        (["MAGNITUDE", "PHASE"], "complex", lambda values: values),
        (["MAGNITUDE", "COMPLEX"], "complex", lambda values: values),
    ],
)
def test_kinds(tmp_path: Path, kinds: list[str], kind: str, made: Callable[[Array], Array]) -> None:
    path = stored(tmp_path / "a.h5", *(all_of(one) for one in kinds))
    assert holds_images_only(path)
    series = read_mrd_images(path)
    order = [1, 0, 2]  # by echo time
    assert series.kind == kind
    assert series.varying == ("echo_times",)
    assert np.allclose(series.times, [0.002, 0.005, 0.012])
    assert np.allclose(series.data, made(TRUTH)[order], atol=1e-5)
    assert series.field_strength == pytest.approx(2.8936, abs=1e-3)
    assert "images: 2 slices of 3 frames, counted by contrast" in series.notes
    assert ("6 images of another kind left out" in series.notes) == (kinds == ["MAGNITUDE", "COMPLEX"])
    for z in range(NZ):
        world = np.array([-1, -1, 1]) * (CENTRE + 4 * z * DIRECTIONS[2])
        assert np.allclose((series.affine @ [NX // 2, NY // 2, z, 1])[:3], world, atol=1e-4)


def test_complex_images_marked_as_magnitudes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Their real parts were taken for magnitudes."""
    marked = all_of("COMPLEX")
    for one in marked:
        one.image_type = ismrmrd.IMTYPE_MAGNITUDE
    marked[0].data[:] = 0  # the last frame and slice, where a single image tells nothing
    series = read_mrd_images(stored(tmp_path / "a.h5", marked))
    assert series.kind == "complex"
    assert np.allclose(series.data[:2], TRUTH[[1, 0]], atol=1e-5)
    assert "6 images with imaginary parts have field image_type 1 (magnitude): taken as complex (5)" in caplog.text
    for one in marked:
        one.data.imag[:] = 0
    assert read_mrd_images(stored(tmp_path / "b.h5", marked)).kind != "complex"


def test_raw_data_and_other_files_are_no_images(tmp_path: Path) -> None:
    assert not holds_images_only(written(tmp_path / "a.h5"))
    assert not holds_images_only(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("text")
    assert not holds_images_only(tmp_path / "text.h5")


def test_scaled_images_of_another_counter(tmp_path: Path) -> None:
    values = np.round(1000 * np.abs(TRUTH)).astype(np.uint16)
    images = [
        image(
            values[frame, z] // (frame + 1),
            "MAGNITUDE",
            frame,
            z,
            "repetition",
            RescaleSlope=frame + 1,
            RescaleIntercept=-2,
        )
        for frame in range(3)
        for z in range(NZ)
    ]
    series = read_image_groups(stored(tmp_path / "a.h5", images, TE=[3.0], TI=[100.0, 900.0, 30.0]))
    assert np.allclose(series.times, [0.03, 0.1, 0.9])
    assert np.abs(series.data - (values - 2.0)[[2, 0, 1]]).max() <= 2  # what whole numbers lose
    assert series.kind == ("signed" if (series.data < 0).any() else "magnitude")


def test_volumes_and_phase_in_unknown_units(tmp_path: Path) -> None:
    """One image is a volume; phase as whole numbers up to 4095 cannot be used."""
    images: list[Any] = []
    phases: list[Any] = []
    for frame in range(3):
        volume = image(np.abs(TRUTH[frame]).astype(np.float32), "MAGNITUDE", frame, 0)
        phase = image((1000 * np.abs(TRUTH[frame])).astype(np.uint16), "PHASE", frame, 0)
        for one, held in ((volume, images), (phase, phases)):
            one.field_of_view[2] = NZ * PIXEL[0]
            held.append(one)
    series = read_image_groups(stored(tmp_path / "a.h5", images, phases))
    assert series.kind == "magnitude"
    assert np.allclose(series.data, np.abs(TRUTH)[[1, 0, 2]], atol=1e-6)
    assert "3 images of another kind left out" in series.notes
    assert np.allclose((series.affine @ [NX // 2, NY // 2, NZ // 2, 1])[:3], [-10, 20, 30], atol=1e-4)


def broken(path: Path, change: Callable[[Any], None]) -> Path:
    stored(path, all_of("MAGNITUDE"))
    with h5py.File(path, "r+") as file:
        change(file["dataset"])
    return path


def put(field: str, value: Any) -> Callable[[Any], None]:
    def change(dataset: Any) -> None:
        heads = dataset["image_0/header"][()]
        heads[field][0] = value
        dataset["image_0/header"][:] = heads

    return change


def nan(dataset: Any) -> None:
    dataset["image_0/data"][0, 0, 0, 1, 2] = np.nan


def shorter(dataset: Any) -> None:
    heads = dataset["image_0/header"][:-1]
    del dataset["image_0/header"]
    dataset["image_0/header"] = heads


def coils(dataset: Any) -> None:
    data = np.repeat(dataset["image_0/data"][()], 2, axis=1)
    del dataset["image_0/data"]
    dataset["image_0/data"] = data


def no_slope(dataset: Any) -> None:
    dataset["image_0/attributes"][0] = ismrmrd.Meta({"RescaleSlope": "steep"}).serialize()


def no_time(dataset: Any) -> None:
    dataset["xml"][0] = dataset["xml"][0].replace(b"<TE>5.0</TE>", b"<TE>five</TE>")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("image_type", 6), "group /dataset/image_0: field image_type is 6, expected magnitude, phase, real"),
        (put("slice", 7), "slice 7, contrast 0 has 0 images of one kind, expected one; choose what numbers the frames"),
        (put("slice", 0), "slice 0, contrast 2 has 2 images of one kind"),
        (put("field_of_view", (9, 9, 9)), "images differ in matrix or field_of_view"),
        (put("image_type", 3), "slice 1, contrast 2 has 0 images of one kind"),
        (nan, "group /dataset/image_0: field data holds NaN or infinite values"),
        (shorter, "fields header and data hold no MRD images that belong together"),
        (coils, r"images of 2 channels, expected combined coils \(1\)"),
        (no_slope, "attribute RescaleSlope or RescaleIntercept is no number"),
        (no_time, "header field sequenceParameters/TE is not a number"),
    ],
)
def test_what_is_refused(tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    with pytest.raises(mrf.FileError, match=message):
        read_mrd_images(broken(tmp_path / "a.h5", change))


def test_sizes_that_are_no_lengths_and_counters(tmp_path: Path) -> None:
    def flat(dataset: Any) -> None:
        heads = dataset["image_0/header"][()]
        heads["field_of_view"] = 0
        dataset["image_0/header"][:] = heads

    with pytest.raises(mrf.FileError, match=r"field_of_view is \[0. 0. 0.\] mm, expected positive"):
        read_image_groups(broken(tmp_path / "a.h5", flat))
    with pytest.raises(mrf.InputError, match="frame counter: got 'slice', expected one of contrast"):
        read_image_groups(stored(tmp_path / "b.h5", all_of("REAL")), frame_counter="slice")
    with pytest.raises(mrf.FileError, match="holds 0 measurements with images"):
        read_image_groups(written(tmp_path / "c.h5"))
