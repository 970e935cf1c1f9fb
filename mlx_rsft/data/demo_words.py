"""The words of the demo notes: what is trained on, and two ways of leaving it.

No part, station or symptom of one wording occurs in the wording that replaces it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

ACTIONS = {
    "bearing noise": "replace the bearing and grease it",
    "oil leak": "change the seal and wipe the floor",
    "loose bolts": "tighten to torque and mark",
    "overheating": "clean the fan and let it cool",
    "misalignment": "realign the shaft and measure",
    "worn belt": "fit a new belt and set tension",
    "sensor fault": "swap the sensor and test it",
    "power fault": "lock out and check the wiring",
    "jam": "stop and clear the blockage",
    "low pressure": "refill and bleed the lines",
    "rust": "sand and repaint the surface",
    "crack": "take out of use and weld",
}
"""What to do about each defect."""

REMARKS = (
    "line is down",
    "still running",
    "had to stop it",
    "no rush",
    "pls look",
    "told day shift",
    "3rd time this wk",
    "parts ok so far",
)
"""Said in any note, whatever the defect."""


@dataclass(frozen=True, slots=True)
class Wording:
    """What a split may be written with; ``symptoms`` has phrases for every defect."""

    parts: Sequence[str]
    stations: Sequence[str]
    symptoms: Mapping[str, Sequence[str]]


TRAINED = Wording(
    parts=(
        *("coolant pump", "feed roller", "gearbox", "spindle", "conveyor", "blower"),
        *("index table", "hydraulic press", "clamp unit", "robot arm", "main drive"),
    ),
    stations=("cell 2", "cell 4", "line 3", "line 6", "bay 7", "st 11"),
    symptoms={
        "bearing noise": (
            "{part} grinding when it spins",
            "rumbling sound from {part}",
            "{part} howls at high rpm",
            "dry growl out of {part}",
            "bearing of {part} knocks",
            "{part} loud, bearing noise",
        ),
        "oil leak": (
            "{part} dripping oil",
            "oil puddle under {part}",
            "{part} wet w/ oil all over",
            "losing oil at {part}",
            "leak at {part}, oil on floor",
            "{part} seal leaks",
        ),
        "loose bolts": (
            "bolts came loose on {part}",
            "{part} rattles, screws half out",
            "2 nuts missing on {part}",
            "{part} cover flapping, bolt loose",
            "{part} loose on its base",
            "mount screws of {part} not tight",
        ),
        "overheating": (
            "{part} too hot to touch",
            "temp alarm on {part}",
            "{part} smells burnt, 95 deg",
            "motor of {part} running hot",
            "{part} overheats after 1h",
            "heat coming from {part}",
        ),
        "misalignment": (
            "{part} sits crooked",
            "{part} runs off center",
            "{part} out of line by 2 mm",
            "{part} pulls to the left",
            "{part} shaft misaligned",
            "{part} is tilted",
        ),
        "worn belt": (
            "belt slipping on {part}",
            "{part} belt frayed",
            "belt on {part} squeals",
            "{part} belt worn thin",
            "{part} belt came off",
            "old belt on {part}, teeth gone",
        ),
        "sensor fault": (
            "{part} sensor reads nonsense",
            "no signal from {part} sensor",
            "{part} prox switch dead",
            "{part} sensor flickers on off",
            "{part} shows wrong values",
            "encoder fault on {part}",
        ),
        "power fault": (
            "{part} trips the breaker",
            "fuse blew on {part}",
            "{part} has no power",
            "sparks at the {part} plug",
            "{part} dead, no volts",
            "electric fault on {part}",
        ),
        "jam": (
            "{part} jammed w/ chips",
            "pieces stuck in {part}",
            "{part} blocked, wont move",
            "scrap wedged in {part}",
            "{part} jams every hour",
            "blockage in {part}",
        ),
        "low pressure": (
            "low pressure on {part}",
            "{part} gauge down to 2 bar",
            "{part} has no force",
            "air pressure drops at {part}",
            "{part} weak, under 3 bar",
            "cant build pressure on {part}",
        ),
        "rust": (
            "rust on {part}",
            "{part} corroded at the base",
            "brown flakes coming off {part}",
            "{part} pitted and rusty",
            "corrosion all over {part}",
            "{part} rusting, paint gone",
        ),
        "crack": (
            "crack in {part} frame",
            "{part} housing split",
            "{part} bracket broke",
            "hairline crack along {part}",
            "{part} cracked at the weld",
            "broken foot on {part}",
        ),
    },
)
NEW_PARTS = replace(
    TRAINED,
    parts=("lathe", "drill head", "mixer", "palletizer", "winder", "saw", "oven fan"),
    stations=("dock 5", "pit 9", "paint shop", "annex"),
)
NEW_PHRASINGS = replace(
    TRAINED,
    symptoms={
        "bearing noise": (
            "{part} sounds like gravel inside",
            "bad noise from the {part} bearings",
            "{part} screeches on every turn",
            "whining bearing in {part}",
        ),
        "oil leak": (
            "lube seeping out of {part}",
            "{part} leaking again, slick floor",
            "{part} sweats hydraulic fluid",
            "oily trail below {part}",
        ),
        "loose bolts": (
            "{part} wobbles, could turn nuts by hand",
            "threads backed out on {part}",
            "{part} bolts shaking free",
            "a screw fell out of {part}",
        ),
        "overheating": (
            "smoke coming off {part}",
            "{part} gets very warm, 110 c",
            "thermometer on {part} way over limit",
            "{part} stopped on over temp",
        ),
        "misalignment": (
            "{part} not square anymore",
            "{part} drifts sideways",
            "{part} needs aligning, uneven gap",
            "shaft of {part} not straight",
        ),
        "worn belt": (
            "drive belt of {part} in shreds",
            "{part} drive band hangs slack",
            "torn belt, {part} stands",
            "rubber dust under {part}",
        ),
        "sensor fault": (
            "{part} readout frozen at zero",
            "photo eye on {part} blind",
            "{part} does not see the piece any more",
            "{part} sensors give false alarms",
        ),
        "power fault": (
            "{part} kills the mains each start",
            "short circuit in {part}",
            "burnt cable on {part}, lights out",
            "{part} wont power up",
        ),
        "jam": (
            "{part} clogged up with swarf",
            "{part} choked on a bent blank",
            "something caught inside {part}",
            "{part} jam, cant turn it",
        ),
        "low pressure": (
            "{part} feels feeble, needle near zero",
            "{part} cant keep its psi",
            "not enough air reaching {part}",
            "{part} pressure too small",
        ),
        "rust": (
            "{part} eaten away by moisture",
            "orange crust around {part}",
            "{part} all rusted through",
            "water got at {part}, corroding",
        ),
        "crack": (
            "{part} fractured at the corner",
            "{part} casting came apart",
            "seam of {part} torn open",
            "cracks showing on {part}",
        ),
    },
)
