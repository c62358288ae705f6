"""How the code reads, in figures: lines, width, regular expressions, names.

    python benchmarks/house.py [FOLDER ...] [--names]

Counted are the folders of the package, without tests and benchmarks. A vague name is a participle
or a pronoun that binds a value ('found', 'told', 'whole'): it says how a value came,
not what it is.
`--names` lists the commonest of them, and the names that several modules define.
"""

import argparse
import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
FOLDERS = (
    "cli", "flows", "tasks", "hub", "evaluation", "training", "clinicians", "trajectories", "envs",
    "kg", "llm", "words",
)  # fmt: skip
WIDTH = 100
VAGUE = frozenset(
    """
    found told asked said given kept left whole one first rest where ours own other
    others known wanted seen shown named called meant taken drawn played done made read
    written chosen missing here there this that these those it both each every some none
    nothing something what which who everything
    """.split()  # noqa: SIM905
)
PATTERN_FUNCTIONS = {
    "compile", "match", "search", "sub", "fullmatch", "findall", "finditer", "split", "subn",
}  # fmt: skip


def pattern_characters(tree: ast.AST) -> int:
    """Characters of the patterns that calls of `re` are given as literals."""
    count = 0
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "re"
            and node.func.attr in PATTERN_FUNCTIONS
            and node.args
        ):
            parts = [part for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)]
            count += sum(len(part.value) for part in parts if isinstance(part.value, str))
    return count


def bindings(tree: ast.AST) -> Iterator[str]:
    """Every name that is bound: variables, parameters, functions and classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def module_names(tree: ast.Module) -> Iterator[str]:
    """The names that a module defines at its top."""
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.Assign):
            yield from (name.id for name in statement.targets if isinstance(name, ast.Name))
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", default=FOLDERS)
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="another checkout")
    parser.add_argument("--names", action="store_true")
    options = parser.parse_args()
    lines = wide = comments = characters = 0
    names: Counter[str] = Counter()
    modules = defaultdict[str, set[Path]](set)
    for folder in options.folders:
        for file in sorted((options.root / folder).rglob("*.py")):
            text = file.read_text()
            tree = ast.parse(text)
            rows = text.splitlines()
            lines += len(rows)
            wide += sum(len(row) > WIDTH for row in rows)
            comments += sum(row.lstrip().startswith("#") for row in rows)
            characters += pattern_characters(tree)
            names.update(bindings(tree))
            for name in module_names(tree):
                if name != "log":  # each module's logger
                    modules[name].add(file)
    vague = Counter({name: n for name, n in names.items() if name.strip("_") in VAGUE})
    repeated = sorted(name for name, files in modules.items() if len(files) > 1)
    public = [name for name in repeated if not name.startswith("_")]
    print(f"lines                                   {lines:,}")
    print(f"lines over {WIDTH} columns                  {wide} ({100 * wide / lines:.1f} %)")
    print(f"comments a 100 lines                    {100 * comments / lines:.1f}")
    print(f"regex characters a 1,000 lines          {1000 * characters / lines:.0f}")
    print(f"bindings with vague names               {100 * vague.total() / names.total():.1f} %")
    print(f"names defined in more than one module   {len(repeated)}, {len(public)} of them public")
    if options.names:
        print("\nvague:", ", ".join(f"{name} {n}" for name, n in vague.most_common(30)))
        print("\nin several modules:", ", ".join(repeated))


if __name__ == "__main__":
    main()
