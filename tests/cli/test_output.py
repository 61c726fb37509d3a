"""What commands print while they work."""

from manylens.cli import output


def test_where_no_terminal_listens_progress_is_a_line_now_and_then(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(output, "monotonic", lambda: now[0])
    with output.bar("robustness", quiet=False) as progress:
        assert progress is not None
        for second, done, line in (
            (0, 0.0, "clean pictures"),
            (1, 0.05, "fog 1"),
            (12, 0.123, "fog 3"),
            (13, 0.2, "-"),
        ):
            now[0] = 100.0 + second
            progress(done, line)
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "robustness: 0 %, clean pictures",
        "robustness: 12 %, fog 3",
    ]
    assert said.out == ""
    with output.bar("robustness", quiet=True) as progress:
        assert progress is None
