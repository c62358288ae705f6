"""What a dataset is made of: counts of real environments, and figures whose labels can be read."""

import itertools
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from medaction.envs.build import build_environment
from medaction.envs.categories import MINOR_CATEGORIES
from medaction.envs.composition import BODY_SYSTEMS, DISEASE_TYPES
from medaction.envs.records import CaseReport, ClinicalEnvironment, DocumentedTest
from medaction.envs.sources import read_cases
from medaction.evaluation import composition as module
from medaction.evaluation.composition import NOT_TOLD, Composition, composition, plot_composition
from tests.conftest import SAMPLES, shared_data


def environments(path: Path) -> list[ClinicalEnvironment]:
    built = [
        build_environment(report).environment
        for report in read_cases(path)
        if isinstance(report, CaseReport)
    ]
    return [environment for environment in built if environment is not None]


def environment(
    case_id: str, diagnosis: str, menu: list[DocumentedTest], system: str = "", kind: str = ""
) -> ClinicalEnvironment:
    return ClinicalEnvironment(
        case_id, "test", "", "Cough.", tuple(menu), diagnosis, body_system=system, disease_type=kind
    )


@pytest.fixture(scope="module")
def samples() -> Composition:
    return composition(environments(SAMPLES))


@pytest.fixture(scope="module")
def crowded() -> Composition:
    """Every class and every minor category, in shares that fall steeply, so that many slices are
    narrow."""
    menu = [
        DocumentedTest(minor, category, "normal", minor=minor)
        for category, minors in MINOR_CATEGORIES.items()
        for place, minor in enumerate(minors)
        for _ in range(20 if minor == minors[-1] else max(1, 40 - 8 * place))
    ]
    kinds = itertools.cycle(DISEASE_TYPES)
    return composition(
        environment(f"{system}-{number}", "x", menu, system, next(kinds))
        for place, system in enumerate(BODY_SYSTEMS)
        for number in range(max(1, 60 >> place))
    )


@pytest.mark.long
def test_the_source_tells_else_the_diagnosis_else_nobody() -> None:
    ct = DocumentedTest("Chest CT", "imaging", "normal")
    counted = composition(
        [
            environment("a", "Pulmonary tuberculosis", [ct], "Immune System", "Other"),
            environment("b", "Pulmonary tuberculosis", [ct]),
            environment("c", "Pulmonary tuberculosis", [ct], kind="Other"),
            environment("d", "Normal behavior", [ct]),
        ]
    )
    assert counted.body_systems.rows() == [
        ("Lungs and Breathing", 2),
        ("Immune System", 1),
        (NOT_TOLD, 1),
    ]
    assert counted.disease_types.rows() == [("Other", 2), ("Infections", 1), (NOT_TOLD, 1)]


def test_minor_categories_are_the_sources_own_where_known_else_told_by_name() -> None:
    menu = [
        DocumentedTest("Scan 1", "imaging", "normal", minor="ultrasound"),
        DocumentedTest("Scan 2", "imaging", "normal", minor="Computed Tomography (CT)"),
        DocumentedTest("Chest CT", "imaging", "normal"),
        DocumentedTest("Test 4", "laboratory", "normal"),
    ]
    counted = composition([environment("a", "Asthma", menu), environment("b", "Asthma", menu[:1])])
    assert counted.categories.rows() == [
        ("imaging", 4), ("laboratory", 1), ("procedure", 0), ("physiologic", 0), ("pathology", 0)
    ]  # fmt: skip
    assert counted.minor_categories.rows() == [
        ("imaging", "computed tomography", 2),
        ("imaging", "ultrasound", 2),
        ("laboratory", "unspecified laboratory", 1),
    ]


def test_nothing_counts_as_nothing_and_is_not_drawn(tmp_path: Path) -> None:
    empty = composition([])
    assert (empty.cases, empty.tests) == (0, 0)
    with pytest.raises(ValueError, match="nothing to draw: 0 cases"):
        plot_composition(empty, tmp_path)


def test_the_counts_of_the_sample_cases_add_up(samples: Composition) -> None:
    assert (
        samples.cases
        == samples.body_systems["cases"].sum()
        == samples.disease_types["cases"].sum()
        == 12
    )
    assert (
        samples.tests
        == samples.categories["tests"].sum()
        == samples.minor_categories["tests"].sum()
        == 168
    )
    assert NOT_TOLD not in [
        *samples.body_systems["body_system"],
        *samples.disease_types["disease_type"],
    ]
    sums = samples.minor_categories.drop("minor").group_by("category", maintain_order=True).sum()
    assert sums.rows() == samples.categories.rows()


@pytest.mark.parametrize(
    "name", ["agentclinic/agentclinic_medqa.jsonl", "medrbench/diagnosis_cases.json"]
)
def test_real_datasets_are_nearly_all_told_apart(name: str) -> None:
    counted = composition(environments(shared_data(name)))
    assert counted.cases > 80
    unknown = dict(counted.body_systems.rows()).get(NOT_TOLD, 0) + dict(
        counted.disease_types.rows()
    ).get(NOT_TOLD, 0)
    assert unknown / (2 * counted.cases) < 0.1
    vague = counted.minor_categories.filter(
        counted.minor_categories["minor"].is_in([m[-1] for m in MINOR_CATEGORIES.values()])
    )
    assert vague["tests"].sum() / counted.tests < 0.15
    assert_readable(counted)


def test_figures_are_images_and_their_text_is_text(samples: Composition, tmp_path: Path) -> None:
    pictures = plot_composition(samples, tmp_path / "figures")
    assert [path.name for path in pictures] == ["cases.png", "cases.svg", "tests.png", "tests.svg"]
    for path in pictures[::2]:
        with Image.open(path) as image:
            assert image.size == (2820, 1230)
            assert len(image.convert("RGB").getcolors(maxcolors=1 << 24) or []) > 100
    cases, tests = (_texts(path) for path in pictures[1::2])
    assert {
        "12",
        "cases",
        "Lungs and Breathing (2, 16.7%)",
        "1  Immune and Inflammatory (6, 50.0%)",
    } <= cases
    assert {
        "168",
        "tests",
        "Laboratory (102, 60.7%)",
        "clinical chemistry (22, 13.1%)",
        "61%",
    } <= tests


def test_the_same_composition_is_drawn_the_same(samples: Composition, tmp_path: Path) -> None:
    earlier, second = (plot_composition(samples, tmp_path / name) for name in ("first", "second"))
    assert [path.read_bytes() for path in earlier] == [path.read_bytes() for path in second]


def test_small_slices_are_one_and_nothing_overlaps(crowded: Composition) -> None:
    assert_readable(crowded)
    texts = [text.get_text() for text in module._draw_tests(crowded).axes[0].texts]
    assert any(text.startswith("physiologic, ") and " others (" in text for text in texts)
    assert any(text.startswith("unspecified laboratory (") for text in texts)


def test_what_tells_nothing_apart_is_grey(crowded: Composition) -> None:
    rows = [("Brain and Nerves", 3), (NOT_TOLD, 1)]
    assert [colour for _, _, colour in module._coloured(rows, 0, 0.0)] == [
        module._HUES[0],
        module._GREY,
    ]
    assert module._GREY in _wedge_colours(module._draw_tests(crowded))
    assert module._GREY not in _wedge_colours(module._draw_cases(crowded))


def assert_readable(counted: Composition) -> None:
    """No two texts touch, and none leaves the picture."""
    for figure in (module._draw_cases(counted), module._draw_tests(counted)):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        texts = [text for text in [*figure.texts, *figure.axes[0].texts] if text.get_text()]
        boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts]
        outside = [
            text
            for text, box in boxes
            if box.x0 < 0 or box.y0 < 0 or box.x1 > figure.bbox.x1 or box.y1 > figure.bbox.y1
        ]
        assert outside == []
        assert [
            (a, b)
            for (a, single), (b, second) in itertools.combinations(boxes, 2)
            if single.overlaps(second)
        ] == []


def _texts(path: Path) -> set[str]:
    return {
        "".join(node.itertext()).strip()
        for node in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")
    }


def _wedge_colours(figure: Figure) -> set[str]:
    return {
        "#" + "".join(f"{round(255 * part):02X}" for part in patch.get_facecolor()[:3])
        for patch in figure.axes[0].patches
    }
