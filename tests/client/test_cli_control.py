"""The commands that control jobs: output, questions and exit codes."""

import io

import pytest

from client.cli_outcome import QUICK, Leadline
from leadline.client.cli.exit_codes import ExitCode

OPTIONS = ("--priority", "-3", "--time-limit", "1h30m", "--retention", "every-5")


@pytest.fixture
def job(busy_leadline: Leadline) -> str:
    """A queued job."""
    return busy_leadline("train", *QUICK, "--detach").out.strip()


def test_train_sends_options(busy_leadline: Leadline) -> None:
    (job,) = busy_leadline("train", *QUICK, *OPTIONS, "--detach", "--json").messages
    assert job["options"] == {
        "priority": -3,
        "time_limit": "5400s",
        "retention": {"policy": "RETENTION_POLICY_EVERY_NTH", "every_nth": 5},
    }
    listed = busy_leadline("jobs").out
    assert " priority " in listed.splitlines()[0] + listed.splitlines()[1]
    assert busy_leadline("cancel", job["name"]).code == ExitCode.SUCCESS


@pytest.mark.parametrize(
    ("retention", "policy"),
    [("all", "RETENTION_POLICY_ALL"), ("best-and-last", "RETENTION_POLICY_BEST_AND_LAST")],
)
def test_train_sends_a_retention(busy_leadline: Leadline, retention: str, policy: str) -> None:
    arguments = ("train", *QUICK, "--retention", retention, "--detach", "--json")
    (job,) = busy_leadline(*arguments).messages
    assert job["options"]["retention"] == {"policy": policy, "every_nth": 0}


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--time-limit", "soon"),
        ("--time-limit", "90"),
        ("--time-limit", "-1s"),
        ("--time-limit", "9999999999999d"),
        ("--retention", "every-"),
        ("--retention", "none"),
        ("--priority", "high"),
    ],
)
def test_an_option_that_cannot_be_read_is_wrong_usage(
    busy_leadline: Leadline, flag: str, value: str
) -> None:
    outcome = busy_leadline("train", *QUICK, flag, value, "--detach")
    assert outcome.code == ExitCode.USAGE
    assert flag in outcome.err


def test_what_is_wrong_with_options_is_told_by_flag(busy_leadline: Leadline) -> None:
    flags = ("--priority", "101", "--time-limit", "0.5s", "--retention", "every-0")
    outcome = busy_leadline("train", *QUICK, *flags)
    assert outcome.code == ExitCode.USAGE
    for flag in flags[::2]:
        assert f"\n  {flag}: must be " in outcome.err


def test_a_job_is_paused_and_resumed(busy_leadline: Leadline, job: str) -> None:
    outcome = busy_leadline("pause", job.removeprefix("jobs/"))
    assert (outcome.code, outcome.out) == (
        ExitCode.SUCCESS,
        f"{job} is paused, 0 of 2 epochs complete\n",
    )
    assert f"`leadline resume {job} --target 127.0.0.1:" in outcome.err
    (line,) = [one for one in busy_leadline("jobs").out.splitlines() if f" {job} " in one]
    assert " paused (requested) " in line
    (message,) = busy_leadline("pause", job, "--json").messages
    assert message["pause"]["reason"] == "REQUESTED"
    outcome = busy_leadline("resume", job)
    assert outcome.out == f"{job} is queued, 0 of 2 epochs complete\n"
    (message,) = busy_leadline("resume", job, "--json").messages
    assert message["state"] == "JOB_STATE_QUEUED"


def test_jobs_are_deleted(busy_leadline: Leadline, job: str) -> None:
    other = busy_leadline("train", *QUICK, "--detach").out.strip()
    assert busy_leadline("delete", job, "--yes").code == ExitCode.SERVER_ERROR
    for one in (job, other):
        busy_leadline("cancel", one)
    outcome = busy_leadline("delete", job, other.removeprefix("jobs/"), "--yes")
    assert outcome.out == f"{job} is deleted\n{other} is deleted\n"
    assert busy_leadline("jobs", job).code == ExitCode.NOT_FOUND


def test_deleted_jobs_are_named_as_json_up_to_the_first_error(
    busy_leadline: Leadline, job: str
) -> None:
    busy_leadline("cancel", job)
    outcome = busy_leadline("delete", job, "nobody", "--yes", "--json")
    assert outcome.messages == [{"name": job}]
    assert outcome.code == outcome.error["exit_code"] == ExitCode.NOT_FOUND


def test_where_nobody_can_be_asked_nothing_is_deleted(
    busy_leadline: Leadline, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    busy_leadline("cancel", job)
    outcome = busy_leadline("delete", job)
    assert outcome.code == ExitCode.USAGE
    assert "--yes" in outcome.err
    assert busy_leadline("jobs", job).code == ExitCode.SUCCESS


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("answer", ["n", "", "y"])
def test_a_terminal_is_asked_before_a_job_is_deleted(
    busy_leadline: Leadline, job: str, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    busy_leadline("cancel", job)
    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
    outcome = busy_leadline("delete", job)
    deleted = answer == "y"
    assert f"Delete {job} permanently, including models?" in outcome.err
    assert outcome.code == (ExitCode.SUCCESS if deleted else ExitCode.INTERRUPTED)
    assert (busy_leadline("jobs", job).code == ExitCode.NOT_FOUND) is deleted
