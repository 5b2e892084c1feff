"""Limits of the source: lines of a function, nesting, and length of inheritance chains."""

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

# Bases that do not count: abstract classes say what is implemented, errors are a tree.
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
    """How many blocks stand within one another below a node; functions in it count apart."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _Scope):
            is_elif = (
                isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
            )
            deepest = max(deepest, _depth(child) + (isinstance(child, _Block) and not is_elif))
    return deepest


def _bases() -> dict[str, list[str]]:
    """The names of each class's bases; a name that several classes have stands for all."""
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
    """Classes of ours from `name` up; 0 for what is abstract, an error, or not ours."""
    # A class may have the name of a class that it derives from.
    if name not in bases or name in below or _is_aside(name, bases):
        return 0
    lengths = (_chain(parent, bases, below | {name}) for parent in bases[name])
    return 1 + max(lengths, default=0)


def _is_aside(name: str, bases: dict[str, list[str]]) -> bool:
    return name.endswith("Error") or not _ASIDE.isdisjoint(bases[name])


def test_no_function_is_longer_than_sixty_lines() -> None:
    assert [name for name, node in _functions() if _lines(node) > _MOST_LINES] == []


def _lines(node: _Function) -> int:
    """Lines without the docstring: that of `train` explains each of its arguments."""
    first, *_ = node.body
    documented = ast.get_docstring(node) is not None
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def test_nothing_is_nested_deeper_than_four_blocks() -> None:
    assert [name for name, node in _functions() if _depth(node) > _DEEPEST] == []


def test_no_class_derives_from_one_that_derives_from_another_of_ours() -> None:
    bases = _bases()

    assert [name for name in bases if _chain(name, bases) > _LONGEST_CHAIN] == []
