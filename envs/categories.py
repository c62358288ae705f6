"""The major and the minor category of the paper's Figure 7 that a test belongs to, told from its
name by keywords."""

import re
from functools import cache

from medaction.envs.records import Category

# The first pattern that matches decides, so what is specific stands first: a 'CT-guided lung
# biopsy' is pathology, 'urine microscopy' no look inside the body. Surgery, consultation and
# assessment decide only where nothing else does: a 'post-surgical MRI' is imaging.
_MAJOR: tuple[tuple[Category, str], ...] = (
    (
        "laboratory",
        r"urinalysis|(?:urine|stool|fa?ecal|sputum|koh|afb|csf|fluid)\b.*microscop|drug (?:monitor|level)|\bfish\b|culture of"
        r"|\bbalf\b|lavage (?:fluid|culture|pcr|analysis)",
    ),
    (
        "pathology",
        r"(?<!post-)biops|histo(?!plasm)|patholog|cytolog|cytometry|immunophenotyp|immunohisto|immunochemistry|immunofluor"
        r"|\bdif\b|\bihc\b|\bfna[bc]?\b|needle aspirat|pap smear|bone marrow|(?:micro|macro)scopic"
        r"|(?:light|electron) microscop|frozen section|gross exam|resect\w* specimen|transbronchial|specimen",
    ),
    (
        "physiologic",
        r"\becg\b|\bekg\b|electrocardio|holter|telemetr|\beeg\b|electroenceph|\bemg\b|electromyo"
        r"|nerve (?:conduction|stimulation)|\bncs\b|spirometr|pulmonary function|lung function|\bpfts?\b|vital capacity"
        r"|\bdlco\b|peak flow|plethysmo|polysomno|sleep|audio|hearing|tympanom|vestibul|nystagmo|dix.hallpike|manometr"
        r"|urodynam|uroflow|evoked|perimetr|visual (?:field|acuity)|tonometr|intraocular pressure|ophthalm(?!.*ultraso)"
        r"|fund[ou]scop|slit.?lamp|eye exam|refraction|schirmer|electroretino|autonomic|tilt|treadmill|(?<!non)stress test"
        r"|exercise|ergometr|walk test|vital signs|blood pressure|(?<!co-)oximetr|oxygen saturation|ankle.brachial|behavio"
        r"|psych|cognit|depression|anxiety|adhd|screening scale|\bmmse\b|\bmoca\b|edrophonium|tensilon|ice pack|capillaroscop"
        r"|derm(?:at)?oscop|trichoscop|cardiotoco|fetal (?:heart|monitor)|non-?stress|hydrogen breath|pulp"
        r"|ph (?:monitor|stud|impedance)|diary|questionnaire",
    ),
    (
        "procedure",
        r"(?<!micro)(?<!fluoro)scopy\b|(?<!micro)(?<!macro)(?<!fluoro)scopic|endoscop|\bogd\b|\begd\b|\bercp\b|\be[bu]us\b"
        r"|\bfees\b|puncture|\blp\b|centesis|catheteri[sz]ation|electrophysiology stud|laparotom|thoracotomy|explorat"
        r"|intraoperative|operative finding|skin prick|patch test|aspiration|lavage|\bbal\b|bronchial (?:aspirat|wash|brush)"
        r"|nephrostomy|drainage",
    ),
    (
        "imaging",
        r"x.?rays?\b|\bcxr\b|\bkub\b|radiograph|radiolog|\b(?:ms)?ct[apvu]*\b|\b(?:ce|nc|hr|cb)ct\b|\bmscta\b|\bctpa\b"
        r"|tomograph|\b(?:nc|ce|f)?mr[aivu]\b|\bmrcp\b|\bcmr\b|\bdwi\b|\bswi\b|-weighted|magnetic resonance|\bmr\b|ultraso"
        r"|sonogra|\b(?:tv|tr|poc)?us\b|\busg\b|doppler|duplex|elastogra|fibroscan|echo\b|echocardio|\btt?e\b|\btee\b|\bpet\b"
        r"|scintigra|\bspect\b|\bscans?\b|octreoscan|renogra|gastric emptying|imaging|angiogra|venogra|urogra|pyelogra"
        r"|mammogra|barium|enema|swallow stud|\bvfss\b|upper gi s|fluorosco|cystogra|urethrogra|o?esophagram|densitom|\bdexa\b"
        r"|orthopantomo|cephalom|\boct\b|\bivus\b|arteriogra|arthrogra|cholangio|myelogra|hysterosalpingo|photogra|\bopg\b",
    ),
    (
        "laboratory",
        r"\blab|blood|serum|plasma|urine|stool|sputum|coagulation|hormon|serolog|cultur|infectio",
    ),
    ("procedure", r"surg|operative|consult|explor"),
    ("physiologic", r"assessment|monitoring"),
)  # fmt: skip

_OTHER: dict[Category, str] = {
    "laboratory": "unspecified laboratory",
    "imaging": "other imaging",
    "procedure": "other procedures",
    "physiologic": "other function tests",
    "pathology": "other pathology",
}

# Within a major category, likewise: the first pattern that matches decides. A culture of
# cerebrospinal fluid is microbiology.
_MINOR: dict[Category, tuple[tuple[str, str], ...]] = {
    "laboratory": (
        (
            "unspecified laboratory",
            r"ha?ematology (?:and|&|/)|blood (?:and|/) ?urine tests|routine (?:laboratory|blood) tests\b",
        ),
        (
            "genetics and molecular",
            r"genetic|exome|\bgene\b(?!.?xpert)|genotyp|karyotyp|mutation|chromosom|microarray|\bfish\b|methylation|\bnipt\b"
            r"|prenatal test|bcr.?abl|\bjak2|(?<!meta)genom|transcriptom|molecular|targeted sequenc",
        ),
        (
            "microbiology",
            r"cultur|gram.?stain|\bafb\b|acid.fast|ziehl|\bkoh\b|\bpcr\b|xpert|\bmngs\b|metagenom|sequenc|t.spot|quantiferon"
            r"|\bigra\b|interferon.gamma|tubercul|mantoux|\btb\b|trunat|hepatitis|\bhiv\b|\bhcv|\bhbv|\bhbs|\bebv|\bcmv|\bvzv"
            r"|\bhsv|\bhpv\b|herpes|covid|sars|influenza|viral|virus|bacter|fung|parasit|malaria|dengue|toxoplasm|syphilis"
            r"|vdrl|\brpr\b|treponem|lyme|borrel|brucell|bartonell|leptospir|legionell|rickettsi|coxiell|pneumoc|strepto"
            r"|\baso\b|staphyl|cryptococ|histoplasm|aspergill|galactomannan|glucan|candid|hydatid|echinococ|toxocar|strongyl"
            r"|schistos|leishman|trypanos|typhoid|widal|salmonell|clostridi|difficile|pylori|shiga|\btorch\b|\bst[di]\b|infect"
            r"|sputum|swab|susceptib|scraping|microbio|mononucleosis|monospot|ova and|\bpgl\b|chlamyd|gonorr|mycoplasm"
            r"|mycobact|\bkarius\b|cell-free dna|cfdna",
        ),
        (
            "tumor markers",
            r"tumou?r marker|\bcea\b|carcinoembryonic|\bca.{0,2}(?:125|15|19|27|72)|\bafp\b|fetoprotein|\bpsa\b"
            r"|prostate.specific|chromogranin|enolase|\bnse\b|cyfra|\bscc\b|\bhe4\b|inhibin",
        ),
        (
            "toxicology",
            r"toxic|drug|alcohol level|ethanol|heavy metal|\blead\b|mercury|arsenic|acetaminophen|paracetamol|salicyl|digoxin"
            r"|lithium",
        ),
        ("inflammatory markers", r"\bcrp\b|c.reactive|\besr\b|sedimentation|procalciton|inflammat"),
        (
            "coagulation",
            r"coagul|prothrombin|thromboplastin|\bpt\b|\ba?ptt\b|\binr\b|d.?dimer|fibrin|bleeding time|clotting"
            r"|factor (?:v|ix|x|assay)|willebrand|antithrombin|protein [cs]\b|thrombophil|anti.?xa\b|adamts.?13"
            r"|platelet function|thromboelast|ha?emosta",
        ),
        ("clinical chemistry", r"natriuretic|\b(?:pro-?)?bnp\b"),
        ("hematology", r"antiglobulin|coombs|hemoglobin electro|parietal|intrinsic factor|total iron"),
        (
            "immunology",
            r"antibod|\banti[- ]|\bana\b|\banca|\bena\b|autoimmun|rheumatoid|complement|\bc[34]\b|immunoglob"
            r"|\big[gaemd]\d?s?\b|electrophoresis|\bspep\b|\bupep\b|cryoglob|light chain|\bflc\b|bence.jones|myeloma|serolog"
            r"|immunolog|allerg|tryptase|\bcd\d+|subset|interleukin|\bil-\d|cytokine|transglutaminase|co?eliac|lupus"
            r"|cardiolipin|phospholipid|\bccp\b|ds-?dna|hla.b27",
        ),
        ("CSF and body fluids", r"\bcsf\b|cerebrospinal|fluid|\bbalf?\b|lavage|ascit|synovial|pleural|effusion|semen|sperm"),
        (
            "endocrine",
            r"thyroid|\btsh\b|\bf?t[34]\b|thyroxine|cortisol|\bacth\b|corticotrop|dexamethasone|aldoster|renin\b|metanephr"
            r"|catechol|\bvma\b|prolactin|hormon|endocrin|\bfsh\b|\blh\b|luteini|follicle|o?estra|testost|progest|\bdheas?\b"
            r"|androst|insulin|c.peptide|\bigf|parathyr|\bpth\b|hcg\b|gonadotrop|pregnancy test|a1c\b|glycated|tolerance test"
            r"|pituitar|adrenal|calcitonin|gastrin",
        ),
        ("urine and stool", r"urin(?!ogen)|dipstick|\bua\b|stool|fa?ecal|occult blood"),
        (
            "hematology",
            r"\bcbc\b|(?:blood|cell|platelet|differential) counts?|hemogram|ha?ematolog|ha?emoglobin|\bhg?b\b|ha?ematocrit"
            r"|\bhct\b|\bwbc|white|leu[ck]ocyt|neutrophil|lymphocyt|monocyt|eosinoph|basophil|\bbands\b|platelet|\bplt\b|\brbc"
            r"|red (?:blood )?cell|\bmc(?:v|hc?)\b|\brdw\b|reticulocyt|smear|blood film|ana?emia|\biron\b|ferritin|transferrin"
            r"|\btibc\b|\bb12\b|fol(?:ate|ic)|cobalamin|ha?emoly|haptoglobin|blood (?:group|typ)|cross.?match|\bg6pd\b"
            r"|erythropoietin",
        ),
        (
            "clinical chemistry",
            r"electrolyt|sodium|potassium|chlorid|calcium|magnes|phosph|bicarb"
            r"|\b(?:na|k|cl|ca2?|mg|cr|glu|hco3|bun|ck|cpk|ph)\b|liver|hepatic|\blfts?\b|\balt\b|\bast\b|\bsgp?[po]t\b|\balp\b"
            r"|\bggt\b|bilirubin|albumin|protein|globulin|creatin|urea|kidney|renal|uric|glucose|sugar|glyca?em|lipid|cholest"
            r"|triglyc|\b[hl]dl\b|amylase|lipase|\bldh\b|lact(?:ate|ic)|kinase|troponin|bnp\b|natriuretic|myoglobin|cardiac"
            r"|\bgas(?:es)?\b|\b[av]bg\b|osmol|ammonia|zinc|copper|co?erulo|vitamin|\bace\b|angiotensin|enzyme|metabol|chemi"
            r"|\b[bc]mp\b|ketone|homocyst|amino|organic acid|carnitine|porphyr|activity|sweat",
        ),
        ("microbiology", r"antigen"),
    ),
    "imaging": (
        ("mammography", r"mammogra|breast tomosynth"),
        ("ophthalmic imaging", r"\boct\b|coherence tomograph|fundus|fluorescein|corneal topo"),
        (
            "nuclear medicine and PET",
            r"\bpet\b|positron|scintigra|\bspect\b|bone scan|octreoscan|\bmibg\b|renogra|\bv/?q\b|ventilation.perf|gallium"
            r"|\bdmsa\b|gastric emptying|somatostatin|dota",
        ),
        ("echocardiography", r"echo\b|echocardio|\btt?e\b|\btee\b"),
        ("bone densitometry", r"densitom|\bdexa\b"),
        ("computed tomography", r"\b(?:ms)?ct[apvu]*\b|\b(?:ce|nc|hr|cb)ct\b|\bmscta\b|\bctpa\b|tomograph"),
        (
            "magnetic resonance imaging",
            r"\b(?:nc|ce|f)?mr[aivu]\b|\bmrcp\b|\bcmr\b|\bdwi\b|\bswi\b|-weighted|magnetic resonance|\bmr\b",
        ),
        ("ultrasound", r"ultraso|sonogra|\b(?:tv|tr|poc|iv|eb|e)?us\b|\busg\b|doppler|duplex|elastogra|fibroscan"),
        ("angiography", r"angiogra|arteriogra|venogra"),
        (
            "contrast fluoroscopy",
            r"barium|enema|swallow|\bvfss\b|upper gi|fluorosco|cystogra|urethrogra|esophagram|urogra|pyelogra|myelogra"
            r"|arthrogra|cholangio|hysterosalpingo",
        ),
        ("radiography", r"x.?rays?\b|\bcxr\b|\bkub\b|radiogra|plain film|orthopantomo|\bopg\b|cephalom|skeletal survey"),
    ),
    "procedure": (
        ("bronchoscopy", r"bronch|lavage|\bbal\b|\bebus\b"),
        ("ENT endoscopy", r"laryngosc|\bnas[ao]|rhinosc|otosc|pharyngosc|\bfees\b|swallow"),
        ("urogenital endoscopy", r"cystosc|ureterosc|urethrosc|hysterosc|colposc|vaginosc"),
        (
            "surgical exploration",
            r"laparosc|laparot|thoracosc|thoracot|mediastinosc|arthrosc|explor|surg|operat|\bvats\b|resect",
        ),
        ("gastrointestinal endoscopy", r"scopy\b|scopic|endoscop|\b[eo]gd\b|\bercp\b|\beus\b"),
        ("lumbar puncture", r"lumbar|spinal tap|\blp\b|\bcsf\b|cerebrospinal"),
        ("catheterization", r"catheter|angiogra|arteriogra|electrophysiolog|venous sampling|pressure"),
        ("aspiration and drainage", r"centesis|aspirat|drain|puncture|nephrost"),
        ("skin and provocation tests", r"prick|patch|provocation|challenge"),
        ("consultation", r"consult"),
    ),
    "physiologic": (
        ("ECG and rhythm monitoring", r"\be[ck]g\b|electrocardio|holter|telemetr|rhythm"),
        ("EEG and evoked potentials", r"\beeg\b|electroenceph|evoked"),
        ("EMG and nerve conduction", r"\bemg\b|electromyo|nerve|\bncs\b|edrophonium|tensilon|ice pack"),
        (
            "pulmonary function",
            r"spirometr|pulmonary|lung|\bpfts?\b|vital capacity|\bdlco\b|diffus|peak flow|plethysmo|broncho",
        ),
        ("sleep studies", r"sleep|polysomno"),
        ("hearing and balance", r"audio|hearing|tympanom|vestibul|nystagmo|hallpike|caloric|balance|gait|romberg"),
        ("ophthalmic tests", r"ophthal|perimetr|visual|tonometr|ocular|fund[ou]s|slit.?lamp|\beye|refraction|schirmer|retino"),
        ("urodynamics and manometry", r"urodynam|uroflow|manometr|residual volume|\bph\b|impedance"),
        (
            "cognitive and psychological",
            r"behavio|psych|cognit|depression|anxiety|adhd|mental|\bmmse\b|\bmoca\b|questionnaire|screening",
        ),
        (
            "exercise and hemodynamics",
            r"stress|exercise|ergometr|treadmill|walk|tilt|autonomic|blood pressure|orthostat|vital signs|oximetr|saturation"
            r"|brachial",
        ),
    ),
    "pathology": (
        ("flow cytometry", r"cytometr|immunophenotyp"),
        ("bone marrow", r"marrow"),
        ("cytology", r"cytolog|\bfna[bc]?\b|needle aspirat|pap smear|smear|brush"),
        ("immunostaining", r"immunofluor|\bdif\b"),
        ("histology", r"(?<!immuno)histo|biops|frozen section"),
        ("immunostaining", r"immuno|\bihc\b"),
        ("cytology", r"aspirat"),
        ("histology", r"patholog|microscopic|light microscop|specimen|gross|tissue"),
    ),
}  # fmt: skip

MINOR_CATEGORIES: dict[Category, tuple[str, ...]] = {
    category: (
        *dict.fromkeys(minor for minor, _ in rows if minor != _OTHER[category]),
        _OTHER[category],
    )
    for category, rows in _MINOR.items()
}
"""The minor categories of Figure 7 within each major one; the last of each gathers what the name
does not tell apart."""


def category_of(name: str, container: str = "") -> Category:
    """The major category of the test `name`; where the name tells nothing, the section it stood in
    decides; else laboratory.

    >>> category_of("CT chest"), category_of("Skin biopsy"), category_of("Hemoglobin"), category_of("Brain", "Imaging")
    ('imaging', 'pathology', 'laboratory', 'imaging')
    """
    for text in (name, container):
        for category, pattern in _MAJOR:
            if _finds(pattern, text):
                return category
    return "laboratory"


def minor_category_of(name: str, category: Category) -> str:
    """The minor category, one of MINOR_CATEGORIES[category], of the test `name` that belongs to
    this major category.

    >>> minor_category_of("Complete blood count", "laboratory"), minor_category_of("Coronary angiography", "procedure")
    ('hematology', 'catheterization')
    >>> minor_category_of("Routine tests", "laboratory")
    'unspecified laboratory'
    """
    return next(
        (minor for minor, pattern in _MINOR[category] if _finds(pattern, name)), _OTHER[category]
    )


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


def _finds(pattern: str, text: str) -> bool:
    return _compiled(pattern).search(text.replace("_", " ")) is not None
