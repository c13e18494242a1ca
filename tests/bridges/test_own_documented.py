"""docs/wire.md says what the code does: its example in bytes, its codes, its numbers of messages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from bridges.wire.own import messages
from bridges.wire.own.codec import OwnDeframer, encode
from bridges.wire.own.errors import OwnCode, OwnWireError

PAGE = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
CHAPTER = PAGE.partition("## Our wire")[2].partition("## Media on our wire")[0]


def test_the_example_is_what_is_sent() -> None:
    rows = re.findall(
        r"^\| (?:dialer|listener), lane \d \| (\w+) \| `([0-9a-f]+)` \|$", CHAPTER, re.MULTILINE
    )
    assert len(rows) > 8
    for name, data in rows:
        deframer = OwnDeframer(4096)
        deframer.feed(bytes.fromhex(data))
        framed = deframer.next_message()
        assert framed is not None
        assert not isinstance(framed.message, OwnWireError | tuple)
        assert type(framed.message).__name__.lower() == name
        assert encode(framed.message).hex() == data


def test_every_code_and_every_message_is_in_its_table() -> None:
    codes = {
        int(number, 16): name
        for number, name in re.findall(r"^\| `(0x2\w\w)` \| ([\w ]+) \|", CHAPTER, re.MULTILINE)
    }
    assert codes == {code.value: code.name.lower().replace("_", " ") for code in OwnCode}
    told = {
        int(number): name for number, name in re.findall(r"^\| (\d+) \| `(\w+)` \|", CHAPTER, re.MULTILINE)
    }
    known = {one.__struct_config__.tag: one.__name__.lower() for one in get_args(messages.Message)}
    assert told == known
