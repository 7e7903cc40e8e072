"""What the commands do; ``stonk_tui.cli`` says how they are typed."""
