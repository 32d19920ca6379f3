import math
from typing import Any

import pytest

import mrf
from mrf.tissue import bands
from mrf.tissue.bands import compare_bands, normal_band, tissues


def test_one_published_value_is_widened_and_says_so() -> None:
    band = normal_band("white matter", "t1", 3.0)
    assert [band.low, band.high, *band.published] == pytest.approx([0.7588, 1.4092, 1.084])
    assert band.rule == "30 % around the published 1.084 s"
    assert band.source.endswith("doi:10.1186/1748-717X-8-51")
    assert (band.field_strength, band.method) == (3.0, bands.COMPILED)


def test_two_published_values_are_widened_at_both_ends() -> None:
    band = normal_band("muscle", "t2", 3.0)
    assert [band.low, band.high] == pytest.approx([0.0224, 0.065])
    assert band.rule == "30 % around the published 0.032 to 0.05 s"


def test_a_published_range_is_taken_as_it_is() -> None:
    band = normal_band("white matter", "t1", 3.0, method=bands.REVIEW)
    assert [band.low, band.high] == pytest.approx([0.699, 1.735])
    assert band.rule == "the published range, 0.699 to 1.735 s"
    assert normal_band("white matter", "t1", 3.0, method=bands.METHODS).high == pytest.approx(1.1)
    fat = normal_band("subcutaneous fat", "t2", 3.0, method=bands.REVIEW)
    assert [fat.low, fat.high] == pytest.approx([0.041, 0.371])


def test_field_strengths_are_not_mixed() -> None:
    low, high = (normal_band("grey matter", "t1", field) for field in (1.5, 2.94))
    assert [*low.published, *high.published] == pytest.approx([1.124, 1.82])
    assert (low.field_strength, high.field_strength) == (1.5, 3.0)
    assert low.source.endswith("doi:10.1002/mrm.20605")


def test_the_whole_table_holds_together() -> None:
    """Every row is reachable, in seconds, ordered, with a source that can be looked up."""
    reached = 0
    for tissue in tissues():
        for field in (1.5, 3.0):
            for method in (bands.COMPILED, bands.IN_VITRO, bands.REVIEW, bands.METHODS):
                found = {}
                for parameter in ("t1", "t2"):
                    try:
                        found[parameter] = normal_band(tissue, parameter, field, method=method)
                    except mrf.InputError:
                        continue
                    band = found[parameter]
                    assert 0.01 < band.low < band.high < 3
                    assert band.low <= band.published[0] <= band.published[-1] <= band.high
                    assert "doi:10." in band.source or "arXiv:" in band.source
                    reached += 1
                if len(found) == 2:
                    assert found["t2"].high < found["t1"].high
    assert reached == sum(len(row.t1) > 0 for row in bands._TABLE) + sum(len(row.t2) > 0 for row in bands._TABLE) == 35


def test_comparison_tells_where_and_on_what_it_rests() -> None:
    found = compare_bands({"white matter": {"t1": 0.85, "t2": 0.045}, "liver": {"t1": 1.2}}, 3.0)
    assert [c.place for c in found] == ["inside", "below", "above"]
    assert str(found[1]) == (
        "white matter t2 0.045 s: below 0.0483 to 0.0897 s (30 % around the published 0.069 s; 3 T, compiled from the "
        "literature; Radiat Oncol 2013, 8:51, table 1, doi:10.1186/1748-717X-8-51)"
    )
    for word in ("pass", "fail", "normal", "abnormal"):
        assert word not in " ".join(map(str, found))
    edge = normal_band("liver", "t1", 3.0)
    for value in (edge.low, edge.high):
        assert compare_bands({"liver": {"t1": value}}, 3.0)[0].place == "inside"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("csf", "t1", 3.0),
            "tissue: got 'csf', expected one of white matter, grey matter, muscle, kidney, liver, blood",
        ),
        (("liver", "pd", 3.0), "parameter: got 'pd', expected t1 or t2"),
        (("liver", "t1", 7.0), "field_strength: liver t1 at 7 T is not in the table, which has 1.5 T, 3 T"),
        (("yellow marrow", "t1", 1.5), "yellow marrow t1 at 1.5 T is not in the table, which has 3 T"),
        (("liver", "t1", -3.0), "field_strength: got -3.0, expected finite positive values"),
    ],
)
def test_what_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(mrf.InputError, match=message):
        normal_band(*arguments)


def test_unknown_methods_and_values_that_are_none_are_refused() -> None:
    with pytest.raises(
        mrf.InputError, match="method: got 'MOLLI', expected one of compiled from the literature; range"
    ):
        normal_band("white matter", "t1", 3.0, method="MOLLI")
    with pytest.raises(mrf.InputError, match="liver t1: got nan, expected finite positive values"):
        compare_bands({"liver": {"t1": math.nan}}, 3.0)
