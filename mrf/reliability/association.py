"""Which features go with which outcomes: rank correlations of every pair, honest about how many were tried."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.special
import scipy.stats

from ..core.arrays import Array, whole
from ..core.errors import InputError
from ..core.storage import atomic_path
from .agreement import finite_rows, varying
from .harmonize import groups

_FEWEST = 10  # subjects, less one for each covariate
_EXPLAINED = 1e-9  # of a column's ranks: what is left of one that covariates explain
_ROUNDING = 1e-12  # of a correlation
_BLOCK = 1 << 22  # correlations that are held at a time
Row = dict[str, str | float | int]


@dataclass(frozen=True, eq=False)
class Associations:
    """Rank correlations of p features with g outcomes.

    Attributes
    ----------
    rho : (p, g) float64
        Spearman's, partial where covariates or sites were given.
    p : (p, g) float64
        Two-sided, of one test, from the t distribution with `freedom` degrees of freedom.
    q : (p, g) float64
        Benjamini-Hochberg over all tests, the false discovery rate of a list that ends here:
        https://doi.org/10.1111/j.2517-6161.1995.tb02031.x
    p_family : (p, g) float64
        Westfall-Young over all tests, by permutation: the chance that any test shows as much where nothing goes
        with anything; 1 / (permutations + 1) at least.
    feature_names, outcome_names : tuple of str
    n, tests, freedom, permutations, seed : int
    """

    rho: Array
    p: Array
    q: Array
    p_family: Array
    feature_names: tuple[str, ...]
    outcome_names: tuple[str, ...]
    n: int
    tests: int
    freedom: int
    permutations: int
    seed: int

    def rows(self) -> list[Row]:
        """One dictionary a pair, by increasing p: feature, outcome, rho, p, q, p_family, n, tests."""
        order = np.lexsort((-np.abs(self.rho).ravel(), self.p.ravel()))
        pairs = zip(*(at.tolist() for at in np.unravel_index(order, self.rho.shape)), strict=True)
        return [
            {
                "feature": self.feature_names[i],
                "outcome": self.outcome_names[j],
                "rho": float(self.rho[i, j]),
                "p": float(self.p[i, j]),
                "q": float(self.q[i, j]),
                "p_family": float(self.p_family[i, j]),
                "n": self.n,
                "tests": self.tests,
            }
            for i, j in pairs
        ]


def associate(
    features: object, outcomes: object, *, feature_names: Sequence[str], outcome_names: Sequence[str],
    covariates: object = None, site: object = None, permutations: int = 10000, seed: int = 0,
) -> Associations:  # fmt: skip
    """Spearman's rank correlation of every feature with every outcome, with p values for one and for all tests.

    Given covariates or sites, the ranks of covariates and 0/1 columns of sites are regressed out of the ranks of both
    sides: partial correlations. Ranks are not quite linear in one another: if that explains over half of both sides'
    variance, p values are too small (in simulations up to 12 % false families where 5 % were asked for).

    Family-wise p: what is left of the outcomes' ranks is permuted as whole rows, within each site if sites are given,
    and regressed anew (Freedman & Lane); (b + 1) / (permutations + 1), where in b permutations the largest \\|rho\\|
    of all pairs reaches the pair's own.

    Parameters
    ----------
    features, outcomes : (subjects, p) and (subjects, g) real
        Texture against gene expressions, grades, ...: only their order counts, ties share their mean rank.
    feature_names, outcome_names : p and g different names
    covariates : (subjects, k) real, optional
        Age, sex as 0/1, ...
    site : (subjects,) text or whole numbers, optional
        Held constant like a covariate, and subjects are exchanged within it only.
    permutations : int
    seed : int
        The same seed gives the same numbers.

    Raises
    ------
    InputError
        Missing values; fewer than 10 subjects after one is taken off for each covariate; a column that is constant or
        explained by the covariates; names that are too few or not different.

    References
    ----------
    Freedman & Lane 1983, https://doi.org/10.1080/07350015.1983.10487354; Phipson & Smyth 2010,
    https://doi.org/10.2202/1544-6115.1585

    Examples
    --------
    >>> entropy = np.arange(12.0)[:, None]
    >>> expression = np.hstack([entropy**3, np.cos(2 * entropy)])
    >>> found = associate(entropy, expression, feature_names=["entropy"], outcome_names=["EGFR", "TP53"])
    >>> found.rho.round(2).tolist(), found.tests
    ([[1.0, -0.33]], 2)
    """
    x, y = finite_rows("features", features), finite_rows("outcomes", outcomes)
    names = _names("feature_names", feature_names, x), _names("outcome_names", outcome_names, y)
    permutations, seed = whole("permutations", permutations, 1), whole("seed", seed, 0)
    held, index = _held(len(x), covariates, site)
    x, y = _left("features", x, names[0], held), _left("outcomes", y, names[1], held)
    freedom, rho = len(x) - held.shape[1] - 1, np.clip(x.T @ y, -1, 1)
    p = scipy.special.betainc(freedom / 2, 0.5, (1 - rho) * (1 + rho))  # of t = rho sqrt(freedom / (1 - rho^2))
    q = scipy.stats.false_discovery_control(p, axis=None, method="bh").reshape(p.shape)
    family = _family(rho, _largest(x, y, held, index, permutations, np.random.default_rng(seed)))
    return Associations(rho, p, q, family, *names, len(x), rho.size, freedom, permutations, seed)


def write_associations(path: str | Path, associations: Associations) -> Path:
    """Write :meth:`Associations.rows` as CSV (UTF-8, a line of names, full precision) and return the path.

    Raises
    ------
    FileError
        The folder does not exist or cannot be written.
    """
    rows = associations.rows()
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return Path(path)


def _names(what: str, names: Sequence[str], table: Array) -> tuple[str, ...]:
    some = isinstance(names, Sequence) and not isinstance(names, str)
    if not some or len(names) != table.shape[1] or not all(isinstance(name, str) for name in names):
        raise InputError(f"{what}: got {names!r:.80}, expected text for each of {table.shape[1]} columns")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise InputError(f"{what}: got {', '.join(twice)} more than once; give every column a name of its own")
    return tuple(names)


def _held(n: int, covariates: object, site: object) -> tuple[Array, Array]:
    """(subjects, columns) orthonormal basis of the mean, ranked covariates and sites; (subjects,) site of each."""
    index = np.zeros(n, np.int64) if site is None else groups("site", site, n)[1]
    columns = [np.ones((n, 1)), np.eye(index.max() + 1)[index]]
    if covariates is not None:
        columns.append(scipy.stats.rankdata(finite_rows("covariates", covariates, n), axis=0))
    design = np.hstack(columns)
    left, sizes, _ = np.linalg.svd(design / np.linalg.norm(design, axis=0), full_matrices=False)
    basis = left[:, sizes > 1e-8 * sizes[0]]
    others = basis.shape[1] - 1
    if n - others < _FEWEST:
        raise InputError(
            f"associate: got {n} subjects and {others} covariates (sites less one included), expected at least "
            f"{_FEWEST} subjects more than covariates; fewer say nothing about an association"
        )
    return basis, index


def _left(what: str, table: Array, names: tuple[str, ...], held: Array) -> Array:
    """(subjects, columns) what is left of the ranks, of unit norm."""
    if len(table) != len(held):
        raise InputError(f"{what}: got {len(table)} subjects, features have {len(held)}; give the same ones in both")
    constant = ~varying(table)
    if constant.any():
        raise InputError(f"{what}: {names[int(np.argmax(constant))]} is the same in all subjects; leave it out")
    ranks = scipy.stats.rankdata(table, axis=0)
    ranks -= ranks.mean(axis=0)
    before = np.linalg.norm(ranks, axis=0)
    ranks -= held @ (held.T @ ranks)
    after = np.linalg.norm(ranks, axis=0)
    explained = after <= _EXPLAINED * before
    if explained.any():
        raise InputError(
            f"{what}: {names[int(np.argmax(explained))]} is wholly explained by covariates and site; leave it out"
        )
    unit: Array = ranks / after
    return unit


def _family(rho: Array, largest: Array) -> Array:
    """(p, g) family-wise p values from the largest |rho| of each permutation."""
    reached = len(largest) - np.searchsorted(np.sort(largest), np.abs(rho) - _ROUNDING)
    family: Array = (reached + 1) / (len(largest) + 1)
    return family


def _largest(
    x: Array, y: Array, held: Array, index: Array, permutations: int, random: np.random.Generator
) -> Array:  # fmt: skip
    """(permutations,) largest |rho| over all pairs when rows of `y` are permuted.

    `x` is orthogonal to `held`, so that regressing the permuted `y` anew changes its norm only.
    """
    both = np.hstack([x, held])
    at_once = max(1, _BLOCK // both.size)  # permutations
    wide = max(1, _BLOCK // (at_once * both.shape[1]))  # outcomes
    largest = np.zeros(permutations)
    for start in range(0, permutations, at_once):
        stop = min(start + at_once, permutations)
        order = np.tile(np.arange(len(x)), (stop - start, 1))
        for members in (np.flatnonzero(index == one) for one in range(index.max() + 1)):
            order[:, members] = random.permuted(order[:, members], axis=1)
        shuffled = both.T[:, order].reshape(-1, len(x))  # in place of y: the same, and smaller
        for column in range(0, y.shape[1], wide):
            products = (shuffled @ y[:, column : column + wide]).reshape(both.shape[1], stop - start, -1)
            left = 1 - (products[x.shape[1] :] ** 2).sum(axis=0)
            best = np.abs(products[: x.shape[1]]).max(axis=0) / np.sqrt(np.maximum(left, _ROUNDING))
            largest[start:stop] = np.maximum(largest[start:stop], best.max(axis=1))
    return largest
