"""Captions for drawn scenes: several ways to say the same thing, the plainest first."""

from __future__ import annotations

from collections.abc import Mapping

# Where the first object is, seen from the second, and the same fact seen from the first.
OPPOSITE: Mapping[str, str] = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

_RELATION_WORDS: Mapping[str, tuple[str, ...]] = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}


def an(words: str) -> str:
    """The words with their indefinite article."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def one_object(*, name: str, colour: str, size: str, position: str, place: str) -> tuple[str, ...]:
    """Captions of one object; size and position may be ``""`` where the picture does not say them clearly."""
    thing = f"{colour} {name}"
    sized = f"{size} {thing}".strip()
    captions = [
        an(thing),
        thing,
        f"a picture of {an(thing)}",
        f"a drawing of {an(sized)}",
        f"{an(name)} that is {colour}",
        f"{an(thing)} {place}",
        f"{an(sized)} {place}",
        f"the {name} is {colour}",
    ]
    if position:
        captions += [f"{an(thing)} {position}", f"{an(sized)} {position} {place}"]
    return tuple(dict.fromkeys(captions))


def two_objects(*, first: str, relation: str, second: str, place: str) -> tuple[str, ...]:
    """Captions of two objects, each given as ``"colour name"``."""
    one, other = an(first), an(second)
    captions = [f"{one} {words} {other}" for words in _RELATION_WORDS[relation]]
    captions += [f"{other} {words} {one}" for words in _RELATION_WORDS[OPPOSITE[relation]]]
    captions += [
        f"{one} and {other}",
        f"{other} and {one}",
        f"a picture of {one} and {other}",
        f"{one} {relation} {other} {place}",
        f"{one} and {other} {place}",
    ]
    return tuple(dict.fromkeys(captions))
