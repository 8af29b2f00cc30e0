"""What README and the pages below docs/ say, held: tree, commands, options, routes, settings, dependencies, and where links lead."""

import ast
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from app.commands import run_command
from app.settings import Settings
from l2d.cli import app as cli
from l2d.data import READERS
from l2d.data.images import normalise

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "checkpoints/README.md")
}
TEXT = "\n".join(PAGES.values())
PACKAGE_FILES = [
    path.relative_to(ROOT).as_posix()
    for package in ("l2d", "app")
    for path in sorted((ROOT / package).rglob("*"))
    if path.suffix in {".py", ".js", ".css", ".html", ".json"}
]


def section(page: str, title: str) -> str:
    """The text below a heading of a page, up to the next one of its level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGES[page], re.MULTILINE | re.DOTALL)
    if found is None:
        raise LookupError(f"{page} has no section {title!r}.")
    return found[1]


def blocks(text: str) -> list[str]:
    """The fenced blocks in a text, with continued lines joined."""
    return [block.replace("\\\n", " ") for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]


def read_tree() -> list[str]:
    """The tree's entries as paths; folders end with a slash. Two blanks of indentation are one level."""
    parents: list[str] = []
    paths = []
    for line in blocks(section("docs/development.md", "What is where"))[0].splitlines():
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


def commands(name: str, text: str = TEXT) -> list[list[str]]:
    """Every call of a program in a text's blocks as words, behind launchers (`torchrun -m`, `xargs`), variables and other calls, too."""
    calls = [call for block in blocks(text) for line in block.splitlines() for call in re.split(r"&&|[|;]", line.split("#")[0])]
    begins = re.compile(rf"(?:^|.*\s-m |^xargs(?: -\w \d+)* |^(?:\w+=\S+ )+)(?:\S+/)?(?={name}\s+\S)")
    return [call[found.end() :].split() for call in map(str.strip, calls) if (found := begins.match(call))]


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


@pytest.mark.parametrize("line", [list(line) for line in sorted(set(map(tuple, commands("l2d"))))], ids=" ".join)
def test_command_line_takes_what_a_page_writes(line: list[str]):
    command = verbs()[spoken(line)]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    written = {word.partition("=")[0] for word in line[2:] if word.startswith("--")}
    assert written <= options
    needed = {parameter.opts[0] for parameter in command.params if parameter.param_type_name == "option" and parameter.required}
    # What the page leaves out, by dots or a variable of the shell's.
    assert needed <= written or any(word == "..." or word.startswith("$") for word in line)


def test_readme_names_every_command():
    assert {spoken(line) for line in commands("l2d", PAGES["README.md"])} == set(verbs())


def test_the_app_takes_what_a_page_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    written = re.findall(r"python -m app (\w+)((?: --[\w-]+)*)", TEXT)
    assert ("worker", " --check") in written
    for command, options in written:
        with pytest.raises(SystemExit, match="0"):
            run_command([command, "--help"], Settings(state=tmp_path))
        assert [option for option in options.split() if option not in capsys.readouterr().out] == []


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


def test_the_python_in_the_pages_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))
    monkeypatch.setenv("L2D_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pages.py").write_text(code, encoding="utf-8")
    found = runpy.run_path("pages.py")
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

    routes = create_api(Settings(checkpoints=ROOT / "checkpoints")).openapi()["paths"]
    patterns = [re.sub(r"\\{\w+\\}", "[^/]+", re.escape(route)) for route in routes]
    named = {path.rstrip(".") for path in re.findall(r"/(?:v1|healthz|readyz|metrics)\b[\w/:{}.-]*", TEXT)}
    assert set(routes) <= named
    assert [path for path in named if not any(re.fullmatch(pattern, path) for pattern in patterns)] == []


def test_every_dependency_has_its_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = (project["dependencies"], *project["optional-dependencies"].values())
    declared = {re.match(r"[\w.-]+", entry)[0] for group in groups for entry in group}
    told = re.findall(r"^\| `([\w-]+)` \| ([^|]+) \|", section("docs/development.md", "Dependencies"), re.MULTILINE)
    assert {name for name, reason in told if reason.strip()} == declared


def test_every_kind_of_data_is_described():
    assert [kind for kind in READERS if f"| `{kind}:" not in section("docs/training.md", "Data sets")] == []


def test_settings_that_a_page_names_exist_and_are_described():
    fields = {f"L2D_{name}".upper(): field for name, field in Settings.model_fields.items()}
    assert set(re.findall(r"\bL2D_[A-Z_]+", TEXT)) <= set(fields)
    told = re.findall(r"^\| `(L2D_\w+)` \|([^|]*)\| ([^|]+) \|$", section("docs/serving.md", "Settings"), re.MULTILINE)
    assert {name: meaning for name, _, meaning in told} == {name: field.description for name, field in fields.items()}
    defaults = {name: field.default for name, field in fields.items() if not isinstance(field.default, Path | tuple)}
    expected = {name: "" if default is None else str(default) for name, default in defaults.items()}
    assert {name: default.strip() for name, default, _ in told if name in expected} == expected


def anchors(text: str) -> set[str]:
    """What a link into a page may name: its headings, as GitHub spells them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    links = re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", PAGES[page])
    there = {link: (ROOT / page).parent.joinpath(link).resolve() if link else ROOT / page for link, _ in links}
    assert [link for link, path in there.items() if not path.exists()] == []
    known = {link: anchors(path.read_text(encoding="utf-8")) for link, path in there.items() if path.suffix == ".md"}
    assert [f"{link}#{anchor}" for link, anchor in links if anchor and anchor not in known.get(link, ())] == []


def test_every_page_is_found_from_the_readme():
    assert [page for page in PAGES if page != "README.md" and f"]({page})" not in PAGES["README.md"]] == []


def test_files_that_a_page_names_exist():
    named = set(
        re.findall(r"(?:(?<=[`\s(])|^)(?:app|checkpoints|deploy|docs|l2d|tests)/[\w/.-]+\.(?:md|py|json|yaml|png)\b", TEXT, re.MULTILINE)
    )
    assert {"tests/app/test_fuzz.py", "deploy/compose.yaml"} <= named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_changelog_and_citation_are_of_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    headings = re.findall(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0].rstrip(",") == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
