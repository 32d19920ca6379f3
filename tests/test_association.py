"""Associations: scipy's numbers, family-wise errors under the null, planted pairs, sites and covariates held."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from mrf.core.arrays import Array
from mrf.core.errors import FileError, InputError
from mrf.reliability import association as module
from mrf.reliability.association import Associations, associate, write_associations


def run(x: Array, y: Array, **options: Any) -> Associations:
    names = [f"feature {i}" for i in range(x.shape[1])], [f"gene {j}" for j in range(y.shape[1])]
    return associate(x, y, feature_names=names[0], outcome_names=names[1], **{"permutations": 99, **options})


def tied(seed: int, n: int = 25) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    return np.round(random.normal(size=(n, 4)), 1), random.integers(0, 4, (n, 3)).astype(float)


def test_rho_and_p_are_those_of_scipy() -> None:
    x, y = tied(0)
    assert all(len(np.unique(column)) < 25 for column in [*x.T, *y.T])
    found = run(x, y)
    for i in range(4):
        for j in range(3):
            rho, p = scipy.stats.spearmanr(x[:, i], y[:, j])
            assert found.rho[i, j] == pytest.approx(rho, abs=1e-13)
            assert found.p[i, j] == pytest.approx(p, rel=1e-10)
    assert (found.n, found.tests, found.freedom, found.permutations, found.seed) == (25, 12, 23, 99, 0)


def test_partial_correlations_come_from_the_inverse_of_all_correlations() -> None:
    x, y = tied(1)
    random = np.random.default_rng(2)
    held = np.column_stack([random.normal(60, 10, 25), random.integers(0, 2, 25)])
    site = np.repeat(["A", "B", "C"], [8, 8, 9])
    dummies = (site[:, None] == ["A", "B"]).astype(float)
    found = run(x, y, covariates=held, site=site)
    assert found.freedom == 25 - 2 - 4
    for i in range(4):
        for j in range(3):
            everything = np.column_stack([x[:, i], y[:, j], held, dummies])
            inverse = np.linalg.inv(np.corrcoef(scipy.stats.rankdata(everything, axis=0).T))
            rho = -inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1])
            assert found.rho[i, j] == pytest.approx(rho, abs=1e-12)
            t = abs(rho) * np.sqrt(19 / (1 - rho**2))
            assert found.p[i, j] == pytest.approx(2 * scipy.stats.t.sf(t, 19), rel=1e-10)


def test_q_by_hand() -> None:
    """Benjamini-Hochberg: the least of tests p_(j) / j from the rank on, over both tables' axes together."""
    found = run(*tied(3))
    order = np.argsort(found.p.ravel())
    q = np.ones(12)
    for place in range(12):
        q[order[place]] = min(1.0, *(found.p.ravel()[order[j]] * 12 / (j + 1) for j in range(place, 12)))
    assert found.q.ravel() == pytest.approx(q, rel=1e-12)
    assert (found.q >= found.p).all()


def test_family_p_by_brute_force() -> None:
    """The same permutations, each outcome's residual permuted and regressed anew, correlation by correlation."""
    x, y = tied(4)
    covariate = np.random.default_rng(5).normal(size=(25, 1)) + y[:, :1]
    found = run(x, y, covariates=covariate, permutations=60, seed=11)
    design = np.column_stack([np.ones(25), scipy.stats.rankdata(covariate)])

    def left(values: Array) -> Array:
        residual: Array = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
        return residual

    a, b = (left(scipy.stats.rankdata(table, axis=0)) for table in (x, y))
    order = np.random.default_rng(11).permuted(np.tile(np.arange(25), (60, 1)), axis=1)
    largest = np.array([np.abs(np.corrcoef(a.T, left(b[np.argsort(one)]).T)[:4, 4:]).max() for one in order])
    expected = [[(1 + np.sum(largest >= abs(rho) - 1e-12)) / 61 for rho in row] for row in found.rho]
    assert found.p_family.tolist() == expected
    assert len(np.unique(found.p_family)) > 3


def test_family_wise_error_under_the_null() -> None:
    """Outcomes and features that are correlated among themselves only; one test in 20 would be wrong alone."""
    wrong = np.zeros(3)
    for seed in range(600):
        random = np.random.default_rng(seed)
        x = random.normal(size=(16, 4)) + random.normal(size=(16, 1))
        y = random.normal(size=(16, 5)) + random.normal(size=(16, 1))
        found = run(x, y, seed=seed)
        wrong += [found.p_family.min() <= 0.05, found.p.min() <= 0.05, (found.p <= 0.05).mean()]
    assert 0.03 < wrong[0] / 600 < 0.075
    assert wrong[1] / 600 > 0.25
    assert 0.035 < wrong[2] / 600 < 0.065


def test_a_planted_association_is_found() -> None:
    random = np.random.default_rng(6)
    x, y = random.normal(size=(60, 20)), random.normal(size=(60, 30))
    y[:, 7] += 1.5 * x[:, 3]
    found = run(x, y, permutations=999)
    significant = np.argwhere(found.p_family <= 0.05).tolist()
    assert significant == [[3, 7]]
    assert found.p_family[3, 7] == 1 / 1000
    assert found.rho[3, 7] > 0.6
    first = found.rows()[0]
    assert (first["feature"], first["outcome"], first["tests"], first["n"]) == ("feature 3", "gene 7", 600, 60)


def test_what_only_sites_share_is_not_found() -> None:
    """Scanners shift features, and recruit other grades: within a site nothing goes with anything."""
    hits = np.zeros(2)
    for seed in range(200):
        random = np.random.default_rng(seed)
        site = np.repeat([3, 5, 9], [10, 14, 16])
        x = random.normal(size=(40, 3)) + 0.8 * site[:, None]
        y = random.normal(size=(40, 3)) - 0.8 * site[:, None]
        hits += [run(x, y).p_family.min() <= 0.05, run(x, y, site=site).p_family.min() <= 0.05]
    assert hits[0] == 200
    assert 2 <= hits[1] <= 20


def test_what_only_age_brings_is_not_found() -> None:
    hits = np.zeros(2)
    for seed in range(200):
        random = np.random.default_rng(seed)
        age = random.uniform(20, 80, (40, 1))
        x, y = (random.normal(size=(40, 3)) + (age - 50) / 17 for _ in range(2))
        hits += [run(x, y).p_family.min() <= 0.05, run(x, y, covariates=age).p_family.min() <= 0.05]
    assert hits[0] > 150
    assert 2 <= hits[1] <= 22


def test_permutations_stay_within_sites() -> None:
    """An outcome that is one subject of a site: with its site of two, it can sit in two places only."""
    site = np.array([0] * 12 + [1, 1])
    x, y = np.eye(14)[:, [13]], np.eye(14)[:, [12]]
    found = run(x, y, site=site)
    assert found.rho[0, 0] == pytest.approx(-1)
    assert found.p_family[0, 0] == 1  # either order of the two reaches |rho| = 1
    assert run(x, y).p_family[0, 0] > 0.5
    assert run(x, y).rho[0, 0] == pytest.approx(-1 / 13)


def test_monotone_transforms_change_nothing() -> None:
    x, y = tied(7)
    held, site = np.random.default_rng(8).normal(50, 9, (25, 1)), np.repeat([1, 2], [12, 13])
    found = run(x, y, covariates=held, site=site)
    other = run(np.exp(x), (y + 2) ** 3, covariates=np.log(held), site=np.where(site == 1, "a", "z"))
    for name in ("rho", "p", "q", "p_family"):
        assert getattr(other, name) == pytest.approx(getattr(found, name), abs=1e-12)
    flipped = run(-x, y, covariates=held, site=site)
    assert flipped.rho == pytest.approx(-found.rho, abs=1e-12)


def test_seeds_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = tied(9)
    found = run(x, y, seed=3)
    assert np.array_equal(run(x, y, seed=3).p_family, found.p_family)
    assert not np.array_equal(run(x, y, seed=4).p_family, found.p_family)
    monkeypatch.setattr(module, "_BLOCK", 700)  # 5 permutations and 25 outcomes at a time
    assert np.array_equal(run(x, y, seed=3).p_family, found.p_family)
    monkeypatch.setattr(module, "_BLOCK", 1)
    assert np.array_equal(run(x, y, seed=3).p_family, found.p_family)


def test_perfect_association() -> None:
    x = np.arange(12.0)[:, None]
    found = run(x, np.hstack([x**3, -x]), permutations=499)
    assert found.rho == pytest.approx(np.array([[1.0, -1.0]]))
    assert (found.p < 1e-60).all()
    assert (found.p_family == 1 / 500).all()


def test_redundant_covariates_cost_nothing() -> None:
    x, y = tied(10)
    sex = np.random.default_rng(0).integers(0, 2, 25)
    once, twice = run(x, y, covariates=sex[:, None]), run(x, y, covariates=np.column_stack([sex, 1 - sex]))
    assert once.freedom == twice.freedom == 22
    assert twice.p == pytest.approx(once.p, rel=1e-9)


def test_rows_and_csv(tmp_path: Path) -> None:
    found = run(*tied(11))
    rows = found.rows()
    assert [row["p"] for row in rows] == sorted(found.p.ravel().tolist())
    for row in rows:
        i, j = int(str(row["feature"])[-1]), int(str(row["outcome"])[-1])
        assert [row[name] for name in ("rho", "q", "p_family")] == [
            table[i, j] for table in (found.rho, found.q, found.p_family)
        ]
    path = write_associations(tmp_path / "associations.csv", found)
    with open(path, encoding="utf-8", newline="") as stream:
        read = list(csv.DictReader(stream))
    assert list(read[0]) == ["feature", "outcome", "rho", "p", "q", "p_family", "n", "tests"]
    assert [{name: str(value) for name, value in row.items()} for row in rows] == read
    assert [float(row["rho"]) for row in read] == [row["rho"] for row in rows]
    with pytest.raises(FileError, match="cannot write there"):
        write_associations(tmp_path / "missing" / "a.csv", found)


X, Y = tied(12)
FLAT = np.where(np.arange(3) == 1, 5.0, Y)
NAMES = {"feature_names": list("abcd"), "outcome_names": list("efg")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": X[:9], "outcomes": Y[:9]}, "associate: got 9 subjects and 0 covariates .*, expected at least 10"),
        (
            {"covariates": np.random.default_rng(0).normal(size=(25, 16))},
            "associate: got 25 subjects and 16 covariates",
        ),
        ({"site": np.arange(25)}, "associate: got 25 subjects and 24 covariates"),
        ({"outcomes": Y[:24]}, "outcomes: got 24 subjects, features have 25; give the same ones in both"),
        ({"outcomes": FLAT}, "outcomes: f is the same in all subjects; leave it out"),
        ({"features": np.where(X > 0, np.nan, X)}, r"features: got \d+ NaN or infinite values, in \d+ of 25 subjects"),
        ({"outcomes": Y[:, 0]}, r"outcomes: got shape \(25,\), expected \(subjects, columns\); one column is"),
        ({"covariates": X[:, 2:3] ** 3}, "features: c is wholly explained by covariates and site; leave it out"),
        ({"covariates": np.ones((24, 1))}, "covariates: got 24 subjects, expected 25"),
        ({"site": ["A"] * 12 + ["n/a"] * 13}, "site: 13 of 25 subjects have none .*row 12: 'n/a'"),
        ({"site": ["A"] * 24}, r"site: got shape \(24,\), expected \(25,\), one label a subject"),
        (
            {"feature_names": list("abba")},
            "feature_names: got a, b more than once; give every column a name of its own",
        ),
        ({"feature_names": list("abc")}, r"feature_names: got \['a', 'b', 'c'\], expected text for each of 4 columns"),
        ({"outcome_names": "efg"}, "outcome_names: got .*, expected text for each of 3 columns"),
        ({"outcome_names": [1, 2, 3]}, r"outcome_names: got \[1, 2, 3\], expected text for each of 3 columns"),
        ({"permutations": 0}, "permutations: got 0, expected a whole number >= 1"),
        ({"seed": -1}, "seed: got -1, expected a whole number >= 0"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        associate(**{"features": X, "outcomes": Y, **NAMES, **changes})
