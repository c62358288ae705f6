"""The two views of a dataset's composition in the paper's Figure 6: primary body system and disease
type."""

BODY_SYSTEMS = (
    "Blood, Heart and Circulation",
    "Bones, Joints and Muscles",
    "Brain and Nerves",
    "Digestive System",
    "Ear, Nose and Throat",
    "Endocrine System",
    "Eyes and Vision",
    "Female Reproductive System",
    "Immune System",
    "Kidneys and Urinary System",
    "Lungs and Breathing",
    "Male Reproductive System",
    "Mouth and Teeth",
    "Skin, Hair and Nails",
)
"""MedlinePlus' groups of health topics by body location, which MedR-Bench uses too."""

DISEASE_TYPES = (
    "Cancers",
    "Degenerative and Structural",
    "Diabetes Mellitus",
    "Genetics/Birth Defects",
    "Immune and Inflammatory",
    "Infections",
    "Injuries and Wounds",
    "Mental Health and Behavior",
    "Metabolic Problems",
    "Other",
    "Poisoning, Toxicology, Environmental Health",
    "Pregnancy and Reproduction",
    "Substance Use and Disorders",
    "Vascular and Circulatory",
)
"""MedlinePlus' groups of disorders and conditions, with three of ours for what they leave out."""
