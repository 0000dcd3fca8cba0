"""Views of a teacher's own size: presets that give no size and no interpolation of their own take the teacher's."""

from inspect import signature
from typing import Any

from kdcache.networks.input_sources import OwnInput
from kdcache.networks.own_input import known_input
from kdcache.pipelines.extract.views import stored_identity
from kdcache.pipelines.settings import ExtractSettings
from kdcache.views.transforms import PRESETS, cropped_from

SIZED = ("center", "imagenet")


def with_own_views(settings: ExtractSettings) -> tuple[ExtractSettings, tuple[str, ...]]:
    """Settings whose transform has the teacher's own size and interpolation where they give none, and a note on it. The
    views of a store that stands keep theirs."""
    if settings.transform not in SIZED or stored_identity(settings) is not None:
        return settings, ()
    teacher_input = known_input(settings.teacher, settings.teacher_set, settings.weights)
    if teacher_input is None:
        return settings, ()
    if not (chosen := own_arguments(teacher_input, settings.transform, settings.transform_set)):
        return settings, ()
    arguments = {**settings.transform_set, **chosen}
    return settings.model_copy(update={"transform_set": arguments}), (
        _note(settings.transform, teacher_input, chosen, arguments),
    )


def own_arguments(own: OwnInput, name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a preset that a network's own input chooses: none that is given, and none that is the preset's
    default, so that equal views have equal plans."""
    defaults = {key: value.default for key, value in signature(PRESETS[name]).parameters.items()}
    size = given.get("size", own.side or defaults["size"])
    values: dict[str, Any] = {"size": size, "interpolation": own.interpolation or defaults["interpolation"]}
    if name == "center" and own.side and own.resize and not {"resize", "squash"} & given.keys():
        resize = own.resize if size == own.side else size * own.resize // own.side
        is_default = resize == cropped_from(size, squash=own.squash)
        values |= {"squash": own.squash, "resize": 0 if is_default else resize}
    return {key: value for key, value in values.items() if key not in given and value != defaults[key]}


def _note(name: str, own: OwnInput, chosen: dict[str, Any], arguments: dict[str, Any]) -> str:
    size = arguments.get("size", signature(PRESETS[name]).parameters["size"].default)
    parts = [f"{size} x {size} pixels", arguments.get("interpolation", "bilinear")]
    if side := arguments.get("resize"):
        parts.append(f"cropped from {side}")
    if arguments.get("squash"):
        parts.append("resized without regard to their ratio")
    return f"views are {', '.join(parts)}, by {own.source}; --transform-set {next(iter(chosen))}=... chooses others"
