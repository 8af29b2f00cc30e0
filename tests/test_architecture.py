"""The import picture of docs/development.md, held: who may import whom, and that importing does nothing."""

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("l2d", "app")
    for path in sorted((ROOT / package).rglob("*.py"))
}
LEAVES = ("l2d.outputs", "l2d.head", "l2d.metrics", "l2d.bootstrap", "l2d.progress", "l2d.losses.relations")
TRAINING = (
    "l2d.train",
    "l2d.recipe",
    "l2d.distill",
    "l2d.model",
    "l2d.losses",
    "l2d.data",
    "l2d.checkpoint",
    "l2d.metrics",
    "l2d.evaluate",
)
API = ("app.api", "app.job_routes", "app.bodies")
# Modules, and what importing them must not load. That no science loads the product is held by a test of its own.
LIGHT = (
    (("l2d.cli",), ("torch", "gradio", "fastapi", "matplotlib.pyplot")),
    (("app.worker", "app.cluster"), ("torch", "gradio", "ray")),
    (TRAINING, ("torchcam", "gradio", "fastapi", "matplotlib")),
    (("app.api",), ("gradio", "matplotlib", "app.ui")),
    (("app.server", "l2d.figure"), ("matplotlib.pyplot", "ray", "timm", "torchvision")),
)
# Declared, though no line of ours imports them.
NEEDED_BY_OTHERS = {
    "torchvision": "timm imports it",
    "python-multipart": "FastAPI reads forms with it",
    "scikit-image": "most example photographs are files in its wheel",
}


@functools.cache
def parse(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


@functools.cache
def imports(module: str, *, at_import: bool = False) -> frozenset[str]:
    """Full names of what a module imports; with `at_import` only what runs as soon as it is imported."""
    return frozenset(name for node in _statements(parse(module), at_import) for name in _imported(node, module))


def _statements(tree: ast.Module, at_import: bool) -> Iterator[ast.AST]:
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        yield node
        if at_import and (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_for_types_only(node)):
            continue
        todo += ast.iter_child_nodes(node)


def _is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _imported(node: ast.AST, module: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
        start = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
        source = ".".join(part for part in (start, node.module) if part)
        for alias in node.names:
            full = f"{source}.{alias.name}"
            yield full if full in FILES else source


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def requirements(entries: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", entry)[0].lower().replace("_", "-") for entry in entries}


def test_the_packages_are_where_this_test_looks_for_them():
    assert set(LEAVES) | set(TRAINING) | set(API) | {"app.server", "app.ui"} <= set(FILES)


def test_science_never_imports_the_product():
    assert {m: bad for m in FILES if within(m, "l2d") and (bad := {i for i in imports(m) if within(i, "app")})} == {}


@pytest.mark.parametrize("module", LEAVES)
def test_leaf_imports_nothing_but_other_leaves(module: str):
    ours = {name for name in imports(module) if within(name, "l2d") or within(name, "app")}
    assert ours <= set(LEAVES)


def test_api_and_page_do_not_import_each_other():
    page = {module for module in FILES if within(module, "app.ui")}
    assert {module: both for module in API if (both := imports(module) & page)} == {}
    assert {module: both for module in page if (both := imports(module) & set(API))} == {}


def test_only_the_start_script_imports_the_assembler():
    assert {module for module in FILES if "app.server" in imports(module)} == {"app.__main__"}


def test_no_module_without_a_subject():
    assert [name for name in FILES if set(name.split(".")) & {"utils", "util", "common", "helpers", "helper", "misc"}] == []


def test_imports_go_in_no_circle():
    left = {module: {name for name in imports(module, at_import=True) if name in FILES and name != module} for module in FILES}
    while free := [module for module, needs in left.items() if not needs & set(left)]:
        for module in free:
            del left[module]
    assert left == {}


@pytest.mark.parametrize("module", sorted(FILES))
def test_module_body_only_defines(module: str):
    """A call whose result nobody keeps, a loop or a `with` at the top of a module is an effect of importing it."""
    defines = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
    body = parse(module).body
    rest = [node for node in body if not isinstance(node, defines) and not _is_docstring(node) and not _is_guard(node)]
    assert [f"{FILES[module].name}:{node.lineno}" for node in rest] == []


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_guard(node: ast.stmt) -> bool:
    return _is_for_types_only(node) or (isinstance(node, ast.If) and "__name__" in ast.unparse(node.test))


def test_imports_stay_light():
    """In one process, the lightest first: what one of them may load comes in sight of those after it alone."""
    shown = f"for names, unwanted in {LIGHT}: import_all(names); print(*(name for name in unwanted if name in sys.modules))"
    script = "import sys, importlib; import_all = lambda names: [importlib.import_module(name) for name in names]\n" + shown
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.splitlines() == [""] * len(LIGHT)


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    science, product = requirements(project["dependencies"]), requirements(project["optional-dependencies"]["app"])
    cluster = requirements(project["optional-dependencies"]["ray"])
    owners = packages_distributions()
    used = {package: _distributions(package, owners) for package in ("l2d", "app")}
    assert used["l2d"] <= science
    assert used["app"] <= science | product | cluster
    assert science | product | cluster == used["l2d"] | used["app"] | set(NEEDED_BY_OTHERS)


def _distributions(package: str, owners: Mapping[str, list[str]]) -> set[str]:
    roots = {name.split(".")[0] for module in FILES if within(module, package) for name in imports(module)}
    foreign = roots - set(sys.stdlib_module_names) - {"l2d", "app"}
    # An extra that is not installed goes by its module's name.
    return {owners.get(root, [root])[0].lower().replace("_", "-") for root in foreign}


def test_constraints_pin_every_direct_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[a-z0-9-]+==[\w.]+", line)] == []
    direct = [entry for group in (project["dependencies"], *project["optional-dependencies"].values()) for entry in group]
    assert requirements(direct) <= requirements(pins)


def test_what_lies_beside_the_sources_is_installed_with_them():
    kinds = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]["*"]
    beside = [path for package in ("l2d", "app") for path in (ROOT / package).rglob("*.*") if path.suffix not in {".py", ".pyc"}]
    assert [path for path in beside if not any(path.match(kind) for kind in kinds)] == []
    # Tells type checkers that the science has types.
    assert ROOT / "l2d" / "py.typed" in beside
