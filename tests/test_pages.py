"""Every command line of README and docs: its options exist and its values parse, and it is run on
what the product itself wrote, a server on loopback standing in for the models of others. What is
not run stands in NOT_RUN with the reason."""

import json
import re
import shlex
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from html import escape
from pathlib import Path

import click
import polars as pl
import pytest
from starlette.testclient import TestClient

from medaction.cli.main import main, medaction
from medaction.kg.cache import cache_folder
from medaction.trajectories.store import publish_if_missing
from medaction.trajectories.viewer.app import app_of
from medaction.words.processes import free_port
from tests.conftest import REPOSITORY, SAMPLES
from tests.ncbi_server import Deposit, ncbi_server
from tests.openai_server import openai_server
from tests.simulated_teacher import cases_in
from tests.stand_in import DISCHARGE_LETTER, stand_in
from tests.test_envs_extraction import LETTER
from tests.test_envs_sources_more import NOTE, PACKET
from tests.test_kg_loaders import CLIN_EDGES, CLIN_NODES, KG_HEADER
from tests.test_rubrics import row as conversation

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
PLACEHOLDER = re.compile(r"\.\.\.|…|[A-Z_]{2,}(\.\.\.)?|@?[A-Z]+(/[A-Za-z._]+)*")
"""A word that the reader replaces, such as MODEL or OUT/cases."""


def commands_of(page: Path) -> Iterator[str]:
    """Whatever a page shows as a `medaction` command: in blocks, and between backticks."""
    text = re.sub(r"\\\n\s*", "", page.read_text())
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"^ {4}(\S.*)$", text, re.M)
    lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", re.sub("```", "", text))]
    for line in lines:
        command = re.split(r"#| > ", line)[0].strip().removeprefix(".venv/bin/").removeprefix("$ ")
        if re.match(r"medaction [a-z]", command):
            yield command


COMMANDS = sorted({command for page in PAGES for command in commands_of(page)})


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and the words after its name."""
    command: click.Command = medaction
    while isinstance(command, click.Group) and words:
        below = command.get_command(click.Context(command), words[0])
        assert below, f"there is no command {words[0]}"
        command, words = below, words[1:]
    return command, words


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_pages_parses(line: str) -> None:
    command, words = resolve(shlex.split(line)[1:])
    pairs = zip(words, ["", *words], strict=False)  # dots after an option stand for its value
    words = [word for word, before in pairs if word != "..." or before.startswith("--")]
    context = click.Context(command)
    values, arguments, _ = command.make_parser(context).parse_args(list(words))
    for parameter in command.params:
        value = values.get(parameter.name)
        if isinstance(parameter.type, click.Choice) and value:
            for choice in value if isinstance(value, list) else [value]:
                if not PLACEHOLDER.fullmatch(choice):
                    parameter.type.convert(choice, parameter, context)
    if words and not any(word.endswith("...") for word in words):
        positional = [name for name in command.params if isinstance(name, click.Argument)]
        assert positional or not arguments


def test_the_pages_have_commands() -> None:
    assert len(COMMANDS) > 40


NOT_RUN = {
    "train": "trains for minutes, with torch: tests/test_training_run.py",
    "pipeline": "trains: tests/test_pipeline.py",
    "experiment": "trains: tests/test_experiment.py",
    "ablate": "trains: tests/test_pipeline.py",
    "serve runs/model": "wants a trained model: tests/test_training_serving.py",
    "serve-env": "its extra does not install beside the others: tests/test_hub_openenv.py",
    "distill ... --disease-graph primekg": "wants whole graphs: tests/test_kg_loaders.py",
    "evaluate CASES --model local:OUT": "wants a training under way: test_training_serving.py",
}
"""The beginning of a page's line -> why it is parsed only, and where what it does is tested."""

IN_ORDER = (
    *("envs", "distill", "retry", "redistill", "evaluate", "compare", "analyse", "rubrics"),
    *("contamination", "hard-set", "kg", "labels", "export", "view", "doctor", "up", "down"),
)
"""The commands as a reader comes to them: what one writes, a later one reads."""

AFTER = {"@FOLDER/hardest.txt": "analyse", "hard/cases": "hard-set", "kg info": "kg"}
"""Words of a line that reads what a command further down writes -> that command."""

READERS_WORDS = {
    "WHERE": "my_reports/",
    "clean/": "my_reports/",
    "RUN": "runs/demo",
    "FOLDER": "runs/demo-figures",
    "FILE": "demo",
    "MODEL": "openai/MODEL",
    "runs/other": "runs/eval-kg",
    "runs/pool": "runs/mine",
    "runs/pool-1": "runs/demo",
    "runs/pool-2": "runs/mine",
    "RUN...": "runs/demo",
    "CASES": "examples/cases",
    "BENCHMARK": "medrbench/diagnosis_cases.json",
    "@IDS": "@ids.txt",
    "@FOLDER/hardest.txt": "@runs/demo-figures/hardest.txt",
    "N": "1",
}
"""What a page leaves to its reader -> what is written there."""

REST = {"--cases": "examples/cases", "--out": "runs/part", "--teacher": "kg-screening"}
"""What a reader adds to a line of `distill` that shows a part of it only."""

STATUSES = {"medaction kg calibrate RUN": 1}
"""Of lines that end otherwise on the demo: its turns are too few for a threshold that is kept."""

ADDED = {
    "hard-set": ["runs/demo", "--size", "1", "--min-tests", "1"],  # of two cases, not of hundreds
    "up": ["--port", str(free_port())],
}


BY_NAME = ("doctor", "up", "down", "serve-env")
"""Commands that run without any word behind their names."""


def is_part(line: str) -> bool:
    """Whether the page only names a command, or an option of training, and shows no whole line."""
    name, *arguments = line.split()[1:]
    if name == "train":
        return not {"--data", "--out"} <= {*arguments}
    _, arguments = resolve([name, *arguments])
    return not arguments and name not in BY_NAME


def is_run(line: str) -> bool:
    """Whether a page's line is one, and not in NOT_RUN."""
    return not is_part(line) and not line.removeprefix("medaction ").startswith(tuple(NOT_RUN))


def place_of(line: str) -> tuple[int, bool, str]:
    """Where in the order of the lines this one comes."""
    later = [IN_ORDER.index(name) for words, name in AFTER.items() if words in line]
    return (max(later) if later else IN_ORDER.index(line.split()[1]), bool(later), line)


LINES = sorted(
    (line for line in COMMANDS if is_run(line) and line.split()[1] in IN_ORDER), key=place_of
)


def as_run(line: str, url: str) -> list[str]:
    """The words of a line with what its reader would write, every model of others at `url`."""
    words = shlex.split(line)[1:]
    if words[0] == "distill" and "--help" not in words:
        pairs = zip(words, ["", *words], strict=False)
        words = [REST.get(before, word) if word == "..." else word for word, before in pairs]
        words = [word for word in words if word != "..."]
        words += [part for pair in REST.items() if pair[0] not in words for part in pair]
    words = [READERS_WORDS.get(word, word) for word in words] + ADDED.get(words[0], [])
    return [re.sub(r"^(openai|ollama_chat)/([^@]+)(@.*)?$", rf"openai/\2@{url}", w) for w in words]


def status_of(words: list[str]) -> object:
    """The exit status of a command run in this process."""
    try:
        main(words)
    except SystemExit as ending:
        return ending.code or 0
    return 0


TOLD = f"{LETTER}\nInfective endocarditis was diagnosed, and penicillin was begun.\n"
ARTICLE = """<article article-type="case-report"><front><article-meta><title-group>
<article-title>Fever of a plumber</article-title></title-group><permissions><license
xmlns:xlink="http://www.w3.org/1999/xlink"
xlink:href="https://creativecommons.org/licenses/by/4.0/"><license-p>Open.</license-p></license>
</permissions></article-meta></front><body><sec><title>Case</title>{}</sec></body></article>
""".format("".join(f"<p>{escape(part)}</p>" for part in TOLD.split("\n\n")))
NAMES = ("Granulomatosis with polyangiitis", "Sarcoidosis", "Chest radiograph", "Urinalysis")
KINDS = ("disease", "disease", "anatomy", "anatomy")


def write_inputs() -> None:
    """Small files of the kinds that pages name: articles, phenopackets, graphs, conversations, a
    preset, a list of ids."""
    Path("ids.txt").write_text("medaction-01\nmedaction-03\n")
    with tarfile.open("oa_comm_xml.PMC000xxxxxx.baseline.2024-06-17.tar.gz", "w:gz") as package:
        Path("PMC1.xml").write_text(ARTICLE)
        package.add("PMC1.xml", "PMC000xxxxxx/PMC1.xml")
    Path("packets").mkdir()
    packet = json.dumps(PACKET).replace("Muscular dystrophy, invented", "Nemaline myopathy 2")
    Path("packets/PMID_1.json").write_text(packet)
    Path("DiagBench_MTSamples.json").write_text(json.dumps([NOTE | {"note_id": "1"}]))
    Path("my.yaml").write_text("{cases: examples/cases, out: runs/again, teachers: [kg-targeted]}")
    for name in ("healthbench.jsonl", "2025-05-07-06-14-12_oss_eval.jsonl"):
        Path(name).write_text(json.dumps(conversation(1, 5, 5)) + "\n")
    edges = [(at, other) for at in range(4) for other in range(4) if at != other]
    sides = [[f"{at},{at},{KINDS[at]},{NAMES[at]},MONDO" for at in pair] for pair in edges]
    Path("kg.csv").write_text(KG_HEADER + "".join(f"r,d,{x},{y}\n" for x, y in sides))
    Path("clingraph").mkdir()
    nodes = [f"{at}\t{NAMES[at]}\t{KINDS[at]}\t{at}\n" for at in range(4)]
    Path("clingraph/ClinGraph_nodes.csv").write_text(CLIN_NODES + "".join(nodes))
    rows = [
        "\t".join(
            map(str, (*(place, x, NAMES[x], KINDS[x], "r", y, NAMES[y], KINDS[y], x, y), place))
        )
        for place, (x, y) in enumerate(edges)
    ]
    Path("clingraph/ClinGraph_edges.csv").write_text(CLIN_EDGES + "\n".join(rows) + "\n")


def look(words: list[str]) -> int:
    """The status of the first page that `medaction view` would serve until it is interrupted."""
    out = Path(words[words.index("--out") + 1])
    against = Path(words[words.index("--against") + 1]) if "--against" in words else None
    for folder in filter(None, (out, against)):
        publish_if_missing(folder)
    return TestClient(app_of(out, against)).get("/comparison" if against else "/").status_code


def reject(out: Path) -> None:
    """Reject the first record of the dataset, as a clinician does in the viewer."""
    record = pl.read_parquet(out / "dataset" / "train.parquet").row(0, named=True)
    form = {name: record[name] for name in ("case_id", "trajectory_id")}
    form |= {"kind": "turn", "number": str(record["turn"]), "opinion": "reject"}
    client = TestClient(app_of(out))
    origin = {"origin": "http://testserver"}
    assert client.post("/label", data=form, headers=origin, follow_redirects=False).is_redirect


def test_every_line_is_run_or_has_its_reason() -> None:
    left = [line for line in COMMANDS if is_run(line) and line not in LINES]
    assert not left, "a new command belongs into IN_ORDER or NOT_RUN"
    assert sum(not is_run(line) and not is_part(line) for line in COMMANDS) < 20
    unused = [
        start for start in NOT_RUN if not any(f"medaction {start}" in line for line in COMMANDS)
    ]
    assert not unused, "no page has such a line any more"


@pytest.mark.long
def test_the_lines_of_the_pages_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one folder, one after the other, in this process: the first hour and all that follows."""
    for variable in ("PREFECT_API_URL", "RAY_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "cache" / "kg").mkdir(parents=True)
    for part in cache_folder().iterdir():  # what takes a minute to build; the user's graphs stay
        if part.name != "graphs":
            (tmp_path / "cache" / "kg" / part.name).symlink_to(part)
    monkeypatch.setenv("MEDACTION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MEDACTION_CALL_CACHE", str(tmp_path / "calls"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "articles"))  # none of another day's
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    monkeypatch.chdir(tmp_path)
    for folder in ("examples/cases", "medrbench"):
        Path(folder).mkdir(parents=True)
    for number in ("01", "03"):
        shutil.copy(SAMPLES / f"medaction-{number}.json", "examples/cases")
    shutil.copy(SAMPLES / "medaction-05.json", "medrbench/diagnosis_cases.json")
    cases_in(Path("my_reports"), 2)
    Path("my_reports/Discharge letter.txt").write_text(DISCHARGE_LETTER)
    write_inputs()
    assert status_of(["distill", "--preset", "demo"]) == 0, "the demo is made by make"

    deposits = {f"PMC{number}": Deposit(ARTICLE) for number in (4735908, 4735920)}
    with openai_server(stand_in) as server, ncbi_server(deposits) as ncbi, ExitStack() as started:
        monkeypatch.setenv("MEDACTION_NCBI_URL", ncbi.url)
        started.callback(status_of, ["down"])
        for line in LINES:
            words = as_run(line, server.url)
            if words[:1] == ["view"] and "--export" not in words:
                assert look(words) == 200, line
                continue
            if line == "medaction labels --out runs/mine":
                reject(Path("runs/mine"))
            status, shown = status_of(words), capsys.readouterr()
            expected = STATUSES.get(line, 0)
            assert status == expected, f"{line}\n{shown.out[-600:]}\n{shown.err[-600:]}"

    assert 'id="case-medaction-01"' in Path("demo.html").read_text()
    assert "medaction-01" not in Path("one.html").read_text(), "the file holds one case"
    newest = len(list(Path("runs/mine/datasets").glob("v*")))
    before, after = (
        pl.scan_parquet(f"runs/mine/datasets/v{number}/*.parquet").collect().height
        for number in (newest - 1, newest)
    )
    assert after == before - 1, "the turn that was rejected is no record any more"
