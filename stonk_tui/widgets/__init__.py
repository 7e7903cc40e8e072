"""The cockpit's widgets, one question each."""
