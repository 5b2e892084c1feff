"""Limits on the source: lines per function, nesting, and the length of inheritance chains."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
_SOURCES = ("server", "models", "client", "benchmarks")

_MOST_LINES = 60
_DEEPEST = 4
_LONGEST_CHAIN = 2

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
_Block = (
    ast.If | ast.For | ast.AsyncFor | ast.While | ast.With | ast.AsyncWith | ast.Try | ast.Match
)

# Bases that do not count: abstract classes define interfaces, and errors are a tree.
_ASIDE = {"ABC", "Protocol", "Exception", "BaseException"}


@cache
def _modules() -> dict[str, ast.Module]:
    paths = (path for source in _SOURCES for path in sorted((ROOT / source).rglob("*.py")))
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_bytes())
        for path in paths
        if "_sync" not in path.parts
    }


def _functions() -> Iterator[tuple[str, _Function]]:
    for path, module in _modules().items():
        for node in ast.walk(module):
            if isinstance(node, _Function):
                yield f"{path}:{node.name}", node


def _depth(node: ast.AST) -> int:
    """Returns the depth of nested blocks below a node; functions in it count separately."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _Scope):
            is_elif = (
                isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
            )
            deepest = max(deepest, _depth(child) + (isinstance(child, _Block) and not is_elif))
    return deepest


def _bases() -> dict[str, list[str]]:
    """Returns the bases of each class by name; classes with the same name are merged."""
    bases: dict[str, list[str]] = {}
    for module in _modules().values():
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef):
                names = (
                    ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases
                )
                bases.setdefault(node.name, []).extend(names)
    return bases


def _chain(name: str, bases: dict[str, list[str]], below: frozenset[str] = frozenset()) -> int:
    """Returns the length of the project's chain from `name` up; 0 for abstract classes, errors,
    others."""
    # A class may have the same name as its base.
    if name not in bases or name in below or _is_aside(name, bases):
        return 0
    lengths = (_chain(parent, bases, below | {name}) for parent in bases[name])
    return 1 + max(lengths, default=0)


def _is_aside(name: str, bases: dict[str, list[str]]) -> bool:
    return name.endswith("Error") or not _ASIDE.isdisjoint(bases[name])


def test_no_function_is_longer_than_sixty_lines() -> None:
    assert [name for name, node in _functions() if _lines(node) > _MOST_LINES] == []


def _lines(node: _Function) -> int:
    """Returns the lines without the docstring, because docstrings may explain many arguments."""
    first, *_ = node.body
    documented = ast.get_docstring(node) is not None
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def test_nothing_is_nested_deeper_than_four_blocks() -> None:
    assert [name for name, node in _functions() if _depth(node) > _DEEPEST] == []


def test_no_class_derives_from_one_that_derives_from_another_of_ours() -> None:
    bases = _bases()

    assert [name for name in bases if _chain(name, bases) > _LONGEST_CHAIN] == []
