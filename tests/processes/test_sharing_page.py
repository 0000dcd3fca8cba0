"""The pages on sharing: every command runs, over S3 and HTTP, and prints what the pages show."""

from pathlib import Path

from tests.kits.sharing_page import BLOCK, COMMAND, DOCS, PAGES, commands, session, shape
from tests.kits.stores import all_files


def test_every_page_of_the_session_is_run() -> None:
    """A page with commands of alice or bob is one of those that run."""
    with_commands = {path for path in DOCS.rglob("*.md") if COMMAND.search(path.read_text())}
    assert with_commands == set(PAGES)


def test_every_command_of_the_pages_does_what_it_shows(tmp_path: Path) -> None:
    steps = [(page, *step) for page in PAGES for block in BLOCK.findall(page.read_text()) for step in commands(block)]
    assert len(steps) >= 20
    with session(tmp_path) as running:
        for page, who, command, pasted in steps:
            printed = running.run(who, command)
            assert shape(printed) == shape(pasted), f"{page.name}: {who}$ {command}\n{printed}"
        secrets = [value for name, value in running.env.items() if name.startswith("AWS_") and "HTTP" not in name]
    alice, bob = tmp_path / "alice", tmp_path / "bob"
    for student in ("student", "remote", "direct", "from-zip"):
        assert (bob / student / "weights/last.safetensors").is_file()
    first = {key for key in all_files(alice / "digits.kd") if "views-00004-00008" not in key and "seals" not in key}
    assert {key for key in all_files(bob / "digits.kd") if "seals" not in key} == first
    assert {key for key in all_files(bob / "web.kd") if "seals" not in key} == first
    written = [data for store in (bob / "digits.kd", bob / "web.kd") for data in all_files(store).values()]
    for text in (*(secret for secret in secrets if len(secret) > 9), str(tmp_path), str(Path.home())):
        assert not any(text.encode() in data for data in written), text
