"""Tests named in running text: 'Normal brain CT and urinalysis' names two."""

import re
from functools import cache

from medaction.envs.naming import REGIONS
from medaction.words.names import normalise
from medaction.words.tests import NAMES_IN_PROSE

# Names that stand for a test in a list of orders, and mostly for something else in prose.
_AMBIGUOUS = re.compile(
    r"na|k|cl|ca|mg|pt|tt|cr|ph|fe|tg|lp|rf|lh|e2|ck|hb|t3|t4|ua|dat|got|tee|differential|complement|iron|insulin|lead|csf|chemistry"
    r"|coagulation|hcv|hiv|syphilis|bone marrow"
)
# Too vague to be a test's name alone.
_VAGUE = re.compile(r"(?:imaging|cultures?|sequencing|serolog\w+|patholog\w+)", re.IGNORECASE)

_ABBREVIATIONS = r"""
(?:MRI|MRA|MRV|MRCP|CTA|MSCT|SPECT(?:[-/\ ]CT)?|DEXA|DXA|PET(?:[-/\ ]CT)?|CT|CECT|NCCT|HRCT|CBCT|TEE|TTE|EUS|FNAC?|EEG|EMG|ECG|EKG|PCRs?
|DIF|IFA|IIF|OCT|CMR|FISH|m?NGS|WES|WGS|MLPA|NIPT|BALF?|FNAB|KUB|TVUS|VEMP|VEP|USG|HIDA)
(?:\s(?:scans?|angiogra\w+))?
"""
_KINDS = r"""
x-?\s?rays?|radiogra\w+|computed\stomogra\w+|magnetic\sresonance(?:\simaging|\sangiogra\w+)?|ultraso\w+|sonogra\w+|doppler|echocardiogra\w+
|electrocardiogra\w+|electroencephalogra\w+|angiogra\w+|arteriogra\w+|scintigra\w+|bone\sscan|mammogra\w+|imaging
|bone\smarrow\s(?:aspirat\w+|biops\w+|examination|evaluation)|biops\w+|histopatholog(?!ically)\w+(?:\sexamination|\sanalysis)?
|histolog(?!ically)\w+(?:\sexamination)?|patholog\w+\sexamination|microscopic\sexamination|immunohistochem\w+|cytolog\w+|flow\scytometry
|immunofluorescence|cultures?|gram\sstain\w*|serolog\w+|karyotyp\w+
|(?:gene\s|genetic\s|mutation(?:al)?\s|molecular\s|methylation\s)+(?:testing|tests?|analysis|panel|profiling|studies)|genotyping
|(?:whole[-\s])?(?:exome|genome)(?:\ssequencing)?|(?:(?:next[-\s]generation|metagenomic|targeted|sanger)\s)*sequencing
|(?:chromosom\w+\s|snp\s)?micro-?arrays?|(?:array\s)?comparative\sgenomic\shybridi[sz]ation|(?:qf|rt|real-time|multiplex)[-\s]pcr
|gene-?xpert|xpert\smtb\w*|in\ssitu\shybridi[sz]ation|(?:indirect\s|direct\s)?immunofluorescen\w+\s(?:assay|test|stain\w*)
|broncho-?alveolar\slavage|amniocentesis|lumbar\spuncture|(?:light\s|electron\s)?microscop(?:ic\s(?:findings|analysis)|y)|frozen\ssections?(?:\s(?:analysis|histopathology))?|electroneuromyogra\w+|laser\smicrodissection
|(?:right\s|left\s)?(?:heart|cardiac)\scatheteri[sz]ation|fluoroscopy|lymphoscintigra\w+|electrophysiolog\w+\sstudy
|susceptibility\stest\w*|protein\selectrophoresis|immunofixation
|\w*(?:endo|gastro|colono|broncho|cysto|laparo|laryngo|hystero|arthro|sigmoido|dermo|fundo|thoraco|nasopharyngo)scop\w+
|spirometry|audiometry|manometry|uroflowmetry|polysomnography|cephalometric\sanalysis|slit[-\s]lamp\sexamination
|ophthalm\w+\sexamination|visual\sfield\w*|optical\scoherence\stomography|nerve\sconduction\sstud\w+|electromyogra\w+
|urodynamic\w*
"""


@cache
def _mention() -> re.Pattern[str]:
    """A test, with the region before it ('left axillary lymph node biopsy') and after it ('MRI of
    the spine')."""
    names = {
        name
        for names in NAMES_IN_PROSE.values()
        for name in names
        if not _AMBIGUOUS.fullmatch(name)
    }
    labs = "|".join(
        r"[\s-]+".join(map(re.escape, name.split()))
        for name in sorted(names, key=len, reverse=True)
    )
    words = {*REGIONS, "spinal", "cervical", "lumbar", "axillary", r"lymph\snode", "whole-body"}
    region = rf"(?:{'|'.join(sorted(words, key=len, reverse=True))})"
    before = r"(?:left|right|contrast-enhanced|non-?contrast|transvaginal|serum|urine|urinary|blood|plain|high-resolution|doppler)\s+"
    return re.compile(
        rf"""\b(?i:{before})*
        (?:(?i:{region}(?:\s+and\s+{region})?\s+)*(?:{_ABBREVIATIONS}|(?i:{_KINDS}))|(?i:{labs}))\b
        (?i:\s+of\s+(?:the\s+)?(?:(?:left|right)\s+)?{region}(?:\s+and\s+{region})?\b)?""",
        re.VERBOSE,
    )


def named_tests(text: str) -> tuple[str, ...]:
    """The tests that running text names, in its own words and order, each once.

    >>> named_tests("Normal brain CT, chest X-ray and urinalysis; MRI of the spine showed a mass.")
    ('brain CT', 'chest X-ray', 'urinalysis', 'MRI of the spine')
    """
    found = (" ".join(mention[0].split()) for mention in _mention().finditer(text))
    return tuple({normalise(name): name for name in found if not _VAGUE.fullmatch(name)}.values())
