"""The page "Share a store": every command runs, over S3 and HTTP, and prints what the page shows."""

import json
from pathlib import Path

from tests.kits.sharing_page import BLOCK, PAGE, commands, session, shape
from tests.kits.stores import all_files


def test_every_command_of_the_page_does_what_it_shows(tmp_path: Path) -> None:
    blocks = BLOCK.findall(PAGE.read_text())
    steps = [step for block in blocks for step in commands(block)]
    assert len(steps) >= 15
    with session(tmp_path) as running:
        for who, command, pasted in steps:
            printed = running.run(who, command)
            assert shape(printed) == shape(pasted), f"{who}$ {command}\n{printed}"
        secrets = [value for name, value in running.env.items() if name.startswith("AWS_") and "HTTP" not in name]
    alice, bob = tmp_path / "alice", tmp_path / "bob"
    students = [json.loads((bob / name).read_text()) for name in ("student.json", "direct.json")]
    assert all(student["steps"] > 0 for student in students), students
    first = {key for key in all_files(alice / "digits.kd") if "views-00004-00008" not in key and "seals" not in key}
    assert {key for key in all_files(bob / "digits.kd") if "seals" not in key} == first
    assert {key for key in all_files(bob / "web.kd") if "seals" not in key} == first
    written = [data for store in (bob / "digits.kd", bob / "web.kd") for data in all_files(store).values()]
    for text in (*(secret for secret in secrets if len(secret) > 9), str(tmp_path), str(Path.home())):
        assert not any(text.encode() in data for data in written), text
