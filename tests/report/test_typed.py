from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from mlx_rsft.report.typed import Mistyped, read


@dataclass(frozen=True)
class Inner:
    x: float | None
    many: Sequence[int] = ()


@dataclass(frozen=True)
class Outer:
    inner: Inner
    by: Mapping[str, Inner]
    kind: Literal["a", "b"] = "a"
    free: Any = None
    on: bool = False


def _outer(**changed):
    return {"inner": {"x": 1}, "by": {"k": {"x": None}}} | changed


def test_a_document_becomes_what_it_is_declared_as():
    found = read(Outer, _outer(free=[1], unknown="passed over"))
    assert found == Outer(Inner(1.0), {"k": Inner(None)}, free=[1])
    assert isinstance(found.inner.x, float)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"inner": {}}, "inner.x is missing"),
        ({"inner": []}, "inner is a list, expected an object"),
        ({"inner": {"x": "1"}}, "inner.x is a text, expected a number"),
        ({"inner": {"x": True}}, "inner.x is true or false, expected a number"),
        ({"inner": {"x": 1e101}}, "inner.x is too large a number"),
        ({"inner": {"x": 10**101}}, "inner.x is a whole number, expected a number"),
        ({"by": {"k": None}}, "by['k'] is null, expected an object"),
        (
            {"inner": {"x": 1, "many": [1, 2.5]}},
            "inner.many[1] is a number, expected a whole number",
        ),
        (
            {"inner": {"x": 1, "many": {}}},
            "inner.many is an object, expected a list",
        ),
        ({"kind": "c"}, "kind is 'c', expected one of 'a', 'b'"),
        ({"kind": []}, "kind is '[]', expected one of 'a', 'b'"),
        ({"on": 1}, "on is a whole number, expected true or false"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(changed, said):
    with pytest.raises(Mistyped) as caught:
        read(Outer, _outer(**changed))
    assert str(caught.value) == said


def test_a_document_that_is_no_object_is_refused():
    with pytest.raises(Mistyped, match="the whole is a list, expected an object"):
        read(Outer, [])
