"""Kill points are named as a reader of the table expects."""

from hashlib import sha1

from tests.faults.kill_points import KillPoint, command_names, scripts


def packed(*command: str) -> bytes:
    """A command as a client sends it (RESP)."""
    words = "".join(f"${len(word)}\r\n{word}\r\n" for word in command)
    return f"*{len(command)}\r\n{words}".encode()


def test_the_commands_of_one_call_are_named_in_order() -> None:
    call = [packed("MULTI"), packed("hset", "a key", "field", "value"), packed("EXEC")]
    assert command_names(call) == ["MULTI", "HSET", "EXEC"]


def test_a_script_is_called_by_its_name_in_the_contract() -> None:
    digest = sha1(scripts()["FINISH"].encode(), usedforsecurity=False).hexdigest()
    call = [packed("EVALSHA", digest, "0", "an id"), packed("PING")]
    assert command_names(call) == ["script:FINISH", "PING"]


def test_a_point_is_read_back_as_it_was_written() -> None:
    point = KillPoint("storing", "fsync", 2, "after")
    assert KillPoint.parse(str(point)) == point
