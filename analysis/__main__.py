"""Shows what runs measured: in the terminal, or as a page with pictures and tables.

python -m afteredit.analysis show runs/        # each run: edits, state, what is left
python -m afteredit.analysis show runs/<run>   # the curves of one
python -m afteredit.analysis report runs/      # a page that compares methods
python -m afteredit.analysis report --wandb ENTITY/PROJECT    # or --sweep ID
python -m afteredit.analysis report runs/ --out page --at 10 20
python -m afteredit.analysis study runs/       # beside the figures of Gu et al.
python -m afteredit.analysis limits runs/      # how far each method comes
python -m afteredit.analysis export --lm-eval runs/<run>      # lm-eval's own result files
python -m afteredit.analysis dashboard --wandb ENTITY/PROJECT   # a workspace and a report in W&B; or --sweep ID
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and sys.path[0] == os.getcwd() and not os.path.isdir("afteredit"):
    del sys.path[0]  # where -m has Python look for modules first, and which may be a stranger's run directory
import argparse  # noqa: E402
import logging  # noqa: E402
import signal  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback while modules are imported
from afteredit.analysis.read.run import Run  # noqa: E402
from afteredit.analysis.read.run_folders import read  # noqa: E402
from afteredit.record.terminal import PlainConsole, log_handler, print_error, print_in_any_encoding  # noqa: E402
from afteredit.store.errors import REMEDIES, BadInput, Interrupted  # noqa: E402
from afteredit.store.interruption import Interruption  # noqa: E402


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 where the page was written and names damaged files; 2 where it could not be written, or where the
    output cannot say so; 130 after Ctrl-C."""
    given = _parser().parse_args(argv)
    print_in_any_encoding()
    os.environ["MPLBACKEND"] = "Agg"  # pictures are files; Jupyter hands children a backend of its own
    logging.basicConfig(handlers=[log_handler(PlainConsole(stderr=True, soft_wrap=True))], level=logging.WARNING)
    page = None
    try:
        with Interruption(at_once=True):
            if given.command == "show":
                from afteredit.analysis.show import show

                return 1 if show(given.runs, PlainConsole()) else 0
            if given.command == "dashboard":
                _save_dashboard(given)
                return 0
            runs = _runs(given)
            page = _written(given, runs)
            if given.command == "report":
                _say(runs, page)
        PlainConsole().print(f"{given.command}   {page}", highlight=False, soft_wrap=True)
    except Interrupted as problem:
        print_error(f"stopped; {_kept(given, page)}")
        return problem.exit_code
    except BadInput as problem:
        print_error(problem)
        return 2
    except OSError as problem:
        remedy = REMEDIES.get(problem.errno or 0, "make it readable, and the output writable")
        print_error(f"{problem.filename or 'a file'} cannot be used ({problem.strerror or problem}); {remedy}; "
                    f"{_kept(given, page)}")  # fmt: skip
        return 2
    return 1 if any(run.faults for run in runs) else 0


def _say(runs: list[Run], page: Path) -> None:
    """Prints for each comparison what happened, and a question that one method's model answers and another's no more;
    and where the one picture lies."""
    from afteredit.analysis.numbers.comparison import comparisons
    from afteredit.analysis.numbers.in_words import in_words
    from afteredit.analysis.tables.one_question import one_question

    found = comparisons(runs)
    for comparison in found:
        answers = one_question(comparison)
        width = max((len(name) for name, _ in answers), default=0)
        lines = [" ".join(in_words(comparison)), *(f"{name:<{width}}  {text}" for name, text in answers)]
        PlainConsole().print("\n".join(lines), highlight=False, soft_wrap=True)
    picture = page.with_name("first-look.png")
    if len(found) == 1 and picture.exists():
        PlainConsole().print(f"picture  {picture}", highlight=False, soft_wrap=True)


def _save_dashboard(given: argparse.Namespace) -> None:
    """Builds the dashboard of a W&B project, and prints its addresses.  Raises BadInput."""
    try:
        from afteredit.analysis.dashboard.save import save_dashboard
    except ImportError as problem:  # not installed, or a version without what is used of it
        if (problem.name or "").partition(".")[0] != "wandb_workspaces":
            raise
        raise BadInput(f"a dashboard is built by the library wandb-workspaces, which cannot be used here ({problem}); "
                       f"install it: {sys.executable} -m pip install wandb-workspaces") from None  # fmt: skip
    workspace, report = save_dashboard(given.wandb, given.sweep)
    for name, url in (("dashboard", workspace), ("report", report)):
        PlainConsole().print(f"{name:9}   {url}", highlight=False, soft_wrap=True)


def _kept(given: argparse.Namespace, page: Path | None) -> str:
    """Returns in words what is on the disk when the command ends early."""
    if given.command in ("dashboard", "show"):
        return "give the same command again"
    return f"nothing was written to {given.out}" if page is None else f"{page} was written"


def _written(given: argparse.Namespace, runs: list[Run]) -> Path:
    """Returns the page.  Raises BadInput where it cannot be written; what was there before is kept."""
    from matplotlib import rcdefaults

    rcdefaults()  # the same pictures everywhere: a matplotlibrc may lie in the folder where one stands
    try:
        if given.command == "study":
            from afteredit.analysis.study.page import write_study

            return write_study(runs, given.out)
        if given.command == "limits":
            from afteredit.analysis.limits.page import write_limits

            return write_limits(runs, given.out)
        if given.command == "export":
            from afteredit.analysis.lm_eval_files import write_lm_eval

            return write_lm_eval(runs, given.out)
        from afteredit.analysis.report import write_report

        return write_report(runs, given.out, given.at)
    except OSError as problem:
        raise BadInput(f"the {given.command} cannot be written to {given.out} ({problem.strerror or problem}: "
                       f"{problem.filename}); make room, or give another --out") from None  # fmt: skip


def _runs(given: argparse.Namespace) -> list[Run]:
    sources = [name for name in ("runs", "wandb", "sweep") if getattr(given, name)]
    if len(sources) != 1:
        raise BadInput(f"{' and '.join(sources) or 'nothing'} given; allowed: either run directories, or --wandb "
                         "ENTITY/PROJECT, or --sweep ID")  # fmt: skip
    if given.runs:
        return read(given.runs)
    from afteredit.analysis.read.wandb_runs import read_project, read_sweep

    return read_project(given.wandb) if given.wandb else read_sweep(given.sweep)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m afteredit.analysis", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    show = commands.add_parser("show", help="list runs in the terminal, or draw the curves of one there")
    show.add_argument("runs", nargs="+", type=Path, help="a run directory, or folders that hold some")
    report = commands.add_parser("report", help="write a page, pictures and tables that compare the methods of runs")
    study = commands.add_parser(
        "study", help="draw the figures of Gu et al. with the published values beside the runs'"
    )
    limits = commands.add_parser("limits", help="draw how far each method comes, and tabulate where it breaks")
    for command, out in ((report, "report"), (study, "study"), (limits, "limits")):
        command.add_argument("runs", nargs="*", type=Path, help="run directories, or folders that hold some")
        command.add_argument("--wandb", metavar="ENTITY/PROJECT", help="every run of a W&B project")
        command.add_argument("--sweep", metavar="ID", help="every run of a W&B sweep: [ENTITY/PROJECT/]ID")
        command.add_argument("--out", type=Path, default=Path(out), metavar="DIR",
                             help=f"folder to write to (default: {out})")  # fmt: skip
    export = commands.add_parser("export", help="write abilities as lm-eval's own result files, a model a checkpoint")
    export.add_argument("--lm-eval", nargs="+", type=Path, required=True, dest="runs", metavar="RUN")
    export.add_argument("--out", type=Path, default=Path("lm-eval"), metavar="DIR", help="folder to write to")
    export.set_defaults(wandb=None, sweep=None)
    dashboard = commands.add_parser("dashboard", help="build a workspace and a report in W&B; again: change the same")
    dashboard.add_argument("--wandb", metavar="ENTITY/PROJECT", required=True, help="the project; its runs are read")
    dashboard.add_argument("--sweep", metavar="ID", help="only the runs of this sweep, in a workspace of its own")
    report.add_argument("--at", type=int, nargs="+", default=[], metavar="N", help="numbers of edits for the heat map")
    return parser


if __name__ == "__main__":
    sys.exit(main())
