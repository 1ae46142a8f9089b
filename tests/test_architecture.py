"""Which modules of the package import which, read from their source."""

import ast
from pathlib import Path

import classy_gc

ROOT = Path(classy_gc.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# What each package may import of the others.
ALLOWED = {
    "core": {"core"},
    "optim": {"core", "optim"},
    "param_groups": {"core", "optim", "param_groups"},
    "tasks": {"core", "optim", "param_groups", "tasks"},
    "configuration": {
        *("core", "optim", "param_groups", "tasks", "hooks", "dataset", "configuration")
    },
    "hooks": {"core", "hooks"},
    "dataset": {"dataset"},
    "polygons": {"core", "polygons"},
    "commands": {
        *("core", "optim", "param_groups", "tasks", "hooks", "dataset", "polygons"),
        *("configuration", "commands"),
    },
    "mmengine": {"core"},
}
GROUND = {"options", "files", "plots", "table", "custom_imports"}


def name_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {name_of(path): ast.parse(path.read_text()) for path in FILES}


def imports(name):
    """Of each import: module, name or None, and whether it runs when the file is imported."""
    late = set()
    for node in ast.walk(TREES[name]):
        typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if typing or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            late |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            found = [
                (full, None)
                if (full := f"{node.module}.{alias.name}") in TREES
                else (node.module, alias.name)
                for alias in node.names
            ]
        else:
            continue
        for module, attribute in found:
            if module.split(".")[0] == "classy_gc":
                yield module, attribute, id(node) not in late


def room(module):
    return (*module.split("."), "")[1]


def test_no_circle_of_imports():
    graph = {name: {m for m, _, early in imports(name) if early and m != name} for name in TREES}
    # Importing a module imports its packages first, which may not need it in turn.
    done, path = set(), []

    def visit(name):
        assert name not in path, f"a circle: {' → '.join([*path[path.index(name) :], name])}"
        if name in done:
            return
        path.append(name)
        for module in sorted(graph.get(name, ())):
            visit(module)
        path.pop()
        done.add(name)

    for name in sorted(graph):
        visit(name)


def test_imports_point_down():
    for name in TREES.keys() - {"classy_gc"}:
        allowed = ALLOWED.get(room(name), set()) | GROUND
        wrong = {m for m, _, _ in imports(name) if m != "classy_gc" and room(m) not in allowed}
        assert not wrong, f"{name} may import {sorted(allowed)}"


def private(name):
    return name.startswith("_") and not name.endswith("__")


def defined(tree):
    """Functions, classes, variables, and what methods set on ``self``."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield from [node.attr] * (ast.unparse(node.value) == "self")


# Except where they stand in for torch's.
OURS = {x for name in TREES if name != "classy_gc.core._torch" for x in defined(TREES[name])}


def read_of_others(tree):
    """Private names of this package that a file reads but does not define."""
    # Some private names of torch and Classy Vision are read where nothing public does it.
    others = OURS - {*defined(tree)}
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and private(node.attr)
        and node.attr in others
        and ast.unparse(node.value) not in ("self", "cls", "super()")
    ]


def test_no_private_name_of_another_module():
    for name, tree in TREES.items():
        assert not [f"{module}.{x}" for module, x, _ in imports(name) if x and private(x)], name
        assert not read_of_others(tree), name


def test_tests_read_no_private_names():
    for path in Path(__file__).parent.rglob("*.py"):
        assert not read_of_others(ast.parse(path.read_text())), path
