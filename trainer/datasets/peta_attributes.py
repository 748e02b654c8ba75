"""The 105 attributes of PETA in ASMR's 17 groups, and the 35 of them that attribute recognition is measured on.

One group a line: name, kind, part, then value=attribute of the file; `*` marks the 35. `multi` where the labels set
several values at once. The list of lower textures in ASMR's released code names the luggage case a second time where
the thin stripes are meant: here every attribute is in exactly one group.
"""

from descry.trainer.schema import AttributeGroup, AttributeSchema

COLORS = "Black Blue Brown Green Grey Orange Pink Purple Red White Yellow".split()


def _colors(prefix: str) -> str:
    return " ".join(f"{color.lower()}={prefix}{color}" for color in COLORS)


TABLE = f"""
age           multi  identity under_15=personalLess15 16_to_30=personalLess30* 31_to_45=personalLess45* \
46_to_60=personalLess60* over_60=personalLarger60*
carrying      multi  carrying backpack=carryingBackpack* other=carryingOther* messenger_bag=carryingMessengerBag* \
nothing=carryingNothing* plastic_bags=carryingPlasticBags* baby_buggy=carryingBabyBuggy \
shopping_trolley=carryingShoppingTro umbrella=carryingUmbrella folder=carryingFolder \
luggage_case=carryingLuggageCase suitcase=carryingSuitcase
upper_style   multi  upper    casual=upperBodyCasual* formal=upperBodyFormal*
lower_style   choice lower    casual=lowerBodyCasual* formal=lowerBodyFormal*
accessory     multi  head     hat=accessoryHat* muffler=accessoryMuffler* nothing=accessoryNothing* \
sunglasses=accessorySunglasses* headphone=accessoryHeadphone hair_band=accessoryHairBand kerchief=accessoryKerchief
footwear      multi  lower    leather_shoes=footwearLeatherShoes* sandals=footwearSandals* shoes=footwearShoes* \
sneakers=footwearSneaker* boots=footwearBoots stockings=footwearStocking
upper_kind    multi  upper    jacket=upperBodyJacket* t_shirt=upperBodyTshirt* other=upperBodyOther* \
v_neck=upperBodyVNeck* suit=upperBodySuit sweater=upperBodySweater
lower_kind    multi  lower    jeans=lowerBodyJeans* shorts=lowerBodyShorts* short_skirt=lowerBodyShortSkirt* \
trousers=lowerBodyTrousers* hot_pants=lowerBodyHotPants long_skirt=lowerBodyLongSkirt suit=lowerBodySuits
upper_texture multi  upper    logo=upperBodyLogo* plaid=upperBodyPlaid* thin_stripes=upperBodyThinStripes* \
thick_stripes=upperBodyThickStripes
lower_texture choice lower    capri=lowerBodyCapri plaid=lowerBodyPlaid thin_stripes=lowerBodyThinStripes
gender        choice identity male=personalMale* female=personalFemale
hair          multi  head     long=hairLong* bald=hairBald short=hairShort
upper_color   multi  upper    {_colors("upperBody")}
lower_color   multi  lower    {_colors("lowerBody")}
hair_color    multi  head     {_colors("hair")}
footwear_color multi lower    {_colors("footwear")}
sleeves       multi  upper    short=upperBodyShortSleeve* long=upperBodyLongSleeve sleeveless=upperBodyNoSleeve
"""
# Of these groups the labels mean one value an image.
ONE_VALUE = ("age", "gender", "upper_style", "lower_style", "sleeves")


def _read(selected_only: bool) -> tuple[tuple[AttributeGroup, ...], tuple[str, ...]]:
    groups, attributes = [], []
    for line in TABLE.strip().splitlines():
        name, kind, part, *pairs = line.split()
        chosen = [pair.rstrip("*").split("=") for pair in pairs if pair.endswith("*") or not selected_only]
        values = tuple(value for value, _ in chosen)
        if len(values) == 1:
            kind, values = "binary", ("female" if name == "gender" else f"not_{values[0]}", values[0])
        if values:
            groups.append(AttributeGroup(name, values, kind, part))
            attributes += [attribute for _, attribute in chosen]
    return tuple(groups), tuple(attributes)


# Schema, and the attribute of the file for each of its elements.
SCHEMAS: dict[str, tuple[AttributeSchema, tuple[str, ...]]] = {}
for _name, _selected_only in (("peta", False), ("peta35", True)):
    _groups, _attributes = _read(_selected_only)
    SCHEMAS[_name] = (AttributeSchema(_name, _groups), _attributes)
