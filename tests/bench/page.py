"""What the measurements in Python share: what machine it was, tables, and their sections of docs/reference/performance.md."""

import os
import pathlib
import platform
import re

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "reference" / "performance.md"


def machine():
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} x {cpu.group(1) if cpu else platform.machine()}, Linux {platform.release()}, load before {os.getloadavg()[0]:.1f}"


def put(section, text):
    """Replaces what stands between the marks of a section."""
    begin, end = f"<!-- begin {section} -->\n", f"<!-- end {section} -->"
    page = PAGE.read_text()
    if begin not in page:
        raise SystemExit(f"{PAGE} has no {begin.strip()} mark")
    before, rest = page.split(begin, 1)
    PAGE.write_text(before + begin + text + end + rest.split(end, 1)[1])


def show(rows):
    """A table in columns; each row as long as the first."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
