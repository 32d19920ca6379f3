"""ComBat: features of several scanners or sites brought to a common location and scale.

Feature f of subject i in batch b is modelled as mean_f + covariates_i slopes_f + scale_f (shift_bf + spread_bf noise).
Shifts and spreads are shrunk towards what the features of a batch have in common (parametric empirical Bayes).
Batches are compared as groups: whatever differs between them and is no covariate is taken out, biology included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.arrays import Array, as_host
from ..core.errors import DivergedError, InputError
from .agreement import finite_rows, varying

_FEWEST = 10  # subjects of a batch
_EXPLAINED = 1e-20  # of a feature's variance: what is left of one that batch and covariates explain
_SETTLED, _ROUNDS = 1e-10, 10_000
_MISSING = "", "nan", "n/a"  # labels that are none: empty cells, NaN that numpy made text of, BIDS
Label = str | int


@dataclass(frozen=True, eq=False)
class ComBat:
    """What was learnt from training subjects; `batches` orders the rows of `shift` and `spread`.

    Attributes
    ----------
    batches : tuple of str or int
    varies : (features,) bool
        False: constant in training, passed through unchanged.
    mean : (features,) float64
        At covariates 0, over the batches as they were in training; in the unit of the feature.
    slopes : (covariates, features) float64
    scale : (features,) float64
        Pooled within-batch standard deviation, in the unit of the feature.
    shift, spread : (batches, features) float64
        Location and scale of a batch, in units of `scale`.
    """

    batches: tuple[Label, ...]
    varies: Array
    mean: Array
    slopes: Array
    scale: Array
    shift: Array
    spread: Array


@dataclass(frozen=True, eq=False)
class Harmonized:
    """(subjects, features) float64 harmonized values, and the model that made them."""

    features: Array
    model: ComBat


def harmonize(
    features: object, batch: object, *, covariates: object = None, fitted: ComBat | None = None
) -> Harmonized:
    """ComBat with parametric empirical Bayes; what covariates explain is kept.

    Fit it on training subjects only, then apply `fitted=found.model` to the others: a fit that has seen test subjects
    makes what is later tested on them look better than it is. Features keep their units; those that are constant in
    training pass unchanged. The order of subjects does not matter.

    Parameters
    ----------
    features : (subjects, features) real
        Any units; at least two of them vary.
    batch : (subjects,) text or whole numbers
        Scanner or site; at least 10 training subjects each.
    covariates : (subjects, covariates) real, optional
        What differs between subjects and is to be kept: age, sex as 0/1, categories as 0/1 columns less one.
    fitted : ComBat, optional
        Apply this model; None = fit one. Its batches must have been in training, its covariates are given again.

    Raises
    ------
    InputError
        Missing values; a batch that is too small or was not in training; covariates that cannot be told from batch or
        from one another; a feature that is constant in one batch only, or wholly explained by batch and covariates.
    DivergedError
        The posterior of shifts and spreads did not settle.

    References
    ----------
    Johnson, Li & Rabinovic 2007, https://doi.org/10.1093/biostatistics/kxj037; Fortin et al. 2018,
    https://doi.org/10.1016/j.neuroimage.2017.11.024

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=(40, 5))
    >>> scanner = np.repeat(["A", "B"], 20)
    >>> found = harmonize(noise + 3 * (scanner == "B")[:, None], scanner)
    >>> apart = found.features[scanner == "B"].mean(axis=0) - found.features[scanner == "A"].mean(axis=0)
    >>> round(abs(float(apart.mean())), 1)
    0.0
    """
    table = finite_rows("features", features)
    labels, index = groups("batch", batch, len(table))
    known = np.empty((len(table), 0)) if covariates is None else finite_rows("covariates", covariates, len(table))
    if fitted is not None and not isinstance(fitted, ComBat):
        raise InputError(f"fitted: got {type(fitted).__name__}, expected the `model` of an earlier result")
    model = _fit(table, labels, index, known) if fitted is None else fitted
    return Harmonized(_apply(model, table, labels, index, known), model)


def groups(name: str, values: object, subjects: int) -> tuple[tuple[Label, ...], Array]:
    """The different labels in order, and (subjects,) which of them each subject has.

    Raises
    ------
    InputError
        Not one label a subject, labels that are missing, or neither text nor whole numbers.
    """
    given = as_host(name, values)
    if given.shape != (subjects,):
        raise InputError(f"{name}: got shape {given.shape}, expected ({subjects},), one label a subject")
    if given.dtype.kind == "O" and all(isinstance(value, str) for value in given):
        given = given.astype(str)
    if given.dtype.kind not in "Uiu":
        raise InputError(f"{name}: got {given.dtype} labels, expected text or whole numbers, none missing")
    missing = np.isin(np.char.lower(np.char.strip(given.astype(str))), _MISSING)
    if missing.any():
        row = int(np.argmax(missing))
        raise InputError(
            f"{name}: {missing.sum()} of {subjects} subjects have none (the first is row {row}: {str(given[row])!r}); "
            "leave these subjects out"
        )
    labels, index = np.unique(given, return_inverse=True)
    return tuple(labels.tolist()), index


def _fit(table: Array, labels: tuple[Label, ...], index: Array, covariates: Array) -> ComBat:
    member = _members(labels, index, covariates)
    varies = varying(table)
    if varies.sum() < 2:
        raise InputError(
            f"features: {varies.sum()} of {table.shape[1]} vary, expected at least 2: ComBat learns from all of them "
            "how much batches differ; give more features"
        )
    middle = table.mean(axis=0)
    unit = np.abs(covariates).max(axis=0)  # m^2/s beside mm^3: what is small beside other columns would be left out
    solved = np.linalg.lstsq(np.hstack([member, covariates / unit]), table - middle, rcond=None)[0]
    offsets, slopes = solved[: len(labels)], solved[len(labels) :] / unit[:, None]
    mean = middle + (member @ offsets).mean(axis=0)
    left = table - middle - member @ offsets - covariates @ slopes
    scale = np.sqrt((left**2).mean(axis=0))
    _refuse_unfit(table, varies, scale, labels, index)
    scale[~varies] = 1
    z = (table - mean - covariates @ slopes) / scale
    shift, spread = np.zeros((len(labels), len(varies))), np.ones((len(labels), len(varies)))
    for row in range(len(labels)):
        shift[row, varies], spread[row, varies] = _posterior(z[index == row][:, varies])
    return ComBat(labels, varies, mean, slopes, scale, shift, spread)


def _members(labels: tuple[Label, ...], index: Array, covariates: Array) -> Array:
    """(subjects, batches) 1 where a subject is in a batch; refuses what ComBat cannot learn from."""
    counts = np.bincount(index)
    if len(labels) < 2:
        raise InputError(f"batch: got only {labels[0]!r}, expected at least 2 batches; there is nothing to harmonize")
    if counts.min() < _FEWEST:
        small = ", ".join(f"{label!r} has {n}" for label, n in zip(labels, counts, strict=True) if n < _FEWEST)
        raise InputError(f"batch: {small} subjects, expected at least {_FEWEST}; leave such a batch out or pool it")
    member = np.eye(len(labels))[index]
    column = _redundant(np.ones((len(index), 1)), covariates)
    if column is not None:
        raise InputError(
            f"covariates: column {column} is constant or follows from those before it; leave it out (a category has "
            "one column less than it has values)"
        )
    column = _redundant(member, covariates)
    if column is not None:
        raise InputError(
            f"covariates: column {column} cannot be told from the batches (it is confounded with them, alone or with "
            "the columns before it); leave it out, or give batches that overlap in it"
        )
    return member


def _redundant(base: Array, columns: Array) -> int | None:
    """The first column that `base` and the columns before it explain."""
    unit = columns - columns.mean(axis=0)
    norms = np.linalg.norm(unit, axis=0)
    unit /= np.where(norms > 0, norms, 1)
    for last in range(columns.shape[1]):
        design = np.hstack([base, unit[:, : last + 1]])
        if np.linalg.matrix_rank(design, tol=1e-8) < design.shape[1]:
            return last
    return None


def _refuse_unfit(table: Array, varies: Array, scale: Array, labels: tuple[Label, ...], index: Array) -> None:
    """Features that vary, but whose scale, over all or in one batch, cannot be learnt."""
    explained = varies & (scale**2 <= _EXPLAINED * table.var(axis=0))
    if explained.any():
        raise InputError(
            f"features: column {np.argmax(explained)} is wholly explained by batch and covariates, so that no scale is "
            "left; leave it out or give fewer covariates"
        )
    for row, label in enumerate(labels):
        constant = varies & ~varying(table[index == row])
        if constant.any():
            raise InputError(
                f"features: column {np.argmax(constant)} is constant in batch {label!r} only, so that its scale there "
                "is unknown; leave the feature or the batch out"
            )


def _posterior(z: Array) -> tuple[Array, Array]:
    """(features,) location and SD of one batch's (subjects, features) standardized values, shrunk over features.

    Priors by moments: normal for the location; inverse gamma for the variance, here with numerator and denominator
    multiplied by the prior's variance, which may be 0.
    """
    n, location, variance = len(z), z.mean(axis=0), z.var(axis=0, ddof=1)
    common, between = location.mean(), location.var(ddof=1)
    usual, width = variance.mean(), variance.var(ddof=1)
    shift, square = location, variance
    for _ in range(_ROUNDS):
        shift_now = (n * between * location + square * common) / (n * between + square)
        squares = (n - 1) * variance + n * (location - shift_now) ** 2
        square_now = (width * (squares / 2 + usual) + usual**3) / (width * (n / 2 + 1) + usual**2)
        change = max(np.abs(shift_now - shift).max(), np.abs(square / square_now - 1).max())
        shift, square = shift_now, square_now
        if change < _SETTLED:
            return shift, np.sqrt(square)
    raise DivergedError(f"harmonize: the posterior still changes by {change:.2g} after {_ROUNDS} rounds")


def _apply(model: ComBat, table: Array, labels: tuple[Label, ...], index: Array, covariates: Array) -> Array:
    if table.shape[1] != len(model.varies) or covariates.shape[1] != len(model.slopes):
        raise InputError(
            f"harmonize: got {table.shape[1]} features and {covariates.shape[1]} covariates, the model was fitted with "
            f"{len(model.varies)} and {len(model.slopes)}"
        )
    unknown = [label for label in labels if label not in model.batches]
    if unknown:
        raise InputError(f"batch: {unknown} were not in training, which had {list(model.batches)}; fit again with them")
    row = np.array([model.batches.index(label) for label in labels])[index]
    usual = model.mean + covariates @ model.slopes
    z = ((table - usual) / model.scale - model.shift[row]) / model.spread[row]
    return np.where(model.varies, usual + model.scale * z, table)
