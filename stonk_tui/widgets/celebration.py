"""The one moment that is celebrated: all four lights are on."""

from stonk_tui.widgets.saiyan import SaiyanPanel

FRAME_SECONDS = 0.14
# Two slow breaths of the border, then as it was.
_FRAMES = (1, 2, 3, 3, 2, 1, 2, 3, 3, 2, 1, 0)


def celebrate(panel: SaiyanPanel) -> None:
    """Let the panel's border glow for about a second and a half; not where motion is off.

    A timer does it: keys go on working, and nothing waits for the end.
    """
    if panel.app.animation_level == "none":
        return
    frames = iter(_FRAMES)

    def advance() -> None:
        strength = next(frames)
        glow(panel, strength)
        if not strength:
            timer.stop()

    # Not `repeat`: a busy app skips ticks and counts them, and the border would stay lit.
    timer = panel.set_interval(FRAME_SECONDS, advance)


def glow(panel: SaiyanPanel, strength: int) -> None:
    """Draw the border with one of three strengths; 0 as it always is."""
    for level in (1, 2, 3):
        panel.set_class(level == strength, f"-power-{level}")
