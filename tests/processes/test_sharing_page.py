"""The pages on sharing and those that go on from them: every command runs, and prints what the pages show."""

import re
from pathlib import Path

from tests.kits.sharing_page import BLOCK, DOCS, PAGES, commands, session, shape
from tests.kits.stores import all_files


def test_every_page_of_the_session_is_run() -> None:
    """A page with commands of alice or bob is one of those that run."""
    with_commands = {
        path for path in DOCS.rglob("*.md") if re.search(r"^(alice|bob)\$ ", path.read_text(), re.MULTILINE)
    }
    assert with_commands <= set(PAGES)


def test_every_command_of_the_pages_does_what_it_shows(tmp_path: Path) -> None:
    count = 0
    with session(tmp_path) as running:
        for page in PAGES:
            running.begin(page.read_text())
            for who, command, pasted in (step for block in BLOCK.findall(page.read_text()) for step in commands(block)):
                printed = running.run(who, command)
                assert shape(printed) == shape(pasted), f"{page.name}: {who}$ {command}\n{printed}"
                count += 1
        secrets = [value for name, value in running.env.items() if name.startswith("AWS_") and "HTTP" not in name]
    assert count >= 25
    alice, bob = tmp_path / "alice", tmp_path / "bob"
    for student in ("student", "remote", "direct", "from-zip"):
        assert (bob / student / "weights/last.safetensors").is_file()
    first = {key for key in all_files(alice / "digits.kd") if "views-00004-00008" not in key and "seals" not in key}
    assert {key for key in all_files(bob / "digits.kd") if "seals" not in key} == first
    assert {key for key in all_files(bob / "web.kd") if "seals" not in key} == first
    written = [data for store in (bob / "digits.kd", bob / "web.kd") for data in all_files(store).values()]
    for text in (*(secret for secret in secrets if len(secret) > 9), str(tmp_path), str(Path.home())):
        assert not any(text.encode() in data for data in written), text
