"""Text out of HTML: tags go, a report's own angle brackets stay."""

import pytest

from medaction.words.html_text import without_html


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("CRP <5 mg/L, K >3.5", "CRP <5 mg/L, K >3.5"),
        ("Troponin <LLN<br>ferritin <LOD", "Troponin <LLN\nferritin <LOD"),
        ("CRP <b>high</b>, IgG<LOD and CK>ULN", "CRP high, IgG<LOD and CK>ULN"),
        ("value &lt;5 mg<br/>next", "value <5 mg\nnext"),
        ("<p>a<script>if (x<y) run()</script>b</p>", "ab"),
        ("<html><body><article>Fever <b>of 39</b></article></body></html>", "Fever of 39"),
        ("<html><body><summary>More</summary>IgA 3.9 g/L</body></html>", "More\nIgA 3.9 g/L"),
        ("**Fever**\n\n<!-- vasculitis? -->\nfor <!-- 3 days", "**Fever**\n\n\nfor <!-- 3 days"),
        (
            "<table><tr><td><p>ALT</p></td><td><p>212</p></td></tr><tr><td>AST<td>9</table>End",
            "ALT \t 212\nAST\t9\nEnd",
        ),
        ("A\n\n<table>\n<tr>\n<td>K</td>\n<td>6</td>\n</tr>\n</table>\nB", "A\nK \t6\nB"),
        ("<dl><dt>Iron</dt><dd>4</dd><dt>Zinc<dd>9</dl>Later", "Iron\t4\nZinc\t9\nLater"),
        ("Leucocytes 9 x 10<sup>9</sup>/L", "Leucocytes 9 x 10^9/L"),
    ],
)
def test_tags_go_and_less_than_stays(page: str, text: str) -> None:
    assert without_html(page) == text
