"""`medaction kg`: bring a knowledge graph, and look at it."""

from pathlib import Path

import click


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--types",
    help="Keep only nodes of these types, with commas between them, and the edges between those.",
)
@click.option(
    "--name",
    default="",
    show_default=False,
    help="What `--disease-graph`, `--test-graph` and `kg info` call it.  [default: the file's"
    " name]",
)
@click.option(
    "--licence",
    default="",
    show_default=False,
    help="What is known of the data's licence, for the record.",
)
def build(path: Path, types: str | None, name: str, licence: str) -> None:
    """Read the graph at PATH (docs/graphs.md says in which forms) and keep it in the cache."""
    from medaction.kg.graph import about_graph, load_graph
    from medaction.kg.loaders import import_graph

    node_types = [part.strip() for part in (types or "").split(",") if part.strip()]
    folder = import_graph(path, node_types, name, licence)
    graph = load_graph(folder)
    about = about_graph(folder)
    click.echo(
        # Every edge stands at both of its ends.
        f"{graph.name}: {graph.nodes.height} nodes and {len(graph.targets) // 2} edges,"
        f" version {graph.version}, in {folder}"
    )
    if about["types"]:
        click.echo(
            f"only nodes of type {', '.join(about['types'])}: call this selection by its name,"
            f" {graph.name}"
        )


@click.command()
@click.argument("graph")
def info(graph: str) -> None:
    """Show the graph of this name or path: nodes and edges by type, degrees, hops, source, version,
    licence."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from medaction.kg.graph import about_graph, load_graph
    from medaction.kg.loaders import folder_of
    from medaction.kg.survey import SAMPLE, survey

    folder = folder_of(graph)
    loaded, about = load_graph(folder), about_graph(folder)
    tables = survey(loaded)
    nodes, edges = loaded.nodes.height, len(loaded.targets) // 2
    # In a pipe rich would take 80 columns and break the tables.
    console = Console() if Console().is_terminal else Console(width=110)
    facts = {
        "name": loaded.name,
        "version": loaded.version,
        "source": loaded.description,
        "files": "\n".join(f"{path} ({size:,} bytes)" for path, size, _ in about["files"]),
        "licence": about["licence"] or "not stated (kg build --licence)",
        "node types": ", ".join(about["types"]) or "all",
        "nodes": f"{nodes:,}, of them {tables.isolated:,} without an edge",
        "edges": f"{edges:,}, each counted once",
        "largest component": f"{tables.largest:,} nodes ({tables.largest / nodes:.2%})",
        "folder": folder,
    }
    table = Table(show_header=False)
    for fact, value in facts.items():
        table.add_row(fact, escape(str(value)))
    console.print(table)
    for name in ("nodes", "edges", "degrees", "hops"):
        frame, table = getattr(tables, name), Table(title=name.capitalize(), title_justify="left")
        for column, kind in frame.schema.items():
            right = kind.is_numeric() or column == "share"
            table.add_column(column, justify="right" if right else "left")
        for row in frame.iter_rows():
            texts = (f"{value:,}" if isinstance(value, int) else str(value) for value in row)
            table.add_row(*("" if text == "None" else escape(text) for text in texts))
        console.print(table)
    console.print(
        f"Hops are a sample: from {SAMPLE} random nodes of one type to all nodes of the other."
        " No number: no path."
    )
