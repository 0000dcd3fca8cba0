"""The help page of a command: its flags in groups, and examples at its end."""

from typing import Any

from typer.core import TyperCommand

from kdcache.pipelines.setting_groups import GROUPS

ARGUMENTS, UNGROUPED, OUTPUT = "Arguments", "Options", "Output"
WIDTH = 100  # columns of a page at most
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": WIDTH}


class HelpCommand(TyperCommand):
    """A command whose flags are shown in the groups of their settings."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section of arguments, one for each group, and one of all other flags."""
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in (ARGUMENTS, UNGROUPED, *GROUPS, OUTPUT)}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                sections[_group(parameter)].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, a line each."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"  {line}\n")


def _group(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return ARGUMENTS
    return OUTPUT if parameter.name == "help" else getattr(parameter, "rich_help_panel", None) or UNGROUPED
