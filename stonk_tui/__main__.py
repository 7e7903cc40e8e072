"""``python -m stonk_tui`` is ``stonk-tui``."""

from stonk_tui.cli import main

main()
