"""Flags are made from settings models, so flags and TOML have the same names by construction."""

import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar, get_args, get_origin

import typer
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from kdcache.base.records import validated
from kdcache.base.setting_types import listed
from kdcache.base.view_span import ViewSpan
from kdcache.cli.help_pages import OUTPUT
from kdcache.pipelines.setting_groups import group_of

R = TypeVar("R")
SPAN = "N|START:STOP"  # of views
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON for programs.", rich_help_panel=OUTPUT)]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print all figures of the summary.", rich_help_panel=OUTPUT)
]
Jobs = Annotated[int, typer.Option("--jobs", metavar="N", min=1, max=64, help="Files that travel at a time.")]
Views = Annotated[
    ViewSpan | None,
    typer.Option("--views", parser=ViewSpan.parse, metavar=SPAN, help="Some views: 10 are 0:10; else all."),
]
Without = Annotated[
    list[str] | None,
    typer.Option("--without", metavar="taps|tap:NAME", help="Taps to leave out, all or some; the content id stays."),
]
Config = Annotated[
    str | None,
    typer.Option(
        "--config", metavar="FILE", help="The same settings in a TOML file; flags win.", rich_help_panel="Run"
    ),
]


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
            parameters += [_parameter(name, field, False, group_of(name)) for name, field in model.model_fields.items()]
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

        fields = model.model_fields
        has_teacher = "teacher" in fields
        parameters = [
            _parameter(name, field, name == positional, group_of(name, has_teacher=has_teacher))
            for name, field in fields.items()
        ]
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


def _parameter(name: str, field: FieldInfo, positional: bool, group: str | None) -> inspect.Parameter:
    text = " ".join(filter(None, [field.description, *_tags(field, positional)]))
    if positional:
        kind = list[str] if get_origin(field.annotation) is tuple else str
        return _keyword(name, Annotated[kind | None, typer.Argument(help=text, show_default=False)], None)
    kind, flag = _kind(field.annotation), "--" + name.replace("_", "-")
    names = (flag, f"--no-{flag[2:]}") if kind is bool else (flag,)
    declaration = "/".join(names)
    metavar, choices = _metavar(field), _literals(field.annotation)
    option = typer.Option(
        declaration,
        help=text,
        show_default=False,
        metavar=metavar,
        rich_help_panel=group,
        autocompletion=(lambda incomplete: [word for word in choices if word.startswith(incomplete)])
        if choices
        else None,
    )
    return _keyword(name, Annotated[kind | None, option], None)


def _kind(annotation: Any) -> Any:
    """The type that typer parses: plain types as they are, dicts and tuples as repeated text, all others as text."""
    if get_origin(annotation) in (dict, tuple):
        return list[str]
    types = [argument for argument in (get_args(annotation) or (annotation,)) if argument is not type(None)]
    return types[0] if len(types) == 1 and types[0] in (int, float, bool) else str


def _metavar(field: FieldInfo) -> str:
    annotation = field.annotation
    arguments = (annotation, *get_args(annotation))
    if any(getattr(argument, "__origin__", argument) is ViewSpan for argument in arguments):
        return SPAN
    if get_origin(annotation) is dict:
        return "KEY=VALUE"
    options = _literals(annotation)
    if get_origin(annotation) is tuple:
        item = "|".join(options) or _item(get_args(annotation)[0])
        return f"{item},..." if _by_commas(field) else item
    if not options:
        return _item(annotation)
    return "|".join([*(["X"] if _holds(annotation, float) else []), *options])


def _holds(annotation: Any, kind: type) -> bool:
    return annotation is kind or any(_holds(part, kind) for part in get_args(annotation))


def _item(annotation: Any) -> str:
    """The sign for a value: N for whole numbers, X for others, TEXT."""
    types = {annotation, *get_args(annotation), *(part for item in get_args(annotation) for part in get_args(item))}
    return "N" if int in types else "X" if float in types else "TEXT"


def _by_commas(field: FieldInfo) -> bool:
    """True for a tuple whose items commas join."""
    return any(isinstance(part, BeforeValidator) and part.func is listed for part in field.metadata)


def _literals(annotation: Any) -> list[str]:
    """The texts that an annotation allows, such as those of `Literal["a", "b"] | None`."""
    if isinstance(annotation, str):
        return [annotation]
    return [option for argument in get_args(annotation) for option in _literals(argument)]


def _tags(field: FieldInfo, positional: bool) -> Iterator[str]:
    """The words in brackets: how a list repeats, and the default."""
    if get_origin(field.annotation) in (dict, tuple) and not positional:
        yield "[joined by commas, or repeated]" if _by_commas(field) else "[may be repeated]"
    if field.is_required():
        yield "[required, here or in --config]"
    elif field.default not in ("", None, (), {}):
        text = {True: "on", False: "off"}.get(field.default) if isinstance(field.default, bool) else field.default
        yield f"[default: {text}]"
