"""The words of the demo's shifted validation rows: neither trained nor tested on.

Who chooses by rows with the parts and words of the tests has tested on them already.
"""

from __future__ import annotations

from dataclasses import replace

from mlx_rsft.data.demo_words import TRAINED

OTHER_PARTS = replace(
    TRAINED,
    parts=("grinder", "label printer", "hoist", "vacuum table", "kiln", "shaker"),
    stations=("yard 1", "hall 8", "tool room", "mezzanine"),
)
OTHER_PHRASINGS = replace(
    TRAINED,
    symptoms={
        "bearing noise": (
            "{part} rasps with every rev",
            "something in {part} hums and scrapes, race is worn",
            "chirping from the {part} journal",
        ),
        "oil leak": (
            "greasy drops at the foot of {part}",
            "{part} sump half empty, wet below",
            "{part} spits oil from a gasket",
        ),
        "loose bolts": (
            "{part} fasteners undone",
            "{part} shifts when pushed, anchor gone slack",
            "found a washer and a bolt beside {part}",
        ),
        "overheating": (
            "{part} glows and stinks",
            "{part} paint blistered from heat",
            "cooling cant hold {part}, climbing past 90",
        ),
        "misalignment": (
            "{part} axis skewed",
            "{part} leans, cuts come out slanted",
            "{part} coupling faces dont meet",
        ),
        "worn belt": (
            "v belt of {part} cracked and glazed",
            "{part} pulley turns, belt doesnt",
            "strap on {part} nearly through",
        ),
        "sensor fault": (
            "{part} detector always says yes",
            "{part} feedback jumps around, probe suspect",
            "limit switch of {part} not responding",
        ),
        "power fault": (
            "{part} loses current now and then",
            "{part} phase missing at the terminals",
            "{part} socket charred, display black",
        ),
        "jam": (
            "{part} seized on a foreign piece",
            "debris piled up in {part}, stands still",
            "{part} chute plugged",
        ),
        "low pressure": (
            "{part} pump up takes forever, reads 1 bar",
            "{part} cylinder limp",
            "supply to {part} sagging, barely 20 psi",
        ),
        "rust": (
            "{part} oxidised, surface rough and red",
            "damp has bitten into {part}",
            "{part} guard rusty like an old nail",
        ),
        "crack": (
            "{part} plate has a fissure",
            "{part} snapped near the flange",
            "gap opening across {part} body",
        ),
    },
)
