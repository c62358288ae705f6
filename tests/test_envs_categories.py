"""The five major test categories and their minor ones, against names of real tests that were
labelled by reading."""

import pytest

from medaction.envs.categories import (
    MINOR_CATEGORIES,
    category_of,
    known_category,
    minor_category_of,
)
from medaction.words.tests import Category

# The distinct names of 300 tests drawn from the menus of AgentClinic and MedR-Bench, labelled from
# name and result before the keywords were written. A few names ('Post-Deterioration Tests') tell
# nothing of what their result is about.
LABELS = """
laboratory | unspecified laboratory | Bloodwork; Biological; Laboratory Findings; Lab tests;
    Initial labs; Laboratory results; Labs; Hematology and Biochemistry; Routine blood tests;
    Blood and urine tests; Laboratory Tests
laboratory | genetics and molecular | Whole exome sequencing; Genetic Tests; Non-invasive
    prenatal testing (NIPT); Genetic Testing
laboratory | microbiology | Hepatitis B Core IgG Antibody; Lab Results; Toxoplasma gondii IgG;
    Post-Deterioration Tests; PCR tests; Hepatitis A IgG Antibody; Wound Culture; Microbiology;
    PCR; Initial Gram staining of CSF; Serum Cryptococcal Antigen; Sputum studies; Karius Test
    (cfDNA); Hepatitis B Envelope Antigen; Blood Cultures
laboratory | tumor markers | CA 27–29; Blood Tests; CA 125; CA 19-9
laboratory | toxicology | Toxicology analysis of e-cigarette oil
laboratory | inflammatory markers | inflammatory markers; ESR; CRP
laboratory | coagulation | Coagulation Profile; INR; Prothrombin Time
laboratory | clinical chemistry | liver function; B-type Natriuretic Peptide; blood glucose;
    serum amylase; K; Blood gas analysis; Blood serum chemistry; Na; total protein; AST; Urea
    Nitrogen; Elevated lactate dehydrogenase (LDH) levels; creatinine; Bilirubin Direct;
    Alkaline Phosphatase; Bilirubin; ALT; Serum Electrolytes; potassium; LDH; lipase; Chemistry
    Panel; Lactate Dehydrogenase
laboratory | hematology | complete blood count; hemoglobin levels; Lymphocytes; Peripheral Blood
    Smear; Hemoglobin; CBC; Direct Coombs Test (DCT); platelet count; blood counts; Total WBC
    Count; Leukocyte Count; Iron Studies; Bands; hemogram
laboratory | immunology | Autoantibodies; antinuclear antibody; CD4+ count; Serology
laboratory | CSF and body fluids | CSF Analysis; CSF; cerebrospinal fluid; Cerebrospinal fluid
    analysis
laboratory | endocrine | Full endocrine workup; cortisol; Thyroid functional tests; Low cortisol
laboratory | urine and stool | Urinalysis; Urine WBC; Urine Blood; Routine Stool Examination
imaging | mammography | Mammography; 3D mammography
imaging | nuclear medicine and PET | PET/CT; PET-CT; FDG-PET/MRI; Postoperative imaging
    (octreoscan, PET scan)
imaging | echocardiography | Echocardiogram
imaging | computed tomography | CT abdomen; Abdominal CT scan; Abdominal CT; CT Chest; CT;
    Contrast-enhanced CT; Follow-up CT enterography; CT scan; Initial CT scan; Chest CT scan;
    Chest and Abdomen CT Scan; Abdominal contrast-enhanced CT; Contrast- enhanced CT and
    multiplanar reconstruction; Brain CT; CT angiography; CT of head and abdomen; Thoracic CT;
    Chest CT; Noncontrast CT; CT scan of temporal bone; CT of abdomen; CT of the abdomen; CT
    Chest/Neck
imaging | magnetic resonance imaging | MRI pelvis; MRI; Brain MRI; MRI Brain; Diffusion-weighted
    imaging (DWI); MRI findings; Cardiac MRI; MRI Spine; MRI of the Brain
imaging | ultrasound | Ultrasonography Abdomen/Pelvis; urinary ultrasounds; Abdominal
    Ultrasound; Ultrasonography; bladder ultrasound; Ultrasound; renal ultrasound;
    Ultrasonography (USG); Doppler ultrasound; Ultrasound (US); Postnatal Ultrasound; Abdominal
    ultrasonography; TVUS
imaging | angiography | Conventional Angiography
imaging | radiography | Chest X-ray; X-ray; Follow-up chest X-ray; Radiograph
    (orthopantomogram); Initial X-ray
imaging | other imaging | Metastatic workup
procedure | bronchoscopy | Fiberoptic bronchoscopy; Bronchoscopy (5 years ago)
procedure | ENT endoscopy | Electronic laryngoscopy
procedure | surgical exploration | Surgical Findings; Intraoperative findings
procedure | gastrointestinal endoscopy | Colonoscopy; Upper GI endoscopy; Anoscopy
procedure | catheterization | Initial Cardiac Catheterization
physiologic | ECG and rhythm monitoring | Telemetry; Electrocardiography; ECG; Electrocardiogram
    (ECG); Electrocardiogram and serial cardiac troponin levels
physiologic | EEG and evoked potentials | Electroencephalogram (EEG); EEG; Electroencephalogram
physiologic | EMG and nerve conduction | EMG; Electromyography; EMG/Nerve conduction studies
physiologic | pulmonary function | PFT; Pulmonary function; Pulmonary Function Tests; Spirometry
physiologic | hearing and balance | Dix-Hallpike Manoeuvre
physiologic | ophthalmic tests | Ophthalmologic Consult; Ophthalmic evaluation
physiologic | cognitive and psychological | Anxiety Screening
pathology | bone marrow | Bone marrow biopsy
pathology | cytology | Cytology of seroma; FNAC
pathology | immunostaining | Pathology and Immunochemistry; Immunohistochemistry (IHC); Direct
    Immunofluorescence; Immunohistochemistry; Immunohistochemical Testing; immunohistochemical
pathology | histology | Biopsy; Placental histopathology; Histopathology; Fine needle biopsy
    (right thoracic wall mass); Pathology (June and August); Renal Biopsy; Endometrial Biopsy;
    Surgical Pathology; Biopsy and Pathological Findings; Histology; Pathology; Histological
    examination from biopsy; Core-Needle Biopsy (CNB); Histological examination post- resection;
    Axillary lymph node biopsy; Core needle biopsy; Skin biopsy; Pathological Examination;
    Histopathology (post-resection); Lymph node biopsy; Pathology (core needle biopsy); Cervical
    Lymph Node biopsy; Histopathological examination; Frozen section histopathology;
    Post-resection histopathology
pathology | other pathology | Scanning Electron Microscopy (SEM)
"""
"""A line a label: the major category, the minor one, and the names; what is indented goes on."""
NAMES = [
    (name, *label)
    for line in LABELS.replace("\n    ", " ").strip().splitlines()
    for *label, names in [line.split(" | ")]
    for name in names.split("; ")
]


def test_categories_of_real_tests_agree_with_labels_made_by_reading() -> None:
    majors = [category_of(name) == major for name, major, _ in NAMES]
    minors = [minor_category_of(name, category_of(name)) == minor for name, _, minor in NAMES]
    assert len(NAMES) > 200
    assert sum(majors) / len(NAMES) >= 0.99
    assert sum(minors) / len(NAMES) >= 0.96


@pytest.mark.parametrize(
    ("name", "major", "minor"),
    [
        ("Urinalysis with microscopy", "laboratory", "urine and stool"),
        ("CSF culture", "laboratory", "microbiology"),
        ("B-type natriuretic peptide", "laboratory", "clinical chemistry"),
        ("Therapeutic drug monitoring", "laboratory", "toxicology"),
        ("Complete_Blood_Count", "laboratory", "hematology"),
        ("Coagulation assessment", "laboratory", "coagulation"),
        ("Post-surgical MRI", "imaging", "magnetic resonance imaging"),
        ("Fluoroscopy", "imaging", "contrast fluoroscopy"),
        ("Follow-up PET/CT (3 months post-biopsy)", "imaging", "nuclear medicine and PET"),
        ("Liver elastography", "imaging", "ultrasound"),
        ("Endoscopic ultrasound", "procedure", "gastrointestinal endoscopy"),
        ("Slit-lamp examination", "physiologic", "ophthalmic tests"),
        ("Dermoscopy", "physiologic", "other function tests"),
        ("Overnight telemetry", "physiologic", "ECG and rhythm monitoring"),
        ("CT-guided lung biopsy", "pathology", "histology"),
        ("Ultrasound-guided FNAC", "pathology", "cytology"),
        ("Bone marrow aspiration", "pathology", "bone marrow"),
        ("Post-surgical histopathology", "pathology", "histology"),
    ],
)
def test_what_is_specific_decides(name: str, major: Category, minor: str) -> None:
    assert (category_of(name), minor_category_of(name, major)) == (major, minor)


def test_a_history_is_no_histology() -> None:
    assert known_category("Family history") is None


def test_a_name_that_says_nothing_is_placed_by_its_section_without_a_minor_category() -> None:
    assert category_of("Brain", "Imaging") == "imaging"
    assert category_of("Chest X-ray", "Laboratory tests") == "imaging"
    assert category_of("Plain film of the legs", "Laboratory tests") == "imaging"
    for category, minors in MINOR_CATEGORIES.items():
        assert minor_category_of("Follow-up", category) == minors[-1]


def test_a_given_major_category_bounds_the_minor_one() -> None:
    assert minor_category_of("Cerebrospinal fluid analysis", "procedure") == "lumbar puncture"
    assert minor_category_of("Coronary angiography", "procedure") == "catheterization"
    assert minor_category_of("Coronary angiography", "imaging") == "angiography"
    for name, major, _ in NAMES:
        assert minor_category_of(name, major) in MINOR_CATEGORIES[major]
