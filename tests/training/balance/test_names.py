"""The names of a config: each switch sets something that exists."""

import inspect

import pytest

from manylens.training.balance import losses, names, sampling, synthetic
from manylens.training.errors import TrainError


@pytest.mark.parametrize("switch", names.SWITCHES)
def test_every_switch_can_be_thrown(switch):
    sets = names.SWITCHES[switch]
    values = {key.removeprefix("imbalance."): value for key, value in sets.items()}
    assert len(values) == len(sets)
    assert values
    if "loss" in values:
        losses.build(values["loss"], [5, 2], **values.get("loss_options", {}))
    if "sampling" in values:
        sampling.draw(values["sampling"], [0, 0, 1], seed=0, epoch=0, **values.get("sampling_options", {}))
    assert values.get("synthetic", "smote") in names.SYNTHETICS
    assert set(values) <= {"loss", "loss_options", "sampling", "sampling_options", "synthetic"}


def test_no_two_switches_are_the_same_and_all_kinds_have_one():
    assert len({repr(sets) for sets in names.SWITCHES.values()}) == len(names.SWITCHES)
    thrown = {value for sets in names.SWITCHES.values() for value in sets.values() if isinstance(value, str)}
    plain = {"cross_entropy", "shuffle"}
    assert thrown == {*names.LOSSES, *names.SAMPLINGS, *names.SYNTHETICS} - plain


def test_the_tables_of_names_are_those_of_what_is_made():
    assert set(losses._KINDS) == set(names.LOSSES)
    assert set(sampling._RULES) == set(names.SAMPLINGS)
    assert {*synthetic._MAKERS, *synthetic._CLEANERS, "smote"} == set(names.SYNTHETICS)


def test_options_of_losses_are_all_described():
    for make in losses._KINDS.values():
        for name, one in inspect.signature(make).parameters.items():
            if one.kind is one.KEYWORD_ONLY:
                assert f"``{name}``" in losses.build.__doc__


@pytest.mark.parametrize(
    ("name", "said"),
    [("smot", "synthetic 'smot': there is none; did you mean 'smote'?"), ("xyz", "there are smote, borderline_smote")],
)
def test_a_name_that_is_none(name, said):
    with pytest.raises(TrainError, match=said):
        names.check_name("synthetic", name, names.SYNTHETICS)
