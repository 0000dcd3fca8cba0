"""Networks of transformers: of a folder that save_pretrained wrote, or of the hub's cache on this machine.

Folders are data: safetensors alone are read, and no code that a folder brings is run. The hub is asked only where the
arguments say `download=true`, and then for settings and safetensors.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from kdcache.base.canonical import canonical_json
from kdcache.errors import InvalidInputError
from kdcache.networks.heads import find_head

PREFIX = "transformers:"
TASKS = {
    "image": ("AutoModelForImageClassification", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING", "an image classifier"),
    "causal-lm": ("AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING", "a causal language model"),
}
ARGUMENTS = ("task", "num_classes", "pretrained", "download")
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
CONFIG, WEIGHTS = "config.json", ("model.safetensors", "model.safetensors.index.json")
FETCHED = ("*.json", "*.safetensors")
# of a configuration: neither architecture nor numbers that an answer hangs on
APART = {"transformers_version", "architectures", "dtype", "torch_dtype", "id2label", "label2id", "problem_type"}


def is_transformers(spec: str) -> bool:
    """True for a spec `transformers:FOLDER`."""
    return spec.startswith(PREFIX)


def build_transformers(spec: str, arguments: dict[str, Any], classes: int, noun: str) -> nn.Module:
    """The network of `transformers:FOLDER` in f32, of the task that the arguments name.

    A teacher has the folder's weights and classes. A student of other `classes` gets a fresh classifier on the folder's
    body, and with `pretrained=false` either gets fresh weights throughout. Raises InvalidInputError for a folder of
    another task, without safetensors or with code of its own, and where its weights are not the whole network's.
    """
    if unknown := sorted(arguments.keys() - set(ARGUMENTS)):
        raise InvalidInputError(f"{noun} {spec} takes {', '.join(ARGUMENTS)}, not {', '.join(unknown)}")
    task = arguments.get("task", "image")
    if task not in TASKS:
        raise InvalidInputError(f"{noun} {spec}: task is {task!r}; choose {' or '.join(TASKS)}")
    transformers, folder = library(), folder_of(spec, arguments)
    require_data_alone(folder, spec, noun)
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    auto_name, mapping, text = TASKS[task]
    auto = getattr(transformers, auto_name)
    if type(config) not in getattr(transformers, mapping):
        raise InvalidInputError(f"{noun} {spec} is {_kind(config)}, not {text}; {_other(task)}")
    wanted = arguments.get("num_classes", 0)
    if not arguments.get("pretrained", True):
        if task == "image" and (wanted or classes):
            config.num_labels = wanted or classes
        return _prepared(auto.from_config(config, trust_remote_code=False))
    _require_safetensors(folder, spec, noun, auto_name)
    count = wanted or (classes if noun == "student" else 0) or config.num_labels
    if task == "image" and noun == "teacher" and count != config.num_labels:
        raise InvalidInputError(
            f"teacher {spec} answers {config.num_labels} classes, and num_classes={count} was given: a fresh "
            "classifier knows none; leave it out, and match classes by name or --class-map FILE, or give "
            "pretrained=false and --weights FILE"
        )
    if noun == "teacher" and config.problem_type == "multi_label_classification":
        raise InvalidInputError(
            f"teacher {spec} was trained for several labels a picture (multi_label_classification): its answers go "
            "through a sigmoid each and are no distribution over classes; name a teacher of one label a picture"
        )
    labels = {} if task != "image" or count == config.num_labels else {"num_labels": count}
    try:
        with _quiet(transformers):
            network, info = auto.from_pretrained(
                folder, **labels, local_files_only=True, use_safetensors=True, trust_remote_code=False,
                ignore_mismatched_sizes=True, output_loading_info=True,
            )  # fmt: skip
    except (ImportError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InvalidInputError(
            f"{noun} {spec} cannot be loaded: {reason}; fetch its files again, or install what it asks for"
        ) from error
    fresh = {*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])}
    _require_whole(network, fresh, spec=spec, noun=noun, kind=f"{_kind(config)}, not {text}")
    return _prepared(network)


def folder_of(spec: str, arguments: dict[str, Any]) -> Path:
    """The folder of a spec: as it is named, else of the hub's model of that name. Raises InvalidInputError where there
    is neither here, and for a model that cannot be fetched."""
    name = spec.removeprefix(PREFIX)
    if (folder := Path(name).expanduser()).is_dir():
        return folder
    if not HUB_NAME.fullmatch(name):
        raise InvalidInputError(f"{spec}: there is no folder {folder}; name one that save_pretrained wrote")
    import huggingface_hub

    is_fetched = bool(arguments.get("download", False))
    try:
        place = huggingface_hub.snapshot_download(name, allow_patterns=[*FETCHED], local_files_only=not is_fetched)
    except (OSError, ValueError, RuntimeError, huggingface_hub.errors.HfHubHTTPError) as error:
        if is_fetched:
            reason = str(error).strip().partition("\n")[0]
            raise InvalidInputError(f"{spec} cannot be fetched from the hub: {reason}; check its name") from error
        raise InvalidInputError(
            f"{spec}: there is no folder {folder}, and no model of that name in the hub's cache on this machine; name "
            "a folder that save_pretrained wrote, or let download=true fetch it from the hub"
        ) from error
    return Path(place)


def architecture_text(network: nn.Module) -> str:
    """The settings that an answer hangs on, in canonical JSON: equal wherever the folder lies, and under versions of
    transformers that have other defaults for what the network does not use."""
    config: Any = network.config
    settings = {name: value for name, value in config.to_diff_dict().items() if name not in APART and name[0] != "_"}
    return canonical_json(json.loads(json.dumps(settings, default=str))).decode()


def recorded(spec: str, arguments: dict[str, Any], network: nn.Module) -> tuple[str, dict[str, Any]]:
    """The name and arguments that stand for a network in a store's identity. Of `transformers:FOLDER` that is the class
    alone: where a folder lies and how it came there is no part of a teacher."""
    return (f"{PREFIX}{type(network).__name__}", {}) if is_transformers(spec) else (spec, arguments)


def library() -> Any:
    """The package transformers. Raises InvalidInputError where it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise InvalidInputError("transformers is not installed; pip install 'kdcache[transformers]'") from error
    return transformers


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """While open, transformers reports no progress and no warnings: what it loads is looked at."""
    logging = transformers.utils.logging
    level, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bar:
            logging.enable_progress_bar()


def require_data_alone(folder: Path, spec: str, noun: str) -> None:
    """Raises InvalidInputError for a folder without settings, and for one that wants its own code to be run."""
    if not (folder / CONFIG).is_file():
        raise InvalidInputError(f"{noun} {spec}: {folder} has no {CONFIG}; name a folder that save_pretrained wrote")
    try:
        settings = json.loads((folder / CONFIG).read_bytes())
        code = settings.get("auto_map") or {}
        attention = str(settings.get("attn_implementation") or settings.get("_attn_implementation") or "")
    except (ValueError, AttributeError) as error:
        raise InvalidInputError(f"{noun} {spec}: {folder / CONFIG} cannot be read: {error}; fetch it again") from error
    if "/" in attention:
        raise InvalidInputError(
            f"{noun} {spec}: its {CONFIG} names kernels to be fetched and run (attn_implementation {attention}); "
            "remove that line, so that torch's own attention is used"
        )
    if code:
        names = ", ".join(sorted({str(value) for value in code.values()})) if isinstance(code, dict) else str(code)
        raise InvalidInputError(
            f"{noun} {spec} brings code of its own ({names}, by auto_map in its {CONFIG}), which would run with your "
            f"rights: trust_remote_code is off here. If you trust it, load it in a file.py:callable of yours"
        )


def _require_safetensors(folder: Path, spec: str, noun: str, auto: str) -> None:
    """Raises InvalidInputError for a folder without weights in safetensors, with the conversion of others."""
    if any((folder / name).is_file() for name in WEIGHTS):
        return
    if others := sorted(path.name for path in folder.glob("pytorch_model*.bin")):
        raise InvalidInputError(
            f"{noun} {spec} has {others[0]} and no {WEIGHTS[0]}: a pickle is not read. If you trust it, convert it in "
            f"Python, once: from transformers import {auto}; "
            f"{auto}.from_pretrained({str(folder)!r}, use_safetensors=False).save_pretrained({str(folder)!r})"
        )
    raise InvalidInputError(f"{noun} {spec}: {folder} has no {WEIGHTS[0]}; name a folder that save_pretrained wrote")


def _require_whole(network: nn.Module, fresh: set[str], *, spec: str, noun: str, kind: str) -> None:
    """Raises InvalidInputError where tensors were not loaded: any of a teacher, any but the classifier's of a
    student."""
    head = find_head(network)
    heads = {name for name, module in network.named_modules() if module is head}
    lacking = sorted(name for name in fresh if noun == "teacher" or name.rpartition(".")[0] not in heads)
    if lacking:
        some = ", ".join(lacking[:3])
        advice = "one that was fine-tuned to the task, with its classifier" if noun == "teacher" else "a whole one"
        raise InvalidInputError(
            f"{noun} {spec}: its weights lack {some} ({len(lacking)} tensors) or have them in another shape: it holds "
            f"{kind}; name {advice}"
        )


def _prepared(network: nn.Module) -> nn.Module:
    """The network in f32, which views are; a language model without the cache that only generating needs."""
    config: Any = network.config
    if getattr(config, "use_cache", False):
        config.use_cache = False
    return network.float()


def _kind(config: Any) -> str:
    return ", ".join(config.architectures or ()) or f"a {config.model_type}"


def _other(task: str) -> str:
    others = [f"task={name} for {TASKS[name][-1]}" for name in TASKS if name != task]
    return f"give {', '.join(others)}, or another folder"
