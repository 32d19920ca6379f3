"""What the fuzzing tests share: how many examples, values nobody thought of, and damage to bytes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from mrf.core.errors import MrfError

hypothesis = pytest.importorskip("hypothesis", reason="fuzzing is done with hypothesis")
st = hypothesis.strategies
MANY = os.environ.get("MRF_FUZZ_EXAMPLES")  # how many; then others each time
fuzz = hypothesis.settings(
    max_examples=int(MANY or 40), deadline=None, derandomize=not MANY, database=None, phases=list(hypothesis.Phase)[:4],
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)  # fmt: skip
given = hypothesis.given

# Numbers at which formats and arithmetic have their edges.
INTEGERS = st.sampled_from([0, 1, 2, 3, 7, 127, 128, 255, 256, 32767, 32768, 65535]) | st.integers(-(2**31), 2**31)
NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 1e-300, 1e300, 1e30, np.inf, -np.inf, np.nan]) | INTEGERS.map(
    float
)
WORDS = st.sampled_from(["", "0", "-1", "nan", "inf", "1e999", "1,5", "x", "²", "1" * 400, "\u0661", "true", "é"])
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=6,
)  # fmt: skip
# Places (part of the whole) and what is done there.
DAMAGE = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8)


@contextmanager
def only_our_errors() -> Iterator[None]:
    """What the engine refuses is fine."""
    try:
        yield
    except MrfError as error:
        said = str(error)
    else:
        return
    assert said
    assert "\n" not in said, "an error is one line"


def damaged(content: bytes, damage: list[tuple[float, int]], cut: float | None = None) -> bytes:
    held = bytearray(content)
    for place, value in damage:
        held[int(place * len(held))] = value
    return bytes(held[: int(cut * len(held))] if cut is not None else held)


CUTS = st.none() | st.floats(0, 1)
