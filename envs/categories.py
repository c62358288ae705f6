"""Which of the five categories of the paper's Figure 7 a test belongs to, told from its name by keywords."""

import re

from envs.records import Category

# The first pattern that matches decides, so what is specific stands first: a 'CT-guided lung biopsy' is pathology, and
# 'MR spectroscopy' is imaging although 'spectroscopy' alone would be laboratory.
_KEYWORDS: tuple[tuple[Category, str], ...] = (
    (
        "pathology",
        r"biops|histo|patholog|cytolog|cytometry|immunohisto|immunofluor|\bihc\b|\bfna[bc]?\b|needle aspirat|pap smear"
        r"|bone marrow|microscopic (?:desc|exam)|frozen section|gross exam",
    ),
    (
        "physiologic",
        r"\becg\b|\bekg\b|electrocardio|holter|\beeg\b|electroenceph|\bemg\b|electromyo|nerve conduction|spirometr"
        r"|pulmonary function|lung function|polysomno|sleep|audio|hearing|tympanom|vestibul|nystagmo|dix.hallpike|manometr|urodynam"
        r"|uroflow|evoked|perimetr|visual (?:field|acuity)|tonometr|intraocular pressure|autonomic|tilt|treadmill|stress test"
        r"|walk test|vital signs|blood pressure|oximetr|oxygen saturation|behavio|psych|cognit|depression|anxiety|adhd|screening scale"
        r"|\bmmse\b|\bmoca\b|edrophonium|tensilon|schirmer|electroretino|capillaroscop|assessment|monitoring|diary|questionnaire",
    ),
    (
        "procedure",
        r"scopy\b|scopic|\begd\b|\bercp\b|puncture|\blp\b|centesis|catheteri[sz]ation|laparo(?:scop|tom)|explor|surg|intraoperative"
        r"|operative finding|skin prick|aspiration|thoracotomy|consult|nephrostomy|drainage",
    ),
    (
        "imaging",
        r"x.?rays?\b|radiograph|radiolog|\bct[av]?\b|\bcect\b|\bncct\b|\bhrct\b|tomograph|\bmr[aiv]\b|\bmrcp\b|magnetic resonance"
        r"|\bmr\b|ultraso|sonogra|doppler|duplex|echo\b|echocardio|\btt?e\b|\btee\b|\bpet\b|scintigra|\bspect\b|\bscans?\b|imaging|angiogra"
        r"|venogra|urogra|pyelogra|mammogra|barium|enema|fluorosco|cystogra|esophagram|densitom|\bdexa\b|orthopantomo|cephalom|\boct\b"
        r"|\be[bu]us\b|\bivus\b|arteriogra|cholangio|myelogra|hysterosalpingo|photogra|\bcbct\b|\bopg\b",
    ),
)  # fmt: skip


def category_of(name: str, container: str = "") -> Category:
    """The category of the test `name`; where the name tells nothing, the section it stood in decides; else laboratory.

    >>> category_of("CT chest"), category_of("Skin biopsy"), category_of("Hemoglobin"), category_of("Brain", "Imaging")
    ('imaging', 'pathology', 'laboratory', 'imaging')
    """
    for text in (name, container):
        for category, pattern in _KEYWORDS:
            if re.search(pattern, text.replace("_", " "), re.IGNORECASE):
                return category
    return "laboratory"
