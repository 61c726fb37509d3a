"""The door's contract, clause by clause (see the design of the house)."""

import threading
import time

import numpy as np
import pytest

from manylens.errors import (
    BudgetError,
    CancelledError,
    CostError,
    DeadlineError,
    NetworkError,
    UnknownModelError,
    UnsupportedError,
)
from manylens.runtime.meter import Meter
from manylens.runtime.rates import Rates
from manylens.session import Session
from manylens.tasks import request
from tests.session.fakes import Fake, hub_row, row

IMAGE = np.zeros((8, 12, 3), np.uint8)


def ask(question="what?"):
    return request("answer", image=IMAGE, question=question)


def classify(width=12):
    return request("classify", image=np.zeros((8, width, 3), np.uint8))


class TestChoice:
    def test_the_highest_rank_is_the_default_and_the_named_model_wins(self, make_session):
        session = make_session(row("low", rank=1), row("high", rank=9))
        assert session.run(ask()).provenance.model == "manylens/high"
        assert session.run(ask(), model="manylens/low").provenance.model == "manylens/low"

    def test_the_session_prefers_what_it_was_told_for_a_task(self, make_session):
        session = make_session(row("low", rank=1), row("high", rank=9), models={"answer": "manylens/low"})
        assert session.run(ask()).provenance.model == "manylens/low"
        assert session.run(classify()).provenance.model == "manylens/high"

    @pytest.mark.parametrize(
        ("model", "asked", "error", "line"),
        [
            ("manylens/lowe", ask(), UnknownModelError, "did you mean manylens/low"),
            (
                "manylens/low",
                request("read", image=IMAGE),
                UnsupportedError,
                "does not do read; it does answer, classify",
            ),
            ("manylens/low", request("classify", image=IMAGE, names=["a"]), UnsupportedError, "classify with names"),
            (
                None,
                request("read", image=IMAGE),
                UnsupportedError,
                "read: no embedded model does this yet; name a checkpoint",
            ),
        ],
    )
    def test_a_wrong_model_is_one_line(self, make_session, model, asked, error, line):
        with pytest.raises(error, match=line) as caught:
            make_session(row("low")).run(asked, model=model)
        assert "\n" not in str(caught.value)

    def test_a_task_without_an_embedded_model_names_a_checkpoint(self):
        from manylens.session import Session

        with pytest.raises(UnsupportedError, match=r"name a checkpoint, such as --model \S+/\S+ \(licence"):
            Session().run(request("depth", image=IMAGE))


class TestHubOutOfReach:
    def test_a_hub_model_is_never_the_default(self, make_session):
        session = make_session(hub_row("some/model"), row("a", rank=1), offline=True)
        assert session.run(ask()).provenance.model == "manylens/a"

    def test_the_embedded_model_takes_over_and_says_so(self, make_session):
        session = make_session(hub_row("some/model"), row("a", rank=1), offline=True)
        with pytest.warns(UserWarning, match="took over"):
            provenance = session.run(ask(), model="some/model").provenance
        assert provenance.model == "manylens/a"
        assert any("some/model" in note and "manylens/a took over" in note for note in provenance.notes)

    def test_a_hub_that_refuses_is_given_up(self, make_session, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        session = make_session(hub_row("some/model"), row("a", rank=1))
        with pytest.warns(UserWarning, match="took over"):
            assert session.run(ask(), model="some/model").provenance.model == "manylens/a"

    def test_without_an_embedded_model_it_is_an_error(self, make_session):
        session = make_session(hub_row("some/model"), offline=True)
        with pytest.raises(NetworkError, match=r"some/model.*MANYLENS_OFFLINE"):
            session.run(ask(), model="some/model")


class TestState:
    def test_a_composed_model_is_as_ready_as_its_parts(self, make_session):
        whole = row("whole", tasks="answer = ['default']", uses="classify")
        session = make_session(whole, hub_row("some/model", 'classify = ["closed"]'))
        assert session.state(session.catalog["some/model"]) == "absent"
        assert session.state(session.catalog["manylens/whole"]) == "ready"  # it falls to embedded parts only

    def test_on_a_new_machine_nothing_that_needs_weights_is_ready(self, tmp_path):
        with Session(home=tmp_path) as session:
            states = {row.id: session.state(row) for row in session.catalog if row.embedded}
        assert states["manylens/words-to-mask"] == states["manylens/answers"] == states["manylens/vit-s"] == "absent"
        assert states["manylens/ppocr"] == "ready"


class TestMemory:
    def test_a_model_loads_on_first_use_only_and_stays(self, make_session):
        session = make_session()
        assert Fake.loaded == []
        session.run(ask())
        session.run(ask())
        assert Fake.loaded == ["manylens/a"]

    def test_the_least_recently_used_leaves_first(self, make_session):
        session = make_session(row("a", rank=3), row("b", rank=2), row("c", rank=1))
        session.residency.budget_bytes = session.residency.base_bytes + (250 << 20)
        for name in ("a", "b", "a", "c"):
            session.run(ask(), model=f"manylens/{name}")
        assert Fake.closed == ["manylens/b"]

    def test_what_can_never_fit_is_refused_with_the_numbers(self, make_session):
        with pytest.raises(BudgetError, match=r"manylens/huge: needs 94 GB .* budget is 2\.1 GB"):
            make_session(row("huge", memory=90_000), memory_budget="2GiB").run(ask())
        assert Fake.loaded == []

    def test_a_model_in_use_is_never_evicted(self, make_session):
        session = make_session(row("a", rank=3), row("b", rank=2))
        session.residency.budget_bytes = session.residency.base_bytes + (150 << 20)
        with session.residency.lease("pinned", 100 << 20, object):
            with pytest.raises((DeadlineError, BudgetError)):
                session.run(ask(), timeout=0.3)
            assert [held.key for held in session.residency.held()] == ["pinned"]
        session.run(ask())


class TestRun:
    def test_the_result_says_where_it_comes_from(self, make_session):
        session = make_session()
        result = session.run(ask("why?"), seed=7)
        provenance = result.provenance
        assert provenance.task == "answer"
        assert provenance.prompt == {"question": "why?"}
        assert provenance.seed == 7
        assert provenance.inputs == (ask().image.id,)
        assert provenance.notes == ("a note",)
        assert provenance.seconds > 0

    def test_the_same_seed_gives_the_same_and_another_another(self, make_session):
        session = make_session()
        texts = [session.run(ask(), seed=seed).text for seed in (1, 1, 2)]
        assert texts[0] == texts[1] != texts[2]

    def test_every_call_is_in_the_ledger_nested_and_failed_ones_too(self, make_session):
        session = make_session()
        session.run(ask("nested"))
        with pytest.raises(ValueError, match="broke"):
            session.run(ask("fail"))
        failed, outer, inner = session.ledger.rows()
        assert (outer.task, inner.task, inner.parent) == ("answer", "classify", outer.id)
        assert (failed.outcome, failed.message) == ("ValueError", "the model broke")
        assert outer.bytes_in == 8 * 12 * 3

    def test_the_ledger_holds_what_each_call_of_a_batch_was_charged(self, make_session):
        session = make_session()
        list(session.map("answer", [ask("one"), ask("two")], batch_size=2))
        assert [entry.cost for entry in session.ledger.rows()] == [1.0, 1.0]

    def test_a_composed_call_runs_on_the_sessions_own_choice(self, make_session):
        session = make_session(row("a", rank=1), row("b", rank=2))
        assert session.run(ask("nested"), model="manylens/a").text == "nested manylens/b 12"

    @pytest.mark.parametrize("nested", [False, True])
    def test_cancel_deadline_and_cost_cap_stop_a_call(self, make_session, nested):
        session = make_session()
        question = "nested" if nested else "what?"
        Fake.pause = 0.2
        with pytest.raises(DeadlineError):
            session.run(ask(question), timeout=0.05)
        cancel = threading.Event()
        cancel.set()
        with pytest.raises(CancelledError):
            session.run(ask(question), cancel=cancel)

    def test_a_call_that_costs_too_much_stops(self, make_session):
        with pytest.raises(CostError):
            make_session().run(ask(), cost_cap=0.5)

    def test_a_map_stops_before_the_call_that_would_not_fit_and_keeps_what_is_done(self, make_session):
        session = make_session()
        answers = session.map("answer", [ask(str(i)) for i in range(9)], cost_cap=3.5, errors="return")
        done = [next(answers) for _ in range(3)]
        with pytest.raises(CostError, match=r"stopped before its cost cap, 3 of 3\.5 spent"):
            next(answers)
        assert [answer.text.split()[1] for answer in done] == ["0", "1", "2"]
        assert sum(entry.cost for entry in session.ledger.rows()) == 3.0

    def test_one_meter_counts_several_calls(self, make_session):
        session, meter = make_session(), Meter(2.5)
        assert session.run(ask(), cost_cap=meter).text
        assert session.run(ask("nested"), cost_cap=meter).text
        assert session.run(ask(), cost_cap=meter).text
        with pytest.raises(CostError, match=r"2 of 2\.5 spent"):
            session.run(ask(), cost_cap=meter)

    def test_time_is_charged_once_at_the_rates_of_the_session(self, make_session):
        session = make_session(rates=Rates(hour=3600))  # one a second
        Fake.pause = 0.05
        session.run(ask("nested"))
        outer, inner = session.ledger.rows()
        assert inner.cost == 0
        assert outer.cost == pytest.approx(outer.seconds, rel=0.2)

    def test_the_first_call_of_a_job_is_judged_by_the_ledger(self, make_session):
        session = make_session(rates=Rates(hour=3600))
        Fake.pause = 0.1
        session.run(ask("nested"))
        with pytest.raises(CostError, match=r"stopped before its cost cap, 0\.000"):
            session.run(ask("nested"), cost_cap=0.05)
        assert len(session.ledger.rows()) == 2

    def test_threads_share_one_load(self, make_session):
        session = make_session()
        Fake.pause = 0.05
        threads = [threading.Thread(target=session.run, args=(ask(),)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Fake.loaded == ["manylens/a"]
        assert Fake.most_running > 1
        assert len(session.ledger.rows()) == 8


class TestMap:
    def test_results_come_in_order_and_in_batches(self, make_session):
        session = make_session()
        results = session.map("classify", (classify(width) for width in range(5, 16)))
        assert [int(result.best.name.split()[1]) for result in results] == list(range(5, 16))
        assert Fake.batches == [4, 4, 3]

    def test_inputs_are_taken_as_they_are_needed(self, make_session):
        session = make_session()
        taken = []

        def endless():
            for width in range(5, 10_000):
                taken.append(width)
                yield {"image": np.zeros((4, width, 3), np.uint8)}

        results = session.map("classify", endless(), prefetch=6)
        for _ in range(3):
            next(results)
        results.close()
        assert len(taken) <= 3 + 4 + 6 + 1

    def test_a_restarted_map_does_what_is_left(self, make_session, tmp_path):
        session = make_session()
        journal = tmp_path / "journal.jsonl"
        first = session.map("classify", [classify(w) for w in (5, 6, 7, 8, 9)], resume=journal, batch_size=1)
        kept = [next(first) for _ in range(2)]
        first.close()
        Fake.batches.clear()
        again = list(session.map("classify", [classify(w) for w in (5, 6, 7, 8, 9)], resume=journal, batch_size=1))
        assert [result.labels for result in again[:2]] == [result.labels for result in kept]
        assert [int(result.best.name.split()[1]) for result in again] == [5, 6, 7, 8, 9]
        assert sum(Fake.batches) == 3

    def test_another_seed_or_prompt_is_not_taken_from_the_journal(self, make_session, tmp_path):
        session = make_session()
        journal = tmp_path / "journal.jsonl"
        list(session.map("answer", [ask("one")], resume=journal))
        list(session.map("answer", [ask("one"), ask("two")], resume=journal))
        list(session.map("answer", [ask("one")], resume=journal, seed=1))
        assert sum(Fake.batches) == 3

    def test_a_bad_input_fails_in_its_place(self, make_session, tmp_path):
        session = make_session()
        bad = tmp_path / "bad.jpg"
        bad.write_bytes(b"")
        items = [classify(5), {"image": bad}, classify(6)]
        results = list(session.map("classify", items, errors="return"))
        assert [getattr(r, "item_index", None) for r in results] == [None, 1, None]
        assert "bad.jpg" in str(results[1].error)
        with pytest.raises(Exception, match=r"bad\.jpg"):
            list(session.map("classify", items))

    def test_a_deadline_holds_for_the_whole_map(self, make_session):
        session = make_session()
        Fake.pause = 0.05
        started = time.monotonic()
        with pytest.raises(DeadlineError):
            list(session.map("classify", (classify(w) for w in range(5, 500)), timeout=0.3))
        assert time.monotonic() - started < 10

    def test_an_unknown_executor_is_named(self, make_session):
        with pytest.raises(Exception, match="local"):
            list(make_session().map("classify", [classify()], executor="cluster"))


class TestModule:
    def test_a_model_without_a_trainable_form_says_so(self, make_session):
        session = make_session()
        with pytest.raises(UnsupportedError, match="no trainable form"), session.module("manylens/a"):
            pass
