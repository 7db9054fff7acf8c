"""All commands and their options. Nothing heavy is imported, so that help answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdsearch.cli.arguments import (
    SHELLS,
    Commands,
    Parser,
    PrintCompletion,
    Renamed,
    class_names,
    count,
    fraction,
    image_size,
    lazily,
    milliseconds,
    minutes,
    port,
    quantity,
    study_name,
    trial,
)
from kdsearch.errors import nearest
from kdsearch.version import __version__

GROUPS: Mapping[str, Mapping[str, str]] = {
    "Search": {
        "init": "look at a folder of images and write a study file for it",
        "run": "run a study, or resume it",
        "check": "check a study file and show what it would search",
        "data": "summarize the images of a study and list suspicious ones",
    },
    "Results": {
        "front": "show the Pareto front: the best students for their size",
        "ui": "open the study in MLflow",
        "report": "write a self-contained HTML report",
        "confirm": "cross-validate the best students and test whether distillation helps",
        "test": "score one student on the locked test images (once)",
    },
    "Ship": {
        "pick": "pick a student for a budget and export it (ONNX, 8-bit, model card)",
        "predict": "segment images with a picked student",
        "evaluate": "score a picked student on a data set",
        "bench": "measure a picked student's latency on this machine",
    },
    "Maintenance": {
        "sync": "upload trials that are missing in MLflow",
        "studies": "list the studies that come with kdsearch, or copy one",
        "schema": "print the JSON schema of study files, for editors",
        "doctor": "check the installation",
    },
}
"""Every command and what it does, in the order of the help."""
POINTER = """\
Start here:             kdsearch run studies/pareto.yaml
Your own images:        kdsearch init FOLDER
Options of a command:   kdsearch COMMAND --help
Tutorial and reference: the docs folder of the repository"""


def build_parser() -> argparse.ArgumentParser:
    """The parser; the command to run is the ``run`` of the parsed options."""
    listed = "\n\n".join(f"{title}:\n{_listed(names)}" for title, names in GROUPS.items())
    parser: argparse.ArgumentParser = Parser(
        prog="kdsearch",
        usage="kdsearch [-h] [--version] [--print-completion SHELL] COMMAND ...",
        description=f"Search for small segmentation networks distilled from a large teacher.\n\n{listed}",
        epilog=POINTER,
    )
    parser.add_argument("--version", action="version", version=f"kdsearch {__version__}")
    text = f"print a completion script for {', '.join(SHELLS)}"
    parser.add_argument("--print-completion", action=PrintCompletion, choices=SHELLS, metavar="SHELL", help=text)
    commands = parser.add_subparsers(
        prog="kdsearch", dest="command", required=True, metavar="COMMAND", help=argparse.SUPPRESS
    )
    for add in (
        _init,
        _run,
        _check,
        _data,
        _front,
        _ui,
        _report,
        _confirm,
        _test,
        _pick,
        _predict,
        _evaluate,
        _bench,
        _rest,
    ):
        add(commands)
    return parser


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses a command line; exits with a message if it is wrong.

    Settings such as ``training.epochs=20`` may also follow options, which argparse does not allow by itself.
    """
    parser = build_parser()
    known = [name for names in GROUPS.values() for name in names]
    if arguments and not arguments[0].startswith("-") and arguments[0] not in known:
        remedy = nearest(arguments[0], known) or "; list the commands with: kdsearch --help"
        parser.error(f"no command {arguments[0]!r}{remedy}")
    options, rest = parser.parse_known_args(arguments)
    settings = [one for one in rest if not one.startswith("-") and "=" in one] if hasattr(options, "settings") else []
    if unknown := [one for one in rest if one not in settings]:
        flags = [name for action in options.parser._actions for name in action.option_strings]  # noqa: SLF001 - likewise
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}{nearest(unknown[0], flags)}")
    if settings:
        options.settings += settings
    return options


def _listed(names: Mapping[str, str]) -> str:
    return "\n".join(f"  {name:<10}{text}" for name, text in names.items())


def _add(
    commands: Commands[argparse.ArgumentParser], name: str, runs: str, examples: Sequence[str]
) -> argparse.ArgumentParser:
    """Adds a command; ``runs`` names its function as ``module.function``, which is imported when it is called."""
    text = next(names[name] for names in GROUPS.values() if name in names)
    lines = "\n".join(f"  kdsearch {name} {example}".rstrip() for example in examples)
    command = commands.add_parser(
        name,
        help=text,  # for completion; the top's own help lists commands by group
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"example{'s' * (len(examples) > 1)}:\n{lines}",
    )
    command.set_defaults(run=lazily(runs), parser=command)
    return command


def _add_for_study(
    commands: Commands[argparse.ArgumentParser], name: str, runs: str, examples: Sequence[str], *, data: bool = True
) -> argparse.ArgumentParser:
    command = _add(commands, name, runs, examples)
    command.add_argument("study", type=Path, metavar="STUDY", help="study file (YAML)")
    _add_settings(command)
    if data:
        command.add_argument(
            "--data",
            action="append",
            default=[],
            metavar="[NAME=]FOLDER",
            help="read a source's images from this folder (default: the folder in the study file)",
        )
    return command


def _add_settings(command: argparse.ArgumentParser) -> None:
    text = "settings that replace those of the file, such as training.epochs=20"
    command.add_argument("settings", nargs="*", metavar="KEY=VALUE", help=text)


def _add_for_folder(
    commands: Commands[argparse.ArgumentParser], name: str, runs: str, examples: Sequence[str]
) -> argparse.ArgumentParser:
    command = _add(commands, name, runs, examples)
    command.add_argument("folder", type=Path, metavar="FOLDER", help="folder that kdsearch pick wrote")
    return command


def _add_workers(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workers", type=count, metavar="N", help="worker processes (default: from the study file)")
    volume = command.add_mutually_exclusive_group()
    volume.add_argument("-q", "--quiet", action="store_true", help="print errors and the result only")
    volume.add_argument("-v", "--verbose", action="store_true", help="print a debug log")


def _init(commands: Commands[argparse.ArgumentParser]) -> None:
    init = _add(commands, "init", "init.run_init", ["mydata", "mydata --minutes 30 --class-name lesion --yes"])
    init.add_argument("folder", type=Path, metavar="FOLDER", help="folder of images and masks")
    text = "time for the search on this machine (default: 60)"
    init.add_argument("--minutes", type=minutes, default=60.0, metavar="M", help=text)
    init.add_argument("--out", type=Path, metavar="FILE", help="study file to write (default: in studies/)")
    init.add_argument("--name", type=study_name, metavar="NAME", help="name of the study (default: from the folder)")
    text = "what the masks outline: one name, or one per class (default: ask, or object)"
    init.add_argument("--class-name", type=class_names, metavar="NAME,…", help=text)
    init.add_argument("--size", type=image_size, metavar="N", help="image size in pixels (default: from the objects)")
    text = "CSV file in the folder with the columns image and group (default: none)"
    init.add_argument("--table", metavar="FILE", help=text)
    init.add_argument("-y", "--yes", action="store_true", help="ask nothing")


def _run(commands: Commands[argparse.ArgumentParser]) -> None:
    examples = ["studies/pareto.yaml", "mystudy.yaml --trials 60 --workers 2"]
    run = _add_for_study(commands, "run", "run.run_study", examples)
    run.add_argument("--trials", type=count, metavar="N", help="trials in total (default: from the study file)")
    run.add_argument("--profile", action="store_true", help="at the end, show where the time went")
    _add_workers(run)


def _check(commands: Commands[argparse.ArgumentParser]) -> None:
    check = _add_for_study(
        commands, "check", "study_file.run_check", ["mystudy.yaml", "mystudy.yaml --places"], data=False
    )
    text = "also open the Optuna database, MLflow and the checkpoint folder"
    check.add_argument("--places", action="store_true", help=text)


def _data(commands: Commands[argparse.ArgumentParser]) -> None:
    data = _add_for_study(commands, "data", "study_file.run_data", ["mystudy.yaml", "mystudy.yaml --out images.html"])
    data.add_argument("--out", type=Path, metavar="FILE", help="HTML page to write (default: STUDY-data.html)")


def _front(commands: Commands[argparse.ArgumentParser]) -> None:
    examples = ["mystudy.yaml", "mystudy.yaml --png front.png"]
    front = _add_for_study(commands, "front", "results.run_front", examples)
    form = front.add_mutually_exclusive_group()
    form.add_argument(
        "--all", action="store_true", help="list every student on the front, also those nobody would pick"
    )
    form.add_argument("--json", action="store_true", help="print the whole front as JSON")
    form.add_argument("--csv", action="store_true", help="print the whole front as CSV")
    front.add_argument("--html", type=Path, metavar="FILE", help="also write an interactive chart (default: none)")
    front.add_argument("--png", type=Path, metavar="FILE", help="also write a chart as an image (default: none)")


def _ui(commands: Commands[argparse.ArgumentParser]) -> None:
    ui = _add(commands, "ui", "results.run_ui", ["mystudy.yaml --open", "--port 8080"])
    ui.add_argument("study", type=Path, nargs="?", metavar="STUDY", help="study file (default: show all studies)")
    _add_settings(ui)
    ui.add_argument("--open", action="store_true", help="open the front in a browser")
    ui.add_argument("--port", type=port, metavar="N", help="port of the server (default: 5000, or a free one)")


def _report(commands: Commands[argparse.ArgumentParser]) -> None:
    examples = ["mystudy.yaml", "mystudy.yaml --latex > tables.tex"]
    report = _add_for_study(commands, "report", "results.run_report", examples)
    report.add_argument("--out", type=Path, metavar="FILE", help="HTML file to write (default: STUDY-report.html)")
    form = report.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print the tables in Markdown instead")
    form.add_argument("--latex", action="store_true", help="print the tables for LaTeX (booktabs) instead")


def _confirm(commands: Commands[argparse.ArgumentParser]) -> None:
    examples = ["mystudy.yaml --dry-run", "mystudy.yaml --repetitions 3"]
    confirm = _add_for_study(commands, "confirm", "confirm.run_confirm", examples)
    confirm.add_argument("--dry-run", action="store_true", help="show the plan and its cost; store and train nothing")
    text = "repetitions of the folds; use 3 for publishable claims (default: from the study file)"
    confirm.add_argument("--repetitions", type=count, metavar="N", help=text)
    text = "make another plan, although one is stored; reports count the plans"
    confirm.add_argument("--new-plan", action="store_true", help=text)
    confirm.add_argument("--json", action="store_true", help="print the results as JSON")
    _add_workers(confirm)


def _test(commands: Commands[argparse.ArgumentParser]) -> None:
    examples = ["mystudy.yaml --trial 7 --dry-run", "mystudy.yaml --trial 7"]
    test = _add_for_study(commands, "test", "confirm.run_test", examples)
    text = "trial whose settings are trained on all other images (required)"
    test.add_argument("--trial", type=trial, metavar="N", required=True, help=text)
    test.add_argument("--dry-run", action="store_true", help="show the plan and its cost; score and train nothing")
    test.add_argument("--again", action="store_true", help="use the test images again (reports show how often)")
    test.add_argument("--json", action="store_true", help="print the results as JSON")
    _add_workers(test)


def _pick(commands: Commands[argparse.ArgumentParser]) -> None:
    examples = ["mystudy.yaml --params 50k", "mystudy.yaml --trial 7 --out picked/best"]
    pick = _add_for_study(commands, "pick", "pick.run_pick", examples)
    pick.description = f"{pick.description}\nWithout budget and rule, you choose in the terminal with the arrow keys."
    budget = pick.add_argument_group("budget (all limits must hold; default: none)")
    budget.add_argument("--params", type=quantity, metavar="N", help="most parameters, such as 820k")
    budget.add_argument("--macs", type=quantity, metavar="N", help="most multiply-adds per image, such as 50M")
    text = "most milliseconds per image, in ONNX on one thread of this machine"
    budget.add_argument("--latency", type=milliseconds, metavar="MS", help=text)
    budget.add_argument("--file-size", type=quantity, metavar="BYTES", help="largest ONNX file, such as 300k")
    budget.add_argument("--min-dice", type=fraction, metavar="D", help="lowest Dice, 0 to 1")
    text = "lowest share of negative images with an empty prediction, 0 to 1"
    budget.add_argument("--min-specificity", type=fraction, metavar="S", help=text)
    budget.add_argument("--min-empty-share", action=Renamed, now="--min-specificity")  # old name
    rule = pick.add_argument_group("rule").add_mutually_exclusive_group()
    rule.add_argument("--best", action="store_true", help="the best Dice (default)")
    text = "the smallest student within D of the best Dice; 0.01 is one Dice point"
    rule.add_argument("--smallest-within", type=fraction, metavar="D", help=text)
    text = "the knee of the curve, beyond which more parameters gain little Dice"
    rule.add_argument("--knee", action="store_true", help=text)
    rule.add_argument("--trial", type=trial, metavar="N", help="the student of this trial")
    export = pick.add_argument_group("export")
    text = "folder to write (default: picked/STUDY-TRIAL)"
    export.add_argument("--out", type=Path, metavar="FOLDER", help=text)
    text = "export the weights that kdsearch test trained on all but the locked images"
    export.add_argument("--refit", action="store_true", help=text)
    text = "write ONNX files that take raw pixels of any size"
    export.add_argument("--with-preprocessing", action="store_true", help=text)
    text = "warn if the 8-bit model loses more Dice than this (default: 0.01, one Dice point)"
    export.add_argument("--int8-bound", type=fraction, default=0.01, metavar="D", help=text)
    export.add_argument("--no-latency", action="store_true", help="do not measure the latency on this machine")
    export.add_argument("--no-registry", action="store_true", help="do not register the student in MLflow")
    export.add_argument("--json", action="store_true", help="print the result as JSON, and ask nothing")


def _predict(commands: Commands[argparse.ArgumentParser]) -> None:
    examples = ["picked/mystudy-7 scans/*.png", "picked/mystudy-7 scans --out masks"]
    predict = _add_for_folder(commands, "predict", "student.run_predict", examples)
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="files, folders or quoted patterns")
    text = "folder for masks and overlays (default: predictions)"
    predict.add_argument("--out", type=Path, default=Path("predictions"), metavar="FOLDER", help=text)
    predict.add_argument("--probabilities", action="store_true", help="also write probabilities as 16-bit PNG")
    _add_runtime(predict)


def _evaluate(commands: Commands[argparse.ArgumentParser]) -> None:
    examples = ["picked/mystudy-7 busi=data/busi", "picked/mystudy-7 folder=scans --unseen --out scores.csv"]
    evaluate = _add_for_folder(commands, "evaluate", "student.run_evaluate", examples)
    text = "data set: a reader and its folder, such as busi=data/busi, or phantom"
    evaluate.add_argument("dataset", metavar="READER=FOLDER", help=text)
    text = "what values of masks mean, such as ignore=255 or 'classes={background: 0, road: [3, 4]}'"
    evaluate.add_argument("settings", nargs="*", metavar="KEY=VALUE", help=text)
    evaluate.add_argument("--data", action=Renamed, now="the data set after the folder, as READER=FOLDER")
    evaluate.add_argument("--out", type=Path, metavar="FILE", help="CSV file with one row per image (default: none)")
    evaluate.add_argument("--csv", action=Renamed, now="--out FILE")
    evaluate.add_argument("--unseen", action="store_true", help="leave out images that trained or chose the student")
    text = "what to do with unreadable or mismatched files (default: error)"
    evaluate.add_argument("--on-invalid", choices=("error", "skip"), default="error", help=text)
    evaluate.add_argument("--on-defect", action=Renamed, now="--on-invalid")  # old name
    text = "least gray value of an object, for masks that JPEG or smoothing blurred (default: two values)"
    evaluate.add_argument("--threshold", type=int, metavar="1-255", help=text)
    _add_runtime(evaluate)


def _add_runtime(command: argparse.ArgumentParser) -> None:
    text = "which model of the folder to run (default: onnx)"
    command.add_argument("--runtime", choices=("onnx", "int8", "torch"), default="onnx", help=text)


def _bench(commands: Commands[argparse.ArgumentParser]) -> None:
    bench = _add_for_folder(commands, "bench", "bench.run_bench", ["picked/mystudy-7"])
    bench.add_argument("--json", action="store_true", help="print the latencies as JSON")


def _rest(commands: Commands[argparse.ArgumentParser]) -> None:
    """The commands of the group Maintenance."""
    _add_for_study(commands, "sync", "results.run_sync", ["mystudy.yaml"])
    studies = _add(commands, "studies", "study_file.run_studies", ["", "--copy busi-small"])
    studies.add_argument("--copy", metavar="NAME", help="copy this study (default: list them)")
    text = "file to write (default: the same name in studies/)"
    studies.add_argument("--out", type=Path, metavar="FILE", help=text)
    schema = _add(commands, "schema", "study_file.run_schema", ["> study.schema.json", "--markdown"])
    schema.add_argument("--markdown", action="store_true", help="print all settings as Markdown tables instead")
    _add(commands, "doctor", "doctor.run_doctor", [""])
