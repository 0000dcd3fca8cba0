"""Flags are made from settings models, so flags and TOML have the same names by construction."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kdcache.base.records import validated
from kdcache.base.view_span import ViewSpan

R = TypeVar("R")
SPAN = "N|START:STOP"  # of views
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON for programs.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, max=64, help="Files that travel at a time.")]
Views = Annotated[
    ViewSpan | None,
    typer.Option("--views", parser=ViewSpan.parse, metavar=SPAN, help="Some views: 10 are 0:10; else all."),
]
Without = Annotated[
    list[str] | None,
    typer.Option("--without", metavar="taps|tap:NAME", help="Taps to leave out, all or some; the content id stays."),
]
Config = Annotated[str | None, typer.Option("--config", help="TOML file of the same settings; flags win.")]


def with_settings_flags(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give a function that takes settings, such as `engine: EngineSettings`, a flag for each of their fields."""
    own_parameters = inspect.signature(function).parameters.values()
    models = {parameter.name: parameter.annotation for parameter in own_parameters if _is_model(parameter.annotation)}

    def command(**values: Any) -> int | None:
        settings = {}
        for noun, model in models.items():
            fields = {name: values.pop(name) for name in model.model_fields}
            settings[noun] = validated(model, noun, **{name: v for name, v in fields.items() if v not in (None, [])})
        return function(**values, **settings)

    parameters: list[inspect.Parameter] = []
    for parameter in own_parameters:
        if model := models.get(parameter.name):
            parameters += [_parameter(name, field, False) for name, field in model.model_fields.items()]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    return _declared(command, function, parameters)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def with_flags(
    model: type[BaseModel], positional: str, **extra: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give `function(flags, config, json, **extra)` one flag for each field of `model`; `positional` is an argument.

    A flag that is not given is left out of `flags`, so that a TOML file can set it. `extra` are further annotated
    flags, None where they are not given.
    """

    def wrap(function: Callable[..., None]) -> Callable[..., None]:
        def command(**values: Any) -> None:
            flags = {name: values[name] for name in model.model_fields if values[name] not in (None, [])}
            function(flags, values["config"], values["as_json"], **{name: values[name] for name in extra})

        parameters = [_parameter(name, field, name == positional) for name, field in model.model_fields.items()]
        parameters.append(_keyword("config", Config, None))
        parameters.extend(_keyword(name, annotation, None) for name, annotation in extra.items())
        parameters.append(_keyword("as_json", Json, False))
        parameters.sort(key=lambda parameter: parameter.name != positional)
        return _declared(command, function, parameters)

    return wrap


def _declared(
    command: Callable[..., R], function: Callable[..., R], parameters: list[inspect.Parameter]
) -> Callable[..., R]:
    """The command under the function's name, with these parameters for typer to read."""
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__, command.__name__ = function.__doc__, function.__name__
    return command


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _parameter(name: str, field: FieldInfo, positional: bool) -> inspect.Parameter:
    text = (field.description or "") + _default(field)
    if positional:
        kind = list[str] if get_origin(field.annotation) is tuple else str
        return _keyword(name, Annotated[kind | None, typer.Argument(help=text, show_default=False)], None)
    kind, flag = _kind(field.annotation), "--" + name.replace("_", "-")
    names = (flag, f"--no-{flag[2:]}") if kind is bool else (flag,)
    declaration = "/".join(names)
    metavar = _choices(field.annotation)
    option = typer.Option(declaration, help=text, show_default=False, metavar=metavar)
    return _keyword(name, Annotated[kind | None, option], None)


def _kind(annotation: Any) -> Any:
    """The type that typer parses: plain types as they are, dicts and tuples as repeated text, all others as text."""
    if get_origin(annotation) in (dict, tuple):
        return list[str]
    types = [argument for argument in (get_args(annotation) or (annotation,)) if argument is not type(None)]
    return types[0] if len(types) == 1 and types[0] in (int, float, bool) else str


def _choices(annotation: Any) -> str | None:
    arguments = (annotation, *get_args(annotation))
    if any(getattr(argument, "__origin__", argument) is ViewSpan for argument in arguments):
        return SPAN
    options = _literals(annotation)
    return ("," if get_origin(annotation) is tuple else "|").join(options) or None


def _literals(annotation: Any) -> list[str]:
    """The texts that an annotation allows, such as those of `Literal["a", "b"] | None`."""
    if isinstance(annotation, str):
        return [annotation]
    return [option for argument in get_args(annotation) for option in _literals(argument)]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return " [required]"
    if field.default in ("", None, (), {}):
        return ""
    text = {True: "on", False: "off"}.get(field.default) if isinstance(field.default, bool) else field.default
    return f" [default: {text}]"
