"""The two sources of align-tiny's pairs: drawn scenes and emoji artwork."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from lance_align.corpora.grammar import an, two_objects
from lance_align.corpora.scenes import BACKGROUNDS, HELD_OUT_PAIRS, Scene, draw_scene, scene_at
from lance_align.training.artwork import Artwork, Emoji
from lance_align.training.augment import DEFAULTS, AugmentOptions, augment
from lance_align.training.pairs import Batch, find_matches

# Said around a caption without changing what it is true of.
TEMPLATES = (
    *4 * ("{}",), "a {}", "a photo of a {}", "a photo of {}", "a picture of a {}", "an emoji of {}", "a drawing of {}",
)  # fmt: skip
_SCENE_TEMPLATES = (*4 * ("{}",), "a photo of {}", "a picture of {}", "a drawing of {}")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class EmojiPairs:
    """Emoji artwork, augmented anew each time, with a name or keywords.

    Attributes:
        artwork: the pictures.
        side_px: side of the pictures to make.
        options: strengths of augmentation.
        blend_share: share of pictures that are mixed with another artist's picture of the same emoji.
    """

    artwork: Artwork
    side_px: int
    options: AugmentOptions = DEFAULTS
    blend_share: float = 0.15

    def batch(self, size: int, rng: np.random.Generator) -> Batch:
        """`size` pictures; an emoji seldom comes twice, and then its captions match both pictures."""
        art = self.artwork
        chosen = rng.choice(len(art.rgba), size=size, replace=size > len(art.rgba))
        emojis = [art.emojis[place] for place in art.emoji[chosen]]
        captions = [emoji_caption(emoji, rng) for emoji in emojis]
        truths = [{emoji.name, emoji.code, *emoji.keywords} for emoji in emojis]
        # A caption of several words from one emoji stands for that emoji alone.
        asked = [
            text if text in known else emoji.code for text, known, emoji in zip(captions, truths, emojis, strict=True)
        ]
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        mirrors = torch.tensor([emoji.mirrors for emoji in emojis])
        rgba = torch.from_numpy(self._blended(chosen, rng))
        pixels = augment(rgba, mirrors, generator, side_px=self.side_px, options=self.options)
        texts = tuple(str(rng.choice(TEMPLATES)).format(caption) for caption in captions)
        return Batch(pixels, texts, find_matches(asked, truths))

    def _blended(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
        rgba = self.artwork.rgba[chosen]
        for place in np.flatnonzero(rng.random(len(chosen)) < self.blend_share):
            alike = np.flatnonzero(self.artwork.emoji == self.artwork.emoji[chosen[place]])
            weight = rng.uniform(0.25, 0.75)
            rgba[place] = _blend(rgba[place], self.artwork.rgba[rng.choice(alike)], weight)
        return rgba


def _blend(one: NDArray[np.uint8], other: NDArray[np.uint8], weight: float) -> NDArray[np.uint8]:
    """A weighted mean of two uint8 (height, width, 4) pictures whose alpha is not multiplied in."""
    alpha_one, alpha_other = one[..., 3:] * weight, other[..., 3:] * (1 - weight)
    alpha = alpha_one + alpha_other
    colour = (one[..., :3] * alpha_one + other[..., :3] * alpha_other) / np.maximum(alpha, 1e-6)
    return np.concatenate([colour, alpha], axis=-1).astype(np.uint8)


def emoji_caption(emoji: Emoji, rng: np.random.Generator) -> str:
    """The name (most often), one keyword, or the name with one or two."""
    kind = rng.random()
    if kind < 0.65 or not emoji.keywords:
        return emoji.name
    if kind < 0.85:
        return str(rng.choice(emoji.keywords))
    some = rng.permutation(emoji.keywords)[: rng.integers(1, 3)]
    return ", ".join([emoji.name, *map(str, some)])


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ScenePairs:
    """Drawn scenes held in memory, with one of the captions that are true of each.

    Attributes:
        pixels: uint8 ``(n, height, width, 3)``.
        scenes: the n scenes.
        twins: int64 ``(m, 2)``, places of scenes that differ only in which object has which colour; the second of
            each, the last m scenes, was made from the first.
    """

    pixels: NDArray[np.uint8]
    scenes: tuple[Scene, ...]
    twins: NDArray[np.int64]

    def batch(self, size: int, rng: np.random.Generator) -> Batch:
        """`size` scenes, half of them as pairs of twins.

        Each is the other's negative: without them, a picture of a white bell and a brown house is found by
        "a white house" (measured).
        """
        pairs = min(size // 4, len(self.twins))
        twins = self.twins[rng.permutation(len(self.twins))[:pairs]].ravel()
        drawn = len(self.scenes) - len(self.twins)  # twins come last and are left out here
        others = rng.choice(drawn, size=size - 2 * pairs, replace=size > drawn)
        chosen = np.concatenate([twins, others])
        scenes = [self.scenes[place] for place in chosen]
        captions = [scene_caption(scene, rng) for scene in scenes]
        texts = tuple(str(rng.choice(_SCENE_TEMPLATES)).format(caption) for caption in captions)
        pixels = torch.from_numpy(self.pixels[chosen]).permute(0, 3, 1, 2)
        return Batch(pixels, texts, find_matches(captions, [scene_truths(scene) for scene in scenes]))


def draw_scene_pairs(*, seed: int, count: int, side_px: int) -> ScenePairs:
    """Draw `count` scenes of the training pairs of object and colour, and the twins of those that have one."""
    scenes = [scene_at(seed, index, split="train") for index in range(count)]
    twins: list[tuple[int, int]] = []
    for place in range(count):
        twin = swap_colours(scenes[place])
        if twin is not None:
            twins.append((place, len(scenes)))
            scenes.append(twin)
    pixels = np.stack([draw_scene(scene, size_px=side_px) for scene in scenes])
    return ScenePairs(pixels, tuple(scenes), np.array(twins, dtype=np.int64).reshape(-1, 2))


def swap_colours(scene: Scene) -> Scene | None:
    """The scene with its two objects' colours exchanged; None for one object, and for a pair that is held out."""
    if len(scene.objects) != 2:
        return None
    first, second = scene.objects
    first, second = (
        dataclasses.replace(first, colour=second.colour, rgb=second.rgb),
        dataclasses.replace(second, colour=first.colour, rgb=first.rgb),
    )
    if {(first.name, first.colour), (second.name, second.colour)} & HELD_OUT_PAIRS:
        return None
    captions = two_objects(
        first=f"{first.colour} {first.name}",
        second=f"{second.colour} {second.name}",
        relation=str(scene.relation),
        place=BACKGROUNDS[scene.background].words,
    )
    return dataclasses.replace(scene, objects=(first, second), captions=captions)


def scene_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption of the grammar, or a part of the truth: one object's name and colour, or either alone.

    Alone, they teach what each word means in pairs that were never drawn.
    """
    item = scene.objects[rng.integers(len(scene.objects))]
    kind = rng.random()
    if kind < 0.4:
        return an(f"{item.colour} {item.name}")
    if kind < 0.5:
        return an(item.name)
    if kind < 0.6:
        return item.colour
    return str(rng.choice(scene.captions))


def scene_truths(scene: Scene) -> set[str]:
    """Every caption that `scene_caption` may give and that is true of the scene."""
    parts = {text for item in scene.objects for text in (an(f"{item.colour} {item.name}"), an(item.name), item.colour)}
    return {*scene.captions, *parts}


def recipe_texts(emoji: EmojiPairs, scenes: ScenePairs) -> Iterator[str]:
    """Texts whose words the tokenizer has to know: every name and keyword, captions of scenes, and the templates."""
    for item in emoji.artwork.emojis:
        yield from (item.name, item.name, *item.keywords)
    for scene in scenes.scenes[:2000]:
        yield from scene.captions
    yield from (template.format("") for template in TEMPLATES for _ in range(50))
