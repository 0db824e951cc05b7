"""What a check of a table found: a closed list of findings, each with a count, examples and what to do."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

from lance_align.errors import TableError
from lance_align.told import Told

MAX_EXAMPLES = 20
MAX_EXAMPLE_CHARS = 200  # an id may be a megabyte long

Check = Literal[
    "missing_file",
    "unreadable",
    "metadata",
    "model",
    "null_id",
    "duplicate_id",
    "not_finite",
    "norm",
    "checksum",
    "no_reason",
    "stray_reason",
    "source",
    "different_vector",
    "changed",
]

# What is wrong with the things counted, and what to do about it; in the order of a report.
_ABOUT: Mapping[Check, tuple[str, str]] = {
    "missing_file": (
        "files that this version needs are gone or cut off",
        "restore them from a backup; an index can be dropped and built again; or go back to a version that does not "
        "need them: table.restore(version)",
    ),
    "unreadable": (
        "columns of a fragment cannot be read",
        "restore the file from a backup, or delete the rows and run the same command again",
    ),
    "metadata": (
        "entries of the table's metadata are missing, damaged or contradict each other",
        "lance_align.attach(table, …) declares a column again that was renamed, and writes a function again that is "
        "lost; or go back to a version whose metadata is whole (table.restore(version))",
    ),
    "model": (
        "vector columns were made by another model than the one found here",
        "install the checkpoint that wrote the table, or embed into a new table",
    ),
    "null_id": ("rows have no id", "give them one with table.update, or delete them with where='id IS NULL'"),
    "duplicate_id": (
        "rows have an id that another row has too",
        "delete all rows of these ids and run the same command again: it writes each once",
    ),
    "not_finite": (
        "vectors hold a number that is not finite",
        "delete these rows and run the same command again: it embeds them anew",
    ),
    "norm": (
        "vectors do not have the norm 1",
        "delete these rows and run the same command again; vectors of other programs have to be normalised",
    ),
    "checksum": (
        "rows have other vectors than were written",
        "if another program wrote these vectors, nothing is to be done; otherwise the storage is damaged: delete these "
        "rows and run the same command again",
    ),
    "no_reason": (
        "rows have no vector and no reason",
        "rows of table.add(on_bad_vectors='null') have none: lance_align.backfill embeds them or says why not",
    ),
    "stray_reason": (
        "rows have their vector and an error too",
        "another program embedded them (merge_insert does) and left the old error: "
        "table.update(where=\"id = '…'\", values={'error': None}) takes it away",
    ),
    "source": (
        "rows have a vector, but what it was made from cannot be embedded any more",
        "the job was given other limits (limits=...), or the stored picture or text was changed or damaged: write what "
        "is right with table.merge_insert, which embeds it, or delete damaged rows and run the same command again",
    ),
    "different_vector": (
        "rows embedded again have another vector",
        "LanceDB's update changes a picture or text and does not embed it: write such rows again with "
        "table.merge_insert, which does; others are damaged: delete them and run the same command again",
    ),
    "changed": (
        "rows of the sample have another content than the job wrote, and vectors that fit it",
        "nothing is to be done where you changed them (merge_insert, update); otherwise the storage is damaged",
    ),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong with a table.

    Attributes:
        check: its name, from a closed list.
        count: how often.
        what: the same in words, for example ``"rows have no id"``.
        examples: up to 20, each cut at 200 characters: ids of rows, or what the check looks at.
        advice: what to do, one line.
    """

    check: Check
    count: int
    what: str
    examples: tuple[str, ...]
    advice: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verification(Told):
    """What `verify` found out about one version of a table.

    Attributes:
        table_uri: its Lance dataset.
        version: the version that was read.
        rows: how many it has.
        vectors: how many are not null, over all vector columns.
        failed: rows with a reason in an error column.
        checksummed: rows whose vectors were compared with their checksum.
        sampled: vectors that were made again and compared.
        findings: what is wrong, in a fixed order; none for a sound table.
        unchecked: what could not be checked and why, one line each; says nothing about the table.

    >>> print(lance_align.verify(table).to_text())
    verified ...demo.lance (version ...)
    ...
      nothing wrong was found
    """

    table_uri: str
    version: int
    rows: int
    vectors: int
    failed: int
    checksummed: int
    sampled: int
    findings: tuple[Finding, ...] = ()
    unchecked: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing wrong was found; rows that another program changed and embedded are not wrong."""
        return not self._wrong

    @property
    def _wrong(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.check != "changed"]

    def to_json(self) -> str:
        """All of it as one JSON object."""
        return json.dumps({"ok": self.ok} | dataclasses.asdict(self), indent=2)

    def to_text(self) -> str:
        """All of it for a person, without a line break at the end."""
        lines = [f"verified {self.table_uri} (version {self.version})", ""]
        numbers = ("rows", "vectors", "failed", "checksummed", "sampled")
        lines += [f"  {name:<18}{getattr(self, name):>9,}" for name in numbers]
        lines += ["", "  nothing wrong was found" if self.ok else "  wrong:"]
        for finding in self.findings:
            lines += ["  told:"] if finding.check == "changed" else []
            lines += [f"    {finding.check} ({finding.count:,}): {finding.what}"]
            lines += [f"      {_printable(example)[:100]}" for example in finding.examples[:5]]
            lines += [f"      -> {finding.advice}"]
        if self.unchecked:
            lines += ["  not checked:", *(f"    {_printable(line)}" for line in self.unchecked)]
        return "\n".join(lines)

    def raise_if_bad(self) -> None:
        """Do nothing for a sound table.

        Raises:
            TableError: names the first finding and how many others there are.
        """
        if self._wrong:
            first, others = self._wrong[0], len(self._wrong) - 1
            more = f" (and {others} more kinds of findings)" if others else ""
            raise TableError(
                f"{self.table_uri} (version {self.version}): {first.what} ({first.count:,}), for example "
                f"{_printable(first.examples[0])}{more}; {first.advice}"
            )


class Collector:
    """Gathers findings while a table is read; memory does not grow with what is found."""

    def __init__(self) -> None:
        self.unchecked: list[str] = []
        self._counts: Counter[Check] = Counter()
        self._examples: dict[Check, list[str]] = {}

    def add(self, check: Check, examples: Iterable[str], *, count: int | None = None) -> None:
        """Count one finding an example, or as many as `count` says; no examples and no count add nothing."""
        given = list(examples)
        kept = self._examples.setdefault(check, [])
        kept += [example[:MAX_EXAMPLE_CHARS] for example in given[: MAX_EXAMPLES - len(kept)]]
        self._counts[check] += len(given) if count is None else count

    def skip(self, line: str) -> None:
        """Note what could not be checked."""
        if line not in self.unchecked:
            self.unchecked.append(line)

    def findings(self) -> tuple[Finding, ...]:
        """All that was added, one for each check."""
        return tuple(
            Finding(
                check=check, count=self._counts[check], what=what, examples=tuple(self._examples[check]), advice=advice
            )
            for check, (what, advice) in _ABOUT.items()
            if self._counts[check]
        )


def _printable(text: str) -> str:
    """One line without control characters: an id may hold escape sequences of a terminal."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
