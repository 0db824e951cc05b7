"""Model descriptions survive the way through JSON, and damage is named."""

from __future__ import annotations

import dataclasses
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lance_align.errors import ModelError, RowError
from lance_align.spec import KNOWN_CHECKPOINTS, ImageSpec, ModelSpec

sizes = st.tuples(st.integers(1, 4096), st.integers(1, 4096))
triples = st.tuples(*[st.floats(-10, 10, allow_nan=False)] * 3)
specs = st.builds(
    ModelSpec,
    name=st.text(),
    revision=st.none() | st.text(),
    family=st.text(),
    dim=st.integers(1, 10_000),
    image=st.builds(
        ImageSpec,
        resize=sizes,
        crop=sizes,
        resample=st.sampled_from(["bilinear", "bicubic"]),
        scale=triples,
        shift=triples,
    ),
    max_tokens=st.integers(1, 512),
    fingerprint=st.text(),
)


@given(specs)
def test_a_spec_survives_json(spec: ModelSpec) -> None:
    assert ModelSpec.from_json(spec.to_json()) == spec


SPEC = ModelSpec(
    name="m",
    revision=None,
    family="align",
    dim=8,
    image=ImageSpec(resize=(4, 4), crop=(4, 4)),
    max_tokens=8,
    fingerprint="f",
)


@pytest.mark.parametrize(
    "change",
    [{"dim": 0}, {"dim": "8"}, {"max_tokens": True}, {"name": 5}, {"revision": 1}, {"surprise": 1}, {"image": None}],
)
def test_a_damaged_spec_is_one_typed_line(change: dict[str, object]) -> None:
    raw = {**dataclasses.asdict(SPEC), **change}
    with pytest.raises(ModelError, match="could not be read") as caught:
        ModelSpec.from_json(json.dumps(raw))
    assert "\n" not in str(caught.value)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_foreign_json_never_raises_anything_else(value: object) -> None:
    with pytest.raises(ModelError):
        ModelSpec.from_json(json.dumps(value))


def test_known_checkpoints_are_filed_under_their_names() -> None:
    assert {"align-tiny", "kakaobrain/align-base"} <= set(KNOWN_CHECKPOINTS)
    assert all(name == checkpoint.name for name, checkpoint in KNOWN_CHECKPOINTS.items())


def test_a_row_error_survives_pickling_and_stays_one_line() -> None:
    error = RowError("unreadable", "first\nsecond " + "x" * 1000)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes, as Ray carries them
    assert str(copy) == str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 350
