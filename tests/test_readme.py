import re
from pathlib import Path

import click
import pytest

from mlx_rsft.cli.main import COMMANDS, group

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _modules(folder):
    return {p.stem for p in folder.glob("*.py") if not p.stem.startswith("__")}


def test_the_tree_is_the_one_on_disk():
    block = README.split("## The house")[1].split("```")[1]
    package = ROOT / "mlx_rsft"
    shown, last = {}, ""
    for line in block.strip().splitlines()[1:]:
        goes_on = line.startswith("     ")
        last, rest = (
            (last, line.split()) if goes_on else (line.split()[0], line.split()[1:])
        )
        shown.setdefault(last, []).extend(rest)
    folders = {f"{p.name}/": _modules(p) for p in package.iterdir() if _modules(p)}
    files = {f"{stem}.py" for stem in _modules(package)}
    assert set(shown) == set(folders) | files
    for name, modules in folders.items():
        assert set(shown[name]) == modules, name


def test_the_table_of_commands_is_that_of_the_program():
    table = set(re.findall(r"^\| `mlx-rsft ([a-z ]+)`", README, re.MULTILINE))
    context = click.Context(group)
    real = set()
    for name in COMMANDS:
        command = group.get_command(context, name)
        inner = getattr(command, "commands", {})
        real |= {f"{name} {below}" for below in inner}
        if not inner or command.invoke_without_command:
            real.add(name)
    assert table == real


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_file_that_a_document_links_to_exists(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / target).exists(), target


def test_flags_in_the_readme_exist():
    context = click.Context(group)
    known = {"--version", "--help"}
    for name in COMMANDS:
        command = group.get_command(context, name)
        commands = getattr(command, "commands", {"": command}).values()
        known |= {o for c in commands for p in c.params for o in p.opts}
    launching = {"--backend", "--env", "--hosts", "--hostfile", "--cwd", "--over"}
    stock = {"--adapter-path", "--auto-setup", "--output-hostfile", *launching}
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    assert used - stock <= known
