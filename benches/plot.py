"""Bars as SVG, and nothing else."""

from xml.sax.saxutils import escape

COLOURS = ["#2f6f9f", "#c9792b", "#7d8a94", "#5f9e6e"]
LABELS, BARS, VALUES = 330, 480, 110  # widths, in pixels
BAR, GAP = 16, 12  # heights


def bars(title, unit, series, groups):
    """A picture of `groups`, each a label with (series, value) pairs; lengths compare across all of them.

    A series, of those in `series`, has its colour in every group. `unit` stands behind the title.
    """
    longest = max(value for _, pairs in groups for _, value in pairs)
    parts, top = [], 64
    for at, name in enumerate(series):
        x = LABELS + at * 150
        parts.append(f'<rect x="{x}" y="36" width="12" height="12" fill="{COLOURS[at]}"/>')
        parts.append(f'<text x="{x + 18}" y="46">{escape(name)}</text>')
    for label, pairs in groups:
        parts.append(f'<text x="{LABELS - 10}" y="{top + BAR * len(pairs) / 2 + 4:.0f}" text-anchor="end">{escape(label)}</text>')
        for name, value in pairs:
            width = BARS * value / longest
            parts.append(f'<rect x="{LABELS}" y="{top}" width="{width:.1f}" height="{BAR - 3}" fill="{COLOURS[series.index(name)]}"/>')
            parts.append(f'<text x="{LABELS + width + 6:.1f}" y="{top + 11}">{short(value)}</text>')
            top += BAR
        top += GAP
    width, height = LABELS + BARS + VALUES, top
    head = f'<text x="10" y="20" font-weight="bold">{escape(title)} ({escape(unit)})</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="12">\n<rect width="{width}" height="{height}" fill="#fff"/>\n'
        + "\n".join([head, *parts])
        + "\n</svg>\n"
    )


def short(value):
    """Three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
