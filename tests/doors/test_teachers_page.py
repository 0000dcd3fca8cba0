"""docs/teachers.md: its examples of a user's own teacher are extracted as they stand."""

import re
import shlex

import pytest
from safetensors.torch import save_file

from kdcache.base.specs import parse_arguments
from kdcache.networks.build import build_network
from kdcache.store.store import Store
from tests.kits.doors import ROOT, Door

EXAMPLE = re.compile(r"```python\n# (\S+\.py)\n(.*?)```\n\n    kdcache (extract .*?) \.\.\.\n", re.DOTALL)
EXAMPLES = EXAMPLE.findall((ROOT / "docs/teachers.md").read_text())


@pytest.mark.parametrize(("file", "code", "command"), EXAMPLES, ids=[file for file, _, _ in EXAMPLES])
def test_a_teacher_of_the_page_answers(door: Door, file: str, code: str, command: str) -> None:
    assert len(code.strip().splitlines()) <= 16
    door.write(file, code)
    words = shlex.split(command)
    flags = dict(zip(words[2::2], words[3::2], strict=True))
    arguments = parse_arguments([flags["--teacher-set"]] if "--teacher-set" in flags else [], "--teacher-set")
    network = build_network(flags["--teacher"], arguments, 10, "teacher")
    save_file(network.state_dict(), flags["--weights"])
    door.done(*words, "--min-accuracy", 0, "--workers", 0)
    teacher = Store.open(words[1]).identity.teacher
    if own := getattr(network, "pretrained_cfg", None):
        assert list(teacher.mean) == own["mean"]
        assert teacher.class_map == tuple(range(9, -1, -1))


def test_the_page_has_its_examples() -> None:
    assert [file for file, _, _ in EXAMPLES] == ["mine.py", "wrapped.py"]
