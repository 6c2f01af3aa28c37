"""The report as an SVG of horizontal bars: ours over theirs, one bar a shape, with a line where both are equal."""

from html import escape

from table import shape

WIDTH, LEFT, RIGHT, ROW, BAR = 760, 230, 70, 26, 16
GOOD, FAIR, POOR = "#2a7f62", "#c98a1b", "#b5432e"


def colour(ratio):
    return GOOD if ratio <= 1.1 else FAIR if ratio <= 2 else POOR


def bars(report):
    """(heading, [(label, ratio)]) of each part that has a peer."""
    for name in ("drafter", "target"):
        part = report[name]
        rows = [(shape(row), row["ratio"]) for row in part["rows"] if "ratio" in row]
        if rows:
            yield f"{name}: {part['ours']} / {part['theirs']}", rows
    rows = [(f"{p}, frame to verdict", report["latency"][p]["ratio"]) for p in ("p50", "p99")]
    yield "round through mosquitto / bare ping-pong", rows


def text(x, y, words, anchor="start", weight="normal"):
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>'


def draw(report):
    parts = list(bars(report))
    longest = max(ratio for _, rows in parts for _, ratio in rows)
    scale = (WIDTH - LEFT - RIGHT) / max(longest, 1.25)
    one, y, out = LEFT + scale, 24, []
    out.append(text(16, y, "Time of ours over theirs: shorter is better, the line is 1", weight="bold"))
    for heading, rows in parts:
        y += ROW + 10
        out.append(text(16, y, heading, weight="bold"))
        for label, ratio in rows:
            y += ROW
            out.append(text(LEFT - 10, y, label, "end"))
            width = ratio * scale
            out.append(
                f'<rect x="{LEFT}" y="{y - BAR + 3}" width="{width:.1f}" height="{BAR}" rx="2" fill="{colour(ratio)}"/>'
            )
            out.append(text(LEFT + max(width, scale) + 8, y, f"{ratio:.2f}"))
    out.append(f'<line x1="{one:.1f}" x2="{one:.1f}" y1="40" y2="{y + 8}" stroke="#444" stroke-dasharray="4 3"/>')
    m, y = report["machine"], y + ROW + 8
    out.append(text(16, y, f"{m['cpu']}, {m['cores']} cores, load {m['load_at_start']} at the start"))
    size = f'width="{WIDTH}" height="{y + 16}" font-family="sans-serif" font-size="13"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *out, "</svg>"]) + "\n"
