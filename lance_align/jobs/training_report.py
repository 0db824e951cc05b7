"""What a training run did: a screen of text, and the model card beside the weights."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path

from lance_align.told import Told

# AdamW's second moments are a mean over some 1 / (1 - 0.98) steps; before that each step is mostly chance.
FEW_STEPS = 50
WAYS = {"text_to_image": "words -> image", "image_to_text": "image -> words"}
CARD, CURVE = "README.md", "curve.png"
OURS = "<!-- `lance-align train` writes this file after each run. Remove this line, and yours is kept. -->"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport(Told):
    """The account of a training run, its earlier parts among it where it was stopped and continued.

    Attributes:
        out: directory of the model.
        table: uri of the table.
        version: of the table.
        image, text: its columns.
        rows: of the table, at that version.
        held_out: those of them that recall is measured on.
        model: what was trained further, or the two towers that were paired.
        fingerprint: of it; of a pair, both.
        steps: done, since the beginning.
        batch_size: pairs a step.
        elapsed_s: seconds trained; pauses, loading and the measurement before the first step are left out.
        loss: the first and the last mean in the log, in nats; None where the log has none.
        recall_before: on held-out pairs before the first step, by ``"text_to_image@1"`` and the like, 0 to 1; None
            where it was not measured.
        recall_after: the same after the last step.
        curve: the picture of loss and recall; None where matplotlib is missing.

    >>> report = lance_align.train(
    ...     "lancedb/demo.lance", out="mine", model="align-tiny", steps=2, batch_size=4, held_out=8
    ... )
    >>> report.recall_before.keys() == report.recall_after.keys()
    True
    """

    out: Path
    table: str
    version: int
    image: str
    text: str
    rows: int
    held_out: int
    model: str
    fingerprint: str
    steps: int
    batch_size: int
    elapsed_s: float
    loss: tuple[float, float] | None = None
    recall_before: Mapping[str, float] | None = None
    recall_after: Mapping[str, float] | None = None
    curve: Path | None = None

    def to_text(self) -> str:
        """One screen for people."""
        lines = [
            f"trained {self.model}",
            f"    on {self.table} (version {self.version}, {self.rows:,} rows, {self.held_out:,} held out)",
            f"    into {self.out}",
            "",
            f"  {'steps':<24} {self.steps:,}, of {self.batch_size:,} pairs each",
            f"  {'time':<24} {duration(self.elapsed_s)}",
        ]
        if self.loss is not None:
            lines.append(f"  {'loss, nats':<24} {self.loss[0]:.3f} -> {self.loss[1]:.3f}")
        lines += [f"  {name:<24} {before} -> {after}" for name, before, after in self._recall()]
        if self.curve is None:
            lines += ["", "  no curve was drawn, for matplotlib is missing: pip install 'lance-align[plots]'"]
        if self.steps < FEW_STEPS:
            lines += ["", f"  {self._few()}"]
        return "\n".join([*lines, "", f"saved {self.out}; use it with --model {self.out}"])

    def to_card(self) -> str:
        """A model card in Markdown."""
        facts = {
            "data": f"`{self.table}`, version {self.version}",
            "columns": f"`{self.image}` (images), `{self.text}` (texts)",
            "rows": f"{self.rows:,}, of which {self.held_out:,} were held out and never trained on",
            "begun with": f"`{self.model}`, fingerprint `{self.fingerprint}`",
            "steps": f"{self.steps:,}, of {self.batch_size:,} pairs each, in {duration(self.elapsed_s)}",
        }
        if self.loss is not None:
            facts["loss"] = f"{self.loss[0]:.3f} → {self.loss[1]:.3f} nats"
        lines = [OURS, "", f"# {self.out.name}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {_cell(fact)} |" for name, fact in facts.items()]
        if self.steps < FEW_STEPS:
            lines += ["", self._few()]
        if self.curve is not None:
            lines += ["", f"![Loss and recall over steps]({self.curve.name})"]
        lines += ["", "## How good it is", ""]
        if recall := self._recall():
            lines += [f"On {self.held_out:,} held-out pairs:", ""]
            lines += ["| measure | before | after |", "|---|---|---|"]
            lines += [f"| {name} | {before} | {after} |" for name, before, after in recall]
        else:
            lines += ["Not measured, for no rows were held out." if not self.held_out else "Not measured."]
        lines += ["", "## How to use it", "", "```python", "import lance_align", ""]
        lines += [f"encoder = lance_align.load_encoder({str(self.out)!r})", "```", ""]
        lines += ["```bash", f"lance-align embed PHOTOS --table photos --model {shlex.quote(str(self.out))}", "```"]
        return "\n".join(lines) + "\n"

    def _recall(self) -> list[tuple[str, str, str]]:
        """Name, before, after."""
        names = [*(self.recall_after or {}), *(self.recall_before or {})]
        return [
            (f"recall@{k} {WAYS[way]}", _share(self.recall_before, name), _share(self.recall_after, name))
            for name in dict.fromkeys(names)
            for way, k in [name.split("@")]
        ]

    def _few(self) -> str:
        steps = "1 step means" if self.steps == 1 else f"{self.steps:,} steps mean"
        return f"{steps} next to nothing: the optimiser's averages need {FEW_STEPS}. Give more steps or minutes."


def duration(seconds: float) -> str:
    """``8.2 s``, ``5 min 12 s`` or ``3 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _share(recall: Mapping[str, float] | None, name: str) -> str:
    return "not measured" if recall is None or name not in recall else f"{recall[name]:.3f}"


def _cell(text: str) -> str:
    """For a table of Markdown."""
    return " ".join(text.replace("|", "\\|").split())
