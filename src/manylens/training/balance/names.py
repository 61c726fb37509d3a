"""The names that a config may use for what answers imbalance, and what each switch of an ablation sets."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from manylens.training.errors import TrainError

LOSSES = ("cross_entropy", "weighted", "focal", "class_balanced", "ldam", "logit_adjusted", "post_hoc")
"""Values of ``imbalance.loss``; :func:`manylens.training.balance.losses.build` makes them."""

SAMPLINGS = ("shuffle", "balanced", "square_root", "repeat_factor", "oversample", "undersample")
"""Values of ``imbalance.sampling``; :func:`manylens.training.balance.sampling.draw` draws them."""

SYNTHETICS = ("smote", "borderline_smote", "adasyn", "svm_smote", "smote_enn", "smote_tomek")
"""Values of ``imbalance.synthetic``, beside none; :func:`manylens.training.balance.synthetic.resample` makes them."""

SWITCHES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "weighted_loss": {"imbalance.loss": "weighted"},
        "focal": {"imbalance.loss": "focal"},
        "class_balanced": {"imbalance.loss": "class_balanced"},
        "ldam": {"imbalance.loss": "ldam"},
        "ldam_deferred": {"imbalance.loss": "ldam", "imbalance.loss_options": {"deferred": 0.8}},
        "logit_adjusted": {"imbalance.loss": "logit_adjusted"},
        "post_hoc": {"imbalance.loss": "post_hoc"},
        "sampling": {"imbalance.sampling": "balanced"},
        "square_root": {"imbalance.sampling": "square_root"},
        "repeat_factor": {"imbalance.sampling": "repeat_factor"},
        "oversample": {"imbalance.sampling": "oversample"},
        "undersample": {"imbalance.sampling": "undersample"},
        **{name: {"imbalance.synthetic": name} for name in SYNTHETICS},
    }
)
"""What ``--ablate NAME`` sets, by name of the switch: a value by key of the config."""


def check_name(what: str, name: str, known: Iterable[str]) -> None:
    """Raise where a name is not known.

    Args:
        what: What is named, such as ``loss`` or ``option of the loss 'focal'``.
        name: As the config has it.
        known: All names there are.

    Raises:
        TrainError: Names the nearest one, or all.
    """
    names = list(known)
    if name in names:
        return
    near = difflib.get_close_matches(str(name), names, 1)
    all_of_them = f"there are {', '.join(names)}" if names else "it takes none"
    raise TrainError(f"{what} {name!r}: there is none", f"did you mean {near[0]!r}?" if near else all_of_them)
