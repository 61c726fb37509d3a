"""The pages of the privacy audits: the verdict, its figures, the plots, and the worst pairs as pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from manylens.audit import membership, memorisation
from manylens.errors import ManylensError
from manylens.evaluation.page import digits
from manylens.media import Image
from manylens.render import plot
from manylens.render.page import jpeg
from manylens.render.page import page as html

if TYPE_CHECKING:
    from manylens.audit.membership import Membership
    from manylens.audit.memorisation import Memorisation, Pair

_SHOWN = 360
_PAIRS = 24


def memorisation_page(found: Memorisation) -> str:
    """The page of a memorisation audit as HTML, with everything in it."""
    report = found.to_json()
    return _page(
        report,
        asked=f"Does {found.made} give back pictures of {found.train}?",
        meta=[
            f"{report['made']['pictures']} made pictures",
            f"{report['train']['pictures']} training pictures",
            f"{report['held_out']['pictures']} held-out pictures",
            f"features of {found.model}",
        ],
        about=memorisation.ABOUT,
        bad=found.level in ("copies", "closer"),
        pairs=[_shown(pair) for pair in found.pairs[:_PAIRS]],
        more=max(0, len(found.pairs) - _PAIRS),
        exposed=[],
        source="Features after Somepalli et al. (2023), ratio after Carlini et al. (2023), test after Meehan et al. "
        "(2020); intervals are 95 % bootstrap intervals over made pictures.",
    )


def membership_page(found: Membership) -> str:
    """The page of a membership audit as HTML, with everything in it."""
    report = found.to_json()
    whose = found.model or "the model"
    return _page(
        report,
        asked=f"Can one tell which pictures {whose} was trained on?",
        meta=[
            f"{report['members']['units']} members ({found.members})",
            f"{report['others']['units']} others ({found.others})",
            f"told by their {found.tally.figure}",
        ],
        about=membership.ABOUT,
        bad=found.level in ("weak", "strong"),
        pairs=[],
        more=0,
        exposed=report["exposed"],
        source="Attack after Yeom et al. (2018), read after Carlini et al. (2022); intervals are 95 % bootstrap "
        "intervals over the pictures of both groups.",
    )


def _page(report: Mapping[str, Any], **values: Any) -> str:
    plots = [
        {"title": one["title"], "svg": plot.draw_detail(one)}
        for one in report["details"].values()
        if one["kind"] == "curve"
    ]
    tables = [one for one in report["details"].values() if one["kind"] == "table"]
    return html(
        "manylens.audit", "privacy.html.j2", {"digits": digits}, report=report, plots=plots, tables=tables, **values
    )


def _shown(pair: Pair) -> dict[str, Any]:
    """A pair as the page shows it."""
    names: Sequence[tuple[str, str]] = (("made", pair.made_path), ("training", pair.train_path))
    facts = {
        "distance of features": digits(pair.distance),
        "by that of the next": digits(pair.ratio),
        "distance of pixels": digits(pair.pixels),
        "bits of the hash that differ": "-" if math.isnan(pair.pixels) else f"{pair.bits} of 64",
    }
    said = {"copy": "copy, mirrored" if pair.mirrored else "copy", "likeness": "likeness"}.get(pair.kind, "")
    pictures = [_picture(path, f"{name} picture") for name, path in names]
    return {
        "kind": said,
        "sure": pair.kind == "copy",
        "pictures": pictures,
        "made": pair.made,
        "train": pair.train,
        "facts": facts,
    }


def _picture(path: str, alt: str) -> Any:
    try:
        return jpeg(Image.of(path), alt, _SHOWN)
    except ManylensError:
        return None
