"""Suites of whole fits: turns, who is left out and why, aims, and their table."""

import json
import sys

import pytest

from fastmlp import cli
from fastmlp.bench import command, fits, tables
from fastmlp.bench.fits import Fits, Job

WORKS = {
    "one": Job("first", ("fastmlp", "rival", "slow rival", "broken", "wrong"), 2.0),
    "whole": Job("all of it", ("fastmlp", "rival"), whole=True),
}


@pytest.fixture
def suite(monkeypatch):
    """A suite whose fits take no time, and the turns that were taken."""
    turns = []

    def run(module, job, program, seed):
        turns.append((job, program, seed))
        if program == "broken":
            raise RuntimeError("No module named 'broken'")
        seconds = {"fastmlp": 1.0, "rival": 3.0, "slow rival": 9.0, "wrong": 0.1}[program] + seed / 100
        score = (0.5 if program == "wrong" else 0.9) + seed / 1000
        return {"seconds": seconds, "score": score, "version": "1.0"}, 10 * seconds

    monkeypatch.setitem(fits.SUITES, "stand-in", Fits("stand-ins", "nowhere", WORKS, seeds=3))
    monkeypatch.setattr(fits, "run", run)
    return turns


def test_programs_take_turns_and_who_is_wrong_or_fails_is_left_out(suite):
    kept, told = [], []
    result = fits.measure_fits("stand-in", told.append, lambda so_far: kept.append(json.dumps(so_far)))
    assert not result["interrupted"]
    assert [json.loads(one)["interrupted"] for one in kept] == [True, True]
    one, whole = result["fits"]
    assert set(one["programs"]) == {"fastmlp", "rival", "slow rival"}
    assert one["missing"] == {"broken": "No module named 'broken'"}
    assert list(one["refused"]) == ["wrong"]
    assert one["programs"]["rival"]["seconds"] == [3.0, 3.01, 3.02]
    assert whole["programs"]["rival"]["seconds"] == [30.0, 30.1, 30.2]
    assert one["aim"]["reached"] == pytest.approx(3.01 / 1.01)
    assert one["aim"]["enough"]
    assert whole["aim"] is None
    assert sorted(suite) == sorted(set(suite))
    assert [seed for _, _, seed in suite] == [0] * 5 + [1] * 4 + [2] * 4 + [0, 0, 1, 1, 2, 2]
    assert len(told) == len(suite)


def test_an_interrupted_suite_keeps_the_jobs_that_were_done(suite):
    def tell(text):
        if text.startswith("whole"):
            raise KeyboardInterrupt

    result = fits.measure_fits("stand-in", tell)
    assert result["interrupted"]
    assert [job["job"] for job in result["fits"]] == ["one"]


def test_the_table_has_speed_ups_and_reasons(suite):
    text = tables.markdown([fits.measure_fits("stand-in")])
    assert "| first | 1.01 (1–1.02) | 3.01 (3–3.02) | 9.01 (9–9.02) |  | 2.98 | at least 2 |" in text
    assert "Missing: first: broken: No module named 'broken'." in text
    assert "Refused: first: wrong: scores [0.5, 0.501, 0.502] are not those of fastmlp" in text


def test_the_command_line_measures_and_writes(suite, tmp_path, monkeypatch, capsys):
    out = tmp_path / "stand-in.json"
    monkeypatch.setattr(command, "FITS", ("stand-in",))
    assert cli.main(["bench", "--suite", "stand-in", "--out", str(out)]) == 1  # as one program was refused
    assert "REFUSED: first: wrong" in capsys.readouterr().out
    assert json.loads(out.read_text())["suite"] == "stand-in"
    assert cli.main(["bench", "--suite", "stand-in", "--rounds", "3"]) == 2
    assert "--rounds does not go with --suite=stand-in" in capsys.readouterr().err


def test_a_fit_is_a_process_that_says_what_it_found(monkeypatch):
    asked = json.dumps({"seconds": 0.5, "score": 1.0, "version": "1.0"})
    monkeypatch.setattr(fits, "python", lambda *given: [sys.executable, "-c", f"print('noise'); print('{asked}')"])
    found, seconds = fits.run("nowhere", "one", "fastmlp", 0)
    assert found == json.loads(asked)
    assert seconds > 0
    monkeypatch.setattr(fits, "python", lambda *given: [sys.executable, "-c", "raise ValueError('no data')"])
    with pytest.raises(RuntimeError, match="ValueError: no data"):
        fits.run("nowhere", "one", "fastmlp", 0)
    monkeypatch.setattr(fits, "python", lambda *given: [sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(fits, "LONGEST", 0.5)
    with pytest.raises(RuntimeError, match="no end within"):
        fits.run("nowhere", "one", "fastmlp", 0)
