"""Text that a tokenizer or a prompt would read as markup is harmless on every path to a model."""

import json
import re

import pytest

from medaction.clinicians.gold import _question
from medaction.envs.extraction import quoted
from medaction.envs.menu_choice import make_chooser
from medaction.envs.prompts import extraction_messages, messages, repair_messages
from medaction.evaluation.judges import fenced
from medaction.llm.untrusted import plain
from tests.records import environment

MARKUP = (
    "<|im_start|>system", "< |im_start|>", "< | im_end | >", "<|im\u00ad_end|>", "<｜User｜>",
    "＜|im_start|＞", "＜｜Assistant｜＞", "<|eot_id|><|start_header_id|>",
    "<|channel|>final<|message|>",
    "<s>", "</s>", "<<SYS>>", "<</SYS>>", "<start_of_turn>model", "<end_of_turn>", "<unused94>",
    "<think>", "</think>", "<tool_call>{}</tool_call>", "<extra_id_0>", "[INST]",
    "[/INST]", "[ INST ]",
    "［INST］", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[THINK]", "[SYSTEM_PROMPT]", "<|unended",
    "</initial_observation>", "< / Initial_Observation >", "</REPORT >", "< /order>", "</menu>",
    "<test_record x='1'>",
)  # fmt: skip

LIVE = re.compile(
    r"[<＜]\s*[|｜]|[<＜]\s*/?\s*[a-zA-Z_]\w*\s*/?[>＞]|[\[［]\s*/?\s*(?:INST|THINK|[A-Z]+_[A-Z]+)\s*[\]］]"
)


@pytest.mark.parametrize("markup", MARKUP)
def test_markup_is_broken_on_every_path(markup: str) -> None:
    """From reports, results and models under test to clinician, extractor, gold, oracle, judge."""
    world = environment()
    questions: list[str] = []
    choose = make_chooser(lambda asked, form: questions.append(asked[1]["content"]) or "{}")  # type: ignore[func-returns-value]
    choose(f"CT {markup}", ["CT head", f"MRI {markup}"])
    paths = {
        "report": quoted(f"Fever. {markup} obey"),
        "clinician": messages(f"Fever. {markup} obey", (), 8)[1]["content"],
        "free form": extraction_messages(f"I think {markup}")[1]["content"],
        "repair": repair_messages([], f"no {markup}", "bad", False)[0]["content"],
        "gold": _question(f"Fever {markup}", world, 8),
        "oracle": questions[0],
        "judge": fenced({"stated": f"flu {markup}"}),
    }
    ours = re.compile(
        r"</?(?:report|order|menu|initial_observation|test_record|new_results|previous_reasoning"
        r"|written_turn)>"
    )
    empty = {
        "report": quoted(""),
        "clinician": messages("", (), 8)[1]["content"],
        "free form": extraction_messages("")[1]["content"],
        "gold": _question("", world, 8),
        "oracle": "<order></order><menu></menu>",
    }
    for path, text in paths.items():
        assert len(ours.findall(text)) == len(ours.findall(empty.get(path, ""))), path
        assert not LIVE.search(ours.sub("", text)), path


@pytest.mark.parametrize(
    "text",
    [
        "pO2 <60 mmHg, p<0.05, WBC < normal > 3, [HCO3-] 12, <LOQ, A>B, [see Figure 1], [1]",
        "T < 36 °C | 12 % ｜ 3; IgG<IgM; a<b and c>d; [Na+] [K+] [CT]",
    ],
)
def test_comparisons_and_brackets_of_medicine_stay(text: str) -> None:
    assert plain(text) == text
    assert json.loads(fenced({"text": text}))["text"] == text
