"""What a reconstruction is given: frames that were not measured, masks, units, kinds of values, late gradients."""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import mrf
from mrf.core.arrays import Array
from mrf.phantom import brain, spiral
from mrf.recon.checks import check_reach
from mrf.recon.corrections import Corrections, Measured
from mrf.recon.delays import delayed
from mrf.recon.density import balanced_weights, density_weights
from mrf.recon.forecast import Forecast
from mrf.recon.girf import Girf, predicted
from mrf.recon.methods import Choices
from mrf.recon.nufft import sample_exact
from mrf.recon.stream import Stream
from mrf.recon.subspace import SubspaceModel

from .conftest import relative

N, FRAMES, FOV, DWELL = 16, 30, 0.2, 1e-5


@cache
def setting() -> tuple[Array, mrf.Trajectory, Array, Array]:
    """K-space of spokes that fill the band, trajectory, basis and coils."""
    angles = np.arange(FRAMES) * np.pi * (3 - 5**0.5)
    along = np.linspace(-0.5, 0.5, 2 * N, endpoint=False)[:, None] * N / FOV
    k = np.array([along * np.array([[np.sin(angle), np.cos(angle)]]) for angle in angles])
    trajectory = mrf.Trajectory(k, (N, N), (FOV, FOV), sample_times=np.arange(2 * N) * DWELL)
    basis = np.linalg.qr(np.random.default_rng(1).standard_normal((FRAMES, 2)))[0].T
    phantom = brain(N, 2)
    coils = phantom.coils / np.linalg.norm(phantom.coils, axis=0)
    kspace = SubspaceModel(trajectory, basis, coils).forward(phantom.pd * np.array([1, 0.5])[:, None, None])
    return kspace, trajectory, basis, coils


# What was not measured


@pytest.mark.parametrize("arriving", [False, True])
def test_frames_without_data_are_refused(arriving: bool) -> None:
    """Their zeros counted as measured: coefficients were too small and mixed."""
    kspace, trajectory, basis, coils = setting()
    kspace = kspace.copy()
    kspace[:, [4, 20]] = 0
    work: Callable[[], Any] = lambda: mrf.reconstruct(kspace, trajectory, basis, coils=coils)  # noqa: E731
    if arriving:
        stream = Stream(trajectory, basis, 2, coils=coils)
        for frame in range(FRAMES):
            stream.add(frame, kspace[:, frame])
        work = stream.finish
    with pytest.raises(mrf.InputError, match=r"every sample of 2 frames \(4, 20\) is zero in all coils.*leave frames"):
        work()


def test_frames_that_have_no_signal_may_be_zero() -> None:
    kspace, trajectory, _, coils = setting()
    basis = np.eye(FRAMES)[:2]
    kspace = kspace.copy()
    kspace[:, 2:] = 0
    assert mrf.reconstruct(kspace, trajectory, basis, coils=coils, iterations=2).any()


def test_samples_without_data_are_told(caplog: pytest.LogCaptureFixture) -> None:
    kspace, trajectory, basis, coils = setting()
    kspace = kspace.copy()
    with caplog.at_level(logging.WARNING, "mrf"):
        mrf.reconstruct(kspace, trajectory, basis, coils=coils, iterations=2)
        kspace[0, :, :9] = 0  # in one coil
        mrf.reconstruct(kspace, trajectory, basis, coils=coils, iterations=2)
        assert not caplog.text
        kspace[1, :, :1] = 0
        mrf.reconstruct(kspace, trajectory, basis, coils=coils, iterations=2)
    assert "kspace: 3.1 % of the samples are 0 in all coils; not measured? leave them out" in caplog.text


def test_masked_values_are_not_data() -> None:
    """The values under a mask were taken."""
    kspace, trajectory, basis, coils = setting()
    mask = np.zeros(kspace.shape, bool)
    mask[1, 3, 7] = True
    hidden = np.ma.masked_array(np.where(mask, 1e6, kspace), mask)
    for work in (
        lambda: mrf.reconstruct(hidden, trajectory, basis, coils=coils),
        lambda: mrf.estimate_coils(hidden, trajectory),
        lambda: mrf.compress_coils(hidden),
    ):
        with pytest.raises(mrf.InputError, match=r"kspace: .*NaN, masked"):
            work()  # type: ignore[no-untyped-call]
    maps = np.ma.masked_array(coils, np.zeros(coils.shape, bool))
    maps[0, 2, 2] = np.ma.masked
    with pytest.raises(mrf.InputError, match="coils: got NaN, masked"):
        mrf.reconstruct(kspace, trajectory, basis, coils=maps)


def test_masked_field_maps_count_where_coils_see() -> None:
    kspace, trajectory, basis, coils = setting()
    seen = np.hypot(*np.meshgrid(*[np.arange(N) - N // 2] * 2)) < 6
    field = np.ma.masked_array(np.where(seen, 20.0, 1e6), ~seen)
    found = mrf.reconstruct(kspace, trajectory, basis, coils=coils * seen, field_map=field, iterations=3)
    assert np.isfinite(found).all()
    with pytest.raises(mrf.InputError, match="field_map: got nan"):
        mrf.reconstruct(kspace, trajectory, basis, coils=coils, field_map=field)


# Units and kinds


@pytest.mark.parametrize(("scale", "told"), [(1.0, False), (0.3, False), (0.19, True), (FOV / N, True)])
def test_k_that_stays_near_0_is_told(scale: float, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Such as cycles per pixel or per field of view, or 1/cm."""
    kspace, trajectory, basis, coils = setting()
    given = mrf.Trajectory(trajectory.k * scale, (N, N), (FOV, FOV))
    with caplog.at_level(logging.WARNING, "mrf"):
        mrf.reconstruct(kspace, given, basis, coils=coils, iterations=2, noise_std=1.0)
    assert caplog.text.count("of 0.5 cycles per pixel, so that images are blurred; were 1/m meant?") == told


WIDE = [(0.18, 128), (0.22, 128), (0.25, 128), (0.24, 192), (0.3, 256), (0.5, 256)]


@pytest.mark.parametrize(("field_of_view", "n"), WIDE)
def test_cycles_per_field_of_view_are_told(field_of_view: float, n: int, caplog: pytest.LogCaptureFixture) -> None:
    """Was: below 0.2 m only, since k reaches half of the field of view (m) of the band."""
    right = spiral(48, n, field_of_view)
    check_reach(right)
    assert not caplog.text
    check_reach(mrf.Trajectory(right.k * field_of_view, right.matrix, right.field_of_view))
    assert "were 1/m meant? cycles per field of view are to be divided" in caplog.text


@pytest.mark.parametrize(
    ("field_of_view", "matrix", "told"),
    [((0.24, 0.22), (96, 80), True), ((0.12, 0.24, 0.24), (5, 64, 64), True), ((1.0, 1.0), (64, 64), False)],
)
def test_counted_cycles_of_any_matrix(
    field_of_view: tuple[float, ...], matrix: tuple[int, ...], told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    cycles = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in matrix], indexing="ij"), -1).astype(float)
    check_reach(mrf.Trajectory(cycles.reshape(1, -1, len(matrix)), matrix, field_of_view))
    assert ("were 1/m meant?" in caplog.text) == told


@pytest.mark.parametrize("share", [0.22, 0.3, 0.4, 0.6, 0.75, 1.0])
@pytest.mark.parametrize("field_of_view", [(0.25, 0.25), (0.2, 0.25), (0.24, 0.24, 0.24), (0.1, 0.2, 0.2)])
def test_low_resolutions_are_no_other_unit(
    field_of_view: tuple[float, ...], share: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Radial and 3-D radial scans that reach a part of the band, on purpose."""
    rng, axes = np.random.default_rng(3), len(field_of_view)
    directions = rng.standard_normal((300, axes))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    extent, matrix = np.array(field_of_view), np.array((64,) * axes)
    along = np.linspace(-0.5, 0.5, 64, endpoint=False)[:, None] * share * matrix / extent
    check_reach(mrf.Trajectory(directions[:, None] * along, matrix, extent))
    assert not caplog.text


def test_k_may_stand_still_along_an_axis_of_one_pixel_or_be_short_along_one(caplog: pytest.LogCaptureFixture) -> None:
    kspace, trajectory, basis, _ = setting()
    flat = np.concatenate([np.zeros((FRAMES, 2 * N, 1)), trajectory.k], -1)
    for factor, matrix in ((1.0, (1, N, N)), (0.1, (4, N, N))):
        given = mrf.Trajectory(flat * [1, factor, 1], matrix, (0.1, FOV, FOV))
        with caplog.at_level(logging.WARNING, "mrf"):
            Stream.of(kspace, given, basis, coils=np.ones((2, *matrix)))
    assert not caplog.text


def test_values_of_the_wrong_kind_are_refused_by_name() -> None:
    """They were taken, or were errors of numpy's and Python's."""
    kspace, trajectory, basis, coils = setting()
    wrong: Any = np.asarray
    stream = Stream(trajectory, basis, 2, coils=coils)
    images = np.ones((3, 2)) + 0j
    girf = Girf([0, 1e5], np.ones((2, 3)))
    cases: list[tuple[str, Callable[[], Any]]] = [
        ("kspace: got float64 values, expected comp", lambda: mrf.reconstruct(kspace.real, trajectory, basis)),
        ("kspace: got float64 values", lambda: mrf.estimate_coils(kspace.real, trajectory)),
        ("kspace: got float32 values", lambda: mrf.compress_coils(kspace.real.astype(np.float32))),
        ("kspace: got int64 values", lambda: mrf.images_of_kspace(np.ones((1, 2, 4, 4), int))),
        ("kspace: got <U1 values", lambda: mrf.reconstruct(wrong(["a"]), trajectory, basis)),
        ("basis: got <U1 values", lambda: mrf.reconstruct(kspace, trajectory, wrong(["a"]))),
        ("coils: got <U1 values", lambda: mrf.reconstruct(kspace, trajectory, basis, coils=wrong(["a"]))),
        ("k: got lists that make no array", lambda: mrf.Trajectory([[[0, 0]], [[0, 0], [1, 1]]], (8, 8), (1, 1))),
        ("dtype: got float32, expected complex64", lambda: Stream(trajectory, basis, 2, dtype=np.float32)),
        ("noise_std: got 'auto'", lambda: Choices(noise_std="auto")),  # type: ignore[arg-type]
        ("noise_std: got True", lambda: Choices(noise_std=True)),
        ("noise_std: got shape", lambda: Choices(noise_std=np.ones((2, 3)))),
        ("noise_std: got -1", lambda: mrf.reconstruct(kspace, trajectory, basis, noise_std=-1)),
        ("regularization: got '5'", lambda: Choices("wavelet", regularization="5")),  # type: ignore[arg-type]
        ("frame: got 'a', expected a whole", lambda: stream.add("a", kspace[:, 0])),  # type: ignore[arg-type]
        ("frame: got 1.5, expected a whole", lambda: stream.add(1.5, kspace[:, 0])),  # type: ignore[arg-type]
        ("samples: got float64 values", lambda: stream.add(0, kspace[:, 0].real)),
        ("samples: got shape", lambda: stream.add(0, [1j])),  # type: ignore[arg-type]
        ("trajectory: got ndarray", lambda: delayed(trajectory.k, [0, 0])),
        ("trajectory: got ndarray", lambda: predicted(trajectory.k, girf)),
        ("girf: got str, expected mrf.Girf", lambda: predicted(trajectory, "girf")),  # type: ignore[arg-type]
        ("reference: got 1.5", lambda: mrf.signed_images(images, reference=1.5)),
        ("reference: got nan", lambda: mrf.signed_images(images, reference=np.nan)),
        ("threshold: got 2,", lambda: mrf.estimate_coils(kspace, trajectory, threshold=2)),
        ("crop: got '1'", lambda: mrf.estimate_coils(kspace, trajectory, crop="1")),
    ]
    for match, work in cases:
        with pytest.raises(mrf.InputError, match=match):
            work()
    stream.add(np.int64(0), kspace[:, 0])  # type: ignore[arg-type]


# Late gradients of readouts that fill the band


def test_corrections_may_leave_the_band() -> None:
    """The model is a sum over pixels, and periodic: samples a little beyond the band are as exact as others."""
    _, trajectory, basis, coils = setting()
    late = delayed(trajectory, [3 * DWELL, -2 * DWELL])
    assert 0.55 < late.reach.max() < 0.65
    with pytest.raises(mrf.InputError, match=r"k: reaches 0\.\d+ cycles per pixel, expected at most 0\.5"):
        mrf.Trajectory(late.k, late.matrix, late.field_of_view)
    images = brain(N, 1).pd * np.array([1, 0.5j])[:, None, None]
    weights = balanced_weights(late)
    model = SubspaceModel(late, basis, coils, None if weights is None else weights.astype(float))
    kspace = model.forward(images)
    each = sample_exact((coils[:, None] * images).reshape(-1, N, N), late.radians.reshape(-1, 2))
    exact = np.einsum("jf,cjfs->cfs", basis, each.reshape(2, 2, FRAMES, -1))
    assert relative(kspace, exact) < 1e-6
    assert relative(model.normal(images), model.adjoint(kspace)) < 1e-6
    weights = density_weights(late)
    assert np.isfinite(weights).all()
    assert (weights > 0).all()
    prompt = SubspaceModel(trajectory, basis, coils).forward(images)
    off, least = (
        relative(mrf.reconstruct(data, places, basis, coils=coils, iterations=30), images)
        for data, places in ((kspace, late), (prompt, trajectory))
    )
    assert off < 1.2 * least
    assert mrf.estimate_coils(kspace, late, calibration_width=16, kernel_width=4).any()
    for frames in (late.of_frames(np.array([0])), late.per_readout):
        assert frames.reach.max() > 0.505


def test_how_far_corrections_leave_the_band() -> None:
    kspace, trajectory, basis, _ = setting()
    weak = Girf([0, 1e5], np.full((2, 3), 1.6))
    with pytest.raises(mrf.InputError, match=r"delays of 200, 0 us: with it k reaches 1\.1"):
        delayed(trajectory, [20 * DWELL, 0])
    with pytest.raises(mrf.InputError, match=r"girf: with it k reaches 0\.8 cycles per pixel, 0\.5 without"):
        predicted(trajectory, weak)
    with pytest.raises(mrf.InputError, match=r"the measured trajectory: with it k reaches 0\.8"):
        Measured(trajectory.k * 1.6).in_place_of(trajectory)
    _, moved = Corrections(delays=(4e-6, -3e-6)).applied(kspace, trajectory, basis)
    assert moved.reach.max() > 0.505


# Memory


def test_coils_are_estimated_within_the_budget() -> None:
    rng = np.random.default_rng(0)
    trajectory = mrf.Trajectory(rng.uniform(-70, 70, (4, 900, 3)), (32, 32, 32), (0.2, 0.2, 0.2))
    kspace = rng.standard_normal((16, 4, 900)) + 1j * rng.standard_normal((16, 4, 900))
    basis = np.full((1, 4), 0.5)
    with pytest.raises(
        mrf.InputError, match=r"memory: to estimate 16 coils takes 0.\d+ GB, but 0.2 GB are allowed; giv"
    ):
        mrf.reconstruct(kspace, trajectory, basis, memory="200MB")
    told = Forecast.of(trajectory, 1, 16, arriving=True)
    found = Forecast.of(trajectory, 1, 16, arriving=True, estimating=True)
    assert found.least - told.least > 2e8
    with pytest.raises(mrf.InputError, match=r"memory: "):
        Stream(trajectory, basis, 16, choices=Choices(memory="300MB"))
