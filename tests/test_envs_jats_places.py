"""Tables, captions and appendices are read wherever an article puts them; the rest is counted."""

import json
import re
from pathlib import Path

import pytest

from medaction.envs.grounding import Report
from medaction.envs.records import BadCase, CaseReport
from medaction.envs.sources import read_cases

TEXT = "A 45-year-old woman came with weight gain and bruises for one year. " * 4
ROWS = (
    "<table><tr><td rowspan='2'>Hormones</td><td>ACTH</td><td>98 pg/mL</td></tr>"
    "<tr><td>Cortisol</td><td>19 ug/dL</td></tr></table>"
)
TABLE = f"<table-wrap><label>Table 1</label><caption><p>Blood.</p></caption>{ROWS}</table-wrap>"
AGAIN = "<table><tr><td>once more</td></tr></table>"
CHOICE = f"<table-wrap><alternatives><graphic/>{ROWS}{AGAIN}</alternatives></table-wrap>"
FIGURES = "<fig><caption><p>CT with a 12 mm nodule.</p></caption></fig><fig id='f2'/>"


def article(body: str = "", behind: str = "") -> str:
    licence = "https://creativecommons.org/licenses/by/4.0/"
    return (
        '<article article-type="case-report"><front><article-meta><title-group>'
        "<article-title>A nodule</article-title></title-group><permissions>"
        f'<license href="{licence}"/></permissions></article-meta></front>'
        f"<body><sec><p>{TEXT}</p>{body}</sec></body>{behind}</article>"
    )


def reports(path: Path) -> list[CaseReport | BadCase]:
    return list(read_cases(path))


@pytest.mark.parametrize(
    ("body", "behind"),
    [
        (TABLE + FIGURES, ""),
        (CHOICE + FIGURES, ""),
        ("", f"<floats-group>{TABLE}{FIGURES}</floats-group>"),
        ("", f"<back><app-group><app>{CHOICE}{FIGURES}</app></app-group></back>"),
        (f"<boxed-text>{TABLE}</boxed-text><list><list-item>{FIGURES}</list-item></list>", ""),
    ],
)
def test_rows_and_captions_are_in_the_text_wherever_they_stand(
    tmp_path: Path, body: str, behind: str
) -> None:
    (tmp_path / "a.xml").write_text(article(body, behind))
    (report,) = reports(tmp_path)
    assert isinstance(report, CaseReport)
    assert "Hormones | ACTH | 98 pg/mL" in report.text
    assert "Hormones | Cortisol | 19 ug/dL" in report.text
    assert report.text.count("CT with a 12 mm nodule.") == 1
    assert "once more" not in report.text
    assert [(loss.kind, loss.count, loss.sample) for loss in report.losses] == [("figure", 1, "f2")]


CITED = '<xref ref-type="bibr">3</xref>'
SPANS = (
    "<table><thead><tr><th rowspan='2'>Test</th><th colspan='2'>Serum</th><th>Range</th></tr>"
    "<tr><th>Day 1</th><th>Day 9</th><th>mmol/L</th></tr></thead><tr><td>Urea</td>"
    "<td colspan='2'>9.8</td><td>3-8</td></tr></table>"
)


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        ("<table><tr><td><p>Iron 12</p><p>Zinc 9</p></td></tr></table>", ["Iron 12 Zinc 9"]),
        ("<table><tr><td>TSH 1.9<break/>T4 13</td><td>x</td></tr></table>", ["TSH 1.9 T4 13 | x"]),
        (
            "<table><tr><td><list><list-item><p>Iron 12</p></list-item><list-item><p>Zinc 9</p>"
            "</list-item></list></td><td>x</td></tr></table>",
            ["Iron 12 Zinc 9 | x"],
        ),
        (
            SPANS,
            [
                "Test | Serum | Serum | Range",
                "Test | Day 1 | Day 9 | mmol/L",
                "Urea | 9.8 |  | 3-8",
            ],
        ),
        (
            "<table><tgroup><tbody><row><entry morerows='1'>Iron</entry><entry>12</entry></row>"
            "<row><entry>14</entry></row></tbody></tgroup></table>",
            ["Iron | 12", "Iron | 14"],
        ),
        ("<media><caption><p>Septum 15 mm.</p></caption></media>", ["Septum 15 mm."]),
        (f"<p>Sodium 128<sup>{CITED},{CITED}</sup> mmol/L</p>", ["Sodium 128 mmol/L"]),
        ("<p>HCO<sub>3</sub><sup>-</sup> 34 mmol/L</p>", ["HCO3^- 34 mmol/L"]),
        (
            "<p>Ratio <math><mfrac><mn>41</mn><mn>7</mn></mfrac></math>, cells <math><msup>"
            "<mn>10</mn><mn>9</mn></msup></math></p>",
            ["Ratio 41/7, cells 10^9"],
        ),
        (
            r"<p>pH <inline-formula><tex-math>\begin{document}$7.1$\end{document}</tex-math>"
            "</inline-formula> and <inline-formula><alternatives><math><mn>7.2</mn></math>"
            "<tex-math>$7.2$</tex-math></alternatives></inline-formula></p>",
            ["pH 7.1 and 7.2"],
        ),
        (
            r"<p>Iron <tex-math>$5\,\upmu\text{g} \leq \frac{10^{9}\text{ x}}{7~\mathrm {L}} \pm"
            r" 3\%$</tex-math>, <tex-math>\log_{10} 4</tex-math>, <tex-math>37^{\circ}C</tex-math>"
            "</p>",
            ["Iron 5 μg ≤ 10^9 x/7 L ± 3%, log10 4, 37°C"],
        ),
        (
            "<p>Seen:<list><list-item><p>Iron 12</p></list-item></list>Zinc (x<list/>)</p>",
            ["Seen: Zinc (x)", "Iron 12"],
        ),
        (
            "<table><tr><td>Iron</td><td>12</td><td rowspan='2'>mg</td></tr>"
            "<tr><td colspan='2'>Zinc</td></tr></table>",
            ["Iron | 12 | mg", "Zinc |  | mg"],
        ),
        (
            "<def-list><title>Fluid</title><def-item><term><bold>Iron</bold></term><def><p>12</p>"
            "<p>Twice.</p></def></def-item><def-item><term>Zinc</term></def-item></def-list>",
            ["Fluid", "Iron: 12", "Twice.", "Zinc"],
        ),
    ],
)
def test_what_stands_apart_in_print_stays_apart_in_the_text(
    tmp_path: Path, body: str, lines: list[str]
) -> None:
    (tmp_path / "a.xml").write_text(article(body))
    (report,) = reports(tmp_path)
    assert isinstance(report, CaseReport)
    assert report.text.split("\n\n")[-len(lines) :] == lines
    assert report.losses == ()


def test_what_is_not_read_is_counted(tmp_path: Path) -> None:
    picture = "<table-wrap id='t1'><graphic/></table-wrap>"
    review = "<sub-article><body><p>Accept it.</p></body></sub-article>"
    notes = (
        "<back><sec><title>Consent</title><p>Was obtained.</p></sec><ack><p>We thank.</p></ack>"
        "<fn-group><fn><p>Iron was 12.</p></fn></fn-group><ref-list><title>x</title></ref-list>"
        "</back>"
    )
    abstracts = (
        '<abstract abstract-type="teaser"><p>Read on!</p></abstract><abstract><p>It grew.</p>'
        "</abstract><trans-abstract><p>Elle croissait.</p></trans-abstract><permissions>"
    )
    text = article(picture, notes + review).replace("<permissions>", abstracts)
    (tmp_path / "a.xml").write_text(text)
    (report,) = reports(tmp_path)
    assert isinstance(report, CaseReport)
    assert {(loss.kind, loss.count, loss.sample) for loss in report.losses} == {
        ("table", 1, "t1"),
        ("sub-article", 1, "Accept it."),
        ("section", 3, "Consent Was obtained."),
        ("abstract", 2, "Read on!"),
    }
    assert "Accept it" not in report.text
    assert "It grew." in report.text


def test_several_articles_in_one_file_are_refused(tmp_path: Path) -> None:
    text = f"<pmc-articleset>{article()}{article()}</pmc-articleset>"
    (tmp_path / "a.xml").write_text(text)
    (refusal,) = reports(tmp_path)
    assert isinstance(refusal, BadCase)
    assert "holds 2 articles" in refusal.message


def test_a_cell_never_spans_without_bound(tmp_path: Path) -> None:
    rows = "<tr><td rowspan='9999'>Hormones</td><td>x</td></tr>" + "<tr><td>y</td></tr>" * 100
    (tmp_path / "a.xml").write_text(article(f"<table>{rows}</table>"))
    (report,) = reports(tmp_path)
    assert isinstance(report, CaseReport)
    assert report.text.count("Hormones") == 20


@pytest.mark.parametrize("below", [".", "PMC999001.1"])
def test_the_folders_of_the_cloud_service_hold_one_article_each(tmp_path: Path, below: str) -> None:
    folder = tmp_path / "PMC999001.1"
    folder.mkdir()
    (folder / "PMC999001.1.xml").write_text(article(TABLE).replace("<license ", "<none "))
    (folder / "PMC999001.1.txt").write_text(TEXT)
    metadata = {"pmcid": "PMC999001", "license_code": "CC BY", "is_retracted": False}
    (folder / "PMC999001.1.json").write_text(json.dumps(metadata))
    (report,) = reports(tmp_path / below)
    assert isinstance(report, CaseReport)
    assert (report.case_id, report.licence) == ("PMC999001", "CC BY")
    assert report.structured is None
    metadata["is_retracted"] = True
    (folder / "PMC999001.1.json").write_text(json.dumps(metadata))
    (refusal,) = reports(tmp_path / below)
    assert isinstance(refusal, BadCase)
    assert refusal.reason == "retracted"


def test_files_of_one_name_come_in_one_order(tmp_path: Path) -> None:
    files = [f"PMC99900{number}{ending}" for number in range(8) for ending in (".txt", ".json")]
    for name in files:
        (tmp_path / name).write_text(TEXT)
    paths = [Path(str(report.path)).name for report in reports(tmp_path)]
    assert paths == sorted(files)


def test_an_older_version_is_the_duplicate_and_what_lies_apart_is_named(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for version in ("9", "10"):
        (folder := tmp_path / f"PMC999001.{version}").mkdir()
        (folder / f"{folder.name}.xml").write_text(article(f"<p>Version {version}.</p>"))
    (tmp_path / "PMC999002.1").mkdir()
    (tmp_path / "PMC999002.1" / "PMC999002.1.json").write_text('{"pmcid": "PMC999002"}')
    (tmp_path / "PMC999002.1" / "PMC999002.1.txt").write_text(TEXT)
    for name in ("PMC999003.1", "pictures", "more"):
        (tmp_path / name).mkdir()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "a.txt").write_text(TEXT)
    (tmp_path / "PMC999004.1").symlink_to(elsewhere)
    (tmp_path / "more" / "a.txt").write_text(TEXT)
    newest, older, lone, apart = reports(tmp_path)
    assert isinstance(newest, CaseReport)
    assert "Version 10." in newest.text
    assert str(older).startswith("duplicate_id")
    assert "PMC999002.1.json is PMC's metadata of an article whose .xml is missing" in str(lone)
    names = "PMC999003.1, PMC999004.1, more;"
    assert f"3 folders that are not read, or hold no article: {names}" in str(apart)


def test_a_box_behind_the_body_stands_where_it_is_cited(tmp_path: Path) -> None:
    cites = "<p>It came (<xref rid='b'/>).</p></sec><sec><title>Discussion</title><p>Others.</p>"
    box = "<floats-group><boxed-text id='b'><p>IgM positive.</p></boxed-text></floats-group>"
    (tmp_path / "a.xml").write_text(article(cites, box))
    (case,) = reports(tmp_path)
    assert isinstance(case, CaseReport)
    assert case.text.index("It came") < case.text.index("IgM") < case.text.index("Others.")


@pytest.mark.parametrize(
    ("code", "licence"), [("CC0", "CC0"), ("NO-CC CODE", None), ("TDM", None), (None, None)]
)
def test_a_code_of_no_licence_is_none(
    tmp_path: Path, code: str | None, licence: str | None
) -> None:
    (tmp_path / "PMC1.xml").write_text(re.sub("<perm.*</perm[a-z]*>", "", article()))
    (tmp_path / "PMC1.json").write_text(json.dumps({"pmcid": "PMC1", "license_code": code}))
    (case,) = read_cases(tmp_path, frozenset({"unlicensed"}))
    assert isinstance(case, CaseReport)
    assert case.licence == licence


def test_a_folder_of_folders_names_them(tmp_path: Path) -> None:
    (tmp_path / "2019" / "ward").mkdir(parents=True)
    (tmp_path / "2019" / "ward" / "a.txt").write_text(TEXT)
    (tmp_path / "scan.pdf").write_text("x")
    with pytest.raises(BadCase, match=r"no_cases.* 2019;.*scan\.pdf"):
        reports(tmp_path)
    (tmp_path / "a.xml").write_text(article())
    # What macOS keeps beside a file is none.
    (tmp_path / "._a.xml").write_bytes(b"\0\5")
    case, *others = reports(tmp_path)
    assert isinstance(case, CaseReport)
    assert [str(bad).partition(":")[0] for bad in others] == ["not_read", "not_read"]


def test_bullets_need_no_indentation_below_a_heading_that_is_none(tmp_path: Path) -> None:
    summary = (
        "**Chief Complaint:** Loose teeth.\n**Ancillary Tests:**\n- **Genetic Testing:** Variant"
        " in NOTCH2.\n- **Biochemistry:** Calcium normal.\n**Outcome:** Well."
    )
    case = {"case_summary": summary, "diagnosis_results": "Hajdu-Cheney syndrome"}
    file = tmp_path / "bench.json"
    file.write_text(json.dumps({"PMC1": {"raw_case": "Teeth", "generate_case": case}}))
    (report,) = reports(file)
    assert isinstance(report, CaseReport)
    assert report.structured
    results = {test.name: test.result for test in report.structured.tests}
    calcium = {"Calcium": "Biochemistry: Calcium normal."}
    assert results == {"Genetic Testing": "Variant in NOTCH2."} | calcium


def test_refused_rows_have_ids_of_their_own(tmp_path: Path) -> None:
    row = {
        "question": "What is this sign?",
        "answers": [],
        "patient_info": "",
        "physical_exams": "",
    }
    file = tmp_path / "nejm.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for _ in range(3)) + "{no json\n")
    refusals = reports(file)
    assert [refusal.case_id for refusal in refusals] == [
        "agentclinic-nejm-0000",
        "agentclinic-nejm-0001",
        "agentclinic-nejm-0002",
        "agentclinic-0003",
    ]


def test_what_the_case_cites_is_read_with_it_and_what_the_discussion_cites_is_not(
    tmp_path: Path,
) -> None:
    """A perfect extractor found no result of a caption that stood behind the discussion."""
    others = (
        "<table-wrap id='t2'><label>Table 2</label><table><tr><td>Smith 2009</td><td>ACTH 55"
        "</td></tr></table></table-wrap>"
    )
    own = TABLE.replace("<table-wrap>", "<table-wrap id='t1'>")
    body = (
        "<sec><title>2. Case Report</title><p>" + TEXT + "See <xref rid='t1'>Table 1</xref>.</p>"
        "</sec><sec><title>3. Discussion</title><p>Such nodules are rare. <xref rid='t2'>Table 2"
        "</xref> has those of others, and so has <xref rid='t1'>Table 1</xref>.</p></sec>"
    )
    source = article().replace(f"<sec><p>{TEXT}</p></sec>", body)
    assert body in source
    floats = f"<floats-group>{others}{own}</floats-group>"
    (tmp_path / "a.xml").write_text(source.replace("</article>", f"{floats}</article>"))
    (report,) = reports(tmp_path)
    assert isinstance(report, CaseReport)
    searched = Report(report.text).patient_sections()
    assert "Hormones | ACTH | 98 pg/mL" in searched
    assert "Smith 2009" not in searched
    assert "Smith 2009 | ACTH 55" in report.text
