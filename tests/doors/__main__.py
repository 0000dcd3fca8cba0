"""Write the table of docs/troubleshooting.md anew: `python -m tests.doors`."""

from tests.kits.doors import PAGE, page_with, table

PAGE.write_text(page_with(table()))
