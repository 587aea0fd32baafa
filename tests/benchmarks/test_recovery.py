"""What the recovery benchmark says, and whom it kills."""

import os
import subprocess

from benchmarks.process_tree import memory_bytes, tree_of
from benchmarks.recovery import Recovery, Report, table


def test_a_tree_is_a_process_with_all_that_it_started_and_their_memory() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        found = tree_of(os.getpid())
        assert found[0] == os.getpid()
        assert child.pid in found
        assert tree_of(child.pid) == [child.pid]
        assert 0 < memory_bytes(child.pid) < memory_bytes(os.getpid())
    finally:
        child.kill()
        child.wait()


def test_the_table_has_a_line_for_each_task_and_one_for_the_host() -> None:
    row = Recovery(3, 1.25, 2.5, 4.0, 8.0)
    report = Report("a machine", 2, 0.0, {"images": row, "classify": row}, host_lost=row)
    head, *lines = table(report).splitlines()
    assert head.split("  ")[0] == "lost"
    assert [line.split() for line in lines] == [
        ["images", "3", "1.25", "2.50", "4.00", "8.00"],
        ["classify", "3", "1.25", "2.50", "4.00", "8.00"],
        ["a", "host", "3", "1.25", "2.50", "4.00", "8.00"],
    ]
