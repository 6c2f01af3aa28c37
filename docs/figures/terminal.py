#!/usr/bin/env python3
"""The demo in a terminal, as a picture.

    docs/figures/terminal.py record -- target/release/dunlin-demo    # run it in a pseudo-terminal, keep what it writes
    docs/figures/terminal.py draw                                    # demo.ansi -> demo.svg
    docs/figures/terminal.py check                                   # fail if demo.svg isn't what `draw` would write

The transcript, `demo.ansi`, is the raw output of a real run, with paths made relative to the checkout. Drawing it uses no clock, no
font and no program, so the same transcript always gives the same picture. Python's standard library only.
"""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import unicodedata
from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TRANSCRIPT = HERE / "demo.ansi"
PICTURE = HERE / "demo.svg"

COLUMNS, LINES = 92, 40
COMMAND = "$ make demo"
# One character cell, and the frame around all of them, in pixels.
CELL, LINE, SIZE, MARGIN, BAR = 8.4, 19, 14, 16, 30
BACKGROUND, FOREGROUND = "#10161d", "#d5dbe1"
# Select Graphic Rendition: the codes that the programs use, and the sixteen-colour palette here.
COLOURS = {31: "#ff7b72", 32: "#7ee787", 33: "#f2cc60", 34: "#79c0ff", 35: "#d2a8ff", 36: "#76e3ea", 37: "#ffffff"}
# A Control Sequence Introducer with its numbers, or one other character.
PIECE = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])|(.)", re.DOTALL)


def record(command):
    """Runs `command` in a pseudo-terminal and stores all that it writes."""
    child, screen = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm-256color")
        os.environ.pop("NO_COLOR", None)
        os.execvp(command[0], command)
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    output = b""
    while True:
        try:
            part = os.read(screen, 65536)
        except OSError:  # the kernel's way to say that the other end is closed
            break
        if not part:
            break
        output += part
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        sys.exit(f"{command[0]} ended with {status}:\n{output.decode(errors='replace')}")
    TRANSCRIPT.write_bytes(output.replace(f"{ROOT}/".encode(), b""))


class Screen:
    """A terminal that knows what the programs send, and refuses everything else."""

    def __init__(self):
        self.cells = {}
        self.row = self.column = 0
        self.style = (FOREGROUND, False)

    def feed(self, text):
        for numbers, final, character in PIECE.findall(text):
            if final:
                self.control(numbers, final)
            elif character == "\r":
                self.column = 0
            elif character == "\n":
                self.row += 1
            else:
                self.put(character)

    def put(self, character):
        if unicodedata.category(character).startswith("C") or unicodedata.east_asian_width(character) in "WF":
            sys.exit(f"no place on this screen for {character!r}")
        if self.column == COLUMNS:
            self.row, self.column = self.row + 1, 0
        self.cells[self.row, self.column] = (character, self.style)
        self.column += 1

    def control(self, numbers, final):
        count = int(numbers or 1) if ";" not in numbers else 1
        if final == "m":
            for code in map(int, (numbers or "0").split(";")):
                self.render(code)
        elif final == "D":
            self.column = max(0, self.column - count)
        elif final == "K" and numbers in ("", "0"):
            for column in range(self.column, COLUMNS):
                self.cells.pop((self.row, column), None)
        else:
            sys.exit(f"unknown control sequence: CSI {numbers}{final}")

    def render(self, code):
        colour, dim = self.style
        if code == 0:
            self.style = (FOREGROUND, False)
        elif code == 2:
            self.style = (colour, True)
        elif code in COLOURS:
            self.style = (COLOURS[code], dim)
        elif code == 3:
            pass  # italic, for the names of a log line's fields: drawn upright
        else:
            sys.exit(f"unknown rendition: {code}")

    def runs(self, row):
        """The runs of one style in a row: column, text, style. Blanks at the end are dropped."""
        columns = sorted(column for line, column in self.cells if line == row)
        runs = []
        for column in columns:
            character, style = self.cells[row, column]
            if runs and runs[-1][2] == style and runs[-1][0] + len(runs[-1][1]) == column:
                runs[-1][1] += character
            else:
                runs.append([column, character, style])
        return [(column, text, style) for column, text, style in runs if text.strip()]


def draw(transcript):
    screen = Screen()
    screen.feed(f"{COMMAND}\r\n{transcript}")
    rows = 1 + max(row for row, _ in screen.cells)
    width = round(COLUMNS * CELL + 2 * MARGIN)
    height = BAR + rows * LINE + 2 * MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" font-size="{SIZE}">',
        "<title>The demo in a terminal</title>",
        "<desc>Drawn by docs/figures/terminal.py from the recorded output of one run.</desc>",
        f'<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}"/>',
    ]
    for number, colour in enumerate(("#ff5f57", "#febc2e", "#28c840")):
        out.append(f'<circle cx="{MARGIN + 6 + 20 * number}" cy="{BAR - 10}" r="6" fill="{colour}"/>')
    for row in range(rows):
        y = BAR + MARGIN + row * LINE + SIZE
        for column, text, (colour, dim) in screen.runs(row):
            stripped = text.rstrip()
            lead = len(stripped) - len(stripped.lstrip())
            stripped = stripped[lead:]
            x, length = MARGIN + (column + lead) * CELL, len(stripped) * CELL
            faint = ' opacity="0.55"' if dim else ""
            out.append(
                f'<text x="{x:.1f}" y="{y}" fill="{colour}"{faint} textLength="{length:.1f}" '
                f'lengthAdjust="spacingAndGlyphs" xml:space="preserve">{escape(stripped)}</text>'
            )
    return "\n".join([*out, "</svg>", ""])


def main():
    match sys.argv[1:]:
        case ["record", "--", *command] if command:
            record(command)
        case ["draw"]:
            PICTURE.write_text(draw(TRANSCRIPT.read_bytes().decode()))
        case ["check"]:
            if PICTURE.read_text() != draw(TRANSCRIPT.read_bytes().decode()):
                sys.exit("docs/figures/demo.svg is not what demo.ansi shows: run docs/figures/terminal.py draw")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
