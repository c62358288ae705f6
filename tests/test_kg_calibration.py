"""The RAC threshold that a run's graph asks for."""

from pathlib import Path

import pytest

from medaction.kg.calibration import ScoredPath, calibrate


def test_the_proposal_is_the_whole_number_nearest_to_the_mean_of_what_reaches_the_truth():
    paths = [
        ScoredPath("a", True, (3.0, 4.0), 1),
        ScoredPath("b", True, (2.9,), 0),
        ScoredPath("c", False, (9.0, 9.0, 1.0), 2),
        ScoredPath("d", None, (8.0,), 0),
    ]
    found = calibrate(paths)
    assert found.mean == pytest.approx(3.3)
    assert found.threshold == 3  # as in the paper
    assert found.low <= found.mean <= found.high
    assert (found.cases, found.paths, found.unknown, found.unscorable) == (2, 2, 1, 1)
    assert found.kept(3) == (pytest.approx(2 / 3), pytest.approx(1 / 3))


def test_the_threshold_is_never_below_one_hop():
    assert calibrate([ScoredPath("a", True, (0.2, 0.1), 0)]).threshold == 1


def test_without_a_trajectory_that_reaches_the_truth_nothing_is_proposed():
    with pytest.raises(ValueError, match="none of 2 trajectories"):
        calibrate([ScoredPath("a", False, (1.0,), 0), ScoredPath("b", True, (), 3)])


def test_a_run_is_calibrated_from_its_store(finished: tuple[Path, Path], tmp_path: Path):
    from click.testing import CliRunner

    from medaction.cli.calibrate import calibrate as command

    _, out = finished
    done = CliRunner().invoke(command, [str(out), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "reach the truth" in done.output
    assert "--rac-threshold" in done.output
    assert (tmp_path / "rac_calibration.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_a_run_is_named(tmp_path: Path):
    from click.testing import CliRunner

    from medaction.cli.calibrate import calibrate as command

    done = CliRunner().invoke(command, [str(tmp_path)])
    assert done.exit_code == 1
    assert "does not exist" in done.output
