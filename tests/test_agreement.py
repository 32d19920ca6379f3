"""Agreement of repeated measurements: published tables, exact limits, coverage of every interval."""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest

from mrf.core.arrays import Array
from mrf.core.errors import InputError
from mrf.reliability.agreement import (
    Concordance,
    Icc,
    bland_altman,
    concordance,
    finite_rows,
    icc,
    repeatability_coefficient,
    within_subject_cv,
    within_subject_sd,
)

# Shrout & Fleiss 1979, table 2: 6 subjects, 4 judges
JUDGES = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
SAME_MEAN = [[1, 3], [3, 1], [2, 2]]
Form = Literal["2,1", "3,1"]


def scans() -> Array:
    i, j = np.arange(12)[:, None], np.arange(3)
    rounded: Array = np.round(100 + 5 * np.sin(2.1 * i) + 1.5 * np.cos(3.7 * i * (j + 1) + j) + 1.0 * j, 3)
    return rounded


@pytest.mark.parametrize(
    ("form", "published"), [("2,1", (0.29, 0.02, 0.76)), ("3,1", (0.71, 0.34, 0.95))]
)  # fmt: skip
def test_icc_of_shrout_and_fleiss(form: Form, published: tuple[float, float, float]) -> None:
    found = icc(JUDGES, form)
    assert (round(found.value, 2), round(found.low, 2), round(found.high, 2)) == published
    assert (found.form, found.confidence, found.subjects, found.raters) == (form, 0.95, 6, 4)


@pytest.mark.parametrize(
    ("data", "form", "pingouin"),
    [
        (JUDGES, "2,1", (0.28976377952755916, 0.018786513374712058, 0.7610843696489527)),
        (JUDGES, "3,1", (0.7148407148407154, 0.34246476503392614, 0.9458582599553597)),
        (scans(), "2,1", (0.8682250431422518, 0.5626810316217135, 0.9617457014317383)),
        (scans(), "3,1", (0.9265434094980001, 0.8200813615717046, 0.9762234449940408)),
    ],
)
def test_icc_is_that_of_pingouin(data: Any, form: Form, pingouin: tuple[float, float, float]) -> None:
    """Numbers that pingouin 0.7.0 gives, unrounded: types ICC(A,1) and ICC(C,1)."""
    found = icc(data, form)
    assert (found.value, found.low, found.high) == pytest.approx(pingouin, rel=1e-11)


@pytest.mark.parametrize(("subjects", "sessions", "offsets"), [(20, 2, 0.3), (30, 5, 0.3), (12, 3, 0.0)])
def test_icc_intervals_cover(subjects: int, sessions: int, offsets: float) -> None:
    random, error, covered = np.random.default_rng(7), 0.5, np.zeros(2)
    truth = 1 / (1 + offsets**2 + error**2), 1 / (1 + error**2)
    for _ in range(1000):
        data = random.normal(size=(subjects, 1)) + offsets * random.normal(size=sessions)
        data = data + error * random.normal(size=(subjects, sessions))
        found = icc(data, "2,1"), icc(data, "3,1")
        covered += [one.low <= value <= one.high for one, value in zip(found, truth, strict=True)]
    assert (covered / 1000 > 0.93).all()
    assert (covered / 1000 < 0.97).all()


@pytest.mark.parametrize(
    ("subjects", "sessions", "offsets"), [(20, 2, 1.0), (50, 2, 1.0), (20, 2, 0.0), (20, 4, 0.5), (10, 2, 0.3)]
)
def test_generalized_intervals_cover(subjects: int, sessions: int, offsets: float) -> None:
    """The published ones hold the truth in 78 % of the first and 76 % of the second case."""
    random, error, covered = np.random.default_rng(7), 0.3, 0
    truth = 1 / (1 + offsets**2 + error**2)
    for _ in range(1000):
        data = random.normal(size=(subjects, 1)) + offsets * random.normal(size=sessions)
        found = icc(data + error * random.normal(size=(subjects, sessions)), interval="generalized")
        assert found.low < found.value < found.high
        covered += found.low <= truth <= found.high
    assert 0.925 < covered / 1000 < 0.98


def test_generalized_intervals_of_many_sessions_are_the_published_ones() -> None:
    random = np.random.default_rng(3)
    data = random.normal(size=(40, 1)) + 0.2 * random.normal(size=60) + 0.5 * random.normal(size=(40, 60))
    ours, published = icc(data, interval="generalized"), icc(data)
    assert (ours.low, ours.high) == pytest.approx((published.low, published.high), abs=0.01)
    both = icc(data, "3,1", interval="generalized"), icc(data, "3,1")
    assert both[0] == both[1]


@pytest.mark.parametrize("interval", ["satterthwaite", "generalized"])
@pytest.mark.parametrize("form", ["2,1", "3,1"])
def test_wider_confidence_is_wider(form: Form, interval: Literal["satterthwaite", "generalized"]) -> None:
    narrow, wide = (icc(JUDGES, form, share, interval=interval) for share in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.value == wide.value < narrow.high < wide.high
    assert narrow.confidence == 0.8


def test_icc_limits() -> None:
    truth = np.random.default_rng(0).normal(1.2, 0.3, (8, 1))
    for form in ("2,1", "3,1"):
        same = icc(np.repeat(truth, 3, axis=1), form)
        assert (same.value, same.low, same.high) == pytest.approx((1, 1, 1), abs=1e-12)
    offset = truth + np.array([0, 0.25])
    assert icc(offset, "3,1").value == pytest.approx(1, abs=1e-12)
    between = np.var(truth, ddof=1)
    assert icc(offset, "2,1").value == pytest.approx(between / (between + 0.25**2 / 2), rel=1e-12)  # MSE = 0
    assert icc([[1, 2], [4, 4], [6, 7]], "2,1").value != icc([[1, 2], [4, 4], [6, 7]], "3,1").value


def test_icc_without_differences_between_subjects() -> None:
    """Mean squares 0, 0 and 2 of 3 subjects with the same mean: negative values, not an error, without an interval."""
    for found, value in ((icc(SAME_MEAN, "3,1"), -2 / 2), (icc(SAME_MEAN, "2,1"), -2 / (2 - 2 * 2 / 3))):
        assert found.value == pytest.approx(value)
        assert np.isnan([found.low, found.high]).all()  # [-1, -1] and [-3, -3] would be certain
    nearly = icc(np.array(SAME_MEAN) + np.array([[0.1], [0], [0]]))
    assert nearly.low < nearly.value < nearly.high < 1
    with pytest.raises(InputError, match=r"data: all subjects are alike, so that an ICC is 0 / 0; give subjects that"):
        icc([[0.3, 2.3], [0.3, 2.3], [0.1 + 0.2, 2.3]])


def test_icc_and_concordance_have_no_unit() -> None:
    data = scans()
    a: Icc | Concordance
    b: Icc | Concordance
    for form in ("2,1", "3,1"):
        a, b = icc(data, form), icc(data * 1e-9 + 1e-3, form)
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), rel=1e-7)
        c = icc(data * 1e200, form)
        assert (a.value, a.low, a.high) == pytest.approx((c.value, c.low, c.high), rel=1e-12)
    a, b = (concordance(scale * data[:, 0], scale * data[:, 1]) for scale in (1, 1e-200))
    assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), rel=1e-12)


def test_within_subject_spread_of_two_sessions() -> None:
    """Two sessions: variance d^2 / 2 of each subject."""
    data = np.random.default_rng(1).normal(80, 6, (9, 2))
    d = data[:, 0] - data[:, 1]
    assert within_subject_sd(data) == pytest.approx(math.sqrt(np.mean(d**2) / 2), rel=1e-12)
    assert within_subject_cv(data) == pytest.approx(math.sqrt(np.mean(2 * (d / data.sum(axis=1)) ** 2)), rel=1e-12)
    assert within_subject_cv(1000 * data) == pytest.approx(within_subject_cv(data), rel=1e-12)
    assert within_subject_sd([[2, 2], [3, 3], [5, 5]]) == 0


def test_repeatability_coefficient() -> None:
    random, covered, beyond = np.random.default_rng(2), 0, 0
    for _ in range(1000):
        found = repeatability_coefficient(5 * random.normal(size=(10, 1)) + 0.7 * random.normal(size=(10, 3)))
        covered += found.low <= 1.96 * math.sqrt(2) * 0.7 <= found.high
        a, b = 0.7 * random.normal(size=2)
        beyond += abs(a - b) > 1.96 * math.sqrt(2) * 0.7
    assert 930 < covered < 970
    assert 30 < beyond < 70
    assert (found.subjects, found.sessions, found.confidence) == (10, 3, 0.95)
    steady = repeatability_coefficient([[2, 2], [3, 3], [5, 5]])
    assert (steady.value, steady.low, steady.high) == (0, 0, 0)
    by_hand = 1.96 * math.sqrt(2) * within_subject_sd(JUDGES)
    assert repeatability_coefficient(JUDGES).value == pytest.approx(by_hand, rel=1e-12)
    # 18 degrees of freedom: chi-squared quantiles 8.231 and 31.526 of the tables
    limits = by_hand * math.sqrt(18 / 31.526), by_hand * math.sqrt(18 / 8.231)
    found = repeatability_coefficient(JUDGES)
    assert (found.low, found.high) == pytest.approx(limits, rel=1e-4)


def test_bland_altman_by_hand() -> None:
    first, second = np.array([10.0, 12, 15, 9, 11]), np.array([11.0, 11, 14, 7, 12])
    found = bland_altman(first, second)
    assert found.bias == pytest.approx(0.4)
    assert found.sd == pytest.approx(math.sqrt(7.2 / 4))
    assert (found.lower, found.upper) == pytest.approx((0.4 - 1.96 * found.sd, 0.4 + 1.96 * found.sd))
    wide = 2.7764 * found.sd / math.sqrt(5)  # t of 4 degrees of freedom
    assert found.bias_interval == pytest.approx((0.4 - wide, 0.4 + wide), rel=1e-4)
    assert (found.subjects, found.confidence) == (5, 0.95)
    swapped = bland_altman(second, first)
    assert swapped.lower_interval == pytest.approx([-x for x in found.upper_interval[::-1]])
    assert swapped.bias == pytest.approx(-found.bias)


def test_bland_altman_of_many_is_the_approximation_of_the_paper() -> None:
    x = np.random.default_rng(3).normal(size=5000)
    found = bland_altman(x, np.zeros(5000))
    error = found.sd * math.sqrt(1 / 5000 + 1.96**2 / (2 * 4999))
    assert found.upper_interval == pytest.approx((found.upper - 1.96 * error, found.upper + 1.96 * error), abs=2e-3)
    assert found.lower_interval == pytest.approx((found.lower - 1.96 * error, found.lower + 1.96 * error), abs=2e-3)


def test_bland_altman_intervals_cover() -> None:
    random, covered = np.random.default_rng(4), np.zeros(3)
    for _ in range(1000):
        found = bland_altman(random.normal(1, 2, 8), np.zeros(8))
        intervals = found.bias_interval, found.lower_interval, found.upper_interval
        truth = 1, 1 - 1.96 * 2, 1 + 1.96 * 2
        covered += [low <= value <= high for (low, high), value in zip(intervals, truth, strict=True)]
    assert (abs(covered - 950) < 21).all()  # 3 standard deviations
    steady = bland_altman([1.5, 2.5, 3.5], [1, 2, 3])
    assert (steady.lower_interval, steady.upper_interval) == ((0.5, 0.5), (0.5, 0.5))


def test_concordance_goes_with_the_icc() -> None:
    """1 / CCC from both ICC of two sessions: an identity of their definitions."""
    data = (
        np.random.default_rng(5).normal(size=(15, 1)) + np.random.default_rng(6).normal(size=(15, 2)) * 0.4 + [0, 0.3]
    )
    absolute, consistent, n = icc(data, "2,1").value, icc(data, "3,1").value, 15
    shift = 1 / absolute - 1 / consistent + (1 / consistent - 1) / n
    found = concordance(data[:, 0], data[:, 1])
    assert 1 / found.value == pytest.approx(1 / consistent + n / (n - 1) * shift, rel=1e-12)
    assert found.low < found.value < found.high < 1
    assert concordance(data[:, 1], data[:, 0]) == found


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.5, 1.3)])
def test_concordance_intervals_cover(shift: float, scale: float) -> None:
    random, r = np.random.default_rng(8), 0.9
    truth, covered = 2 * r * scale / (1 + scale**2 + shift**2), 0
    for _ in range(1000):
        x, e = random.normal(size=(2, 50))
        found = concordance(x, shift + scale * (r * x + math.sqrt(1 - r**2) * e))
        covered += found.low <= truth <= found.high
    assert 930 < covered < 970


def test_concordance_limits() -> None:
    x = np.random.default_rng(9).normal(size=7)
    for y, value in ((x, 1.0), (-x + 2 * x.mean(), -1.0)):
        found = concordance(x, y)
        assert (found.value, found.low, found.high) == pytest.approx((value,) * 3, abs=1e-12)
    straight = concordance(x, 2 * x - x.mean())  # r = 1, no shift: 2 * 2 / (1 + 4)
    assert straight.value == pytest.approx(0.8)
    assert straight.low <= straight.value <= straight.high


HOLED = [[1.0, 2.0], [np.nan, 3.0], [np.inf, np.nan], [2.0, 2.0]]


@pytest.mark.parametrize("verb", [icc, within_subject_sd, within_subject_cv, repeatability_coefficient])
def test_bad_tables_are_refused(verb: Callable[[object], object]) -> None:
    with pytest.raises(
        InputError,
        match=r"data: got 3 NaN or infinite values, in 2 of 4 subjects \(the first is row 1\); drop these subjects",
    ):
        verb(HOLED)
    for few in (np.ones((2, 2)), np.ones((5, 1))):
        with pytest.raises(InputError, match=r"data: got \d subjects and \d sessions, expected at least 3 and 2"):
            verb(few)
    for shapeless in (np.ones(5), np.ones((3, 0)), np.ones((3, 2, 2))):
        with pytest.raises(InputError, match=r"data: got shape \(.*\), expected \(subjects, columns\)"):
            verb(shapeless)
    with pytest.raises(InputError, match="data: got rows of different lengths; drop subjects with missing values"):
        verb([[1, 2], [3], [4, 5]])
    with pytest.raises(InputError, match="data: got complex128 values, expected real numbers"):
        verb(np.ones((3, 2), complex))


def test_bad_values_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"data: 2 of 3 subjects have a mean <= 0 \(the first is row 1: -1\), for which"
    ):
        within_subject_cv([[1, 2], [-2, 0], [1, -1]])
    with pytest.raises(InputError, match="form: got '1,1', expected \"2,1\""):
        icc(JUDGES, "1,1")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="interval: got 'bootstrap', expected \"satterthwaite\""):
        icc(JUDGES, interval="bootstrap")  # type: ignore[arg-type]
    for bad in (0, 1, 95, math.nan):
        with pytest.raises(
            InputError, match=rf"confidence: got {bad}, expected a number between 0 and 1 such as 0\.95"
        ):
            icc(JUDGES, confidence=bad)
    with pytest.raises(InputError, match="features: got 3 subjects, expected 4; give one row a subject everywhere"):
        finite_rows("features", np.ones((3, 2)), 4)


@pytest.mark.parametrize("verb", [bland_altman, concordance])
def test_bad_pairs_are_refused(verb: Callable[[object, object], object]) -> None:
    for first, second in (([1, 2, 3], [1, 2]), ([1, 2], [1, 2]), (np.ones((3, 2)), np.ones((3, 2)))):
        with pytest.raises(
            InputError, match=r"first, second: got shapes .* expected \(subjects,\) of the same 3 or more"
        ):
            verb(first, second)
    with pytest.raises(InputError, match=r"second: got 1 NaN or infinite values, in 1 of 3 subjects"):
        verb([1, 2, 3], [1, math.nan, 2])


def test_concordance_needs_spread() -> None:
    with pytest.raises(InputError, match=r"second: all subjects have 2\.5, so that nothing can correlate with it"):
        concordance([1, 2, 3], [2.5, 2.5, 2.5])
