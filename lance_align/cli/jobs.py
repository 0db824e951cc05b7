"""What the three jobs' commands share: the options of the function and of a run, in groups, and the report."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any

from cyclopts import Group, Parameter
from docstring_parser import parse

from lance_align.jobs.failures import GO_ON as GO_ON
from lance_align.jobs.options import RunOptions

_GROUPS = {
    "Input": "source corpus rows seed format delimiter image text id drop embed labels_from_folders limit duplicates "
    "on_changed gone held_out",
    "Table": "db table out vector column keep thumbnail_px retry_errors index fts storage_options verify cleanup sheet",
    "Model": "model vision_model text_model projection_dim revision task prompt max_new_tokens temperature max_side_px "
    "device engine precision",
    "Training": "steps minutes batch_size pairs_per_pass learning_rate head_learning_rate weight_decay warmup_steps "
    "min_temperature max_temperature freeze_image_tower freeze_text_tower freeze_batch_norm gradient_checkpointing "
    "recall_every",
    "Limits": "allow_outside fetch_hosts image_formats max_pixels max_bytes decode_seconds decode_memory_mb max_errors",
    "Cluster": "executor actors readers workers threads",
    "Expert": "commit_rows commit_seconds block_rows stall_seconds checkpoint_every_s progress log_file report_json",
}
# By number, so that help shows them in this order.
_GROUP_OF = {
    name: Group(title, sort_key=number)
    for number, (title, names) in enumerate(_GROUPS.items())
    for name in names.split()
}


def job_command(
    command: Callable[..., None],
    job: Callable[..., Any],
    *,
    run: type[RunOptions] | None = RunOptions,
    without: Collection[str] = (),
) -> Callable[..., None]:
    """A command that takes the options of a job, of a run, and its own, and is given all of them as keywords.

    Help shows what the docstrings say of each, in groups.

    Args:
        command: its last parameter is ``**given``.
        job: a function; its ``**options`` are those of `run`.
        run: their names, types and defaults; None for a job that has none of them.
        without: options of the job that the command gives itself.
    """
    parameters = {**_parameters(job), **({} if run is None else _fields(run)), **_parameters(command)}
    kept = [parameter for name, parameter in parameters.items() if name not in without]
    ordered = sorted(kept, key=lambda parameter: parameter.kind)
    signature = inspect.Signature(ordered)

    @functools.wraps(command)
    def call(*args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        command(**bound.arguments)

    typing.cast("Any", call).__signature__ = signature
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in ordered}
    return call


def options_of(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that a function takes, its ``**options`` among them."""
    own = inspect.signature(function).parameters
    names = {field.name for field in dataclasses.fields(RunOptions)} if "options" in own else set()
    return {name: value for name, value in given.items() if name in own or name in names}


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    hints = typing.get_type_hints(function, include_extras=True)
    said = _said(function.__doc__)
    return {
        name: parameter.replace(annotation=_annotated(parameter, hints[name], said.get(name, "")))
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }


def _fields(run: type[RunOptions]) -> dict[str, inspect.Parameter]:
    hints = typing.get_type_hints(run, include_extras=True)
    said = _said(RunOptions.__doc__)
    found = {}
    for field in dataclasses.fields(run):
        parameter = inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default)
        annotation = _annotated(parameter, hints[field.name], said[field.name])
        found[field.name] = parameter.replace(annotation=annotation)
    return found


def _annotated(parameter: inspect.Parameter, hint: Any, said: str) -> Any:
    """The type with what help says; a switch that is off has no twin that turns it off."""
    options: dict[str, Any] = {"help": said, "group": _GROUP_OF.get(parameter.name)}
    if parameter.default is False:
        options |= {"negative": (), "show_default": False}
    elif parameter.default == ():
        options |= {"show_default": False}
    return Annotated[hint, Parameter(**{name: value for name, value in options.items() if value is not None})]


def _said(text: str | None) -> dict[str, str]:
    """What a docstring says of each parameter or attribute."""
    return {
        name.strip(): " ".join((entry.description or "").split())
        for entry in parse(text or "").params
        for name in entry.arg_name.split(",")
    }
