"""The themes: colours by what they mean, so that a style never names a colour itself.

Text keeps a contrast of at least 4.5 on background, surface and panel (tested); `faint` is for
rulers and the rest of a bar, which nobody has to read.
"""

from dataclasses import dataclass

from textual.theme import Theme


@dataclass(frozen=True)
class Palette:
    """One colour for each meaning."""

    background: str
    surface: str
    panel: str
    edge: str
    faint: str
    ink: str
    quiet: str
    gold: str
    """The project's own: titles, keys, what is in focus."""
    course: str
    """Little curves."""
    secondary: str
    up: str
    down: str
    good: str
    warn: str
    bad: str
    format: str
    direction: str
    magnitude: str
    confidence: str
    data_use: str
    coherence: str
    total: str
    cursor: str
    """Behind the line that is chosen, and under scroll bars."""


TEXTS = (
    "ink", "quiet", "gold", "course", "secondary", "up", "down", "good", "warn", "bad", "format",
    "direction", "magnitude", "confidence", "data_use", "coherence", "total",
)  # fmt: skip
"""Meanings that words or figures are written in."""

SERIES = (
    "format", "direction", "magnitude", "confidence", "data_use", "coherence", "total",
)  # fmt: skip
"""Reward components, which stand side by side."""

PALETTES = {
    "saiyan": Palette(
        background="#0b0d12", surface="#12151d", panel="#1a1e29", edge="#2a2f3d", faint="#3d4457",
        ink="#d7dae3", quiet="#868ea1", gold="#ffb000", course="#7096bb", secondary="#8ecae6",
        up="#2ec4b6", down="#ff7f50", good="#8bd450", warn="#ffd166", bad="#f4708a",
        format="#8ecae6", direction="#2ec4b6", magnitude="#c792ea", confidence="#ffb000",
        data_use="#8bd450", coherence="#a0a8b8", total="#ffffff", cursor="#2a2f3d",
    ),
    "light": Palette(
        background="#fbfaf7", surface="#f1efe9", panel="#e7e4dc", edge="#c9c4b8", faint="#b5af9f",
        ink="#1d2129", quiet="#565d6b", gold="#7a4b00", course="#33597d", secondary="#0b5a7d",
        up="#04605a", down="#a03006", good="#2b5f0c", warn="#6f5000", bad="#a80f33",
        format="#0b5a7d", direction="#04605a", magnitude="#6d2f99", confidence="#7a4b00",
        data_use="#2b5f0c", coherence="#4d5462", total="#000000", cursor="#cfcabe",
    ),
    "high-contrast": Palette(
        background="#000000", surface="#000000", panel="#1c1c1c", edge="#a0a0a0", faint="#8a8a8a",
        ink="#ffffff", quiet="#d0d0d0", gold="#ffd700", course="#9fd3ff", secondary="#9fd3ff",
        up="#5ff0e0", down="#ffab7a", good="#9dff5c", warn="#ffe680", bad="#ff9db0",
        format="#9fd3ff", direction="#5ff0e0", magnitude="#e6b8ff", confidence="#ffd700",
        data_use="#9dff5c", coherence="#c8c8c8", total="#ffffff", cursor="#4a4a4a",
    ),
    # Okabe and Ito's colours (2008); the two darkest of them are lightened until they can be read.
    "colour-blind": Palette(
        background="#0b0d12", surface="#12151d", panel="#1a1e29", edge="#2a2f3d", faint="#4a5166",
        ink="#e4e6ec", quiet="#8b93a6", gold="#f0e442", course="#7fa6cc", secondary="#56b4e9",
        up="#56b4e9", down="#e69f00", good="#12b886", warn="#f0e442", bad="#ee7733",
        format="#56b4e9", direction="#009e73", magnitude="#d98bb6", confidence="#e69f00",
        data_use="#f0e442", coherence="#8f86ff", total="#ffffff", cursor="#2a2f3d",
    ),
    "monochrome": Palette(
        background="#000000", surface="#0c0c0c", panel="#1a1a1a", edge="#4a4a4a", faint="#5c5c5c",
        ink="#e0e0e0", quiet="#969696", gold="#ffffff", course="#b0b0b0", secondary="#c8c8c8",
        up="#e8e8e8", down="#e8e8e8", good="#e8e8e8", warn="#ffffff", bad="#ffffff",
        format="#c8c8c8", direction="#e8e8e8", magnitude="#a8a8a8", confidence="#dcdcdc",
        data_use="#b8b8b8", coherence="#989898", total="#ffffff", cursor="#3a3a3a",
    ),
    "ansi": Palette(
        background="ansi_default", surface="ansi_default", panel="ansi_default",
        edge="ansi_bright_black", faint="ansi_bright_black", ink="ansi_default",
        quiet="ansi_default", gold="ansi_yellow", course="ansi_blue", secondary="ansi_cyan",
        up="ansi_cyan", down="ansi_yellow", good="ansi_green", warn="ansi_yellow", bad="ansi_red",
        format="ansi_cyan", direction="ansi_green", magnitude="ansi_magenta",
        confidence="ansi_yellow", data_use="ansi_bright_green", coherence="ansi_default",
        total="ansi_default", cursor="ansi_bright_black",
    ),
}  # fmt: skip


def _chosen(name: str, colours: Palette) -> dict[str, str]:
    """How Textual's own lists show the chosen line, in focus or not."""
    behind, before = colours.cursor, colours.total
    if name == "monochrome":
        behind, before = colours.total, colours.background
    return {
        f"block-cursor{focus}-{part}": colour
        for focus in ("", "-blurred")
        for part, colour in (("background", behind), ("foreground", before))
    }


def _theme(name: str, colours: Palette) -> Theme:
    return Theme(
        name=name,
        dark=name != "light",
        ansi=name == "ansi",
        background=colours.background,
        surface=colours.surface,
        panel=colours.panel,
        foreground=colours.ink,
        primary=colours.gold,
        secondary=colours.secondary,
        accent=colours.gold,
        success=colours.good,
        warning=colours.warn,
        error=colours.bad,
        variables={
            "background": colours.background,
            "surface": colours.surface,
            "panel": colours.panel,
            "secondary": colours.secondary,
            "edge": colours.edge,
            **{name.replace("_", "-"): getattr(colours, name) for name in (*TEXTS, "faint")},
            # Where there are no shades to lay behind a line, it is turned around.
            "cursor-text-style": "bold reverse" if name in ("monochrome", "ansi") else "bold",
            # What Textual's own widgets draw with.
            "border": colours.gold,
            "border-blurred": colours.edge,
            "footer-background": colours.surface,
            **_chosen(name, colours),
            "ansi-background": colours.background,
            "ansi-foreground": colours.ink,
            "scrollbar": colours.cursor,
            "scrollbar-hover": colours.faint,
            "scrollbar-active": colours.gold,
            "scrollbar-background": colours.background,
            "scrollbar-corner-color": colours.background,
        },
    )


THEMES: dict[str, Theme] = {name: _theme(name, colours) for name, colours in PALETTES.items()}
SAIYAN = THEMES["saiyan"]
