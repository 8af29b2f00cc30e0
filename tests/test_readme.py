"""The README's promises, held: its tree, commands, options, routes, settings and list of dependencies."""

import ast
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from l2d.cli import app as cli
from l2d.data.images import normalise

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGE_FILES = [
    path.relative_to(ROOT).as_posix()
    for package in ("l2d", "app")
    for path in sorted((ROOT / package).rglob("*"))
    if path.suffix in {".py", ".js", ".css", ".html", ".json"}
]


def section(title: str) -> str:
    """The text below a heading, up to the next one of its level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    if found is None:
        raise LookupError(f"README.md has no section {title!r}.")
    return found[1]


def blocks(text: str) -> list[str]:
    """The fenced blocks in a text, with continued lines joined."""
    return [block.replace("\\\n", " ") for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]


def read_tree() -> list[str]:
    """The tree's entries as paths; folders end with a slash. Two blanks of indentation are one level."""
    parents: list[str] = []
    paths = []
    for line in blocks(section("What is where"))[0].splitlines():
        entry = line.split()[0]
        parents = [*parents[: (len(line) - len(line.lstrip())) // 2], entry]
        paths.append("".join(parents))
    return paths


def said_by_its_docstring_alone(path: str) -> bool:
    """Whether a file is an `__init__.py` that holds nothing but its docstring."""
    if not path.endswith("__init__.py"):
        return False
    body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    return all(isinstance(node, ast.Expr) for node in body)


def commands(name: str) -> list[list[str]]:
    """Every command line in the README's blocks that starts with this program, as words."""
    lines = [line.strip() for block in blocks(TEXT) for line in block.splitlines()]
    return [line.split("#")[0].split() for line in lines if re.match(rf"(\S+/)?{name}\s", line)]


def test_everything_in_the_tree_exists():
    assert [path for path in read_tree() if not ((ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file())] == []


def test_every_package_file_is_in_the_tree():
    told = set(read_tree())
    assert [path for path in PACKAGE_FILES if path not in told and not said_by_its_docstring_alone(path)] == []


def verbs() -> dict[str, Any]:
    """Every command of the command line by its words, groups walked through: "train", "data check"."""
    todo = list(typer.main.get_command(cli).commands.items())
    found = {}
    while todo:
        words, command = todo.pop()
        below = getattr(command, "commands", None)
        if below is None:
            found[words] = command
        else:
            todo += [(f"{words} {name}", deeper) for name, deeper in below.items()]
    return found


def spoken(line: list[str]) -> str:
    """The command that a line calls, the longest one that fits."""
    known = verbs()
    fitting = [" ".join(line[1:end]) for end in (3, 2) if " ".join(line[1:end]) in known]
    return fitting[0] if fitting else " ".join(line)


@pytest.mark.parametrize("line", commands("l2d"), ids=" ".join)
def test_command_line_takes_what_the_readme_writes(line: list[str]):
    command = verbs()[spoken(line)]
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in line[2:] if word.startswith("--")} <= options


def test_readme_names_every_command():
    assert {spoken(line) for line in commands("l2d")} == set(verbs())


def test_every_command_has_help():
    assert [words for words, command in verbs().items() if not command.help] == []


def test_options_that_scripts_count_on():
    """The spellings that other people's scripts hold; none may go away."""
    network = ["--init", "--image-size", "--output-stride"]
    run = ["--data", "--out", *network, "--epochs", "--batch-size", "--lr", "--device", "--seed", "--resume"]
    promised = {
        "train": ["--backbone", *run],
        "distill": ["--teacher", "--student", "--method", *run],
        "evaluate": ["--data", "--split", "--json"],
        "localize": ["--data", "--split", "--json"],
        "explain": ["--models", "--labels", "--out"],
    }
    known = {name: {option for parameter in verbs()[name].params for option in parameter.opts} for name in promised}
    assert {name: gone for name, options in promised.items() if (gone := set(options) - known[name])} == {}
    # What they leave out counts as well: the same command does the same tomorrow.
    training = {"--image-size": 224, "--output-stride": 32, "--batch-size": 64, "--lr": 1e-4, "--device": "auto", "--seed": 0}
    for name in promised:
        defaults = training if name in ("train", "distill") else {"--device": "auto"}
        found = {option: parameter.default for parameter in verbs()[name].params for option in parameter.opts}
        assert {option: found[option] for option in defaults} == defaults, name


def test_the_python_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))
    monkeypatch.setenv("L2D_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "readme.py").write_text(code, encoding="utf-8")
    found = runpy.run_path("readme.py")
    assert found["maps"].shape == (3, 2, 2)
    pixels = torch.randint(256, (1, *found["pixels"].shape[1:]), dtype=torch.uint8)
    expected = found["model"](normalise(pixels / 255, found["card"].mean, found["card"].std)).logits.sigmoid()
    torch.testing.assert_close(torch.export.load("student.pt2").module()(pixels)[-1], expected)


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):(?!=)", makefile, re.MULTILINE))
    named = {word for line in commands("make") for word in line[1:] if "=" not in word} | set(re.findall(r"`make ([a-z-]+)", TEXT))
    assert {"install", "demo", "test", "check"} <= named <= targets


def test_routes_exist():
    from app.server import create_api
    from app.settings import Settings

    routes = create_api(Settings(checkpoints=ROOT / "checkpoints")).openapi()["paths"]
    patterns = [re.sub(r"\\{\w+\\}", "[^/]+", re.escape(route)) for route in routes]
    named = {path.rstrip(".") for path in re.findall(r"/(?:v1|healthz|readyz|metrics)\b[\w/:{}.-]*", TEXT)}
    assert named
    assert [path for path in named if not any(re.fullmatch(pattern, path) for pattern in patterns)] == []


def test_every_dependency_has_its_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = (project["dependencies"], *project["optional-dependencies"].values())
    declared = {re.match(r"[\w.-]+", entry)[0] for group in groups for entry in group}
    told = re.findall(r"^\| `([\w-]+)` \| ([^|]+) \|", section("Dependencies"), re.MULTILINE)
    assert {name for name, reason in told if reason.strip()} == declared


def test_settings_that_the_readme_names_exist():
    from app.settings import Settings

    names = {f"L2D_{field}".upper() for field in Settings.model_fields}
    assert set(re.findall(r"\bL2D_[A-Z_]+", TEXT)) <= names


def test_links_lead_to_files():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXT)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_changelog_and_citation_are_of_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    headings = re.findall(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0].rstrip(",") == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
