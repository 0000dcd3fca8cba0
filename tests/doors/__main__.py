"""Write the situations of docs/troubleshooting.md anew: `python -m tests.doors`."""

from tests.kits.doors import PAGE
from tests.kits.guide import guide, page_with

PAGE.write_text(page_with(guide()))
