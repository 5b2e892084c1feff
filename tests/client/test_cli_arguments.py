import json

import pytest

from leadline.client.cli import main

NOT_UTF8 = "\udcff"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["watch", "abc", "--after-sequence", "99999999999"], "after-sequence"),
        (["jobs", "--timeout", "nan"], "nan"),
        (["jobs", "--timeout", "inf"], "timeout"),
        (["jobs", "--timeout", "0"], "timeout"),
        (["jobs", "--target", "127.0.0.1:99999"], "99999 is not a port"),
        (["jobs", "--target", "127.0.0.1:0"], "0 is not a port"),
        (["jobs", "--target", ""], "empty"),
        (["jobs", "--target", "http://"], "empty"),
        (["jobs", "--target", "https://"], "empty"),
        (["jobs", NOT_UTF8], "UTF-8"),
        (["delete", NOT_UTF8, "--yes"], "UTF-8"),
        (["train", "--dataset", f"x{NOT_UTF8}"], "UTF-8"),
    ],
)
def test_what_can_be_no_argument_is_refused_before_any_call(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert says in capsys.readouterr().err

    assert main([*arguments, "--json"]) == 2
    described = json.loads(capsys.readouterr().err)["error"]
    assert (described["code"], described["exit_code"]) == ("USAGE", 2)
    assert says in described["message"]
