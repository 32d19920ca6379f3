"""ComBat: numbers of another implementation, planted batches that go, biology that stays, misuse that is refused."""

from typing import Any

import numpy as np
import pytest

from mrf.core.arrays import Array
from mrf.core.errors import DivergedError, InputError
from mrf.reliability import harmonize as module
from mrf.reliability.harmonize import Harmonized, harmonize


def known() -> tuple[Array, Array, Array]:
    """36 subjects of three scanners, 5 features, age and sex; no random numbers."""
    i, f = np.arange(36)[:, None], np.arange(5)
    batch = np.repeat(["a", "b", "c"], [10, 14, 12])
    covariates = np.hstack([20.0 + (i * 17) % 50, i % 2])
    age, sex = covariates[:, :1], covariates[:, 1:]
    x = 10 + f + np.sin(1.7 * i + 2.3 * f * f) * (1 + 0.2 * f) + 0.03 * age * (f - 2) + 0.5 * sex
    x += np.where(batch == "b", 2.0, 0)[:, None] * (1 + 0.3 * np.cos(f))
    middle = x.mean(axis=0)
    return (x - middle) * np.where(batch == "c", 1.8, 1.0)[:, None] + middle, batch, covariates


# Subjects 0, 11 and 35 as neuroCombat 0.2.12 gives them when its iteration is run to 1e-13 instead of 1e-4.
PLAIN = [
    [9.6123095764, 12.0031569924, 12.830267917, 15.9594525005, 13.9797610998],
    [7.6091648835, 11.7535086454, 13.6676756191, 17.5843233762, 16.5625553548],
    [7.3315274117, 8.7865983507, 12.373804509, 14.2308720678, 21.3526808734],
]
COVARIATES = [
    [9.2455365771, 12.0711950511, 13.0427038054, 16.1556571662, 14.1694530789],
    [7.7624553086, 11.7117117144, 13.5222655189, 17.4350013239, 16.3439086636],
    [6.6821145184, 8.5482482233, 12.5388962993, 14.6035683444, 22.0837682643],
]


@pytest.mark.parametrize(("given", "expected"), [(False, PLAIN), (True, COVARIATES)])
def test_numbers_of_neurocombat(given: bool, expected: list[list[float]]) -> None:
    x, batch, covariates = known()
    found = harmonize(x, batch, covariates=covariates if given else None)
    assert found.features[[0, 11, 35]] == pytest.approx(np.array(expected), abs=2e-10)
    assert found.model.batches == ("a", "b", "c")


def study(seed: int, n: int = 60, features: int = 80, shift: float = 2.0, spread: float = 1.6) -> tuple[Array, ...]:
    """(truth, measured, scanner, age): scanner 2 has older subjects, an offset and more noise around what age does."""
    random = np.random.default_rng(seed)
    scanner = np.repeat([1, 2], n)
    age = random.normal(50, 8, 2 * n) + 5 * (scanner == 2)
    by_age = 0.1 * (age - 50)[:, None] * np.linspace(-1, 1, features)
    noise = random.normal(size=(2 * n, features))
    second = (scanner == 2)[:, None]
    return by_age + noise, by_age + np.where(second, shift + spread * noise, noise), scanner, age[:, None]


def test_planted_batches_are_removed() -> None:
    truth, measured, scanner, age = study(0)
    found = harmonize(measured, scanner, covariates=age)
    model, second = found.model, scanner == 2
    assert (model.shift[1] - model.shift[0]) * model.scale == pytest.approx(2.0, abs=0.6)
    assert np.mean((model.shift[1] - model.shift[0]) * model.scale) == pytest.approx(2.0, abs=0.1)
    assert np.mean(model.spread[1] / model.spread[0]) == pytest.approx(1.6, abs=0.05)

    def apart(x: Array) -> float:
        left = x - truth
        return float(np.abs(left[second].mean(axis=0) - left[~second].mean(axis=0)).mean())

    assert apart(measured) == pytest.approx(2.0, abs=0.1)
    assert apart(found.features) < 0.25  # the noise of a mean of 60: sqrt(1 + 1.6^2) / sqrt(60) = 0.24
    ratio = found.features[second].std(axis=0) / found.features[~second].std(axis=0)
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.05)
    assert np.mean(measured[second].std(axis=0) / measured[~second].std(axis=0)) > 1.4


def test_what_covariates_explain_is_kept() -> None:
    """Without age as a covariate, the older scanner's biology goes with its offset."""
    _, measured, scanner, age = study(1, n=400, features=21)
    second = scanner == 2
    expected = 0.1 * np.linspace(-1, 1, 21)

    def slopes(x: Array) -> Array:
        solved: Array = np.linalg.lstsq(np.hstack([np.ones((800, 1)), age]), x, rcond=None)[0][1]
        return solved

    kept, lost = harmonize(measured, scanner, covariates=age), harmonize(measured, scanner)
    assert slopes(kept.features) == pytest.approx(expected, abs=0.02)
    older = expected * (age[second].mean() - age[~second].mean())
    for x, share in ((kept.features, 1), (lost.features, 0)):
        between = x[second].mean(axis=0) - x[~second].mean(axis=0)
        assert between @ older / (older @ older) == pytest.approx(share, abs=0.2)


def test_the_model_holds_for_others() -> None:
    """Fitted on some, applied to subjects of quite another age mix: their truth comes back."""
    _, measured, scanner, age = study(2, n=300)
    model = harmonize(measured, scanner, covariates=age).model
    truth, other, where, years = study(3, n=40)
    pick = np.flatnonzero((where == 2) & (years[:, 0] > 55))
    assert len(pick) > 10
    found = harmonize(other[pick], where[pick], covariates=years[pick], fitted=model)
    assert found.model is model
    # The common scale is the pooled one of both scanners, sqrt((1 + 1.6^2) / 2); the mean lies between theirs.
    by_age = 0.1 * (years[pick] - 50) * np.linspace(-1, 1, 80)
    expected = by_age + 1.0 + np.sqrt((1 + 1.6**2) / 2) * (truth[pick] - by_age)
    assert np.sqrt(np.mean((found.features - expected) ** 2)) < 0.2
    assert np.sqrt(np.mean((other[pick] - expected) ** 2)) > 1


def test_the_model_gives_training_subjects_the_same_numbers() -> None:
    x, batch, covariates = known()
    found = harmonize(x, batch, covariates=covariates)
    assert np.abs(found.features - x).max() > 0.5
    some = np.array([30, 2, 17])
    again = harmonize(x[some], batch[some], covariates=covariates[some], fitted=found.model)
    assert again.features == pytest.approx(found.features[some], rel=1e-14)


def test_rows_and_names_do_not_matter() -> None:
    x, batch, covariates = known()
    found = harmonize(x, batch, covariates=covariates).features
    order = np.random.default_rng(0).permutation(36)
    mixed = harmonize(x[order], batch[order], covariates=covariates[order])
    assert mixed.features == pytest.approx(found[order], rel=1e-12)
    numbers = np.array([{"a": 30, "b": 20, "c": 10}[one] for one in batch])
    other = harmonize(x, numbers, covariates=covariates)
    assert other.features == pytest.approx(found, rel=1e-12)
    assert other.model.batches == (10, 20, 30)
    assert harmonize(x, batch.astype(object), covariates=covariates).features == pytest.approx(found, rel=1e-14)


def test_units_of_features_and_covariates_do_not_matter() -> None:
    x, batch, covariates = known()
    found = harmonize(x, batch, covariates=covariates).features
    other = harmonize(x * 1e-3 + 5, batch, covariates=covariates * [365.25, -1] + [1e4, 1])
    assert (other.features - 5) * 1e3 == pytest.approx(found, rel=1e-9)


def test_small_units_of_one_covariate_beside_large_ones_of_another_do_not_matter() -> None:
    x, batch, covariates = known()
    found = harmonize(x, batch, covariates=covariates)
    units = np.array([1e6, 1e-9])  # volumes in mm^3 and diffusivities in m^2/s
    other = harmonize(x, batch, covariates=covariates * units)
    assert other.features == pytest.approx(found.features, rel=1e-9)
    assert other.model.slopes * units[:, None] == pytest.approx(found.model.slopes, rel=1e-9)


def test_constant_features_pass() -> None:
    x, batch, covariates = known()
    held = np.hstack([x[:, :2], np.full((36, 1), 0.1), x[:, 2:]])
    found = harmonize(held, batch, covariates=covariates)
    assert found.features[:, 2].tolist() == [0.1] * 36
    others = np.delete(found.features, 2, axis=1)
    assert others == pytest.approx(harmonize(x, batch, covariates=covariates).features, rel=1e-12)
    assert found.model.varies.tolist() == [True, True, False, True, True, True]
    held[:, 2] = np.arange(36)  # varies in new subjects: what was not learnt is not changed
    again = harmonize(held, batch, covariates=covariates, fitted=found.model)
    assert again.features[:, 2].tolist() == list(range(36))


def test_features_that_are_all_alike_share_one_batch_effect() -> None:
    """Nothing differs between features, so that nothing is shrunk: location and scale of the batches agree exactly."""
    x, batch, _ = known()
    found = harmonize(np.repeat(x[:, :1], 3, axis=1), batch).features
    means = [found[batch == one].mean(axis=0) for one in "abc"]
    assert np.ptp(means) < 1e-12
    assert np.ptp([found[batch == one].std(axis=0, ddof=1) for one in "abc"]) < 1e-12


def test_small_batches_are_refused() -> None:
    x, batch, _ = known()
    with pytest.raises(InputError, match="batch: 'a' has 9 subjects, expected at least 10; leave such a batch out or"):
        harmonize(x[1:], batch[1:])
    with pytest.raises(InputError, match="batch: got only 'b', expected at least 2 batches; there is nothing to"):
        harmonize(x[10:24], batch[10:24])


def test_confounded_covariates_are_refused() -> None:
    x, batch, covariates = known()
    told = r"covariates: column 2 cannot be told from the batches \(it is confounded with them, alone or with"
    for extra in (np.where(batch == "b", 5.0, 2.0), np.where(batch == "a", 1e-3, 0) + covariates[:, 0] * 3):
        with pytest.raises(InputError, match=told):
            harmonize(x, batch, covariates=np.column_stack([covariates, extra]))
    told = "covariates: column 1 is constant or follows from those before it; leave it out"
    for extra in (1 - covariates[:, 1], np.full(36, 4.0)):
        with pytest.raises(InputError, match=told):
            harmonize(x, batch, covariates=np.column_stack([covariates[:, 1], extra]))
    almost = np.where(batch == "b", 5.0, 2.0)
    almost[12] = 2.0  # one subject tells them apart
    assert np.isfinite(harmonize(x, batch, covariates=almost[:, None]).features).all()


def test_features_without_scale_are_refused() -> None:
    x, batch, covariates = known()
    flat = x.copy()
    flat[batch == "c", 3] = 7
    with pytest.raises(
        InputError, match="features: column 3 is constant in batch 'c' only, so that its scale there is"
    ):
        harmonize(flat, batch)
    flat[:, 3] = 2 * covariates[:, 0] + 3 * (batch == "b")
    with pytest.raises(InputError, match="features: column 3 is wholly explained by batch and covariates, so that no"):
        harmonize(flat, batch, covariates=covariates)
    flat[:, 1:] = 4
    with pytest.raises(InputError, match="features: 1 of 5 vary, expected at least 2: ComBat learns from all of them"):
        harmonize(flat, batch)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": ["a"] * 35}, r"batch: got shape \(35,\), expected \(36,\), one label a subject"),
        ({"batch": [1.0, 2.0] * 18}, "batch: got float64 labels, expected text or whole numbers, none missing"),
        ({"batch": ["a", None] * 18}, "batch: got object labels, expected text or whole numbers, none missing"),
        ({"batch": ["a"] * 20 + [float("nan")] * 16}, "batch: 16 of 36 subjects have none .*row 20: 'nan'"),
        ({"batch": ["a"] * 20 + [" "] * 16}, "batch: 16 of 36 subjects have none .*row 20: ' '.; leave these"),
        ({"covariates": np.ones((35, 1))}, "covariates: got 35 subjects, expected 36"),
        ({"covariates": np.full((36, 1), np.nan)}, "covariates: column 0 has no finite value; leave it out"),
        (
            {"features": np.full((36, 2), np.nan)},
            r"features: column 0 has no finite value.* \(2 such columns\)",
        ),
        ({"features": np.ones(36)}, r"features: got shape \(36,\), expected \(subjects, columns\)"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, Any], message: str) -> None:
    x, batch, covariates = known()
    with pytest.raises(InputError, match=message):
        harmonize(**{"features": x, "batch": batch, "covariates": covariates, **changes})


def test_models_are_applied_to_what_they_know_only() -> None:
    x, batch, covariates = known()
    model = harmonize(x, batch, covariates=covariates).model
    new = np.where(batch == "b", "d", batch)
    with pytest.raises(
        InputError, match=r"batch: \['d'\] were not in training, which had \['a', 'b', 'c'\]; fit again"
    ):
        harmonize(x, new, covariates=covariates, fitted=model)
    told = "harmonize: got 5 features and 0 covariates, the model was fitted with 5 and 2"
    with pytest.raises(InputError, match=told):
        harmonize(x, batch, fitted=model)
    with pytest.raises(InputError, match="harmonize: got 4 features and 2 covariates"):
        harmonize(x[:, 1:], batch, covariates=covariates, fitted=model)


def test_what_does_not_settle_is_not_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    x, batch, _ = known()
    assert isinstance(harmonize(x, batch), Harmonized)
    monkeypatch.setattr(module, "_ROUNDS", 2)
    with pytest.raises(DivergedError, match=r"harmonize: the posterior still changes by .* after 2 rounds"):
        harmonize(x, batch)
