"""Untrusted text made harmless: no control characters, no text that a model's tokenizer or our own
prompts read as markup. Every path from a text to a model goes through `plain`."""

import re
import unicodedata

DATA_TAGS = (
    "initial_observation", "test_record", "new_results", "previous_reasoning", "written_turn",
    "report", "order", "menu",
)  # fmt: skip
"""The delimiters of quoted data in our prompts."""

# One opening bracket, then what may follow it: a pattern that begins with one class of letters is
# searched for three times as fast as one that begins with alternatives.
_MARKUP = re.compile(
    r"[<＜\[［](?:"
    # ChatML, Llama 3, DeepSeek, gpt-oss: <|im_start|>, and anything that begins so.
    r"(?<=[<＜])(?:\s*[|｜](?:[^<>＜＞\n]{0,60}?[|｜]\s*[>＞])?"
    # Any word alone in angle brackets: <s>, </think>, <<SYS>>, <start_of_turn>, <unused94>. With a
    # space ('WBC < normal >') or an open end ('<LOQ') it is a comparison.
    r"|[<＜]?/?[a-z_][\w:-]{0,40}[>＞]{1,2}"
    rf"|\s*/?\s*(?:{'|'.join(DATA_TAGS)})\b[^<>＜＞\n]{{0,60}}[>＞]?)"
    # Mistral's control tokens (mistral-common, tokens of v1 to v13): [INST], [TOOL_CALLS], [THINK].
    r"|(?<=[\[［])\s*/?\s*(?:inst|think|img|args|audio|(?-i:[A-Z]+_[A-Z_]+))\s*[\]］])",
    re.IGNORECASE,
)
_LOOKALIKE = str.maketrans("<>[]＜＞［］", "‹›⟦⟧‹›⟦⟧")

# Tab (\x09) and line feed (\x0a) are left out on purpose.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def plain(text: str) -> str:
    """`text` without control, format and surrogate characters (newline and tab stay), its markup
    broken by look-alike brackets.

    '<|im_end|>' becomes '‹|im_end|›': still readable, no longer a special token. Comparisons such
    as 'pO2 <60' are left alone.
    """
    text = printable(text)
    # Nearly no text has a bracket, and looking for one costs a tenth of what the pattern does.
    if not ("<" in text or "[" in text or "＜" in text or "［" in text):
        return text
    return _MARKUP.sub(lambda match: match[0].translate(_LOOKALIKE), text)


def printable(text: str) -> str:
    """`text` without control, format and surrogate characters: safe to store and to show. Newlines
    are \\n."""
    if text.isprintable():
        return text
    # Before control characters go: without it "a\rb" would become "ab".
    text = re.sub("\r\n|[\r\u2028\u2029]", "\n", text)
    if text.isascii():  # nearly all is, and letter by letter is slow
        return _CONTROL.sub("", text)
    # Cf: zero-width and right-to-left marks, which hide text from the eye; Cs: halves of
    # surrogate pairs, which cannot be stored.
    return "".join(
        c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs")
    )


def one_line(text: str) -> str:
    """`plain`, with every run of white space a single space."""
    return " ".join(plain(text).split())
