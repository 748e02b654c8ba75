"""Builds a figure out of tubes: limbs in a walking pose, clothes, head, hair, hat and bags."""

import math
from collections.abc import Iterator

from descry.trainer.datasets.pedestrian_figure import (
    BAG,
    EYE,
    HAIR,
    HAT,
    HIP_HEIGHT,
    LIP,
    LOWER,
    SHOES,
    SKIN,
    STRAP,
    UPPER,
    Appearance,
    Build,
    Point,
    Pose,
    Tube,
    lean,
    lean_of,
)


def build_figure(appearance: Appearance, build: Build, pose: Pose) -> list[Tube]:
    """All tubes of a person, standing on y = 0."""
    child, female = appearance.age == "child", appearance.gender == "female"
    girth = (0.9 if child else 1.0) * (0.88 + 0.3 * build.width) * (0.93 if female else 1.0)
    angle = lean_of(appearance, build)
    upper = [*_torso(appearance, build, girth), *_arms(appearance, build, pose, girth), *_bags(appearance, build)]
    upper += _scaled_head(
        [*_head(appearance), *_hair(appearance, build), *_hat(appearance, build)], 1.32 if child else 1.06
    )
    leaning = [tube._replace(start=lean(tube.start, angle), end=lean(tube.end, angle)) for tube in upper]
    legs = list(_legs(appearance, build, pose, girth))
    lowest = min(min(tube.start[1] - tube.radii[0], tube.end[1] - tube.radii[-1]) for tube in legs)
    return [_raised(tube, -lowest) for tube in (*leaning, *legs)]


def _raised(tube: Tube, height: float) -> Tube:
    (x, y, z), (u, v, w) = tube.start, tube.end
    return tube._replace(start=(x, y + height, z), end=(u, v + height, w))


def _scaled_head(tubes: list[Tube], scale: float) -> list[Tube]:
    def scaled(point: Point) -> Point:
        return point[0] * scale, 0.862 + (point[1] - 0.862) * scale, point[2] * scale

    return [
        tube._replace(
            start=scaled(tube.start), end=scaled(tube.end), radii=tuple(radius * scale for radius in tube.radii)
        )
        for tube in tubes
    ]


def _torso(appearance: Appearance, build: Build, girth: float) -> Iterator[Tube]:
    female = appearance.gender == "female" and appearance.age != "child"
    profile = (0.034, 0.068, 0.098, 0.110, 0.106, 0.100, 0.096, 0.094, 0.095, 0.098)
    if female:
        profile = (0.030, 0.060, 0.085, 0.097, 0.095, 0.086, 0.079, 0.084, 0.096, 0.104)
    hem = 0.47 if build.garment > 0.25 or appearance.lower_kind == "skirt" else 0.44
    yield Tube(SKIN, (0, 0.82, -0.008), (0, 0.885, 0.002), (0.030 * girth, 0.026), flat=True)
    yield Tube(UPPER, (0, 0.852, -0.004), (0, hem, 0), tuple(girth * width for width in profile), 0.68, flat=True)
    if female:
        for side in (-1, 1):
            yield Tube(
                UPPER, (side * 0.040, 0.735, 0.034), (side * 0.040, 0.715, 0.036), (0.034 * girth, 0.036 * girth)
            )
    # The hem hangs clear of the thighs, which swing.
    yield Tube(UPPER, (0, 0.60, 0), (0, hem, 0), (profile[-4] * girth, profile[-1] * girth), 0.80, flat=True)
    yield Tube(LOWER, (0, 0.52, 0), (0, 0.46, 0), (0.082 * girth, 0.084 * girth, 0.05 * girth), 0.66, flat=True)


def _arm_angles(side: int, pose: Pose, carries: bool) -> tuple[float, float]:
    """Angles of the upper arm and of the forearm from straight down, forward positive, in radians."""
    if carries:
        return 0.1 * math.sin(pose.phase), 0.12
    if pose.arms > 0.86 and side > 0:
        return 0.5, 2.4
    if pose.arms > 0.74:
        return -0.35, 0.75
    swing = -side * math.sin(pose.phase) * pose.stride * 0.45
    return swing, swing + 0.12 + 0.3 * max(swing, 0) + 0.2 * pose.nod


def _arms(appearance: Appearance, build: Build, pose: Pose, girth: float) -> Iterator[Tube]:
    narrow = 0.9 if appearance.gender == "female" or appearance.age == "child" else 1.0
    carrying_side = 1 if build.bag_side > 0.5 else -1
    for side in (-1, 1):
        carries = "handbag" in appearance.bag and side == carrying_side
        upper_angle, fore_angle = _arm_angles(side, pose, carries)
        out = 0.10 + 0.08 * build.width + (0.08 if carries else 0)
        shoulder = (side * 0.098 * girth * narrow, 0.786, -0.004)
        yield Tube(UPPER, (side * 0.030, 0.832, -0.006), shoulder, (0.024, 0.033 * girth * narrow))
        elbow = _step(shoulder, side * out, upper_angle, 0.165)
        wrist = _step(elbow, side * out * 0.4, fore_angle, 0.145)
        hand = _step(wrist, 0.0, fore_angle + 0.2, 0.042)
        thick = 0.5 + 0.5 * girth
        if appearance.sleeves == "long":
            yield Tube(UPPER, shoulder, elbow, (0.033 * thick * narrow, 0.029 * thick))
            yield Tube(UPPER, elbow, wrist, (0.030 * thick, 0.024 * thick))
        else:
            yield Tube(
                UPPER, shoulder, _step(shoulder, side * out, upper_angle, 0.10), (0.033 * thick * narrow, 0.035 * thick)
            )
            yield Tube(SKIN, shoulder, elbow, (0.028 * thick, 0.024 * thick))
            yield Tube(SKIN, elbow, wrist, (0.024 * thick, 0.017))
        yield Tube(SKIN, wrist, hand, (0.015, 0.018))
        if carries:
            size = 0.042 + 0.02 * build.bag_size
            x, y, z = hand
            yield Tube(STRAP, (x, y - 0.01, z), (x, y - 0.07, z - 0.02), (0.006, 0.006))
            yield Tube(STRAP, (x, y - 0.01, z), (x, y - 0.07, z + 0.03), (0.006, 0.006))
            bottom = (x, y - 0.075 - 1.6 * size, z)
            yield Tube(BAG, (x, y - 0.065, z), bottom, (size * 0.8, size, size * 1.1), 1.25, flat=True)


def _step(start: Point, out: float, forward: float, length: float) -> Point:
    """The end of a bone that hangs from `start`, swung `forward` and `out` sideways, in radians."""
    down = length * math.cos(out)
    return start[0] + length * math.sin(out), start[1] - down * math.cos(forward), start[2] + down * math.sin(forward)


def _legs(appearance: Appearance, build: Build, pose: Pose, girth: float) -> Iterator[Tube]:
    shorten = 0.9 if appearance.age == "child" else 0.96 + 0.06 * build.leg_length
    reach = pose.stride * (0.3 if appearance.age == "senior" else 0.46)
    cloth = girth * (0.94 if appearance.gender == "female" else 1.0)
    for side in (-1, 1):
        swing = side * math.sin(pose.phase)
        thigh_angle = reach * swing + 0.04
        bend = (
            0.10 + pose.stride * 0.9 * max(0.0, side * math.cos(pose.phase)) ** 2 + 0.2 * max(0.0, -swing) * pose.stride
        )
        hip = (side * 0.047 * girth, HIP_HEIGHT - 0.03, 0.0)
        knee = _step(hip, 0.01, thigh_angle, 0.232 * shorten)
        ankle = _step(knee, 0.0, thigh_angle - bend, 0.225 * shorten)
        toe_drop = 0.5 * max(0.0, bend - 0.35)
        toe = (ankle[0] + side * 0.012, ankle[1] - 0.024 - 0.07 * toe_drop, ankle[2] + 0.075)
        heel = (ankle[0], ankle[1] - 0.022, ankle[2] - 0.012)
        yield Tube(SHOES, heel, toe, (0.021, 0.017))
        if appearance.boots == "yes":
            top = _toward(ankle, knee, 0.62)
            yield Tube(SHOES, top, ankle, (0.046 * cloth, 0.042 * cloth, 0.034 * cloth), flat=True)
            yield Tube(SHOES, ankle, heel, (0.030, 0.026))
        yield from _leg_cover(appearance, hip, knee, ankle, cloth)
    if appearance.lower_kind == "skirt":
        hem = 0.36 - 0.10 * build.skirt_length
        flare = 0.115 + 0.025 * build.leg_length + 0.02 * pose.stride
        yield Tube(
            LOWER,
            (0, 0.485, 0),
            (0, hem, 0),
            (0.094 * girth, 0.5 * (0.1 + flare) * girth, flare * girth),
            0.72 + 0.24 * pose.stride,
            flat=True,
        )


def _leg_cover(appearance: Appearance, hip: Point, knee: Point, ankle: Point, cloth: float) -> Iterator[Tube]:
    if appearance.lower_kind == "trousers":
        yield Tube(LOWER, hip, knee, (0.052 * cloth, 0.053 * cloth, 0.044 * cloth), flat=True)
        if appearance.boots == "yes":
            yield Tube(LOWER, knee, _toward(knee, ankle, 0.45), (0.044 * cloth, 0.040 * cloth))
        else:
            yield Tube(LOWER, knee, ankle, (0.044 * cloth, 0.040 * cloth, 0.036 * cloth))
        return
    yield Tube(SKIN, hip, knee, (0.048 * cloth, 0.034 * cloth))
    yield Tube(SKIN, knee, ankle, (0.034 * cloth, 0.036 * cloth, 0.020))
    yield Tube(SKIN, ankle, (ankle[0], ankle[1] - 0.01, ankle[2]), (0.020, 0.018))
    if appearance.lower_kind == "shorts":
        yield Tube(LOWER, hip, _toward(hip, knee, 0.85), (0.052 * cloth, 0.062 * cloth), flat=True)


def _toward(start: Point, end: Point, share: float) -> Point:
    x, y, z = (a + share * (b - a) for a, b in zip(start, end, strict=True))
    return x, y, z


def _head(appearance: Appearance) -> Iterator[Tube]:
    jaw = 0.024 if appearance.gender == "female" or appearance.age == "child" else 0.029
    yield Tube(SKIN, (0, 0.890, 0.012), (0, 0.955, 0.004), (jaw, 0.040, 0.043, 0.042), 1.18)
    yield Tube(SKIN, (0, 0.918, 0.060), (0, 0.909, 0.061), (0.006, 0.0075))
    yield Tube(LIP, (-0.010, 0.888, 0.043), (0.010, 0.888, 0.043), (0.006, 0.006))
    for side in (-1, 1):
        yield Tube(SKIN, (side * 0.044, 0.925, 0.0), (side * 0.045, 0.912, 0.002), (0.009, 0.007))
        yield Tube(EYE, (side * 0.015, 0.930, 0.049), (side * 0.021, 0.930, 0.047), (0.0055, 0.0055))


def _hair(appearance: Appearance, build: Build) -> Iterator[Tube]:
    puff = 1.0 + 0.14 * build.hair_volume
    if appearance.hat == "yes":
        yield Tube(HAIR, (0, 0.918, -0.014), (0, 0.948, -0.010), (0.044, 0.047), 1.12)
    else:
        yield Tube(HAIR, (0, 0.925, -0.016), (0, 0.958, -0.010), (0.046 * puff, 0.047 * puff), 1.12)
        yield Tube(HAIR, (-0.018, 0.976, 0.014), (0.018, 0.978, 0.014), (0.028 * puff, 0.028 * puff), 1.25)
    if appearance.hair_length == "long":
        fall = 0.79 - 0.08 * build.hair_fall
        yield Tube(HAIR, (0, 0.93, -0.026), (0, fall, -0.062), (0.050 * puff, 0.056 * puff, 0.054 * puff, 0.040), 0.62)
        for side in (-1, 1):
            side_end = (side * 0.056, fall + 0.03, 0.035)
            yield Tube(HAIR, (side * 0.041, 0.955, 0.008), side_end, (0.014, 0.019 * puff, 0.018 * puff, 0.011))
    if appearance.gender == "male" and appearance.age != "child" and build.beard > 0.6:
        yield Tube(HAIR, (0, 0.884, 0.018), (0, 0.896, 0.014), (0.029, 0.036), 1.2)


def _hat(appearance: Appearance, build: Build) -> Iterator[Tube]:
    if appearance.hat == "no":
        return
    if build.hat_kind < 0.35:
        yield Tube(HAT, (0, 0.962, -0.006), (0, 0.984, -0.008), (0.055, 0.046), 1.16)
        yield Tube(HAT, (0, 0.955, -0.004), (0, 0.973, -0.006), (0.058, 0.058), 1.16, flat=True)
    elif build.hat_kind < 0.7:
        yield Tube(HAT, (0, 0.960, -0.004), (0, 0.980, -0.008), (0.053, 0.045), 1.18, flat=False)
        yield Tube(HAT, (0, 0.962, 0.030), (0, 0.958, 0.088), (0.036, 0.030), 0.28)
    else:
        yield Tube(HAT, (0, 0.956, -0.004), (0, 0.966, -0.004), (0.096, 0.090), 1.05, flat=True)
        yield Tube(HAT, (0, 0.962, -0.004), (0, 1.014, -0.004), (0.056, 0.053, 0.046), 1.15, flat=True)


def _bags(appearance: Appearance, build: Build) -> Iterator[Tube]:
    if "backpack" in appearance.bag:
        size = 0.88 + 0.25 * build.bag_size
        bottom = 0.80 - 0.23 * size
        yield Tube(
            BAG, (0, 0.80, -0.100), (0, bottom, -0.108), (0.064 * size, 0.084 * size, 0.086 * size, 0.084 * size), 0.68
        )
        yield Tube(STRAP, (0, bottom + 0.10, -0.165), (0, bottom + 0.03, -0.165), (0.050 * size, 0.052 * size), 0.4)
    if "shoulder_bag" in appearance.bag:
        side = 1 if build.bag_side > 0.5 else -1
        size = 0.9 + 0.35 * build.bag_size
        top, bottom = 0.555, 0.555 - 0.115 * size
        at = (side * 0.118, top, 0.012)
        yield Tube(BAG, at, (side * 0.128, bottom, 0.012), (0.046 * size, 0.055 * size, 0.052 * size), 1.5, flat=True)
