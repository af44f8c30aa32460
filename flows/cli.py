"""The command `stillhouse`. A subcommand's module is imported only when that subcommand runs, so help comes at once."""

import difflib
import os
import sys
from pathlib import Path

from cyclopts import App, CycloptsError, Parameter, UnknownCommandError

# Seconds that Prefect's temporary server may take to start: it takes 16 to 18, and Prefect's own limit is 20.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

# Subcommand -> its function and its help. Run them in the root of a checkout.
COMMANDS = {
    "new": ("stages.inspection.command:new", "Write a recipe for your own files, and say what was understood."),
    "check": ("stages.check:main", "Check a recipe: every key is there, known and within its limits."),
    "preview": ("stages.corpus.preview:preview", "Show rows of a source as the recipe reads them, and why some fail."),
    "plan": ("stages.planning.command:plan", "Estimate what a build of a recipe takes: tokens, hours, memory, disk."),
    "rebuild": ("flows.rebuild:rebuild", "Rebuild a commit in a workspace of its own, each stage as a Prefect task."),
    "search": ("stages.usage.search:search", "Show what the champion, its teacher and BM25 find for a question."),
    "embed": ("stages.usage.embed_file:embed", "Embed the texts of a file with the champion, or another release."),
    "verify": ("stages.release.verification:verify", "Verify a release folder: its files, and each format's vectors."),
    "sign-off": ("flows.release:sign_off", "Ask people to sign a release off, or record a decision about it."),
    "history": ("flows.release:history", "Show every decision about the registered model, and the champion."),
    "rollback": ("flows.release:rollback", "Make the previous champion the champion again."),
    "collect": ("stages.teachers.collection:main", "Delete teacher vectors that the last build does not use."),
    "reference": ("stages.recipe.reference:main", "Write the reference of the recipe's keys."),
}
# Subcommands that may start a temporary server, whose database is in the user's home or else in the checkout.
STARTS_PREFECT = {"rebuild", "sign-off"}

app = App(
    name="stillhouse",
    help="Make a small text embedding model from a big one. `make build` or `dvc repro` runs the pipeline; these "
    "commands prepare, inspect and release what it makes.",
    version_flags=(),
    default_parameter=Parameter(
        negative=(),
        consume_multiple=True,
        show_default=lambda value: str(value) if value else None,  # not of flags and empty lists
    ),
    result_action="return_none",
)
for _name, (_function, _help) in COMMANDS.items():
    app.command(_function, name=_name, help=_help)


def main() -> None:
    """Run the subcommand of the command line; a fault ends it with a short message instead of a traceback."""
    from stages.recipe.paths import STATE
    from stages.recipe.process_environment import settle

    try:
        settle(os.environ)
        if STARTS_PREFECT & {*sys.argv[1:2]} and not _takes_files(Path.home() / ".prefect"):
            (STATE / "prefect").mkdir(parents=True, exist_ok=True)
            os.environ.setdefault("PREFECT_HOME", str(STATE.resolve() / "prefect"))
        app(exit_on_error=False, print_error=False)
    except CycloptsError as error:
        command = " ".join(["stillhouse", *(error.command_chain or ())])
        print(f"error: {_explain(error)}\nrun `{command} --help` for what it takes", file=sys.stderr)
        sys.exit(2)
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")


def _takes_files(folder: Path) -> bool:
    return os.access(folder if folder.exists() else folder.parent, os.W_OK)


def _explain(error: CycloptsError) -> str:
    if not isinstance(error, UnknownCommandError):
        return str(error)
    # The text of this error looks up every subcommand, and so imports all of them.
    given = (error.unused_tokens or [""])[0]
    near = difflib.get_close_matches(given, COMMANDS, n=1)
    return f"got the unknown command {given!r}, expected {near[0] if near else ', '.join(sorted(COMMANDS))}"


if __name__ == "__main__":
    main()
