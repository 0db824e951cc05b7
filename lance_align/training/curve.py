"""The curve of a run: loss and recall over its steps, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lance_align.errors import MissingExtraError
from lance_align.sheets import GREY, INK, RULE, Sheet
from lance_align.training.log import LogLine

_WIDTH_INCHES, _PANEL_INCHES = 6.4, 2.4
_LINES = (  # what is measured, its label, colour and style
    ("text_to_image@1", "text → image, @1", "#2a5fa5", "-"),
    ("image_to_text@1", "image → text, @1", "#b3541e", "-"),
    ("text_to_image@10", "text → image, @10", "#2a5fa5", ":"),
    ("image_to_text@10", "image → text, @10", "#b3541e", ":"),
)


def save_curve(lines: Sequence[LogLine], path: Path) -> Path | None:
    """Draw a run into a PNG and return its path; None where matplotlib is missing.

    Args:
        lines: see `draw_curve`.
        path: ends in ``.png``; a file that is there is replaced.

    Raises:
        ArgumentError: it cannot be written.
    """
    try:
        return draw_curve(lines).save(path)
    except MissingExtraError:
        return None


def draw_curve(lines: Sequence[LogLine]) -> Sheet:
    """Draw the loss over steps and, where it was measured, recall below it.

    Args:
        lines: of one run, by rising steps, as `lance_align.training.log.read_log` gives them; none give empty axes.

    Raises:
        MissingExtraError: matplotlib, of the extra ``plots``, is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plots") from error
    measured = [(line.step, line.recall) for line in lines if line.recall]
    panels = 2 if measured else 1
    figure = Figure(figsize=(_WIDTH_INCHES, panels * _PANEL_INCHES), layout="constrained")
    upper, *lower = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    losses = [(line.step, line.loss) for line in lines if line.loss is not None]
    upper.plot(*_columns(losses), color=INK, linewidth=1.2, marker="." if len(losses) < 2 else "")
    _dress(upper, "loss, nats")
    for axes in lower:
        for name, label, colour, style in _LINES:
            points = [(step, recall[name]) for step, recall in measured if name in recall]
            axes.plot(*_columns(points), style, color=colour, linewidth=1.2, marker=".", label=label)
        axes.set_ylim(0, 1.02)
        axes.legend(fontsize=7, frameon=False, ncols=2)
        _dress(axes, "recall, held out")
    (lower or [upper])[-1].set_xlabel("steps", fontsize=8, color=GREY)
    return Sheet(figure)


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]


def _dress(axes: Any, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_ylabel(label, fontsize=8, color=GREY)
    axes.tick_params(labelsize=7, colors=GREY)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=RULE, linewidth=0.6)
    for spine in axes.spines.values():
        spine.set(color=RULE)
