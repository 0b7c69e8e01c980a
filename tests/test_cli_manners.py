"""What every command owes its user, held by walking over all commands that there are."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from vihier.cli import app, main
from vihier.commands.overview import WAY

ROOT: Any = typer.main.get_command(app)


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Commands that do something, with what is typed to reach them."""
    for name, inner in command.commands.items():
        if getattr(inner, "commands", None):
            yield from leaves(inner, (*path, name))
        else:
            yield " ".join((*path, name)), inner


COMMANDS = dict(leaves(ROOT))
# They need no file that is there already.
WITHOUT_INPUT = {"simulate", "models"}


def examples(command: str) -> list[list[str]]:
    """What the help of a command shows, as lists of arguments."""
    _, found, after = (COMMANDS[command].help or "").partition("[b]Example")
    assert found, f"vihier {command} --help shows no example"
    lines = [line.strip() for line in after.splitlines() if line.strip().startswith("vihier ")]
    return [shlex.split(line)[1:] for line in lines]


def options(command: Any) -> Iterator[Any]:
    """The options of a command, each with what it is called and how it is described."""
    return (parameter for parameter in command.params if parameter.param_type_name == "option")


def parse(arguments: list[str]) -> None:
    """Have a command line parsed, and nothing done."""
    command, context = ROOT, None
    while getattr(command, "commands", None):
        name, *arguments = arguments
        context = command.make_context(name, [], parent=context, resilient_parsing=True)
        command = command.commands[name]
    command.make_context("command", list(arguments), parent=context)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_help_shows_examples_that_are_understood(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # It is read while the command line is.
    Path("run.toml").write_text('screen = "screen.parquet"\nout = "fit.h5"\n')
    shown = examples(command)
    assert any(" ".join(arguments).startswith(command) for arguments in shown)
    for arguments in shown:
        parse(arguments)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_help_fits_a_terminal_and_explains_every_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    summary = (COMMANDS[command].help or "").splitlines()[0]
    assert summary.endswith(".") and summary[0].isupper()
    for option in options(COMMANDS[command]):
        assert option.help, option.opts
        assert option.help.rstrip("]")[-1] in ".)" or "[default" in option.help, option.help


@pytest.mark.parametrize("command", COMMANDS)
def test_a_script_can_have_json(command: str) -> None:
    assert any("--json" in option.opts for option in options(COMMANDS[command]))


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - WITHOUT_INPUT))
def test_a_file_that_is_missing_is_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if command == "import h5ad":
        pytest.importorskip("anndata", reason="without anndata, that is what is said")
    monkeypatch.chdir(tmp_path)
    for arguments in examples(command):
        assert main(arguments) == 2, arguments
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("vihier: ") and said.err.count("\n") == 1, said.err
        # It says which file.
        assert any(Path(word.split("=")[-1].lstrip("@")).name in said.err for word in arguments if "." in word)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_that_there_is_not_is_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--frobnicate"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1 and f"vihier {command} --help" in said.err


# The same word for something else: how many are simulated; what the data of an import are of.
OTHER_MEANING = {
    ("simulate", "--genes"),
    ("simulate", "--lines"),
    ("simulate", "--lineages"),
    ("import bagel", "--line"),
    ("import chronos", "--screen"),
    ("import depmap", "--screen"),
}
BOTH_NAMES = ({"--genes", "--gene"}, {"--lines", "--line"}, {"--lineages", "--lineage"})


def test_an_option_means_the_same_everywhere() -> None:
    kinds: dict[str, dict[Any, list[str]]] = defaultdict(lambda: defaultdict(list))
    for command, found in COMMANDS.items():
        for option in options(found):
            for name in option.opts:
                if (command, name) not in OTHER_MEANING:
                    kinds[name][bool(option.is_flag), bool(option.multiple)].append(command)
    assert {name: dict(found) for name, found in kinds.items() if len(found) > 1} == {}


@pytest.mark.parametrize("command", COMMANDS)
def test_names_of_options_follow_one_pattern(command: str) -> None:
    for option in options(COMMANDS[command]):
        names = set(option.opts)
        assert all(name == name.lower() and "_" not in name for name in names)
        assert all(len(name) == 2 or name.startswith("--") for name in names)
        # Labels are selected by the same two names in every command.
        for both in BOTH_NAMES:
            assert not names & both or both <= names or {(command, name) for name in names} <= OTHER_MEANING, names


def test_the_way_through_the_commands_has_each_of_them_once() -> None:
    on_the_way = [step.name for steps in WAY.values() for step in steps]
    assert sorted(on_the_way) == sorted(ROOT.commands)
    assert len(set(on_the_way)) == len(on_the_way)
    for steps in WAY.values():
        for step in steps:
            if not step.example.endswith("--help"):
                parse(shlex.split(step.example))


def test_vihier_alone_shows_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    groups = [said.index(f"\n{group}:\n") for group, steps in WAY.items() if steps]
    assert groups == sorted(groups)
    assert all(f"  vihier {step.example}" in said for steps in WAY.values() for step in steps)
    assert max(map(len, said.splitlines())) <= 110


def completed(*words: str) -> list[str]:
    """What bash is offered for the last of the words."""
    environment = os.environ | {
        "_VIHIER_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(("vihier", *words)),
        "COMP_CWORD": str(len(words)),
    }
    command = [sys.executable, "-c", "from vihier.cli import main; main()"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout.split()


def test_a_shell_completes_commands_and_options() -> None:
    assert completed("con") == ["contrast"]
    assert completed("fit", "--gui") == ["--guide"]
    assert completed("fit", "s.csv", "--guide", "str") == ["structured"]


def test_json_of_what_was_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: object) -> Any:
        assert main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    screen, store, fit = tmp_path / "screen.parquet", tmp_path / "store.h5", tmp_path / "fit.h5"
    sizes = ("--genes", 4, "--lines", 5, "--lineages", 2)
    assert said("simulate", screen, *sizes) == {"table": str(screen), "truth": str(tmp_path / "screen.truth.h5")}
    packed = said("pack", screen, store, "--quiet")
    assert (packed["out"], packed["n_genes"], packed["n_lines"]) == (str(store), 4, 5)
    fitted = said("fit", screen, "--out", fit, "--draws", 20, "--guide", "mean_field", "--max-steps", 5, "--quiet")
    assert fitted["out"] == str(fit) and fitted["converged"] is False and fitted["reason"]
    summary = said("summary", fit)
    assert (summary["variable"], len(summary["rows"])) == ("effect", 20)
    assert set(said("models")) >= {"additive", "crossed", "gene_lineage"}
