"""The training engine of stonk-tui: useful without the cockpit, and never importing it."""
