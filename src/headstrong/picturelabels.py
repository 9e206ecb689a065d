"""Names of the labels that pictures of each data set have: known without the data, so that a study can be checked."""

from __future__ import annotations

OBJECT_LABELS = ("shape", "colour", "texture", "size", "pose", "light", "background")

# In the order of list_attr_celeba.txt.
CELEBA_LABELS = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose",
    "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses",
    "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes",
    "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks", "Sideburns", "Smiling",
    "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace",
    "Wearing_Necktie", "Young",
)  # fmt: skip

# The fine annotation's attributes by group, in the order of its list_attr_cloth.txt.
DEEPFASHION_GROUPS: dict[str, tuple[str, ...]] = {
    "texture": ("floral", "graphic", "striped", "embroidered", "pleated", "solid", "lattice"),
    "sleeve": ("long_sleeve", "short_sleeve", "sleeveless"),
    "length": ("maxi_length", "mini_length", "no_dress"),
    "neckline": ("crew_neckline", "v_neckline", "square_neckline", "no_neckline"),
    "material": ("denim", "chiffon", "cotton", "leather", "faux", "knit"),
    "fit": ("tight", "loose", "conventional"),
}
DEEPFASHION_ATTRIBUTES = tuple(name for names in DEEPFASHION_GROUPS.values() for name in names)
DEEPFASHION_LABELS = ("category", *DEEPFASHION_ATTRIBUTES, *DEEPFASHION_GROUPS)
