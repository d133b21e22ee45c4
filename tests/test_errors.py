"""Messages of errors."""

from r2reg.errors import LISTED, listed


def test_a_message_names_the_first_few():
    assert listed([]) == "none"
    assert listed(range(LISTED)) == ", ".join(map(str, range(LISTED)))
    assert listed(range(LISTED + 1)) == listed(range(LISTED)) + ", ..."
